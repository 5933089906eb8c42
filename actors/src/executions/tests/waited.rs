//! Runs that are waited for: written down, ended once, and ended by the sweep when their node is lost.

use protocol::execution::Trouble;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

impl Cluster {
    async fn waited(&self, node: usize) -> Run {
        let begun = self.nodes[node].begin_waited(&self.space, &self.function_id, LIMIT);
        begun.await.unwrap()
    }
}

fn ended(status: Status, value: &str) -> WaitedEnd {
    let error =
        (status != Status::Succeeded).then(|| Trouble::from(&failure(ErrorCode::FunctionFailed)));
    WaitedEnd {
        status,
        node: Some("n7".to_owned()),
        start: Some(StartKind::Cold),
        phases: Phases::default(),
        result: Some(result(value)),
        error,
    }
}

#[tokio::test]
async fn a_run_is_told_while_it_goes_on_and_keeps_its_result_whatever_its_end() {
    let cluster = three();
    for status in [Status::Succeeded, Status::Failed] {
        let run = cluster.waited(0).await;
        let (execution, result) = cluster.get(run.id()).await;
        assert_eq!((execution.status, result), (Status::Running, None));
        let node = &cluster.nodes[0];
        let end = ended(status, "printed");
        assert!(node.end_waited(&run, &end, Duration::ZERO).await.unwrap());
        let (execution, result) = cluster.get(run.id()).await;
        assert_eq!(execution.status, status);
        assert_eq!(result.as_deref(), Some("\"printed\""));
        assert_eq!(execution.attempts[0].node, "n7");
        assert_eq!(execution.error.is_some(), status == Status::Failed);
        assert!(!node.end_waited(&run, &end, Duration::ZERO).await.unwrap());
    }
}

#[tokio::test]
async fn a_run_that_is_cancelled_hears_of_it_and_has_no_other_end() {
    let cluster = three();
    let run = cluster.waited(0).await;
    let (cancelled, _) = cluster.nodes[0]
        .cancel(&cluster.space, run.id())
        .await
        .unwrap();
    assert_eq!(cancelled.status, Status::Cancelled);
    tokio::time::timeout(PATIENCE, run.cancelled())
        .await
        .unwrap();
    let end = ended(Status::Succeeded, "late");
    let is_ended = cluster.nodes[0]
        .end_waited(&run, &end, Duration::ZERO)
        .await;
    assert!(!is_ended.unwrap());
    assert_eq!(cluster.get(run.id()).await.0.status, Status::Cancelled);
}

#[tokio::test]
async fn a_run_whose_node_is_lost_is_ended_by_the_sweep_and_no_other_is() {
    let cluster = three();
    let lost = cluster.waited(0).await.id();
    let queued = cluster.queued(0).await;
    let patience = ExecutionsSettings::default().record_timeout + Duration::from_secs(60);
    let at = |after: Duration| now_ms() + u64::try_from(after.as_millis()).unwrap();
    let other = &cluster.nodes[1];
    let early = other
        .sweep(at(LIMIT + patience - Duration::from_secs(5)), &Nobody)
        .await;
    assert_eq!(early.unwrap(), Swept::default());
    let late = other
        .sweep(at(LIMIT + patience + Duration::from_secs(5)), &Nobody)
        .await;
    assert_eq!(
        late.unwrap(),
        Swept {
            lost: 1,
            ..Swept::default()
        }
    );
    let (execution, _) = cluster.get(lost).await;
    let error = execution.error.unwrap();
    assert_eq!(
        (execution.status, error.code.as_str()),
        (Status::Failed, "interrupted")
    );
    assert_eq!(cluster.get(queued).await.0.status, Status::Queued);
}
