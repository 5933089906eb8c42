//! Subscriptions in a cluster with a real etcd: what two nodes are asked at once, and what the others know and do of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::{Answer, Does, Node, Record, Sandbox, Webhook, until};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

const ALL: &str = "/v1/spaces/default/subscriptions";

/// How long after a change was answered every node does as it says.
const SERVED_WITHIN: Duration = Duration::from_millis(500);

const NOT_FOUND: (u16, &str) = (404, "{\"errors\":[{\"message\":\"resource not found\"}]}\n");

async fn create(node: &Node, path: &str) -> Answer {
    let subscription = http("hook", path);
    node.config(Method::POST, ALL, Some(&subscription)).await
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
        until("its registry has them all", SERVED_WITHIN, || async {
            node.metric("gateway_subscriptions_total", "default").await >= 20.0
        })
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

/// The original let both win.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_creates_of_a_function_or_subscription_one_wins() {
    let sandbox = sandbox().await;
    let (one, other) = (sandbox.node(0), sandbox.node(1));
    for round in 0..20 {
        let function = Record::http(&format!("f{round}"), "http://127.0.0.1:1/");
        let custom = json!({"event": format!("e{round}"), "functionId": "hook"});
        for (path, record, why) in [
            (
                "/v1/spaces/default/functions",
                function.json(),
                "already registered.",
            ),
            (ALL, &custom, "already exists."),
        ] {
            let create = |node: &Node| {
                let node = node.clone();
                async move { node.config(Method::POST, path, Some(record)).await }
            };
            let (first, second) = tokio::join!(create(&one), create(&other));
            let mut statuses = [first.status, second.status];
            statuses.sort_unstable();
            assert_eq!(statuses, [201, 400], "{first:?} {second:?}");
            let refused = if first.status == 400 { first } else { second };
            assert!(refused.body.contains(why), "{refused:?}");
        }
    }
}

/// A change at one node is what all do, within the bound of the guarantees.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_node_was_told_all_serve_within_half_a_second() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await;
    sandbox.register(&Record::http("hook", hook.url())).await;
    let nodes = sandbox.nodes();
    for (round, told) in nodes.iter().cycle().enumerate().take(6) {
        let page = format!("/page/{round}");
        let id = told.subscribe(&http("hook", &page)).await;
        all_answer(&nodes, &page, (200, "ran")).await;

        let tick = format!("tick.{round}");
        told.subscribe(&json!({"event": tick, "functionId": "hook"}))
            .await;
        let deliver = async |node: &Node| {
            let what = format!("{} delivers {tick}", node.name());
            until(&what, SERVED_WITHIN, || async {
                node.emit(&tick, &json!(node.name())).await;
                let is_own = |one: &Value| one["event"] == *tick && one["data"] == node.name();
                hook.envelopes().iter().any(is_own)
            })
            .await;
        };
        join_all(nodes.iter().map(deliver)).await;

        told.unsubscribe(&id).await;
        all_answer(&nodes, &page, NOT_FOUND).await;
    }
}

/// While clients go on, each node answers as before a change or as after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_is_deleted_and_made_again_under_traffic() {
    let sandbox = Sandbox::processes(3).await;
    let one = Webhook::start(Does::Answer(r#"{"body": "one"}"#)).await;
    let two = Webhook::start(Does::Answer(r#"{"body": "two"}"#)).await;
    sandbox.register(&Record::http("one", one.url())).await;
    sandbox.register(&Record::http("two", two.url())).await;
    let nodes = sandbox.nodes();
    let seen = under_traffic(&nodes, "/a", async {
        for round in 0..20 {
            let [makes, deletes] = [round, round + 1].map(|turn| &nodes[turn % nodes.len()]);
            let function = ["one", "two"][round % 2];
            let id = makes.subscribe(&http(function, "/a")).await;
            all_answer(&nodes, "/a", (200, function)).await;
            deletes.unsubscribe(&id).await;
            all_answer(&nodes, "/a", NOT_FOUND).await;
        }
    })
    .await;
    assert_seen(&seen, &[(200, "one"), (200, "two"), NOT_FOUND]);
}

/// The same with the function itself, of which nodes hear apart from its subscription.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_goes_with_its_subscription_and_comes_again_under_traffic() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await;
    let record = Record::http("hook", hook.url());
    let functions = "/v1/spaces/default/functions";
    let nodes = sandbox.nodes();
    let seen = under_traffic(&nodes, "/a", async {
        for round in 0..20 {
            let [makes, deletes] = [round, round + 1].map(|turn| &nodes[turn % nodes.len()]);
            let made = makes.config(Method::POST, functions, Some(record.json()));
            assert_eq!(made.await.status, 201);
            let id = makes.subscribe(&http("hook", "/a")).await;
            all_answer(&nodes, "/a", (200, "ran")).await;
            deletes.unsubscribe(&id).await;
            deletes.delete("hook").await;
            all_answer(&nodes, "/a", NOT_FOUND).await;
        }
    })
    .await;
    assert_seen(&seen, &[(200, "ran"), NOT_FOUND]);
}

fn assert_seen(seen: &BTreeSet<(u16, String)>, expected: &[(u16, &str)]) {
    let expected = expected
        .iter()
        .map(|(status, body)| (*status, (*body).to_owned()));
    assert_eq!(*seen, expected.collect());
}

fn http(function: &str, path: &str) -> Value {
    json!({"event": "http", "functionId": function, "method": "GET", "path": path})
}

/// Waits until every node answers a GET like this.
async fn all_answer(nodes: &[Node], path: &str, expected: (u16, &str)) {
    let answers = async |node: &Node| {
        let what = format!("{} answers {path} with {expected:?}", node.name());
        until(&what, SERVED_WITHIN, || async {
            let answer = node.http_event(Method::GET, path).await;
            (answer.status, answer.body.as_str()) == expected
        })
        .await;
    };
    join_all(nodes.iter().map(answers)).await;
}

/// Asks every node for a path without pause until the scenario is over, and returns all different answers.
async fn under_traffic(
    nodes: &[Node],
    path: &str,
    scenario: impl Future<Output = ()>,
) -> BTreeSet<(u16, String)> {
    let (is_over, seen) = (Cell::new(false), RefCell::new(BTreeSet::new()));
    let client = async |node: &Node| {
        while !is_over.get() {
            let answer = node.http_event(Method::GET, path).await;
            seen.borrow_mut().insert((answer.status, answer.body));
        }
    };
    let scenario = async {
        scenario.await;
        is_over.set(true);
    };
    tokio::join!(join_all(nodes.iter().map(client)), scenario);
    seen.into_inner()
}
