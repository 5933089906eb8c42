//! Versions and aliases on three nodes: shared out, moved and rolled back while calls go on.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::webhook::{Does, Webhook};
use cluster_tests::{Answer, Load, Node, Record, Sandbox, Targets, eventually, until};
use futures_util::future::join;
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

/// How long a change may take to all nodes, on a machine that is busy with other tests.
const SPREAD: Duration = Duration::from_secs(10);

/// How long a few dozen calls may take there.
const CALLS: Duration = Duration::from_secs(60);

fn path(function: &str, below: &str) -> String {
    format!("/v1/spaces/default/functions/{function}/{below}")
}

async fn publish(node: &Node, function: &str) -> u64 {
    let versions = path(function, "versions");
    let answer = node.config(Method::POST, &versions, None).await;
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
    answer.json()["version"]
        .as_u64()
        .expect("a version has a number")
}

async fn try_alias(node: &Node, function: &str, target: &Value) -> Answer {
    let alias = path(function, "aliases/prod");
    node.config(Method::PUT, &alias, Some(target)).await
}

async fn alias(node: &Node, function: &str, target: &Value) {
    let answer = try_alias(node, function, target).await;
    assert!(matches!(answer.status, 200 | 201), "{target}: {answer:?}");
}

async fn roll_back(node: &Node, function: &str) -> Value {
    let alias = path(function, "aliases/prod/rollback");
    let answer = node.config(Method::POST, &alias, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Waits until each of these nodes calls that version by the alias.
async fn wait_for(nodes: &[Node], function: &str, version: &str) {
    for node in nodes {
        let what = format!("{function} on {} is version {version}", node.name());
        eventually(&what, SPREAD, || async {
            match node.try_invoke(function, json!({})).await {
                Ok(answer) if answer.is_ok() && answer.version.as_deref() == Some(version) => {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }
}

/// Two webhooks that say which version they are, and the function that was first the one and then the other.
async fn two_hooks(sandbox: &Sandbox) -> (Webhook, Webhook) {
    let (one, two) = (
        Webhook::start(Does::Answer("1")).await,
        Webhook::start(Does::Answer("2")).await,
    );
    let nodes = sandbox.nodes();
    sandbox.register(&Record::http("hook", one.url())).await;
    assert_eq!(publish(&nodes[1], "hook").await, 1);
    nodes[2]
        .update(&sandbox.record(&Record::http("hook", two.url())))
        .await;
    assert_eq!(publish(&nodes[0], "hook").await, 2);
    (one, two)
}

/// A process function, of which two versions were published: each has instances of its own.
async fn two_processes(sandbox: &Sandbox, name: &str) {
    let record = |text: &str| {
        Record::process(name, name)
            .env("RELEASE", text)
            .concurrency(16)
    };
    let nodes = sandbox.nodes();
    sandbox.register(&record("one")).await;
    assert_eq!(publish(&nodes[1], name).await, 1);
    nodes[2].update(&sandbox.record(&record("two"))).await;
    assert_eq!(publish(&nodes[0], name).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_goes_through_another_node() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    let _hooks = two_hooks(&sandbox).await;
    alias(&nodes[1], "hook", &json!({"version": 1})).await;
    for (function, version, result) in [
        ("hook:1", "1", "1"),
        ("hook:2", "2", "2"),
        ("hook:prod", "1", "1"),
        ("hook:$LATEST", "$LATEST", "2"),
    ] {
        wait_for(&nodes, function, version).await;
        for node in &nodes {
            let answer = node.invoke(function, json!({})).await;
            assert_eq!(answer.result(), result, "{function} {answer:?}");
        }
    }
    let plain = nodes[2].invoke("hook", json!({})).await;
    assert_eq!((plain.result(), plain.version), (json!("2"), None));
    for (function, expected) in [
        (
            "none:3",
            "404 function_not_found;gateway Function not found",
        ),
        (
            "hook:3",
            "404 not_found;gateway function hook in space default has no version 3",
        ),
        (
            "hook:test",
            "404 not_found;gateway function hook in space default has no alias test",
        ),
    ] {
        let answer = nodes[2].invoke(function, json!({})).await;
        let said = answer.json()["error"].as_str().expect("a text").to_owned();
        let told = format!("{} {said}", answer.summary());
        assert_eq!(told, expected, "{function} {answer:?}");
    }
    let malformed = nodes[2].invoke("hook:a.b", json!({})).await;
    assert_eq!(malformed.summary(), "400 invalid_request;gateway");

    let first = path("hook", "versions/1");
    let kept = nodes[2].config(Method::DELETE, &first, None).await;
    assert_eq!(kept.status, 409, "{kept:?}");
    assert!(kept.body.contains("used by aliases: prod"), "{kept:?}");
    let unknown = try_alias(
        &nodes[0],
        "hook",
        &json!({"version": 1, "weights": {"9": 0.1}}),
    )
    .await;
    assert_eq!(unknown.status, 400, "{unknown:?}");
    assert!(
        unknown.body.contains("a key of weights is 9"),
        "{unknown:?}"
    );
    alias(&nodes[0], "hook", &json!({"version": 2})).await;
    let gone = nodes[2].config(Method::DELETE, &first, None).await;
    assert_eq!(gone.status, 204, "{gone:?}");
    until("nobody knows version 1", SPREAD, || async {
        let calls = nodes.iter().map(|node| node.invoke("hook:1", json!({})));
        let answers = futures_util::future::join_all(calls).await;
        answers.iter().all(|answer| answer.status == 404)
    })
    .await;

    // A call by an event, and one that is not waited for: its alias is asked when it is delivered.
    let subscription = nodes[0]
        .subscribe(&json!({"event": "invoke", "functionId": "hook", "path": "/"}))
        .await;
    let by_event = eventually("an event calls the alias", SPREAD, || async {
        let request = nodes[1].request(Method::POST, &nodes[1].events_url("/"));
        let request = request
            .header("event", "invoke")
            .header("function-id", "hook:prod");
        match cluster_tests::api::send(request.json(&json!({}))).await {
            Ok(answer) if answer.is_ok() => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    });
    let by_event = by_event.await;
    assert_eq!(
        (by_event.body.as_str(), by_event.version.as_deref()),
        ("2", Some("2"))
    );

    nodes[1].unsubscribe(&subscription).await;
    nodes[0].delete("hook").await;
    sandbox
        .register(&Record::http("hook", "http://127.0.0.1:9/"))
        .await;
    let versions = nodes[1]
        .config(Method::GET, &path("hook", "versions"), None)
        .await;
    assert_eq!(
        versions.json(),
        json!({"versions": []}),
        "they went with their function"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_execution_asks_its_alias_when_it_is_delivered() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    let _hooks = two_hooks(&sandbox).await;
    alias(&nodes[0], "hook", &json!({"version": 1})).await;
    wait_for(&nodes, "hook:prod", "1").await;
    let body = json!({"function_name": "hook:prod", "async": true, "delay_seconds": 3});
    let accepted = nodes[1].invoke_raw(body.to_string()).await;
    assert_eq!(accepted.status, 202, "{accepted:?}");
    alias(&nodes[2], "hook", &json!({"version": 2})).await;
    wait_for(&nodes, "hook:prod", "2").await;
    let id = accepted.json()["execution"].as_str().unwrap().to_owned();
    let path = format!("/v1/spaces/default/executions/{id}");
    let ended = eventually("it has ended", CALLS, || async {
        let read = nodes[0].config(Method::GET, &path, None).await.json();
        match read["status"].as_str() {
            Some("succeeded") => Ok(read),
            _ => Err(read),
        }
    });
    let ended = ended.await;
    assert_eq!(ended["attempts"][0]["version"], 2, "{ended}");
    let nothing = json!({"function_name": "hook:test", "async": true});
    let refused = nodes[1].invoke_raw(nothing.to_string()).await;
    assert_eq!(refused.status, 404, "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_are_kept_over_ten_thousand_calls() {
    const COUNT: usize = 10_000;
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    let _hooks = two_hooks(&sandbox).await;
    let canary = json!({"header": "x-canary", "value": "yes", "version": 2});
    let target = json!({"version": 1, "weights": {"2": 0.25}, "canary": canary});
    alias(&nodes[1], "hook", &target).await;
    for node in &nodes {
        until("the alias is known", SPREAD, || async {
            node.invoke("hook:prod", json!({})).await.is_ok()
        })
        .await;
    }
    let calls = stream::iter(0..COUNT).map(|number| {
        let node = &nodes[number % nodes.len()];
        async move {
            let answer = node.invoke("hook:prod", json!({})).await;
            let version = answer.version.clone().expect("it says which version ran");
            assert_eq!(answer.result(), version, "{answer:?}");
            version
        }
    });
    let versions: Vec<String> = calls.buffer_unordered(24).collect().await;
    let second = versions.iter().filter(|version| *version == "2").count();
    let share = second as f64 / COUNT as f64;
    assert!(
        (share - 0.25).abs() < 0.02,
        "{second} of {COUNT} calls went to version 2"
    );
    // Whatever the weights, calls with the header go where it says.
    for node in nodes.iter().cycle().take(60) {
        let request = node.request(Method::POST, &node.functions_url("/invoke"));
        let request = request.header("x-canary", "yes");
        let sent = request.json(&json!({"function_name": "hook:prod"}));
        let answer = cluster_tests::api::send(sent).await.expect("an answer");
        assert_eq!(answer.version.as_deref(), Some("2"), "{answer:?}");
    }
}

/// How many calls each version had.
fn counts(calls: &[cluster_tests::load::Call]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in calls {
        let version = call
            .outcome
            .as_ref()
            .ok()
            .and_then(|answer| answer.version.clone());
        *counts.entry(version.unwrap_or_default()).or_default() += 1;
    }
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_goes_from_nothing_to_all_and_back_without_a_failed_call() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    two_processes(&sandbox, "hello").await;
    alias(&nodes[0], "hello", &json!({"version": 1})).await;
    wait_for(&nodes, "hello:prod", "1").await;
    let load = Load::start(Targets::Each(nodes.clone()), 6, "hello:prod", |_| json!({}));
    load.more(60, CALLS).await;
    let mut turns = nodes.iter().cycle();
    let mut next = || turns.next().expect("there is a node");
    for share in [0.1, 0.25, 0.5, 0.75, 0.9] {
        let target = json!({"version": 1, "weights": {"2": share}});
        alias(next(), "hello", &target).await;
        load.more(60, CALLS).await;
    }
    alias(next(), "hello", &json!({"version": 2})).await;
    wait_for(&nodes, "hello:prod", "2").await;
    load.more(60, CALLS).await;
    let back = roll_back(next(), "hello").await;
    assert_eq!(
        (&back["version"], back.get("weights")),
        (&json!(1), None),
        "{back}"
    );
    wait_for(&nodes, "hello:prod", "1").await;
    let before = load.ended();
    load.more(60, CALLS).await;
    let calls = load.stop().await;
    assert_all_ok(&calls);
    let all = counts(&calls);
    assert!(all["1"] > 60 && all["2"] > 60, "{all:?}");
    let last: Vec<_> = calls[before..]
        .iter()
        .filter(|call| call.begun > calls[before].ended)
        .cloned()
        .collect();
    assert_eq!(
        counts(&last).keys().collect::<Vec<_>>(),
        ["1"],
        "all are back"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_call_ends_well_while_its_alias_moves() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    two_processes(&sandbox, "sleep").await;
    alias(&nodes[0], "sleep", &json!({"version": 1})).await;
    wait_for(&nodes, "sleep:prod", "1").await;
    let moved = async {
        until("the call runs", SPREAD, || async {
            nodes[1].in_flight().await > 0
        })
        .await;
        alias(&nodes[2], "sleep", &json!({"version": 2})).await;
        wait_for(&nodes, "sleep:prod", "2").await;
        // Even the version itself can go: what runs of it is let end.
        let first = path("sleep", "versions/1");
        let gone = nodes[0].config(Method::DELETE, &first, None).await;
        assert_eq!(gone.status, 204, "{gone:?}");
        let running = nodes[1].in_flight().await;
        assert!(running > 0, "the call still runs");
    };
    let (answer, ()) = join(nodes[1].invoke("sleep:prod", json!({"ms": 8_000})), moved).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.version.as_deref(), Some("1"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_killed_takes_no_change_with_it() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    two_processes(&sandbox, "hello").await;
    alias(&nodes[0], "hello", &json!({"version": 1})).await;
    wait_for(&nodes, "hello:prod", "1").await;
    let (killed, left) = (&nodes[0], &nodes[1..]);
    let load = Load::start(Targets::Each(left.to_vec()), 4, "hello:prod", |_| json!({}));
    load.more_successes(40, CALLS).await;
    alias(
        killed,
        "hello",
        &json!({"version": 1, "weights": {"2": 0.5}}),
    )
    .await;
    killed.kill9();
    alias(&left[0], "hello", &json!({"version": 2})).await;
    wait_for(left, "hello:prod", "2").await;
    load.more_successes(40, CALLS).await;
    let calls = load.stop().await;
    for call in calls.iter().filter(|call| !call.is_ok()) {
        // What was on its way to the killed node may have run there; nothing else fails.
        assert_eq!(call.summary(), "502 interrupted;peer", "{call:?}");
    }
    killed.restart();
    killed.wait_ready(CALLS).await;
    wait_for(&nodes[..1], "hello:prod", "2").await;
    let back = roll_back(killed, "hello").await;
    assert_eq!(
        back["version"], 1,
        "what was set on the killed node is known: {back}"
    );
    wait_for(&nodes, "hello:prod", "1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_that_publish_at_once_lose_no_version() {
    let sandbox = Sandbox::processes(3).await;
    let nodes = sandbox.nodes();
    let record = |number: u64| {
        let record = Record::http("hook", "http://127.0.0.1:9/");
        record.timeout_ms(1000 + u32::try_from(number).unwrap())
    };
    sandbox.register(&record(0)).await;
    for number in 1..=8 {
        nodes[2].update(&sandbox.record(&record(number))).await;
        let both = join(publish(&nodes[0], "hook"), publish(&nodes[1], "hook")).await;
        assert_eq!(
            both,
            (number, number),
            "it is one version, whoever came first"
        );
    }
    // Two that publish something else each: a number for each, unless one saw what the other stored.
    let change = |node: Node, number: u64| {
        let record = sandbox.record(&record(number));
        async move {
            node.update(&record).await;
            publish(&node, "hook").await
        }
    };
    let (one, two) = join(change(nodes[0].clone(), 20), change(nodes[1].clone(), 21)).await;
    let all = nodes[2]
        .config(Method::GET, &path("hook", "versions"), None)
        .await
        .json();
    let numbers = all["versions"].as_array().unwrap().iter();
    let numbers: Vec<u64> = numbers
        .map(|one| one["version"].as_u64().unwrap())
        .collect();
    let newest = *numbers.last().unwrap();
    assert_eq!(numbers, (1..=newest).collect::<Vec<_>>());
    assert_eq!(newest, one.max(two));
}
