//! Many functions and subscriptions, on nodes with a real etcd: nothing is different but the number.

use std::time::Duration;

use cluster_tests::{Does, Node, Sandbox, Webhook, many, until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

/// How long a node takes to read them all from the store when it starts, with a build for tests on a busy machine.
const READY_WITHIN: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_functions_and_subscriptions_behave_as_one() {
    behaves_with(500, Duration::from_millis(500)).await;
}

/// Each change makes the index of its method anew, which takes a build for tests ten times as long as the release; `make bench` holds
/// that one to 50 ms.
#[tokio::test(flavor = "multi_thread")]
async fn long_ten_thousand_functions_and_subscriptions_behave_as_one() {
    behaves_with(10_000, Duration::from_secs(5)).await;
}

/// How soon after a change was answered every node has to do as it says is the caller's.
async fn behaves_with(count: usize, served_within: Duration) {
    let sandbox = Sandbox::processes(2).await;
    let hook = Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await;
    let nodes = sandbox.nodes();
    many::create(&sandbox, count, hook.url()).await;
    for node in &nodes {
        all_is_served(node, count, &hook).await;
    }

    let restarted = &nodes[1];
    restarted.kill9();
    restarted.restart();
    restarted.wait_ready(READY_WITHIN).await;
    all_is_served(restarted, count, &hook).await;

    // A path that conflicts with one of so many is refused, and one more is served at once.
    let conflict = json!({"event": "http", "functionId": "function-0", "method": "GET", "path": "/resource-0/:other"});
    let refused = nodes[0]
        .config(
            Method::POST,
            "/v1/spaces/default/subscriptions",
            Some(&conflict),
        )
        .await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert!(
        refused.body.contains("Subscription path conflict"),
        "{refused:?}"
    );
    let more =
        json!({"event": "http", "functionId": "function-0", "method": "GET", "path": "/more"});
    let id = nodes[0].subscribe(&more).await;
    all_answer(&nodes, "/more", 200, served_within).await;
    nodes[1].unsubscribe(&id).await;
    all_answer(&nodes, "/more", 404, served_within).await;
}

/// The lists are whole, the first route and the last are answered, others are not, and an event reaches its ten subscribers.
async fn all_is_served(node: &Node, count: usize, hook: &Webhook) {
    for kind in ["functions", "subscriptions"] {
        until(
            &format!("{} has all {kind}", node.name()),
            READY_WITHIN,
            || async {
                let listed = node
                    .config(Method::GET, &format!("/v1/spaces/default/{kind}"), None)
                    .await
                    .json();
                listed[kind].as_array().map(Vec::len) == Some(count)
            },
        )
        .await;
    }
    for at in [0, count / 4 * 2, count - 2] {
        let page = node
            .http_event(Method::GET, &format!("/resource-{at}/7"))
            .await;
        assert_eq!((page.status, page.body.as_str()), (200, "ran"), "{page:?}");
    }
    for path in ["/resource-1/7", "/resource-0", "/"] {
        assert_eq!(
            node.http_event(Method::GET, path).await.status,
            404,
            "{path}"
        );
    }
    let emitted = node
        .emit(&format!("event.{}", (count - 1) / 20), &json!(1))
        .await;
    assert_eq!(emitted.status, 202, "{emitted:?}");
    let id = emitted.invocation.expect("an answer has an id");
    until(
        "each of its ten subscribers is called",
        READY_WITHIN,
        || async { hook.ids().get(&id) == Some(&10) },
    )
    .await;
}

async fn all_answer(nodes: &[Node], path: &str, status: u16, within: Duration) {
    let answers = async |node: &Node| {
        let what = format!("{} answers {path} with {status}", node.name());
        until(&what, within, || async {
            node.http_event(Method::GET, path).await.status == status
        })
        .await;
    };
    join_all(nodes.iter().map(answers)).await;
}
