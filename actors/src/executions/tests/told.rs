//! Ends that somebody wants to hear of: untold until they are told.

use super::*;

/// Notes what it is given to tell, and says whether it told it.
#[derive(Debug, Default)]
struct Noting {
    told: Mutex<Vec<(ExecutionId, Status)>>,
    fails: bool,
}

#[async_trait::async_trait]
impl Tell for Noting {
    async fn tell(&self, Untold(execution): Untold) -> bool {
        let told = (execution.id, execution.status);
        self.told.lock().unwrap().push(told);
        !self.fails
    }
}

#[tokio::test]
async fn an_end_is_untold_until_somebody_told_it() {
    let cluster = Cluster::new(2, ExecutionsSettings::default());
    let space = &cluster.space;
    let [first, second] = [0, 1].map(|node| &cluster.nodes[node]);
    let new = New {
        callback: Some("http://h/"),
        ..cluster.new_at(SystemTime::now(), None)
    };
    let Accepted::New(claim) = first.accept(&new).await.unwrap() else {
        panic!("it has no key");
    };
    let id = claim.id;
    first.queued(claim).await.unwrap();
    let run = cluster.begin(0, id, 1).await.unwrap();
    let how = (StartKind::Warm, Phases::default());
    let answered = result("n0");
    let ended = first.succeed(&run, "n0", how, &answered, false);
    let (is_ended, untold) = ended.await.unwrap();
    assert!(is_ended && untold.is_some(), "it has a callback");
    // That node is gone: who gets the delivery then tells it and calls nobody.
    let begun = second.begin(space, id, 1).await.unwrap();
    assert!(matches!(begun, Begun::Ended(_)), "{begun:?}");
    // Or one that sweeps does, and it is kept until then.
    let at = |seconds: u64| now_ms() + seconds * 1_000;
    let fails = Noting {
        fails: true,
        ..Noting::default()
    };
    second.sweep(at(5), &fails).await.unwrap();
    assert!(
        fails.told.lock().unwrap().is_empty(),
        "its own node may be at it"
    );
    let ages = 8 * 24 * 3_600;
    let swept = second.sweep(at(ages), &fails).await.unwrap();
    assert_eq!((swept.told, swept.removed), (0, 0));
    assert_eq!(*fails.told.lock().unwrap(), [(id, Status::Succeeded)]);
    let told = vec![protocol::destination::Told {
        destination: protocol::Destination::Url("http://h/".to_owned()),
        delivery: "d".to_owned(),
    }];
    second.told(space, id, told.clone()).await.unwrap();
    assert_eq!(cluster.get(id).await.0.told, told);
    let begun = second.begin(space, id, 1).await.unwrap();
    assert!(matches!(begun, Begun::Over), "{begun:?}");
    let swept = second.sweep(at(ages), &fails).await.unwrap();
    assert_eq!((swept.told, swept.removed), (0, 1));
}

#[tokio::test]
async fn whoever_ends_an_execution_is_told_whether_that_is_to_be_told() {
    let cluster = three();
    let (node, space) = (&cluster.nodes[0], &cluster.space);
    let failed = failure(ErrorCode::FunctionFailed);
    for is_heard in [false, true] {
        let id = cluster.queued(0).await;
        let untold = node.give_up(space, id, 1, &failed, is_heard).await.unwrap();
        assert_eq!(untold.is_some(), is_heard);
        let id = cluster.queued(0).await;
        let new = New {
            callback: is_heard.then_some("http://h/"),
            ..cluster.new_at(SystemTime::now(), None)
        };
        let Accepted::New(claim) = node.accept(&new).await.unwrap() else {
            panic!("it has no key");
        };
        let cancelled = claim.id;
        node.queued(claim).await.unwrap();
        let (_, untold) = node.cancel(space, cancelled).await.unwrap();
        assert_eq!(untold.is_some(), is_heard);
        node.cancel(space, id).await.unwrap();
    }
    // What was lost with its queue may have to be told: the next sweep finds out.
    cluster.queued(0).await;
    let noting = Noting::default();
    let late = now_ms() + 26 * 3_600 * 1_000;
    assert_eq!(node.sweep(late, &noting).await.unwrap().lost, 1);
    let swept = node
        .sweep(late + 26 * 3_600 * 1_000, &noting)
        .await
        .unwrap();
    assert_eq!(swept.told, 3, "{noting:?}");
}
