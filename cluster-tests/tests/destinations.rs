//! Callbacks and destinations: the end of whatever was accepted is told at least once, whatever happens to the nodes.
//!
//! What is told comes to webhooks of the test itself, which outlives all nodes.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use cluster_tests::api::send;
use cluster_tests::{Does, Node, Record, Sandbox, Webhook, eventually, until};
use futures_util::{StreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};

/// How long ends may take to their destinations, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Invokes a function without waiting, as often as it takes through these nodes, and says which execution that is.
async fn submit(nodes: &[Node], number: usize, body: &Value) -> String {
    for attempt in 0.. {
        let node = &nodes[(number + attempt) % nodes.len()];
        let request = node.request(Method::POST, &node.functions_url("/invoke"));
        let request = request
            .header("prefer", "respond-async")
            .header("idempotency-key", format!("k{number}"));
        if let Ok(answer) = send(request.json(body)).await
            && answer.status == 202
        {
            return answer.json()["execution"].as_str().unwrap().to_owned();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    unreachable!("it is tried until it is accepted")
}

/// What was told of each end, by `name` of its data: the statuses, in their order.
fn told(hook: &Webhook, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for envelope in hook.envelopes() {
        // A function of type `http` gets the envelope, a URL the data alone.
        let data = envelope.get("data").unwrap_or(&envelope);
        let of = data.pointer(name).and_then(Value::as_str).unwrap();
        let status = data["status"].as_str().unwrap();
        told.entry(of.to_owned())
            .or_default()
            .push(status.to_owned());
    }
    told
}

/// Waits for a dead letter of that code.
async fn dead_letter(node: &Node, code: &str) -> Value {
    eventually(&format!("a dead letter says {code}"), PATIENCE, || async {
        let dead = node.dead_letters().await;
        let found = dead.iter().find(|letter| letter["code"] == code).cloned();
        found.ok_or_else(|| format!("{dead:?}"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_execution_is_called_back_while_nodes_are_killed() {
    kill_each_while_ends_are_told(Sandbox::processes(3).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nats_every_execution_is_called_back_while_nodes_are_killed() {
    let sandbox = Sandbox::builder().nodes(3).nats().start().await;
    kill_each_while_ends_are_told(sandbox).await;
}

/// Each node is killed once while executions end on it, so some die between an end and the telling of it.
#[expect(
    clippy::print_stdout,
    reason = "what came of it is worth a line in the log of the run"
)]
async fn kill_each_while_ends_are_told(sandbox: Sandbox) {
    let [work, back, hears] = [Does::Answer("{}"), Does::Answer(""), Does::FailFirst(1)];
    let (work, back, hears) = tokio::join!(
        Webhook::start(work),
        Webhook::start(back),
        Webhook::start(hears)
    );
    sandbox.register(&Record::http("hears", hears.url())).await;
    let to_function = json!({ "function": "hears" });
    let record = Record::http("work", work.url()).delivery("onSuccess", to_function);
    sandbox.register(&record).await;
    let nodes = sandbox.nodes();
    let accepted = Mutex::new(Vec::new());
    let body = json!({ "function_name": "work", "payload": 1, "callback": back.url() });
    let submitting = stream::iter(0..450)
        .map(|number| {
            let (nodes, body, accepted) = (&nodes, &body, &accepted);
            async move {
                let id = submit(nodes, number, body).await;
                accepted.lock().unwrap().push(id);
            }
        })
        .buffer_unordered(16)
        .collect::<()>();
    let killing = async {
        for (place, node) in nodes.iter().enumerate() {
            let count = 100 * (place + 1);
            let what = format!("{count} are accepted");
            until(&what, PATIENCE, || async {
                accepted.lock().unwrap().len() >= count
            })
            .await;
            node.kill9();
            node.restart();
            node.wait_ready(PATIENCE).await;
        }
    };
    tokio::join!(submitting, killing);
    let accepted = accepted.into_inner().unwrap();
    // The function refuses each end once.
    for (what, hook, times) in [("called back", &back, 1), ("told its function", &hears, 2)] {
        let what = format!("all {} were {what}", accepted.len());
        eventually(&what, PATIENCE, || async {
            let told = told(hook, "/execution");
            let missing: Vec<_> = accepted
                .iter()
                .filter(|id| told.get(*id).is_none_or(|told| told.len() < times))
                .collect();
            match missing.is_empty() {
                true => Ok(()),
                false => Err(format!("{} are missing: {missing:?}", missing.len())),
            }
        })
        .await;
    }
    let ends = told(&back, "/execution");
    assert_eq!(
        ends.len(),
        accepted.len(),
        "no end is told of what was not accepted"
    );
    let is_one = |statuses: &Vec<String>| statuses.iter().all(|status| status == "succeeded");
    assert!(ends.values().all(is_one), "{ends:?}");
    let twice = ends.values().filter(|statuses| statuses.len() > 1).count();
    println!(
        "{} ends were told, {twice} of them more than once",
        ends.len()
    );
}

/// On one node with its queue on disk: what becomes a dead letter is told, each time that the node is killed in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn every_dead_letter_is_told_while_its_node_is_killed() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let node = sandbox.node(0);
    let refuses = Does::AnswerWith("404 Not Found", "no such order");
    let (refuses, hears) = tokio::join!(Webhook::start(refuses), Webhook::start(Does::Answer("")));
    let to_url = json!({ "url": hears.url() });
    let record = Record::http("refuses", refuses.url()).delivery("onFailure", to_url);
    sandbox.register(&record).await;
    let subscription = json!({ "event": "tick", "functionId": "refuses" });
    sandbox.subscribe(&subscription).await;
    let accepted = Mutex::new(Vec::new());
    let emitting = stream::iter(0..300)
        .map(|number| {
            let (node, accepted) = (&node, &accepted);
            async move {
                loop {
                    if let Ok(answer) = node.try_emit("tick", &json!(number)).await
                        && answer.status == 202
                    {
                        accepted.lock().unwrap().push(answer.invocation.unwrap());
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .buffer_unordered(8)
        .collect::<()>();
    let killing = async {
        for kills in 1..=3 {
            let what = format!("{} are accepted", kills * 70);
            until(&what, PATIENCE, || async {
                accepted.lock().unwrap().len() >= kills * 70
            })
            .await;
            node.kill9();
            node.restart();
            node.wait_ready(PATIENCE).await;
        }
    };
    tokio::join!(emitting, killing);
    let accepted = accepted.into_inner().unwrap();
    eventually("each is told and is a dead letter", PATIENCE, || async {
        let told = told(&hears, "/event/id");
        let dead = node.dead_letters().await;
        let is_dead = |id: &String| dead.iter().any(|letter| letter["eventId"] == **id);
        let missing: Vec<_> = accepted
            .iter()
            .filter(|id| !told.contains_key(*id) || !is_dead(id))
            .collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(format!("{} are missing: {missing:?}", missing.len())),
        }
    })
    .await;
    let first = hears.envelopes().remove(0);
    assert_eq!(first["status"], "failed", "{first}");
    assert_eq!(first["attempts"], 1, "{first}");
    assert_eq!(first["error"]["status"], 404, "{first}");
    assert_eq!(first["error"]["answer"], "no such order", "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_told_is_a_dead_letter_with_its_reason() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_QUEUE__ATTEMPTS_MAX", "1")
        .env("HEARTH_DESTINATIONS__DEPTH_MAX", "3")
        .start()
        .await;
    let node = sandbox.node(0);
    let (work, back) = tokio::join!(
        Webhook::start(Does::Answer("{}")),
        Webhook::start(Does::AnswerWith("410 Gone", "moved out"))
    );
    // The URL refuses: the execution is what it is, and its record says which delivery tells it.
    sandbox.register(&Record::http("plain", work.url())).await;
    let body = json!({ "function_name": "plain", "callback": back.url() });
    let id = submit(std::slice::from_ref(&node), 0, &body).await;
    let dead = dead_letter(&node, "function_failed").await;
    assert_eq!(dead["destination"], json!({ "url": back.url() }), "{dead}");
    assert_eq!(
        (&dead["status"], &dead["answer"]),
        (&json!(410), &json!("moved out"))
    );
    let path = format!("/v1/spaces/default/executions/{id}");
    let execution = node.config(Method::GET, &path, None).await.json();
    assert_eq!(execution["status"], "succeeded", "{execution}");
    assert_eq!(execution["told"][0]["delivery"], dead["id"], "{execution}");
    // It is told when the URL is back and the dead letter redriven.
    back.now(Does::Answer(""));
    let path = format!("/v1/dead-letters/{}/redrive", dead["id"].as_str().unwrap());
    let redriven = node.config(Method::POST, &path, None).await;
    assert_eq!(redriven.status, 204, "{redriven:?}");
    until("it is told", PATIENCE, || async {
        back.envelopes().len() == 2
    })
    .await;
    // The destination was deleted meanwhile.
    sandbox.register(&Record::http("gone", work.url())).await;
    let to_gone = json!({ "function": "gone" });
    let record = Record::http("leads", work.url()).delivery("onSuccess", to_gone);
    sandbox.register(&record).await;
    node.delete("gone").await;
    submit(
        std::slice::from_ref(&node),
        1,
        &json!({ "function_name": "leads" }),
    )
    .await;
    let dead = dead_letter(&node, "function_not_found").await;
    assert_eq!(dead["destination"], json!({ "function": "gone" }), "{dead}");
    // A function that leads to itself.
    let to_itself = json!({ "function": "itself" });
    let record = Record::http("itself", work.url()).delivery("onSuccess", to_itself);
    sandbox.register(&record).await;
    submit(
        std::slice::from_ref(&node),
        2,
        &json!({ "function_name": "itself" }),
    )
    .await;
    let dead = dead_letter(&node, "invalid_request").await;
    let why = dead["message"].as_str().unwrap();
    assert!(why.contains("destinations.depth_max"), "{dead}");
}

/// With auth nobody may have a node call its own machine, unless the settings say so.
#[tokio::test(flavor = "multi_thread")]
async fn with_auth_a_callback_leads_nowhere_inward_that_is_not_listed() {
    let back = Webhook::start(Does::Answer("")).await;
    for allow in ["[]", r#"["127.0.0.1"]"#] {
        let sandbox = Sandbox::builder()
            .nodes(1)
            .embedded()
            .auth_required()
            .env("HEARTH_OUTBOUND__ALLOW", allow)
            .start()
            .await;
        let node = sandbox.node(0);
        let record = Record::command("cat", ["cat"]).stdio();
        sandbox.register(&record).await;
        let body = json!({ "function_name": "cat", "payload": 1, "callback": back.url() });
        submit(std::slice::from_ref(&node), 0, &body).await;
        if allow == "[]" {
            let dead = dead_letter(&node, "forbidden").await;
            let why = dead["message"].as_str().unwrap();
            assert!(why.contains("127.0.0.1 is at 127.0.0.1"), "{dead}");
            assert!(why.contains("outbound.allow"), "{dead}");
            assert!(back.envelopes().is_empty());
        } else {
            until("it is told", PATIENCE, || async {
                back.envelopes().len() == 1
            })
            .await;
        }
    }
}
