//! Callbacks, `onSuccess` and `onFailure`: who hears of which end, and what.

use std::future::pending;
use std::sync::Arc;

use actors::executions::{Begun, Tell};
use gateway::{LeftUntold, Letter, Node};
use protocol::invocation::StartKind;
use protocol::{
    Component, Effect, ErrorCode, ExecutionId, Failure, Function, Phases, Space, Subscription, api,
};
use queue::{Queue, Stats};
use serde_json::value::to_raw_value;
use serde_json::{Value, json};

use crate::support::{Call, Sandbox, eventually, failed, replied};

/// An edge that knows these functions, each with its `delivery`, and those who subscribed: event and function.
fn start(functions: &[(&str, Value)], subscribers: &[(&str, &str)]) -> Sandbox {
    start_with(functions, subscribers, |_| {})
}

fn start_with(
    functions: &[(&str, Value)],
    subscribers: &[(&str, &str)],
    change: impl FnOnce(&mut config::Settings),
) -> Sandbox {
    let sandbox = Sandbox::with(change);
    let functions = functions.iter().map(|(id, delivery)| {
        let record = json!({
            "space": "default", "functionId": id, "type": "http", "delivery": delivery,
            "provider": { "url": "http://a.example/" }, "eventFormat": "cloudevents-structured",
        });
        serde_json::from_value::<Function>(record).unwrap()
    });
    let subscriptions = subscribers.iter().map(|(event, function)| {
        let record = json!({ "event": event, "functionId": function, "path": "/" });
        let record = serde_json::to_vec(&record).unwrap();
        Subscription::parse("default", &record).unwrap()
    });
    let registry = actors::scripted::registry(functions, subscriptions);
    *sandbox.node.registry.lock().unwrap() = Arc::new(registry);
    sandbox
}

fn url(url: &str) -> Value {
    json!({ "url": url })
}

impl Sandbox {
    async fn call_back(&self, function: &str, callback: Option<&str>) -> String {
        let body = json!({
            "function_name": function, "payload": { "a": 1 }, "async": true, "callback": callback,
        });
        let answer = Call::post("/invoke", body.to_string());
        let answer = answer.send(self.addresses.functions).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["execution"].as_str().unwrap().to_owned()
    }

    async fn emit_order(&self) {
        let call = Call::post("/", r#"{"n":1}"#)
            .header("event", "order.created")
            .header("content-type", "application/json");
        let answer = call.send(self.addresses.events).await;
        assert_eq!(answer.status, 202, "{answer:?}");
    }

    async fn read(&self, id: &str) -> Value {
        let path = format!("/v1/spaces/default/executions/{id}");
        let answer = Call::get(&path).send(self.addresses.config).await;
        answer.json()
    }

    /// Waits until nothing waits and nothing runs.
    async fn settled(&self) {
        eventually("everything is delivered", || {
            self.queues.custom.stats() == Stats::default()
        })
        .await;
    }

    /// What was posted, with its URL and data.
    fn posted(&self) -> Vec<(String, Letter, Value)> {
        let letters = self.queues.posts.letters.lock().unwrap();
        let letters = letters.iter().map(|(url, letter)| {
            let data = serde_json::from_slice(&letter.body).unwrap();
            (url.clone(), letter.clone(), data)
        });
        letters.collect()
    }

    /// The data of the CloudEvents that a function was called with.
    fn events(&self, function: &str) -> Vec<Value> {
        let requests = self.node.requests.lock().unwrap();
        let own = requests
            .iter()
            .filter(|request| request.function_id.as_str() == function && request.call.is_some());
        own.map(|request| serde_json::from_slice(&request.payload).unwrap())
            .collect()
    }
}

fn header(letter: &Letter, name: &str) -> String {
    let found = letter.headers.iter().find(|(known, _)| known == name);
    let (_, value) = found.unwrap_or_else(|| panic!("{name} is missing in {letter:?}"));
    String::from_utf8(value.to_vec()).unwrap()
}

fn failing(sandbox: &Sandbox) {
    sandbox.node.on_invoke(|_| async {
        let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
        Err(failed(code, component, Effect::Finished))
    });
}

/// What docs/api.md shows of an end: the JSON that follows the head of the request.
fn example() -> Value {
    let docs = include_str!("../../../docs/api.md");
    let (_, docs) = docs.split_once("ce-hearthdepth: 1").unwrap();
    let (_, docs) = docs.split_once("```json").unwrap();
    let (json, _) = docs.split_once("```").unwrap();
    serde_json::from_str(json).unwrap()
}

#[tokio::test]
async fn a_callback_is_told_the_end_of_its_execution() {
    let sandbox = start(&[("words", json!({}))], &[]);
    let id = sandbox.call_back("words", Some("http://h/back")).await;
    sandbox.settled().await;
    let [(url, letter, data)] = &sandbox.posted()[..] else {
        panic!("{:?}", sandbox.posted());
    };
    assert_eq!(url, "http://h/back");
    let mut expected = example();
    expected["execution"] = json!(id);
    assert_eq!(*data, expected);
    for (name, expected) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "hearth.invocation.ended"),
        ("ce-source", "/v1/spaces/default/functions/words"),
        ("ce-subject", id.as_str()),
        ("ce-hearthdepth", "1"),
    ] {
        assert_eq!(header(letter, name), expected, "{name}");
    }
    assert_eq!(letter.content_type, "application/json");
    let execution = sandbox.read(&id).await;
    assert_eq!(execution["callback"], "http://h/back");
    let told =
        json!([{ "destination": { "url": "http://h/back" }, "delivery": header(letter, "ce-id") }]);
    assert_eq!(execution["told"], told);
}

