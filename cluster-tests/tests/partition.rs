//! A node is cut off from its peers and from the store by the network, and comes back. Needs root, for network namespaces.

use std::time::Duration;

use cluster_tests::namespace::Network;
use cluster_tests::ports::Ports;
use cluster_tests::{Load, NodeOptions, Record, Sandbox, Targets, until};
use reqwest::Method;
use serde_json::json;

/// How soon both sides see the cut, and how soon they see its end.
const SEEN: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_serve_while_a_peer_without_the_warm_instance_is_cut_off() {
    check(|home| (home + 1) % 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_serve_while_the_peer_with_the_warm_instance_is_cut_off() {
    check(|home| home).await;
}

/// Makes a function warm on one node, cuts the node that `choose` names by the warm one's place, and heals the cut.
async fn check(choose: impl Fn(u8) -> u8) {
    let ports = Ports::reserve();
    let network = Network::create(ports.number(), 3);
    let mut builder = Sandbox::builder()
        .auth_required()
        .etcd_on(&network.root_address().to_string(), ports);
    for node in 0..3 {
        builder = builder.node(NodeOptions {
            place: Some(network.place(node)),
            ..NodeOptions::default()
        });
    }
    let sandbox = builder.start().await;
    let record = Record::process("hello", "hello").concurrency(8);
    let (_, home) = sandbox.register_warm(&record, json!({})).await;
    let places = sandbox.nodes();
    let home = places
        .iter()
        .position(|node| node.name() == home.name())
        .expect("home is one of them");
    let place = choose(u8::try_from(home).expect("there are three"));
    let lone = sandbox.node(place.into());
    let others = sandbox.others(lone.name());

    network.cut(place);
    until("the lone node sees itself only", SEEN, || async {
        lone.alive().await.len() == 1
    })
    .await;
    for node in &others {
        until("the others see each other only", SEEN, || async {
            node.alive().await.len() == 2
        })
        .await;
    }

    // Both sides run what they know, and only the side with the store takes changes.
    let load = Load::start(Targets::Each(sandbox.nodes()), 3, "hello", |_| json!({}));
    load.more_successes(30, Duration::from_secs(20)).await;
    cluster_tests::load::assert_all_ok(&load.stop().await);
    let later = sandbox.record(&Record::process("later", "hello"));
    let refused = lone
        .config(Method::POST, "/v1/spaces/default/functions", Some(&later))
        .await;
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(
        refused.json()["errors"][0]["message"].is_string(),
        "{refused:?}"
    );
    let taken = others[0]
        .config(Method::POST, "/v1/spaces/default/functions", Some(&later))
        .await;
    assert_eq!(taken.status, 201, "{taken:?}");

    network.heal(place);
    for node in sandbox.nodes() {
        until("all are alive in every view", SEEN, || async {
            node.alive().await.len() == 3
        })
        .await;
    }
    until("the change has reached the lone node", SEEN, || {
        lone.knows("later")
    })
    .await;
    for node in sandbox.nodes() {
        assert!(node.invoke("hello", json!({})).await.is_ok());
        assert!(node.invoke("later", json!({})).await.is_ok());
    }
}
