use std::time::Duration;

use serde_json::json;

use crate::fixtures::TestNode;
use crate::view::Readiness;

async fn kill(node: &TestNode, name: &str) {
    let before = node.restarts(name).await;
    assert!(node.running.control.view.kill_actor(name));
    let bound = tokio::time::Instant::now() + Duration::from_secs(5);
    while node.restarts(name).await == before {
        assert!(tokio::time::Instant::now() < bound, "{name} is not restarted");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn is_broken(node: &TestNode) -> bool {
    tokio::time::timeout(Duration::from_millis(100), node.running.handle.broken()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn an_actor_that_ends_is_restarted_and_its_snapshot_stays() {
    for name in ["registry_cache", "executor", "router"] {
        let node = TestNode::start().await;
        node.register("echo", json!({})).await;
        let invoker = &node.running.control.invoker;
        invoker.invoke(node.request("echo", "")).await.unwrap();
        kill(&node, name).await;
        assert_eq!(node.running.control.view.readiness(), Readiness::Ready);
        assert!(invoker.invoke(node.request("echo", "")).await.is_ok());
        // It does its work again.
        node.register("other", json!({})).await;
        assert!(invoker.invoke(node.request("other", "")).await.is_ok());
        node.hear([crate::fixtures::member("n2", &[])]).await;
        assert!(!is_broken(&node).await);
    }
}

#[tokio::test(start_paused = true)]
async fn the_fourth_end_within_a_minute_ends_the_node() {
    let node = TestNode::start().await;
    for name in ["executor", "router", "registry_cache"] {
        kill(&node, name).await;
    }
    assert!(!is_broken(&node).await);
    assert!(node.running.control.view.kill_actor("executor"));
    assert!(is_broken(&node).await);
}

#[tokio::test(start_paused = true)]
async fn ends_that_lie_a_minute_apart_are_forgiven() {
    let node = TestNode::start().await;
    for _ in 0..5 {
        kill(&node, "router").await;
        tokio::time::sleep(Duration::from_secs(30)).await;
    }
    assert!(!is_broken(&node).await);
}

#[tokio::test(start_paused = true)]
async fn a_node_does_not_go_on_without_its_supervisor() {
    let node = TestNode::start().await;
    node.running.handle.supervisor.kill();
    assert!(is_broken(&node).await);
}

#[tokio::test(start_paused = true)]
async fn a_tidy_stop_is_no_break() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    node.running.handle.begin_drain();
    assert_eq!(node.running.control.view.readiness(), Readiness::Draining);
    node.running.handle.stop(tokio::time::Instant::now() + Duration::from_secs(5)).await;
    assert!(!is_broken(&node).await);
    let actors = node.running.control.view.actors().await.actors;
    assert!(actors.iter().all(|actor| actor.status == "stopped"), "{actors:?}");
}
