//! Custom events on a single node: what was accepted is on its disk, and delivered at least once.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::sandbox::Builder;
use cluster_tests::{Does, Node, Record, Sandbox, Webhook, until};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

/// How long a node may take to start or to end, and events to their subscribers, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

fn single() -> Builder {
    Sandbox::builder().nodes(1).embedded()
}

/// Makes the webhook a function that gets the event `tick`.
async fn subscribe(sandbox: &Sandbox, id: &str, hook: &Webhook) {
    let record = Record::http(id, hook.url()).timeout_ms(60_000);
    sandbox.register(&record).await;
    let subscription = json!({ "event": "tick", "functionId": id });
    sandbox.subscribe(&subscription).await;
}

/// Emits so many events, and returns the ids of those that were accepted: all of them.
async fn emit(node: &Node, count: usize) -> BTreeSet<String> {
    let emitted = stream::iter(0..count).map(|number| async move {
        let answer = node.emit("tick", &json!(number)).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.invocation.unwrap()
    });
    emitted.buffer_unordered(16).collect().await
}

async fn all_came(hook: &Webhook, ids: &BTreeSet<String>) {
    let what = format!("{} accepted events came", ids.len());
    until(&what, PATIENCE, || async {
        let came = hook.ids();
        ids.iter().all(|id| came.contains_key(id))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_survives_kill_9() {
    let sandbox = single().start().await;
    let held = Webhook::start(Does::Hang).await;
    let well = Webhook::start(Does::Answer("")).await;
    subscribe(&sandbox, "held", &held).await;
    subscribe(&sandbox, "well", &well).await;
    let node = sandbox.node(0);
    let ids = emit(&node, 200).await;
    all_came(&well, &ids).await;
    until("the node has settled", PATIENCE, || async {
        node.metric("hearth_deliveries_total", "outcome=\"delivered\"")
            .await
            >= 200.0
    })
    .await;
    node.kill9();
    held.now(Does::Answer(""));
    let before = held.envelopes().len();
    node.restart();
    node.wait_ready(PATIENCE).await;
    until("all came after the restart", PATIENCE, || async {
        let after: BTreeSet<_> = held.envelopes()[before..]
            .iter()
            .map(|envelope| envelope["id"].as_str().unwrap().to_owned())
            .collect();
        after == ids
    })
    .await;
    until("nothing waits", PATIENCE, || async {
        node.metric("gateway_events_backlog", "").await == 0.0
    })
    .await;
    assert!(
        well.ids().values().all(|times| *times == 1),
        "the success of one is not repeated for another"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_what_waits_for_the_next_start() {
    let sandbox = single()
        .env("HEARTH_NODE__DRAIN_TIMEOUT", "4s")
        .env("HEARTH_QUEUE__PERMITS", "8")
        .start()
        .await;
    let held = Webhook::start(Does::Hang).await;
    subscribe(&sandbox, "held", &held).await;
    let node = sandbox.node(0);
    let ids = emit(&node, 50).await;
    node.term();
    assert!(node.exited(PATIENCE).await.success());
    let log = node.log();
    assert!(log.contains("are kept: "), "{log}");
    assert!(!log.contains("were lost"), "{log}");
    assert!(held.ids().len() < 50);
    held.now(Does::Answer(""));
    node.restart();
    all_came(&held, &ids).await;
}

/// A backlog is told right after the restart, by the metrics as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_counted_after_a_restart() {
    let sandbox = single().env("HEARTH_QUEUE__PERMITS", "4").start().await;
    let held = Webhook::start(Does::Hang).await;
    subscribe(&sandbox, "held", &held).await;
    let node = sandbox.node(0);
    emit(&node, 20).await;
    node.kill9();
    node.restart();
    node.wait_ready(PATIENCE).await;
    let waits = node.metric("gateway_events_backlog", "").await;
    assert!((16.0..=20.0).contains(&waits), "{waits}");
    assert!(node.metric("hearth_queue_disk_bytes", "").await > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_fails_is_asked_again_and_one_that_refuses_is_not() {
    let sandbox = single().start().await;
    let fails = Webhook::start(Does::FailFirst(2)).await;
    let refuses = Webhook::start(Does::AnswerWith("400 Bad Request", "no such field")).await;
    subscribe(&sandbox, "fails", &fails).await;
    subscribe(&sandbox, "refuses", &refuses).await;
    let node = sandbox.node(0);
    let began = Instant::now();
    emit(&node, 1).await;
    until(
        "the second one ended as a dead letter",
        PATIENCE,
        || async { node.metric("hearth_dead_letters", "").await == 1.0 },
    )
    .await;
    until("the first one took it", PATIENCE, || async {
        node.metric("hearth_deliveries_total", "outcome=\"delivered\"")
            .await
            == 1.0
    })
    .await;
    assert_eq!(fails.envelopes().len(), 3);
    let paused = began.elapsed();
    assert!(paused >= Duration::from_secs(3), "1 s and 2 s: {paused:?}");
    assert_eq!(refuses.envelopes().len(), 1);
    let log = node.log();
    assert!(log.contains("status 400: no such field"), "{log}");
}

/// Of one function's two subscriptions the one that says nothing goes by the function, and what waits goes by an update.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_says_how_often_and_how_long_its_events_are_tried() {
    let sandbox = single()
        .env("HEARTH_QUEUE__RETRY_BACKOFF", "100ms")
        .start()
        .await;
    let hook = Webhook::start(Does::AnswerWith("503 Service Unavailable", "closed")).await;
    let mut record = Record::http("orders", hook.url()).json().clone();
    record["delivery"] = json!({ "attempts": 4 });
    let node = sandbox.node(0);
    let functions = "/v1/spaces/default/functions";
    let registered = node.config(Method::POST, functions, Some(&record)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let twice = json!({ "event": "tick", "functionId": "orders", "path": "/twice", "delivery": { "attempts": 2 } });
    sandbox.subscribe(&twice).await;
    let plain = json!({ "event": "tick", "functionId": "orders", "path": "/" });
    sandbox.subscribe(&plain).await;
    let late = json!({ "event": "late", "functionId": "orders", "path": "/", "delivery": { "attempts": 1000 } });
    let late_path = sandbox.subscribe(&late).await;

    for (event, path) in [("tick", "/twice"), ("tick", "/"), ("late", "/")] {
        let url = node.events_url(path);
        let request = node.request(Method::POST, &url).header("event", event);
        let answer = cluster_tests::api::send(request.json(&json!(1))).await;
        assert_eq!(answer.unwrap().status, 202);
    }
    let died = |subscription: &'static str| {
        let node = &node;
        async move {
            let letters = dead_letters(node, "").await;
            let letters = letters["deadLetters"].as_array().unwrap().clone();
            letters
                .into_iter()
                .find(|letter| letter["subscriptionId"] == subscription)
        }
    };
    for (subscription, attempts) in [("tick,orders,%2Ftwice", 2), ("tick,orders,%2F", 4)] {
        until("it is a dead letter", PATIENCE, || async {
            died(subscription).await.is_some()
        })
        .await;
        let letter = died(subscription).await.unwrap();
        assert_eq!(
            (
                &letter["attempts"],
                &letter["code"],
                &letter["status"],
                &letter["answer"]
            ),
            (
                &json!(attempts),
                &json!("function_failed"),
                &json!(503),
                &json!("closed")
            ),
            "{letter}"
        );
    }
    assert!(died("late,orders,%2F").await.is_none());
    let mut shorter = late;
    shorter["delivery"] = json!({ "maxAgeSeconds": 1, "attempts": 1000 });
    let updated = node.config(Method::PUT, &late_path, Some(&shorter)).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    until("it has become too old", PATIENCE, || async {
        died("late,orders,%2F").await.is_some()
    })
    .await;
}

/// Seen with its reason and answer, delivered again once its function takes it, and forgotten on request.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_shown_redriven_and_purged() {
    let sandbox = single().start().await;
    let hook = Webhook::start(Does::AnswerWith("404 Not Found", "no such order")).await;
    subscribe(&sandbox, "orders", &hook).await;
    let node = sandbox.node(0);
    emit(&node, 2).await;
    until("both are dead letters", PATIENCE, || async {
        node.metric("hearth_dead_letters", "").await == 2.0
    })
    .await;
    let first = dead_letters(&node, "?limit=1").await;
    let next = first["next"].as_u64().unwrap();
    let rest = dead_letters(&node, &format!("?after={next}")).await;
    assert!(rest["next"].is_null());
    let (first, second) = (&first["deadLetters"][0], &rest["deadLetters"][0]);
    assert_eq!(
        (&first["code"], &first["status"], &first["answer"]),
        (
            &json!("function_failed"),
            &json!(404),
            &json!("no such order")
        )
    );
    assert_eq!(first["attempts"], 1);
    let path = |letter: &Value, what: &str| {
        format!("/v1/dead-letters/{}{what}", letter["id"].as_str().unwrap())
    };
    let shown = node.config(Method::GET, &path(first, ""), None).await;
    assert_eq!(shown.json()["event"]["event"], "tick");
    assert_eq!(shown.json()["event"]["id"], first["eventId"]);

    hook.now(Does::Answer(""));
    let redrive = path(first, "/redrive");
    let redriven = node.config(Method::POST, &redrive, None).await;
    assert_eq!(redriven.status, 204, "{redriven:?}");
    let id = first["eventId"].as_str().unwrap();
    until("it came again", PATIENCE, || async { hook.ids()[id] == 2 }).await;
    let purged = node.config(Method::DELETE, &path(second, ""), None).await;
    assert_eq!(purged.status, 204, "{purged:?}");
    assert_eq!(dead_letters(&node, "").await["deadLetters"], json!([]));
    for (method, path, status) in [
        (Method::GET, path(second, ""), 404),
        (Method::DELETE, path(second, ""), 404),
        (Method::POST, path(second, "/redrive"), 404),
        (Method::GET, "/v1/dead-letters/x".into(), 400),
        (Method::GET, "/v1/dead-letters?limit=0".into(), 400),
        (Method::GET, "/v1/dead-letters?after=x".into(), 400),
    ] {
        let answer = node.config(method, &path, None).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
    }
}

async fn dead_letters(node: &Node, query: &str) -> Value {
    let path = format!("/v1/dead-letters{query}");
    node.config(Method::GET, &path, None).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_there_for_those_who_choose_it() {
    let sandbox = single()
        .env("HEARTH_QUEUE__BACKEND", "memory")
        .start()
        .await;
    let fails = Webhook::start(Does::Fail).await;
    subscribe(&sandbox, "fails", &fails).await;
    let node = sandbox.node(0);
    emit(&node, 3).await;
    until("all have failed", PATIENCE, || async {
        node.metric("hearth_deliveries_total", "outcome=\"failed\"")
            .await
            == 3.0
    })
    .await;
    assert_eq!(fails.envelopes().len(), 3, "at most once");
    assert!(!node.data_dir().join("queue").exists());
}

/// Nothing is thrown away in silence.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_queue_is_refused_and_named() {
    let sandbox = single().start().await;
    let held = Webhook::start(Does::Hang).await;
    subscribe(&sandbox, "held", &held).await;
    let node = sandbox.node(0);
    emit(&node, 50).await;
    node.kill9();
    let file = journal(&node);
    let whole = std::fs::read(&file).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    node.restart();
    let status = node.exited(PATIENCE).await;
    assert_eq!(status.code(), Some(69));
    let log = node.log();
    let named = format!("the queue is damaged: {} at byte", file.display());
    assert!(log.contains(&named), "{log}");
    assert!(log.contains("nothing is deleted"), "{log}");

    // The copy is as good as it was.
    std::fs::write(&file, whole).unwrap();
    node.restart();
    node.wait_ready(PATIENCE).await;
}

/// In a cluster it is there for who asks for it, and belongs to one process there as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_can_keep_its_events_and_only_one_has_them() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__BACKEND", "embedded")
        .start()
        .await;
    let node = sandbox.node(0);
    let held = Webhook::start(Does::Hang).await;
    subscribe(&sandbox, "held", &held).await;
    let ids = emit(&node, 10).await;
    node.kill9();
    let queue = node.data_dir().join("queue");
    let lock = std::fs::File::open(queue.join("lock")).unwrap();
    lock.try_lock().unwrap();
    node.restart();
    assert_eq!(node.exited(PATIENCE).await.code(), Some(69));
    let named = format!(
        "the queue in {} is in use by another process",
        queue.display()
    );
    assert!(node.log().contains(&named), "{}", node.log());
    drop(lock);
    held.now(Does::Answer(""));
    node.restart();
    all_came(&held, &ids).await;
}

/// The file that the queue writes.
fn journal(node: &Node) -> PathBuf {
    let files = std::fs::read_dir(node.data_dir().join("queue")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let journal = files.filter(|path| path.extension().is_some_and(|name| name == "segment"));
    journal.max().unwrap()
}
