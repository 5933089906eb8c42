//! Several nodes on one store, without a queue: what each of them may and may not do.

use std::collections::BTreeSet;

use config::store::MemoryStore;
use protocol::Phases;
use protocol::execution::Attempt;
use protocol::invocation::StartKind;

use super::sweep::Swept;
use super::*;

mod told;
mod waited;

/// The bound on every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells nothing, and says that it did.
#[derive(Debug)]
struct Nobody;

#[async_trait::async_trait]
impl Tell for Nobody {
    async fn tell(&self, _: Untold) -> bool {
        true
    }
}

struct Cluster {
    store: Arc<MemoryStore>,
    nodes: Vec<Executions>,
    space: Space,
    function_id: FunctionId,
}

impl Cluster {
    fn new(nodes: usize, settings: ExecutionsSettings) -> Self {
        let store = Arc::new(MemoryStore::new());
        let nodes = (0..nodes).map(|node| {
            let store = Arc::clone(&store) as Arc<dyn Store>;
            let name = format!("n{node}");
            Executions::new(store, settings.clone(), name.into())
        });
        Self {
            nodes: nodes.collect(),
            store,
            space: Space::default_space(),
            function_id: "f".parse().unwrap(),
        }
    }

    fn new_at<'a>(&'a self, accepted_at: SystemTime, key: Option<(&'a str, &'a str)>) -> New<'a> {
        New {
            space: &self.space,
            function_id: &self.function_id,
            accepted_at,
            not_before: None,
            expires_at: accepted_at + Duration::from_secs(60),
            callback: None,
            key: key.map(|(text, payload)| Key {
                text,
                payload: payload.as_bytes(),
            }),
        }
    }

    async fn claim(&self, node: usize, key: Option<(&str, &str)>) -> Box<Claim> {
        let new = self.new_at(SystemTime::now(), key);
        match self.nodes[node].accept(&new).await.unwrap() {
            Accepted::New(claim) => claim,
            other => panic!("{other:?}"),
        }
    }

    /// An execution that is in a queue.
    async fn queued(&self, node: usize) -> ExecutionId {
        let claim = self.claim(node, None).await;
        let id = claim.id;
        let status = self.nodes[node].queued(claim).await.unwrap();
        assert_eq!(status, Status::Queued);
        id
    }

    async fn begin(&self, node: usize, id: ExecutionId, claim: u32) -> Option<Run> {
        match self.nodes[node].begin(&self.space, id, claim).await {
            Ok(Begun::Run(run)) => Some(run),
            Ok(Begun::Over) => None,
            other => panic!("{other:?}"),
        }
    }

    async fn succeed(&self, node: usize, run: &Run) -> bool {
        let name = format!("n{node}");
        let how = (StartKind::Warm, Phases::default());
        let result = result(&name);
        let ended = self.nodes[node].succeed(run, &name, how, &result, false);
        ended.await.unwrap().0
    }

    async fn get(&self, id: ExecutionId) -> (Execution, Option<String>) {
        let read = self.nodes[0].get(&self.space, id).await.unwrap();
        let value = read.1.map(|result| result.value.get().to_owned());
        (read.0, value)
    }

    async fn statuses(&self) -> Vec<Status> {
        let filter = Filter::default();
        let listed = self.nodes[0].list(&self.space, &filter, None, 1_000).await;
        let listed = listed.unwrap().executions;
        listed.iter().map(|execution| execution.status).collect()
    }

    async fn keys(&self) -> usize {
        self.store.list(KEYS).await.unwrap().entries.len()
    }
}

fn three() -> Cluster {
    Cluster::new(3, ExecutionsSettings::default())
}

fn result(text: &str) -> api::ExecutionResult {
    api::ExecutionResult {
        status: 200,
        content_type: None,
        bytes: 2,
        truncated: false,
        value: serde_json::value::to_raw_value(text).unwrap(),
        encoding: None,
    }
}

fn failure(code: ErrorCode) -> Failure {
    Failure::new(code, Component::Function, Effect::Finished, "exit code 3")
}

