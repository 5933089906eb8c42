use std::time::{Duration, SystemTime};

use protocol::Generation;
use providers::fake::FakeProvider;
use providers::{Error as ProviderError, Found};
use serde_json::json;

use crate::fixtures::{TestNode, function, instance_id, until};

fn found(id: &str, of: &protocol::Function) -> Found {
    Found {
        id: instance_id(id),
        space: of.space.clone(),
        function_id: of.function_id.clone(),
        key: of.instance_key(|_| None),
        generation: Generation(1),
        is_adoptable: true,
        created_at: SystemTime::now(),
    }
}

async fn call(node: &TestNode) -> bool {
    node.running
        .control
        .invoker
        .invoke(node.request("echo", ""))
        .await
        .is_ok()
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_generation_left_is_adopted_or_removed() {
    let provider = FakeProvider::new(Generation(2));
    provider.leave_behind(found("warm", &function("echo", &json!({}))));
    provider.leave_behind(found(
        "stale",
        &function("echo", &json!({"limits": {"memoryMb": 7}})),
    ));
    provider.leave_behind(Found {
        is_adoptable: false,
        ..found("paused", &function("echo", &json!({})))
    });
    let node = TestNode::start_on(provider, |_| {}).await;
    node.register("echo", json!({})).await;
    assert!(call(&node).await);
    until("only the warm one is left", || {
        node.provider.up() == [instance_id("warm")]
    })
    .await;
    assert_eq!(node.provider.counts().starts, 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_dies_is_replaced() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    assert!(call(&node).await);
    let first = node.provider.up();
    node.provider.kill(&first[0]);
    assert!(call(&node).await);
    assert_ne!(node.provider.up(), first);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_function_leaves_no_instance_behind() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    assert!(call(&node).await);
    node.provider
        .fail_next_stop(ProviderError::EngineUnavailable {
            why: "it hangs".into(),
        });
    node.running
        .control
        .catalog
        .delete("default", "echo", None)
        .await
        .unwrap();
    until("its instance is gone", || node.provider.up().is_empty()).await;
    assert!(
        node.provider.counts().stops >= 2,
        "a stop that failed is tried again"
    );
}

#[tokio::test(start_paused = true)]
async fn idle_instances_stop_and_their_share_comes_back() {
    let node = TestNode::start().await;
    node.register("echo", json!({"scaling": {"idleSeconds": 5}}))
        .await;
    assert!(call(&node).await);
    until("it idled long enough", || node.provider.up().is_empty()).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(node.running.control.view.cluster().nodes[0].instances, 0);
}

#[tokio::test(start_paused = true)]
async fn warm_calls_and_starts_under_way_survive_a_restart_of_the_executor() {
    let node = TestNode::start().await;
    node.register("echo", json!({"limits": {"concurrency": 4}}))
        .await;
    assert!(call(&node).await);
    node.provider.delay_starts(Duration::from_millis(300));
    node.provider.delay_runs(Duration::from_millis(40));
    let load = async {
        for _ in 0..50 {
            let calls = (0..12).map(|_| call(&node));
            assert!(
                futures_util::future::join_all(calls)
                    .await
                    .into_iter()
                    .all(|is_ok| is_ok)
            );
        }
    };
    let kills = async {
        for restarts in 1..=3 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(node.running.control.view.kill_actor("executor"));
            while node.restarts("executor").await < restarts {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    tokio::join!(load, kills);
    assert!(node.provider.up().len() <= 10);
    assert_eq!(node.running.control.view.actors().await.actors.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_drain_stops_every_instance() {
    let node = TestNode::start().await;
    node.register("echo", json!({})).await;
    assert!(call(&node).await);
    node.running.handle.begin_drain();
    node.running
        .handle
        .stop(tokio::time::Instant::now() + Duration::from_secs(10))
        .await;
    assert!(node.provider.up().is_empty());
    let depths = node.running.control.view.actors().await.actors;
    assert!(
        depths.iter().all(|actor| actor.mailbox_depth < 100),
        "{depths:?}"
    );
}
