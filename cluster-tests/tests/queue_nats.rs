//! Custom events of a cluster whose queue is in NATS: what was accepted is delivered or a dead letter, whoever is killed or stopped.
//! Deliveries are recorded by webhooks of the test itself, which outlives all nodes.

use std::time::Duration;

use cluster_tests::scene::{PATIENCE, Scene, taken_over};
use cluster_tests::{Does, Sandbox, until};
use serde_json::json;
use tokio::time::Instant;

async fn scene() -> Scene {
    Scene::start(Sandbox::builder().nats()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_a_node_is_killed() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let dies = nodes[0].clone();
    let kill = async {
        scene.accepts(200).await;
        dies.kill9();
    };
    tokio::join!(scene.emit(&nodes, 600), kill);
    scene.checks(&nodes[1..]).await;
    dies.restart();
    dies.wait_ready(PATIENCE).await;
    scene.checks(&nodes).await;
}

/// What a node held when it died is delivered by others while it is away, and soon after gossip knows of its death.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_held_is_taken_over() {
    let scene = scene().await;
    scene.takes.now(Does::Hang);
    let nodes = scene.sandbox.nodes();
    let dies = &nodes[2];
    scene.emit(std::slice::from_ref(dies), 100).await;
    dies.kill9();
    scene.takes.now(Does::Answer(""));
    let took = scene.taken_over(dies, &nodes[..2], 100.0).await;
    assert!(took < Duration::from_secs(4), "{took:?}");
    scene.checks(&nodes[..2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_a_node_is_stopped_for_longer_than_its_session() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let silent = nodes[1].clone();
    let rest = [nodes[0].clone(), nodes[2].clone()];
    // What it holds runs, and is not over before it is stopped.
    scene.takes.now(Does::Hang);
    scene.emit(std::slice::from_ref(&silent), 50).await;
    silent.stop();
    scene.takes.now(Does::Answer(""));
    scene.emit(&rest, 200).await;
    until("what it held was delivered by others", PATIENCE, || async {
        let came = scene.takes.ids();
        taken_over(&rest).await >= 50.0 && scene.accepted().iter().all(|id| came.contains_key(id))
    })
    .await;
    silent.cont();
    until("it accepts again", PATIENCE, || async {
        silent.emit("tock", &json!(1)).await.status == 202
    })
    .await;
    scene.emit(std::slice::from_ref(&silent), 50).await;
    scene.checks(&nodes).await;
    let log = silent.log();
    assert!(log.contains("another node took deliveries over"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_nats_is_killed_and_restarted() {
    let mut scene = scene().await;
    let nodes = scene.sandbox.nodes();
    scene.emit(&nodes, 100).await;
    scene.sandbox.nats_mut().kill9();
    let begun = Instant::now();
    for node in &nodes {
        let refused = node.emit("tick", &json!("refused")).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.component.as_deref(), Some("queue"), "{refused:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    scene.sandbox.nats_mut().restart().await;
    scene.emit(&nodes, 100).await;
    scene.checks(&nodes).await;
}

/// A node that is drained leaves what waits to the others, who need not wait until it is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_what_waits_to_the_others() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let leaves = &nodes[0];
    // It is tried again a second after the first attempt failed.
    scene.takes.now(Does::Fail);
    scene.emit(std::slice::from_ref(leaves), 20).await;
    until("each was tried", PATIENCE, || async {
        scene.takes.ids().len() >= 20
    })
    .await;
    leaves.term();
    scene.takes.now(Does::Answer(""));
    assert!(leaves.exited(PATIENCE).await.success());
    let log = leaves.log();
    assert!(log.contains("is left to the other nodes"), "{log}");
    scene.checks(&nodes[1..]).await;
}