#[tokio::test(start_paused = true)]
async fn of_equal_keys_at_once_on_three_nodes_one_is_accepted_and_all_are_told_of_it() {
    let cluster = Arc::new(three());
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..100 {
        let cluster = Arc::clone(&cluster);
        calls.spawn(async move {
            let node = &cluster.nodes[call % 3];
            let new = cluster.new_at(SystemTime::now(), Some(("k", "payload")));
            match node.accept(&new).await.unwrap() {
                Accepted::New(claim) => {
                    let id = claim.id;
                    // As long as a queue takes.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    node.queued(claim).await.unwrap();
                    (id, true)
                }
                Accepted::Known(id, status) => {
                    assert_eq!(
                        status,
                        Status::Queued,
                        "nobody is told before it is in a queue"
                    );
                    (id, false)
                }
                Accepted::Forgotten(id) => panic!("{id} is there"),
            }
        });
    }
    let told = calls.join_all().await;
    let ids: BTreeSet<_> = told.iter().map(|(id, _)| *id).collect();
    let queued = told.iter().filter(|(_, is_new)| *is_new).count();
    assert_eq!((ids.len(), queued), (1, 1));
    assert_eq!(cluster.statuses().await, [Status::Queued]);
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_node_died_before_the_queue_had_it_is_claimed_and_what_it_left_is_void() {
    let cluster = three();
    let key = Some(("k", "payload"));
    let lost = cluster.claim(0, key).await;
    let claim = cluster.claim(1, key).await;
    assert_eq!((claim.id, claim.number), (lost.id, lost.number + 1));
    let id = claim.id;
    // The first node had put it into its queue all the same, and goes on.
    assert!(cluster.begin(0, id, lost.number).await.is_none());
    let refused = cluster.nodes[0].queued(lost).await;
    assert!(matches!(refused, Err(Error::GivenUp(_))), "{refused:?}");
    let number = claim.number;
    cluster.nodes[1].queued(claim).await.unwrap();
    let run = cluster.begin(1, id, number).await.unwrap();
    assert!(cluster.succeed(1, &run).await);
    assert_eq!(cluster.get(id).await.1.unwrap(), "\"n1\"");
}

#[tokio::test]
async fn a_key_names_its_execution_within_its_window_and_with_its_payload_only() {
    let settings = ExecutionsSettings {
        key_window: Duration::from_secs(60),
        ..ExecutionsSettings::default()
    };
    let cluster = Cluster::new(1, settings);
    let node = &cluster.nodes[0];
    let begun = SystemTime::now();
    let at = |seconds| begun + Duration::from_secs(seconds);
    let key = Some(("k", "payload"));
    let first = cluster.claim(0, key).await;
    let id = first.id;
    node.queued(first).await.unwrap();
    for (seconds, key, expected) in [
        (59, ("k", "payload"), Some(id)),
        (59, ("K", "payload"), None),
        (61, ("k", "payload"), None),
    ] {
        let accepted = node.accept(&cluster.new_at(at(seconds), Some(key))).await;
        let known = match accepted.unwrap() {
            Accepted::Known(id, Status::Queued) => Some(id),
            Accepted::New(claim) => {
                node.queued(claim).await.unwrap();
                None
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(known, expected, "{key:?} after {seconds} s");
    }
    let other = node
        .accept(&cluster.new_at(at(62), Some(("k", "another"))))
        .await;
    assert!(matches!(other, Err(Error::KeyReused(_))), "{other:?}");
    let space = "other".parse().unwrap();
    let elsewhere = New {
        space: &space,
        ..cluster.new_at(at(62), Some(("k", "another")))
    };
    let elsewhere = node.accept(&elsewhere).await.unwrap();
    assert!(matches!(elsewhere, Accepted::New(_)), "{elsewhere:?}");
}

#[tokio::test]
async fn what_no_queue_took_is_gone_with_its_key() {
    let cluster = three();
    let key = Some(("k", "payload"));
    let claim = cluster.claim(0, key).await;
    let id = claim.id;
    cluster.nodes[0].withdraw(claim).await;
    assert!(cluster.statuses().await.is_empty());
    assert_eq!(cluster.keys().await, 0);
    assert!(cluster.begin(0, id, 1).await.is_none());
    assert_ne!(cluster.claim(1, key).await.id, id);
}

#[tokio::test]
async fn an_execution_ends_once_and_a_node_that_lost_it_changes_nothing() {
    let cluster = three();
    let id = cluster.queued(0).await;
    let stopped = cluster.begin(0, id, 1).await.unwrap();
    // Its lease is over, and another node has it.
    let run = cluster.begin(1, id, 1).await.unwrap();
    assert!(!cluster.succeed(0, &stopped).await);
    let none = Phases::default();
    let failed = failure(ErrorCode::FunctionFailed);
    let noted = cluster.nodes[0].attempt_failed(&stopped, &failed, none);
    assert!(!noted.await.unwrap());
    assert!(cluster.succeed(1, &run).await);
    assert!(!cluster.succeed(1, &run).await, "it has ended");
    let failed = cluster.nodes[2].give_up(&cluster.space, id, 1, &failed, false);
    failed.await.unwrap();
    let cancelled = cluster.nodes[2].cancel(&cluster.space, id).await;
    assert!(
        matches!(cancelled, Err(Error::Ended { .. })),
        "{cancelled:?}"
    );
    assert!(cluster.begin(2, id, 1).await.is_none());
    let (execution, value) = cluster.get(id).await;
    assert_eq!(execution.status, Status::Succeeded);
    assert_eq!(value.unwrap(), "\"n1\"");
    assert_eq!(execution.attempts_made, 2);
    let told = |attempt: &Attempt| {
        let code = attempt.error.as_ref().map(|error| error.code.clone());
        (attempt.node.clone(), code)
    };
    let told: Vec<_> = execution.attempts.iter().map(told).collect();
    let lost = Some("interrupted".to_owned());
    assert_eq!(told, [("n0".into(), lost), ("n1".into(), None)]);
}

#[tokio::test]
async fn a_cancelled_execution_is_not_begun_and_a_running_one_is_told_on_its_node() {
    let cluster = three();
    let houses = tokio_util::task::TaskTracker::new();
    for node in &cluster.nodes {
        houses.spawn(node.clone().keep_house(Arc::new(Nobody)));
    }
    let waiting = cluster.queued(0).await;
    let execution = cluster.nodes[1].cancel(&cluster.space, waiting).await;
    assert_eq!(execution.unwrap().0.status, Status::Cancelled);
    assert!(cluster.begin(0, waiting, 1).await.is_none());
    let again = cluster.nodes[2].cancel(&cluster.space, waiting).await;
    assert_eq!(again.unwrap().0.status, Status::Cancelled);
    let id = cluster.queued(0).await;
    let run = cluster.begin(0, id, 1).await.unwrap();
    let other = cluster.queued(0).await;
    let other = cluster.begin(0, other, 1).await.unwrap();
    cluster.nodes[1].cancel(&cluster.space, id).await.unwrap();
    tokio::time::timeout(PATIENCE, run.cancelled())
        .await
        .unwrap();
    assert!(!cluster.succeed(0, &run).await);
    assert!(cluster.succeed(0, &other).await, "that is another one");
    let unknown = ExecutionId::at(SystemTime::now());
    let unknown = cluster.nodes[1].cancel(&cluster.space, unknown).await;
    assert!(
        matches!(unknown, Err(Error::NotFound { .. })),
        "{unknown:?}"
    );
}

#[tokio::test]
async fn attempts_are_told_and_the_last_ones_kept() {
    let cluster = three();
    let id = cluster.queued(0).await;
    for attempt in 1..=15 {
        let run = cluster.begin(0, id, 1).await.unwrap();
        assert_eq!(cluster.get(id).await.0.status, Status::Running);
        let failed = failure(ErrorCode::FunctionFailed).at_node("n2");
        let phases = Phases {
            run: Some(attempt),
            ..Phases::default()
        };
        let noted = cluster.nodes[0].attempt_failed(&run, &failed, phases);
        assert!(noted.await.unwrap());
    }
    let expired = failure(ErrorCode::Expired);
    let given_up = cluster.nodes[0].give_up(&cluster.space, id, 1, &expired, false);
    given_up.await.unwrap();
    let (execution, _) = cluster.get(id).await;
    assert_eq!(execution.status, Status::Expired);
    assert_eq!(execution.error.unwrap().message, "exit code 3");
    assert_eq!(
        (execution.attempts_made, execution.attempts.len()),
        (15, 10)
    );
    let last = execution.attempts.last().unwrap();
    assert_eq!((&*last.node, last.phases.run), ("n2", Some(15)));
    assert!(last.ended_at_ms.is_some());
}

#[tokio::test]
async fn executions_are_listed_newest_first_page_by_page() {
    let cluster = three();
    let begun = SystemTime::now();
    let mut ids = Vec::new();
    for second in 0..450 {
        let new = cluster.new_at(begun + Duration::from_secs(second), None);
        let Accepted::New(claim) = cluster.nodes[0].accept(&new).await.unwrap() else {
            panic!("there is no key");
        };
        ids.push(claim.id);
    }
    ids.reverse();
    let run = cluster.begin(0, ids[7], 1).await.unwrap();
    let list = async |filter: Filter, after, max| {
        let listed = cluster.nodes[1].list(&cluster.space, &filter, after, max);
        let listed = listed.await.unwrap();
        let found = listed.executions.into_iter().map(|one| one.id);
        (found.collect::<Vec<_>>(), listed.next)
    };
    let all = Filter::default;
    let (first, next) = list(all(), None, 300).await;
    assert_eq!((&first[..], next), (&ids[..300], Some(ids[299])));
    let (rest, next) = list(all(), next, 300).await;
    assert_eq!((&rest[..], next), (&ids[300..], None));
    let status = Some(Status::Running);
    let running = list(Filter { status, ..all() }, None, 9).await;
    assert_eq!(running, (vec![ids[7]], None));
    let since_ms = Some(millis(begun + Duration::from_secs(440)));
    let since = list(Filter { since_ms, ..all() }, None, 100).await;
    assert_eq!(since, (ids[..10].to_vec(), None));
    let function_id = Some("g".parse().unwrap());
    let of_another = list(
        Filter {
            function_id,
            ..all()
        },
        None,
        9,
    )
    .await;
    assert_eq!(of_another, (Vec::new(), None));
    drop(run);
}

#[tokio::test]
async fn what_is_kept_no_longer_is_swept_and_all_else_stays() {
    let settings = ExecutionsSettings {
        keep_len_max: 2,
        keep_age_max: Duration::from_secs(3_600),
        key_window: Duration::from_secs(7_200),
        keys_max: 1,
        ..ExecutionsSettings::default()
    };
    let cluster = Cluster::new(1, settings);
    let node = &cluster.nodes[0];
    for _ in 0..3 {
        let id = cluster.queued(0).await;
        let run = cluster.begin(0, id, 1).await.unwrap();
        assert!(cluster.succeed(0, &run).await);
    }
    let cancelled = cluster.queued(0).await;
    node.cancel(&cluster.space, cancelled).await.unwrap();
    cluster.queued(0).await;
    // The older one of the two keys.
    let before = SystemTime::now() - Duration::from_secs(1);
    let unheard = cluster.new_at(before, Some(("unheard", "")));
    let Accepted::New(unheard) = node.accept(&unheard).await.unwrap() else {
        panic!("the key is new");
    };
    let named = cluster.claim(0, Some(("named", ""))).await;
    node.queued(named).await.unwrap();
    let at = |seconds: u64| now_ms() + seconds * 1_000;
    let swept = node.sweep(at(0), &Nobody).await.unwrap();
    let expected = Swept {
        removed: 2,
        keys_dropped: 1,
        ..Swept::default()
    };
    assert_eq!(swept, expected);
    let swept = node.sweep(at(61), &Nobody).await.unwrap();
    let unheard_only = Swept {
        unheard: 1,
        ..Swept::default()
    };
    assert_eq!(swept, unheard_only);
    assert!(cluster.begin(0, unheard.id, 1).await.is_none());
    assert_eq!(
        node.sweep(at(3_500), &Nobody).await.unwrap(),
        Swept::default()
    );
    // Their age is over, then the window of the key.
    assert_eq!(node.sweep(at(3_700), &Nobody).await.unwrap().removed, 2);
    assert_eq!(node.sweep(at(7_300), &Nobody).await.unwrap().keys, 1);
    let left = [Status::Queued, Status::Queued];
    assert_eq!(cluster.statuses().await, left);
    // Nothing was heard of those that wait, for longer than a run may take.
    assert_eq!(
        node.sweep(at(25 * 3_600 + 120), &Nobody)
            .await
            .unwrap()
            .lost,
        2
    );
    let left = [Status::Expired, Status::Expired];
    assert_eq!(cluster.statuses().await, left);
    assert!(
        cluster
            .store
            .list(RESULTS)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    assert!(
        cluster
            .store
            .list(CANCELLED)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
}

#[tokio::test]
async fn one_of_the_nodes_sweeps() {
    let cluster = three();
    let mut swept = 0;
    for node in &cluster.nodes {
        swept += usize::from(node.sweep_in_turn(&Nobody).await.unwrap().is_some());
    }
    assert_eq!(swept, 1);
}
