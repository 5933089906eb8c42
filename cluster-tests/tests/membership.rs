//! Who belongs to the cluster.

use std::time::Duration;

use cluster_tests::node::hearth;
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

/// The nodes read one file here, so the command goes through all its steps by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_secret_is_replaced_and_no_node_restarts_or_is_lost() {
    let sandbox = Sandbox::builder()
        .env("HEARTH_CLUSTER__SECRET_RELOAD_INTERVAL", "200ms")
        .nodes(3)
        .start()
        .await;
    sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;
    let file = sandbox.dir().join("secret");
    let old = std::fs::read_to_string(&file).expect("read a file");
    let old_file = sandbox.dir().join("old-secret");
    std::fs::write(&old_file, &old).expect("write a file");
    let node = sandbox.node(0);
    let nodes = node.cluster().await.expect("it answers").nodes;
    let generations: Vec<_> = nodes.iter().map(|node| node.generation).collect();

    let rotate = || {
        let mut command = hearth();
        command.args(["--api", &node.config_url(""), "cluster", "rotate-secret"]);
        command.arg("--secret-file").arg(&file);
        command.output().expect("run hearth")
    };
    let output = rotate();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    for step in [
        "was added",
        "was moved to the front",
        "was removed",
        "was replaced on all nodes",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    let new = std::fs::read_to_string(&file).expect("read a file");
    assert_eq!(new.lines().count(), 1, "{new}");
    assert!(!new.contains(old.trim()) && !said.contains(new.trim()));
    // Once more does nothing: the secret is new.
    let output = rotate();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "the cluster's secret was replaced on all nodes\n"
    );
    assert_eq!(std::fs::read_to_string(&file).expect("read a file"), new);

    let nodes = node.cluster().await.expect("it answers").nodes;
    assert!(
        nodes
            .iter()
            .all(|node| node.state == "alive" && node.secrets == nodes[0].secrets),
        "{nodes:#?}"
    );
    assert_eq!(
        nodes.iter().map(|node| node.generation).collect::<Vec<_>>(),
        generations
    );
    for node in sandbox.nodes() {
        let log = node.log();
        assert!(
            !log.contains("peer left") && !log.contains("no longer heard"),
            "{log}"
        );
        assert!(!node.log().contains(new.trim()), "{}", node.log());
        assert!(node.invoke("hello", json!({})).await.is_ok());
    }
    let stranger = sandbox.add_node(NodeOptions {
        secret_file: Some(old_file),
        ..NodeOptions::default()
    });
    let late = sandbox.add_node(NodeOptions::default());
    late.wait_ready(Duration::from_secs(20)).await;
    stranger.wait_ready(Duration::from_secs(20)).await;
    until(
        "who has the new secret joins",
        Duration::from_secs(10),
        || async { node.alive().await == ["n1", "n2", "n3", "n5"] },
    )
    .await;
    assert_eq!(stranger.alive().await, ["n4"]);
}
