//! Clients that others wrote, against a cluster of three nodes: the programs of `clients/`, each call to another node in turn.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster_tests::program::{self, library, run};
use cluster_tests::{Node, Record, Sandbox, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// How long events may take to a function whose first instance starts, on such a machine.
const DELIVERED: Duration = Duration::from_secs(30);

/// The dialect of Event Gateway 0.6 to 0.7: every method of the SDK.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_event_gateway_0_3() {
    let sandbox = Sandbox::processes(3).await;
    run("event-gateway-sdk-0.3.js", &sandbox).await;
}

/// The dialect of its last versions, from 0.8 on: every method but those of the connector, another server.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_of_event_gateway_0_11() {
    let sandbox = Sandbox::processes(3).await;
    run("event-gateway-sdk-0.11.js", &sandbox).await;
}

/// What the libraries emit, a function of functions-framework gets: each event once, with all its attributes and its data.
#[tokio::test(flavor = "multi_thread")]
async fn cloud_events_of_both_libraries_reach_a_functions_framework_function() {
    let sandbox = Sandbox::processes(3).await;
    let framework = library("venv/bin/functions-framework");
    let source = format!("--source={}", program::path("receiver.py").display());
    let command = [
        framework.to_str().expect("the checkout's path is UTF-8"),
        &source,
        "--target=receive",
    ];
    let record = Record::command("receiver", command)
        .env("HOST", "127.0.0.1")
        .env("PYTHONDONTWRITEBYTECODE", "1");
    sandbox.register(&record.concurrency(8).max(1)).await;
    let subscription = json!({"event": "com.example.*", "functionId": "receiver"});
    sandbox.subscribe(&subscription).await;

    let mut emitted = BTreeMap::new();
    for name in ["cloudevents-emit.js", "cloudevents_emit.py"] {
        let told = run(name, &sandbox).await;
        let events = told
            .lines()
            .filter_map(|line| line.strip_prefix("emitted "));
        emitted.extend(events.map(by_id));
    }
    assert_eq!(emitted.len(), 12 + 8, "two modes and a batch, two modes");
    eventually("each event came once, as it was", DELIVERED, || async {
        let got = received(&sandbox.node(2)).await;
        if got.len() == emitted.len()
            && got.iter().all(|(id, event)| emitted.get(id) == Some(event))
        {
            return Ok(());
        }
        Err(format!("got {got:#?}\nof {emitted:#?}"))
    })
    .await;
}

/// The CloudEvents that the function wrote to its log.
async fn received(node: &Node) -> Vec<(String, Value)> {
    let path = "/v1/spaces/default/functions/receiver/logs";
    let log = node.config(Method::GET, path, None).await.body;
    let texts = log.lines().map(|line| {
        let line: Value = serde_json::from_str(line).expect("a line of the log is JSON");
        line["text"].as_str().expect("a line has a text").to_owned()
    });
    texts
        .filter(|text| text.starts_with('{'))
        .map(|text| by_id(&text))
        .collect()
}

/// An event by its id. Of an event without data the libraries tell different types, or none.
fn by_id(event: &str) -> (String, Value) {
    let mut event: Value = serde_json::from_str(event).expect("an event is told in JSON");
    if event["data"].is_null() {
        event
            .as_object_mut()
            .expect("it is an object")
            .remove("datacontenttype");
    }
    (
        event["id"].as_str().expect("it has an id").to_owned(),
        event,
    )
}

/// Functions that get CloudEvents, as a library reads them.
#[tokio::test(flavor = "multi_thread")]
async fn webhooks_read_cloud_events_with_a_library() {
    let sandbox = Sandbox::processes(3).await;
    run("cloudevents-receive.js", &sandbox).await;
}

/// Section 9, as a browser has it: preflights, and what a page may read.
#[tokio::test(flavor = "multi_thread")]
async fn a_browser_reads_what_cors_allows() {
    let sandbox = Sandbox::processes(3).await;
    run("browser.js", &sandbox).await;
}
