//! Who belongs to the cluster.

use std::time::Duration;

use cluster_tests::{NodeOptions, Record, Sandbox, until};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_wrong_secret_never_joins() {
    let sandbox = Sandbox::processes(2).await;
    let secret_file = sandbox.dir().join("another-secret");
    std::fs::write(&secret_file, "another secret, which is also long enough")
        .expect("write a file");
    let stranger = sandbox.add_node(NodeOptions {
        secret_file: Some(secret_file),
        ..NodeOptions::default()
    });
    stranger.wait_ready(Duration::from_secs(20)).await;

    let member = sandbox.node(0);
    until(
        "its datagrams are dropped and counted",
        Duration::from_secs(10),
        || async { member.metric("hearth_gossip_dropped_total", "key").await >= 3.0 },
    )
    .await;

    assert_eq!(member.alive().await, ["n1", "n2"]);
    assert_eq!(stranger.alive().await, ["n3"]);
    let seen = member.cluster().await.expect("the member answers");
    assert!(seen.nodes.iter().all(|node| node.name != "n3"), "{seen:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded_to_a_stranger() {
    let sandbox = Sandbox::processes(1).await;
    let secret_file = sandbox.dir().join("another-secret");
    std::fs::write(&secret_file, "another secret, which is also long enough")
        .expect("write a file");
    let stranger = sandbox.add_node(NodeOptions {
        secret_file: Some(secret_file),
        ..NodeOptions::default()
    });
    stranger.wait_ready(Duration::from_secs(20)).await;
    sandbox.register(&Record::process("hello", "hello")).await;

    assert!(stranger.invoke("hello", json!({})).await.is_ok());
    let answer = sandbox.node(0).invoke("hello", json!({})).await;

    assert_eq!(answer.route.as_deref(), Some("local"), "{answer:?}");
    assert_eq!(answer.start.as_deref(), Some("cold"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_node_joins_through_one_seed_and_serves() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;

    let late = sandbox.add_node(NodeOptions::default());
    sandbox.wait_settled().await;
    sandbox.wait_warm("hello", &sandbox.node(0)).await;

    let answer = late.invoke("hello", json!({})).await;
    assert_eq!(answer.route.as_deref(), Some("forwarded"), "{answer:?}");
    assert_eq!(answer.node.as_deref(), Some("n1"), "{answer:?}");
}
