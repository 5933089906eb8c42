//! SIGTERM drains a node: nothing that was admitted fails.

use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{Load, Record, Sandbox, Targets, until};
use futures_util::future::join;
use serde_json::json;

/// How long a drain may take with short calls in flight: the delay, the calls, the instances' grace.
const DRAINED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let sandbox = Sandbox::processes(3).await;
    let record = Record::process("sleep", "sleep").concurrency(16);
    sandbox.register_warm(&record, json!({ "ms": 1 })).await;

    let load = Load::start(
        Targets::Balanced(sandbox.nodes()),
        8,
        "sleep",
        |_| json!({ "ms": 20 }),
    );
    load.more_successes(50, Duration::from_secs(20)).await;
    for node in sandbox.nodes() {
        node.term();
        let status = node.exited(DRAINED).await;
        assert!(status.success(), "{} ended with {status}", node.name());
        load.more(50, Duration::from_secs(20)).await;
        node.restart();
        sandbox.wait_settled().await;
        load.more(50, Duration::from_secs(20)).await;
    }

    assert_all_ok(&load.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn finishes_what_is_in_flight_and_says_it_is_not_ready() {
    let sandbox = Sandbox::processes(2).await;
    let (_, home) = sandbox
        .register_warm(
            &Record::process("sleep", "sleep").max(1),
            json!({ "ms": 1 }),
        )
        .await;
    let peer = sandbox.others(home.name())[0].clone();

    let drain = async {
        until("the call is in flight", Duration::from_secs(10), || async {
            home.in_flight().await > 0
        })
        .await;
        home.term();
        until(
            "it is not ready any more",
            Duration::from_secs(5),
            || async { !home.is_ready().await },
        )
        .await;
        until("its peer sees it drain", Duration::from_secs(5), || async {
            let cluster = peer.cluster().await;
            let mut nodes = cluster
                .map(|cluster| cluster.nodes)
                .unwrap_or_default()
                .into_iter();
            nodes.any(|node| node.name == home.name() && node.state == "draining")
        })
        .await;
    };
    // A forwarded call, so that both the hop and the run have to be waited for.
    let (answer, ()) = join(peer.invoke("sleep", json!({ "ms": 3_000 })), drain).await;

    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
    assert!(home.exited(DRAINED).await.success());
    let after = peer.invoke("sleep", json!({ "ms": 1 })).await;
    assert!(after.is_ok(), "{after:?}");
    assert_eq!(after.node.as_deref(), Some(peer.name()), "{after:?}");
}
