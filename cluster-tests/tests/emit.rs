//! Custom events on a cluster: emitted through any node, delivered to every subscriber, whatever another one does.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::{Answer, Does, Record, Sandbox, Webhook, until};
use serde_json::json;

/// How long an event may take to all its subscribers, on a machine that is busy with other tests.
const DELIVERED: Duration = Duration::from_secs(20);

/// Subscribes a function to an event on every node.
async fn subscribe(sandbox: &Sandbox, function: &str, event: &str) {
    let subscription = json!({ "event": event, "functionId": function });
    sandbox.subscribe(&subscription).await;
}

/// The id of the event that a 202 is about.
fn accepted(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (202, ""),
        "{answer:?}"
    );
    answer.invocation.clone().unwrap()
}

/// A webhook and a process function, each subscribed once: an event through any node reaches both.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_through_any_node_reaches_every_subscriber() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("")).await;
    sandbox.register(&Record::http("hook", hook.url())).await;
    let seen = sandbox.dir().join("seen");
    // In one write, as nodes may run it at the same moment.
    let script = format!(r#"printf '%s\n' "$(cat)" >> {}"#, seen.display());
    let record = Record::command("keep", ["sh", "-c", &script]).stdio();
    sandbox.register(&record).await;
    subscribe(&sandbox, "hook", "user.created").await;
    subscribe(&sandbox, "keep", "user.*").await;

    let mut sent = Vec::new();
    for (number, node) in sandbox.nodes().iter().enumerate() {
        let answer = node
            .emit("user.created", &json!({ "number": number }))
            .await;
        sent.push(accepted(&answer));
    }
    hook.got(3).await;
    let ids: BTreeMap<_, _> = sent.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(hook.ids(), ids, "the ids that were answered, once each");
    // A pooled function gets the data alone, and the rest as attributes.
    until(
        "the process function ran three times",
        DELIVERED,
        || async {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            lines == [r#"{"number":0}"#, r#"{"number":1}"#, r#"{"number":2}"#]
        },
    )
    .await;
    let node = sandbox.node(0);
    until("the node has counted", DELIVERED, || async {
        node.metric("hearth_deliveries_total", "outcome=\"delivered\"")
            .await
            >= 2.0
    })
    .await;
    let received = node.metric("gateway_events_received_total", "type=\"custom\"");
    let processed = node.metric("gateway_events_processed_total", "type=\"custom\"");
    assert_eq!((received.await, processed.await), (1.0, 1.0));
    assert_eq!(node.metric("gateway_events_backlog", "").await, 0.0);
    let waited = node.metric(
        "gateway_events_custom_processing_seconds_bucket",
        "le=\"0.00001\"",
    );
    assert!(waited.await >= 0.0);
}

/// One that hangs and one that fails beside a healthy one: more events than there are permits reach it, while the first of
/// those that hang has not even timed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_delays_no_other() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__BACKEND", "memory")
        .env("HEARTH_QUEUE__PERMITS", "8")
        .start()
        .await;
    let healthy = Webhook::start(Does::Answer("")).await;
    let hanging = Webhook::start(Does::Hang).await;
    let failing = Webhook::start(Does::Fail).await;
    for (id, hook) in [
        ("healthy", &healthy),
        ("hanging", &hanging),
        ("failing", &failing),
    ] {
        let record = Record::http(id, hook.url()).timeout_ms(60_000);
        sandbox.register(&record).await;
        subscribe(&sandbox, id, "tick").await;
    }
    let node = sandbox.node(0);
    for number in 0..100 {
        accepted(&node.emit("tick", &json!(number)).await);
    }
    healthy.got(100).await;
    failing.got(100).await;
    assert!(healthy.ids().values().all(|times| *times == 1));
    assert!(
        failing.ids().values().all(|times| *times == 1),
        "at most once"
    );
    assert!(hanging.ids().len() <= 2, "a quarter of the permits");
}

/// What was accepted is delivered before the node ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_delivers_what_was_accepted() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__BACKEND", "memory")
        .env("HEARTH_QUEUE__PERMITS", "4")
        .start()
        .await;
    let seen = sandbox.dir().join("seen");
    let seen_path = seen.display();
    let script = format!(r#"sleep 0.2; printf '%s\n' "$(cat)" >> {seen_path}"#);
    let slow = Record::command("slow", ["sh", "-c", &script]).stdio();
    sandbox.register(&slow).await;
    subscribe(&sandbox, "slow", "tick").await;
    let node = sandbox.node(0);
    for number in 0..20 {
        accepted(&node.emit("tick", &json!(number)).await);
    }
    node.term();
    let status = node.exited(Duration::from_secs(40)).await;
    assert!(status.success(), "it ended with {status}");
    let text = std::fs::read_to_string(&seen).unwrap();
    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}
