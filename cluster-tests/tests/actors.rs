//! Each actor is killed under load: warm calls read snapshots, so none of them fails, and the actor comes back.

use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{Call, Load, Node, Record, Sandbox, Targets, eventually};
use reqwest::Method;
use serde_json::json;

/// How soon a killed actor runs again.
const RESTARTED: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn warm_calls_survive_the_registry_cache() {
    check("registry_cache").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_calls_survive_the_executor() {
    check("executor").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_calls_survive_the_router() {
    check("router").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gives_up_when_an_actor_keeps_dying() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_NODE__DEBUG_KILL", "true")
        .start()
        .await;
    let node = sandbox.node(0);
    for restarts in 1..=3 {
        kill(&node, "router").await;
        wait_restarts(&node, "router", restarts).await;
    }

    kill(&node, "router").await;
    let status = node.exited(Duration::from_secs(40)).await;

    assert!(
        !status.success(),
        "whoever runs the node must see that it failed: {status}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn actors_can_not_be_killed_unless_a_setting_says_so() {
    let sandbox = Sandbox::processes(1).await;
    let answer = sandbox
        .node(0)
        .config(Method::POST, "/debug/actors/router/kill", None)
        .await;
    assert_eq!(answer.status, 404, "{answer:?}");
}

async fn check(actor: &str) {
    let sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_NODE__DEBUG_KILL", "true")
        .start()
        .await;
    let (_, home) = sandbox
        .register_warm(&Record::process("warm", "hello").concurrency(8), json!({}))
        .await;

    let load = Load::start(Targets::Each(sandbox.nodes()), 4, "warm", |_| json!({}));
    load.more_successes(40, Duration::from_secs(20)).await;
    for node in sandbox.nodes() {
        kill(&node, actor).await;
        wait_restarts(&node, actor, 1).await;
        load.more(100, Duration::from_secs(20)).await;
    }
    let calls = load.stop().await;

    assert_all_ok(&calls);
    let is_cold = |call: &&Call| {
        call.outcome
            .as_ref()
            .is_ok_and(|answer| answer.start.as_deref() != Some("warm"))
    };
    let cold: Vec<_> = calls.iter().filter(is_cold).collect();
    assert!(
        cold.is_empty(),
        "the instance was there all the time: {:#?}",
        &cold[..cold.len().min(3)]
    );
    // The actors do their own work again.
    let (answer, _) = sandbox
        .register_warm(&Record::process("later", "hello"), json!({}))
        .await;
    assert!(answer.is_ok());
    assert_eq!(
        home.instance_ids().await.map(|ids| ids.is_empty()),
        Ok(false)
    );
}

async fn kill(node: &Node, actor: &str) {
    let answer = node
        .config(Method::POST, &format!("/debug/actors/{actor}/kill"), None)
        .await;
    assert!(
        (200..300).contains(&answer.status),
        "kill {actor}: {answer:?}"
    );
}

async fn wait_restarts(node: &Node, actor: &str, restarts: u32) {
    eventually(
        &format!("{actor} of {} runs again", node.name()),
        RESTARTED,
        || async {
            let actors = node.actors().await?.actors;
            let found = actors
                .into_iter()
                .find(|found| found.name == actor)
                .ok_or_else(|| "it is not listed".to_owned())?;
            if found.restarts >= restarts && found.status == "running" {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        },
    )
    .await;
}
