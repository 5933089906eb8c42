//! A node is killed with -9: what its callers and those of the others notice.

use std::time::Duration;

use cluster_tests::load::counts;
use cluster_tests::{Load, Node, NodeOptions, Record, Sandbox, Targets, eventually, until};
use futures_util::future::join;
use serde_json::json;
use tokio::time::Instant;

/// How long after a kill a connection may still look alive to a peer that is busy: the kernel has closed it, and the peer has not
/// read that yet. A call sent into it can not be told from one that ran.
const UNSEEN: Duration = Duration::from_millis(250);

/// How soon a caller is told of a lost node.
const PROMPT: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn survivors_serve_while_a_node_is_killed() {
    let sandbox = Sandbox::processes(3).await;
    let record = Record::process("sleep", "sleep").concurrency(8);
    let (_, home) = sandbox.register_warm(&record, json!({ "ms": 1 })).await;
    let survivors = sandbox.others(home.name());

    let load = Load::start(
        Targets::Each(survivors.clone()),
        4,
        "sleep",
        |_| json!({ "ms": 20 }),
    );
    load.more_successes(40, Duration::from_secs(20)).await;
    let killed = Instant::now();
    home.kill9();
    load.more_successes(100, Duration::from_secs(20)).await;
    let calls = load.stop().await;

    let failures: Vec<_> = calls.iter().filter(|call| !call.is_ok()).collect();
    for call in &failures {
        assert_eq!(call.summary(), "502 interrupted;peer", "{call:?}");
        assert!(
            call.begun <= killed + UNSEEN,
            "began {:?} after the kill: {call:?}",
            call.begun - killed
        );
        assert!(call.ended >= killed, "failed before the kill: {call:?}");
    }
    assert!(
        failures.len() <= 4,
        "each client had one call in flight: {}",
        counts(&calls)
    );
    for survivor in survivors {
        until(
            "the dead node is out of the view",
            Duration::from_secs(5),
            || async { survivor.alive().await.len() == 2 },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_interrupted_when_the_node_of_a_forward_is_killed() {
    let sandbox = Sandbox::processes(3).await;
    let (_, home) = sandbox
        .register_warm(&Record::process("sleep", "sleep"), json!({ "ms": 1 }))
        .await;
    let caller = sandbox.others(home.name())[0].clone();

    let (answer, killed) = join(
        caller.invoke("sleep", json!({ "ms": 20_000 })),
        kill_busy(&home),
    )
    .await;

    assert_eq!(answer.summary(), "502 interrupted;peer", "{answer:?}");
    assert_eq!(answer.json()["code"], "interrupted", "{answer:?}");
    assert!(
        killed.elapsed() < PROMPT,
        "told after {:?}",
        killed.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_idempotent_functions_again_elsewhere() {
    let sandbox = Sandbox::processes(3).await;
    let record = Record::process("sleep", "sleep").idempotent();
    let (_, home) = sandbox.register_warm(&record, json!({ "ms": 1 })).await;
    let caller = sandbox.others(home.name())[0].clone();

    let (answer, _) = join(
        caller.invoke("sleep", json!({ "ms": 2_000 })),
        kill_busy(&home),
    )
    .await;

    assert!(answer.is_ok(), "{answer:?}");
    assert_ne!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
}

/// The caller's own node runs no processes, so the cold start happens on a peer, which dies before the function is up.
#[tokio::test(flavor = "multi_thread")]
async fn routes_around_a_node_killed_during_a_cold_start() {
    let caller = NodeOptions {
        is_process_denied: true,
        ..NodeOptions::default()
    };
    let sandbox = Sandbox::builder().nodes(2).node(caller).start().await;
    let record = Record::process("slow", "sleep")
        .env("SLEEP_START_MS", "1500")
        .idempotent();
    sandbox.register(&record).await;
    let caller = sandbox.node(2);
    let others = sandbox.others(caller.name());

    let kill = async {
        let busy = eventually(
            "a peer starts the function",
            Duration::from_secs(10),
            || async {
                for node in &others {
                    if node.in_flight().await > 0 {
                        return Ok(node.clone());
                    }
                }
                Err("none has a call in flight")
            },
        )
        .await;
        busy.kill9();
        busy
    };
    let (answer, dead) = join(caller.invoke("slow", json!({ "ms": 1 })), kill).await;

    assert!(answer.is_ok(), "the third node could run it: {answer:?}");
    assert_ne!(answer.node.as_deref(), Some(dead.name()), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn is_told_promptly_of_a_cold_start_that_died_with_its_node() {
    let caller = NodeOptions {
        is_process_denied: true,
        ..NodeOptions::default()
    };
    let sandbox = Sandbox::builder().nodes(1).node(caller).start().await;
    sandbox
        .register(&Record::process("slow", "sleep").env("SLEEP_START_MS", "10000"))
        .await;
    let (home, caller) = (sandbox.node(0), sandbox.node(1));

    let (answer, killed) = join(caller.invoke("slow", json!({ "ms": 1 })), kill_busy(&home)).await;

    // Nobody else can run it, and the caller's node can not know how far the start had come.
    assert!(matches!(answer.status, 502 | 503), "{answer:?}");
    assert!(
        killed.elapsed() < PROMPT,
        "told after {:?}: {answer:?}",
        killed.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_keeps_its_id_in_a_new_generation() {
    let sandbox = Sandbox::processes(2).await;
    let (witness, node) = (sandbox.node(0), sandbox.node(1));
    let seen = async || -> Result<(String, u64), String> {
        let cluster = witness.cluster().await?;
        let node = cluster
            .nodes
            .into_iter()
            .find(|seen| seen.name == "n2" && seen.state == "alive");
        node.map(|node| (node.id, node.generation))
            .ok_or_else(|| "n2 is not alive".to_owned())
    };
    let (id, generation) = seen().await.expect("a settled cluster shows n2");

    node.kill9();
    node.restart();
    node.wait_ready(Duration::from_secs(20)).await;

    let id_now = eventually(
        "n2 is back in a later generation",
        Duration::from_secs(10),
        || async {
            let now = seen().await?;
            if now.1 > generation {
                Ok(now.0)
            } else {
                Err(format!("{now:?}"))
            }
        },
    )
    .await;
    assert_eq!(id_now, id, "the id lasts over restarts");
}

/// Kills a node as soon as a call is in flight there, and returns when.
async fn kill_busy(node: &Node) -> Instant {
    until("the call is in flight", Duration::from_secs(10), || async {
        node.in_flight().await > 0
    })
    .await;
    let killed = Instant::now();
    node.kill9();
    killed
}
