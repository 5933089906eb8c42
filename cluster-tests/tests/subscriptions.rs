//! Subscriptions in a cluster with a real etcd: what two nodes are asked at once, and what the others know of it.

use std::time::Duration;

use cluster_tests::{Answer, Node, Record, Sandbox, until};
use reqwest::Method;
use serde_json::json;

const ALL: &str = "/v1/spaces/default/subscriptions";

async fn create(node: &Node, path: &str) -> Answer {
    let body = json!({"event": "http", "functionId": "hook", "method": "GET", "path": path});
    node.config(Method::POST, ALL, Some(&body)).await
}

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::processes(2).await;
    let hook = Record::http("hook", "http://127.0.0.1:1/");
    sandbox.register(&hook).await;
    sandbox
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_conflicting_paths_one_wins_and_every_node_knows_it() {
    let sandbox = sandbox().await;
    let (one, other) = (sandbox.node(0), sandbox.node(1));
    for round in 0..20 {
        let (a, b) = (format!("/{round}/:a"), format!("/{round}/:b"));
        let (first, second) = tokio::join!(create(&one, &a), create(&other, &b));
        let mut statuses = [first.status, second.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 400], "{first:?} {second:?}");
        let refused = if first.status == 400 { first } else { second };
        let is_conflict = refused
            .body
            .contains("Subscription path conflict: parameter with different name");
        assert!(is_conflict, "{refused:?}");
    }
    for node in [&one, &other] {
        let listed = node.config(Method::GET, ALL, None).await.json();
        let listed = listed["subscriptions"].as_array().map(Vec::len);
        assert_eq!(listed, Some(20), "of {}", node.name());
        until(
            "its registry has them all",
            Duration::from_millis(500),
            || async { node.metric("gateway_subscriptions_total", "default").await >= 20.0 },
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_is_subscribed_or_deleted_never_both() {
    let sandbox = sandbox().await;
    let (one, other) = (sandbox.node(0), sandbox.node(1));
    let function = "/v1/spaces/default/functions/hook";
    for round in 0..20 {
        let (created, deleted) = tokio::join!(
            create(&one, "/a"),
            other.config(Method::DELETE, function, None)
        );
        match (created.status, deleted.status) {
            (201, 400) => {
                let id = format!("{ALL}/http,GET,%2Fa");
                assert_eq!(one.config(Method::DELETE, &id, None).await.status, 204);
            }
            (400, 204) => {
                let hook = Record::http("hook", "http://127.0.0.1:1/");
                sandbox.register(&hook).await;
            }
            _ => panic!("round {round}: {created:?} {deleted:?}"),
        }
    }
}