#[tokio::test]
async fn each_end_is_told_where_it_is_wanted() {
    let delivery = json!({
        "attempts": 1, "onSuccess": url("http://h/good"), "onFailure": url("http://h/bad"),
    });
    let sandbox = start(&[("f", delivery), ("plain", json!({}))], &[]);
    let told = |sandbox: &Sandbox| {
        let mut told = sandbox.posted();
        sandbox.queues.posts.letters.lock().unwrap().clear();
        told.sort_by(|one, other| one.0.cmp(&other.0));
        let told = told.into_iter();
        told.map(|(url, _, data)| (url, data["status"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let both = |second: &str, status: &str| {
        let urls = ["http://h/back", second];
        urls.map(|url| (url.to_owned(), status.to_owned()))
    };
    sandbox.call_back("f", Some("http://h/back")).await;
    sandbox.call_back("plain", None).await;
    sandbox.settled().await;
    let mut expected = both("http://h/good", "succeeded");
    assert_eq!(told(&sandbox), expected);
    failing(&sandbox);
    sandbox.call_back("f", Some("http://h/back")).await;
    sandbox.call_back("plain", None).await;
    sandbox.settled().await;
    expected = both("http://h/bad", "failed");
    expected.sort();
    assert_eq!(told(&sandbox), expected);
    // Somebody wanted it so: its function's destinations hear nothing of it.
    sandbox.node.on_invoke(|_| pending());
    let id = sandbox.call_back("f", Some("http://h/back")).await;
    let path = format!("/v1/spaces/default/executions/{id}");
    let answer = Call::new("DELETE", &path)
        .send(sandbox.addresses.config)
        .await;
    assert_eq!(
        answer.json()["told"][0]["destination"],
        url("http://h/back")
    );
    sandbox.settled().await;
    let cancelled = ("http://h/back".to_owned(), "cancelled".to_owned());
    assert_eq!(told(&sandbox), [cancelled]);
}

#[tokio::test]
async fn a_failure_is_told_with_its_reason() {
    let delivery = json!({ "attempts": 1, "onFailure": { "function": "g" } });
    let sandbox = start(
        &[("f", delivery), ("g", json!({}))],
        &[("order.created", "f")],
    );
    sandbox.node.on_invoke(|request| async move {
        match request.function_id.as_str() {
            "g" => Ok(replied(None, "")),
            _ => {
                let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
                Err(failed(code, component, Effect::Finished))
            }
        }
    });
    let id = sandbox.call_back("f", None).await;
    sandbox.settled().await;
    sandbox.emit_order().await;
    sandbox.settled().await;
    let [of_execution, of_event] = &sandbox.events("g")[..] else {
        panic!("{:?}", sandbox.events("g"));
    };
    let error =
        json!({ "code": "function_failed", "component": "function", "message": "the reason" });
    for event in [of_execution, of_event] {
        assert_eq!(event["type"], "hearth.invocation.ended", "{event}");
        assert_eq!(event["data"]["status"], "failed", "{event}");
        assert_eq!(event["data"]["error"], error, "{event}");
    }
    assert_eq!(of_execution["data"]["execution"], id);
    let data = &of_event["data"];
    assert_eq!(data["event"]["type"], "order.created", "{data}");
    assert_eq!(data["subscriptionId"], "order.created,f,%2F", "{data}");
    assert_eq!(data["payload"]["value"], json!({ "n": 1 }), "{data}");
    assert_eq!(data["delivery"], of_event["subject"], "{data}");
}

#[tokio::test]
async fn an_end_is_an_event_for_those_who_subscribed() {
    let delivery = json!({ "onSuccess": { "event": "order.done" } });
    let functions = [("f", delivery), ("g", json!({})), ("h", json!({}))];
    let subscribers = [
        ("order.done", "g"),
        ("order.done", "h"),
        ("order.created", "f"),
    ];
    let sandbox = start(&functions, &subscribers);
    sandbox.emit_order().await;
    sandbox.settled().await;
    for subscriber in ["g", "h"] {
        let [event] = &sandbox.events(subscriber)[..] else {
            panic!("{subscriber}: {:?}", sandbox.events(subscriber));
        };
        assert_eq!(event["type"], "order.done");
        assert_eq!(event["data"]["functionId"], "f");
        assert_eq!(event["data"]["result"]["status"], 200);
    }
}

#[tokio::test]
async fn functions_that_lead_to_each_other_come_to_an_end() {
    let to = |id: &str| json!({ "onSuccess": { "function": id }, "onFailure": { "function": id } });
    let functions = [("f", to("g")), ("g", to("f")), ("self", to("self"))];
    let sandbox = start_with(&functions, &[], |settings| {
        settings.destinations.depth_max = 5;
    });
    sandbox.call_back("f", None).await;
    sandbox.call_back("self", None).await;
    sandbox.settled().await;
    assert_eq!(
        (sandbox.events("g").len(), sandbox.events("f").len()),
        (3, 2)
    );
    let depths = sandbox.events("self");
    let depths: Vec<_> = depths.iter().map(|event| &event["hearthdepth"]).collect();
    assert_eq!(depths, ["1", "2", "3", "4", "5"]);
}

#[tokio::test]
async fn what_is_told_is_bounded() {
    let sandbox = start_with(&[("f", json!({}))], &[], |settings| {
        settings.destinations.value_max = bytesize::ByteSize::b(4);
    });
    sandbox.call_back("f", Some("http://h/back")).await;
    sandbox.settled().await;
    let (_, _, data) = &sandbox.posted()[0];
    for of in ["payload", "result"] {
        assert_eq!(data[of]["bytes"], 7, "{data}");
        assert_eq!(
            (&data[of]["truncated"], &data[of]["value"]),
            (&json!(true), &json!("{\"a\""))
        );
    }
}

/// A URL that could not be reached is asked again, with the same name.
#[tokio::test]
async fn a_url_that_is_away_is_told_when_it_is_back() {
    let sandbox = start_with(&[("f", json!({}))], &[], |settings| {
        settings.queue.retry_backoff = std::time::Duration::from_millis(1);
    });
    let away = Failure::new(
        ErrorCode::Unreachable,
        Component::Provider,
        Effect::Refused,
        "nobody listens",
    );
    *sandbox.queues.posts.refusals.lock().unwrap() = vec![away; 2];
    sandbox.call_back("f", Some("http://h/back")).await;
    sandbox.settled().await;
    assert!(sandbox.queues.posts.refusals.lock().unwrap().is_empty());
    assert_eq!(sandbox.posted().len(), 1);
    assert_eq!(sandbox.node.calls(), 1, "the function ran once");
}

/// Another node ended it and died before it could tell: who gets the delivery tells it, and calls nobody.
#[tokio::test]
async fn an_end_that_its_node_left_untold_is_told_without_a_call() {
    let sandbox = start(&[("f", json!({}))], &[]);
    let executions = sandbox.node.executions();
    let space = Space::default_space();
    let body = json!({
        "function_name": "f", "payload": 1, "async": true, "callback": "http://h/back", "delay_seconds": 0.3,
    });
    let submit = async || {
        let answer = sandbox.invoke(body.to_string()).await;
        let id = answer.json()["execution"].as_str().unwrap().to_owned();
        id.parse::<ExecutionId>().unwrap()
    };
    let id = submit().await;
    let begun = executions.begin(&space, id, 1).await.unwrap();
    let Begun::Run(run) = begun else {
        panic!("{begun:?}");
    };
    let result = api::ExecutionResult {
        status: 200,
        content_type: None,
        bytes: 4,
        truncated: false,
        value: to_raw_value("done").unwrap(),
        encoding: None,
    };
    let how = (StartKind::Warm, Phases::default());
    let ended = executions.succeed(&run, "n2", how, &result, false);
    ended.await.unwrap();
    sandbox.settled().await;
    let [(_, _, data)] = &sandbox.posted()[..] else {
        panic!("{:?}", sandbox.posted());
    };
    assert_eq!(data["execution"], id.to_string(), "{data}");
    assert_eq!(data["result"]["value"], "done", "{data}");
    assert_eq!(data["payload"]["value"], 1, "{data}");
    // One that has no delivery any more is told by the node that sweeps.
    let id = submit().await;
    let (_, untold) = executions.cancel(&space, id).await.unwrap();
    let sweeps = LeftUntold::new(Arc::clone(&sandbox.queues.emitter));
    assert!(sweeps.tell(untold.unwrap()).await);
    sandbox.settled().await;
    let statuses: Vec<_> = sandbox
        .posted()
        .into_iter()
        .map(|(_, _, data)| data["status"].clone())
        .collect();
    assert_eq!(statuses, ["succeeded", "cancelled"]);
    assert_eq!(sandbox.node.calls(), 0, "nobody is called");
}

#[tokio::test]
async fn a_record_names_destinations_that_there_are() {
    let sandbox = Sandbox::start();
    let register = async |id: &str, delivery: Value| {
        let provider = json!({ "url": "http://a.example/" });
        let record =
            json!({ "functionId": id, "type": "http", "provider": provider, "delivery": delivery });
        let call = Call::post("/v1/spaces/default/functions", record.to_string());
        sandbox.admin(call).await
    };
    let own = json!({ "onSuccess": { "function": "f" }, "onFailure": { "event": "f.failed" } });
    let answer = register("f", own.clone()).await;
    assert_eq!((answer.status, &answer.json()["delivery"]), (201, &own));
    let unknown = register("g", json!({ "onFailure": { "function": "nope" } })).await;
    assert_eq!(unknown.status, 404, "{unknown:?}");
    let told = "delivery.onFailure.function is \\\"nope\\\", expected a function";
    assert!(unknown.text().contains(told), "{unknown:?}");
    let wrong = register("g", json!({ "onFailure": { "url": "nope" } })).await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let call = Call::get("/v1/spaces/default/functions/g");
    assert_eq!(sandbox.admin(call).await.status, 404, "nothing is stored");
    let body = json!({ "function_name": "f", "async": true, "callback": "nope" });
    let answer = sandbox.invoke(body.to_string()).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("callback is"), "{answer:?}");
}
