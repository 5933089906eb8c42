//! Custom events of a cluster wait in its etcd: what was accepted is delivered at least once, whatever happens to the node that took it.
//!
//! Deliveries are noted by webhooks of the test itself, which outlives all nodes.

use std::time::Duration;

use cluster_tests::scene::{PATIENCE, Scene};
use cluster_tests::{Does, Node, Record, Sandbox, Webhook, until};
use serde_json::json;
use tokio::time::Instant;

async fn scene() -> Scene {
    Scene::start(Sandbox::builder()).await
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

/// Each node once, one after the other, then all at once; each starts again.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_every_node_is_killed() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let kill = async {
        for (n, node) in nodes.iter().enumerate() {
            scene.accepts(300 * (n + 1)).await;
            node.kill9();
            node.restart();
            node.wait_ready(PATIENCE).await;
        }
        scene.accepts(1_200).await;
        nodes.iter().for_each(Node::kill9);
        nodes.iter().for_each(Node::restart);
    };
    tokio::join!(scene.emit(&nodes, 1_500), kill);
    scene.checks(&nodes).await;
}

/// What a node held when it died is delivered by others while it is away.
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

/// It settles nothing when it goes on: what it held has been taken over, and it begins anew.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_a_node_is_stopped_for_longer_than_its_session() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let silent = nodes[1].clone();
    let stop = async {
        scene.accepts(100).await;
        silent.stop();
    };
    let rest = [nodes[0].clone(), nodes[2].clone()];
    let held = scene.emit(&nodes, 150);
    // Those that wait for the stopped node come to an end when it goes on.
    let go_on = async {
        stop.await;
        scene.emit(&rest, 300).await;
        until("its session is over", PATIENCE, || async {
            let held = scene
                .sandbox
                .etcd()
                .etcdctl(&["get", "--prefix", "--keys-only", "hearth/"])
                .await;
            held.lines()
                .filter(|key| key.contains("/queue/session/"))
                .count()
                == 2
        })
        .await;
        silent.cont();
    };
    tokio::join!(held, go_on);
    until("it has a session again", PATIENCE, || async {
        silent.metric("hearth_queue_sessions_lost_total", "").await >= 1.0
            && silent.emit("tock", &json!(1)).await.status == 202
    })
    .await;
    scene.emit(std::slice::from_ref(&silent), 50).await;
    scene.checks(&nodes).await;
    let log = silent.log();
    assert!(log.contains("lost its session"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_etcd_is_killed_and_restarted() {
    let mut scene = scene().await;
    let nodes = scene.sandbox.nodes();
    scene.emit(&nodes, 100).await;
    scene.sandbox.etcd().kill9();
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
    scene.sandbox.etcd_mut().restart().await;
    scene.emit(&nodes, 100).await;
    scene.checks(&nodes).await;
}

/// A node that is drained leaves what waits to the others, who need not wait for the end of its session.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_what_waits_to_the_others() {
    let scene = scene().await;
    let nodes = scene.sandbox.nodes();
    let leaves = &nodes[0];
    // Longer than the test: it is tried again a second after the first attempt failed.
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
    assert!(!log.contains("could not be ended"), "{log}");
    scene.checks(&nodes[1..]).await;
}

/// What somebody deletes behind a node's back is in its books: the gauge tells how much is missing, and the log, once, what to do.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_deleted_from_etcd_is_told_by_the_books() {
    let sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_QUEUE__AUDIT_INTERVAL", "500ms")
        .start()
        .await;
    let hangs = Webhook::start(Does::Hang).await;
    let record = Record::http("hangs", hangs.url()).timeout_ms(120_000);
    sandbox.register(&record).await;
    let subscription = json!({ "event": "tick", "functionId": "hangs" });
    sandbox.subscribe(&subscription).await;
    let (node, other) = (sandbox.node(0), sandbox.node(1));
    for number in 0..3 {
        let answer = node.try_emit("tick", &json!(number)).await;
        assert_eq!(answer.expect("an answer").status, 202);
    }
    let drifts = async |node: &Node, drift: f64| {
        let before = node.metric("hearth_queue_audits_total", "done").await;
        until(&format!("the drift is {drift}"), PATIENCE, || async {
            node.metric("hearth_queue_audits_total", "done").await >= before + 3.0
                && node.metric("hearth_queue_drift", "").await == drift
        })
        .await;
    };
    drifts(&node, 0.0).await;
    assert_eq!(node.metric("hearth_queue_pending", "").await, 3.0);
    let etcd = sandbox.etcd();
    let held = etcd.etcdctl(&["get", "--prefix", "--keys-only", ""]).await;
    let held: Vec<_> = held.lines().filter(|key| key.contains("/held/")).collect();
    assert_eq!(held.len(), 3, "{held:?}");
    // All from the first one to before the last one.
    etcd.etcdctl(&["del", held[0], held[2]]).await;
    drifts(&node, 2.0).await;
    drifts(&other, 0.0).await;
    let log = node.log();
    let told: Vec<_> = log
        .lines()
        .filter(|line| line.contains("do not balance"))
        .collect();
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "drift=2",
        "pending=3",
        "held=1",
        "accepted 3",
        "backend=\"etcd\"",
    ] {
        assert!(told[0].contains(part), "{part} is not in {}", told[0]);
    }
}
