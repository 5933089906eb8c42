//! A node is stopped with SIGSTOP: its connections stay open and nothing answers.

use std::time::Duration;

use cluster_tests::{Load, Record, Sandbox, Targets, full_length, outage, until};
use serde_json::json;
use tokio::time::Instant;

/// How long after it fell silent calls may still be sent to a node: two probes of 250 ms missed, each given its whole interval, or
/// dead by gossip within 1.5 s; and as much again for a machine busy with other tests.
const NOTICED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn serves_while_a_peer_is_silent() {
    let sandbox = Sandbox::processes(3).await;
    let record = Record::process("sleep", "sleep").concurrency(8);
    let (_, home) = sandbox.register_warm(&record, json!({ "ms": 1 })).await;
    let others = sandbox.others(home.name());

    let load = Load::start(
        Targets::Each(others.clone()),
        4,
        "sleep",
        |_| json!({ "ms": 10 }),
    );
    load.more_successes(40, Duration::from_secs(20)).await;
    let stopped = Instant::now();
    home.stop();
    outage(if full_length() {
        Duration::from_secs(20)
    } else {
        NOTICED + Duration::from_secs(1)
    })
    .await;
    load.more_successes(100, Duration::from_secs(20)).await;
    home.cont();
    for node in sandbox.nodes() {
        until(
            "all are alive in every view",
            Duration::from_secs(20),
            || async { node.alive().await.len() == 3 },
        )
        .await;
    }
    load.more_successes(100, Duration::from_secs(20)).await;
    let calls = load.stop().await;

    for call in calls.iter().filter(|call| !call.is_ok()) {
        assert_eq!(call.summary(), "502 interrupted;peer", "{call:?}");
        assert!(
            call.begun <= stopped + NOTICED,
            "began {:?} after the stop: {call:?}",
            call.begun - stopped
        );
        assert!(
            call.ended - call.begun <= NOTICED,
            "told too late: {call:?}"
        );
    }
    let answer = home.invoke("sleep", json!({ "ms": 1 })).await;
    assert!(answer.is_ok(), "it serves again: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn says_interrupted_when_the_node_of_a_forward_falls_silent() {
    let sandbox = Sandbox::processes(3).await;
    let (_, home) = sandbox
        .register_warm(&Record::process("sleep", "sleep"), json!({ "ms": 1 }))
        .await;
    let caller = sandbox.others(home.name())[0].clone();

    let silence = async {
        until("the call is in flight", Duration::from_secs(10), || async {
            home.in_flight().await > 0
        })
        .await;
        home.stop();
        Instant::now()
    };
    let (answer, stopped) =
        futures_util::future::join(caller.invoke("sleep", json!({ "ms": 20_000 })), silence).await;

    assert_eq!(answer.summary(), "502 interrupted;peer", "{answer:?}");
    // Gossip decides that it is dead; a route around it was taken before.
    assert!(
        stopped.elapsed() < Duration::from_secs(6),
        "told after {:?}",
        stopped.elapsed()
    );
}
