//! The events API, rule by rule: each case names the section of Event Gateway's behaviour that it holds.

use std::sync::Arc;

use actors::invoker::{Completed, Failed, Request};
use actors::scripted::registry;
use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Function, Reply, Subscription};
use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox, failed, replied};

mod authorized;
mod cloud_events;
mod cors;
mod dispatch;
mod formats;
mod http_events;
mod invoke;
mod responses;
mod shapes;
pub(crate) mod streams;
mod system;
mod typed;

/// Functions by id: their type and form, which the ids tell.
fn functions(space: &str) -> Vec<Function> {
    let webhook = json!({"type": "http", "provider": {"url": "http://a.example/b"}});
    let process = json!({"type": "process", "provider": {"command": ["x"]}});
    let records = [
        ("f", webhook.clone(), None),
        ("g", webhook.clone(), None),
        ("answers", webhook, None),
        ("binary", process.clone(), None),
        ("pooled-envelope", process.clone(), Some("envelope")),
        (
            "structured",
            process.clone(),
            Some("cloudevents-structured"),
        ),
        ("raw", process, Some("raw")),
    ];
    let record = |(id, mut record, format): (&str, Value, Option<&str>)| {
        record["space"] = json!(space);
        record["functionId"] = json!(id);
        if let Some(format) = format {
            record["eventFormat"] = json!(format);
        }
        serde_json::from_value(record).unwrap()
    };
    records.into_iter().map(record).collect()
}

/// An edge whose node knows these subscriptions, each with its space; a subscription is its record as a client writes it.
pub(crate) fn sandbox(subscriptions: &[(&str, Value)]) -> Sandbox {
    let sandbox = Sandbox::start();
    subscribe(&sandbox, subscriptions);
    sandbox
}

pub(crate) fn subscribe(sandbox: &Sandbox, subscriptions: &[(&str, Value)]) {
    let parse = |(space, record): &(&str, Value)| {
        Subscription::parse(space, record.to_string().as_bytes()).unwrap()
    };
    let functions = ["default", "other"].into_iter().flat_map(functions);
    let known = registry(functions, subscriptions.iter().map(parse));
    *sandbox.node.registry.lock().unwrap() = Arc::new(known);
    sandbox.node.on_invoke(async |request| run(request));
}

/// What the functions do. One in envelope form tells in its answer what it got; the function `answers` answers with the body of
/// the request as it is.
fn run(request: Request) -> Result<Completed, Box<Failed>> {
    match request.function_id.as_str() {
        "answers" => {
            let envelope: Value = serde_json::from_slice(&request.payload).unwrap();
            let body = &envelope["data"]["body"];
            Ok(replied(None, body.to_string()))
        }
        "f" | "g" | "pooled-envelope" => {
            let got = String::from_utf8(request.payload.to_vec()).unwrap();
            let object = json!({"headers": {"X-Function": request.function_id, "X-Space": request.space}, "body": got});
            Ok(replied(None, object.to_string()))
        }
        _ => {
            let header = |name: &str, value: &str| {
                (name.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
            };
            let reply = Reply {
                status: 418,
                content_type: Some("text/x-own".to_owned()),
                headers: vec![
                    header("set-cookie", "a=1"),
                    header("set-cookie", "b=2"),
                    header("x-hearth-node", "evil"),
                ],
                body: request.payload.into(),
                ..Reply::default()
            };
            Ok(Completed {
                reply,
                ..replied(None, "")
            })
        }
    }
}

/// An `http` subscription.
pub(crate) fn http(method: &str, path: &str, function: &str) -> Value {
    json!({"event": "http", "method": method, "path": path, "functionId": function})
}

pub(crate) async fn send(sandbox: &Sandbox, call: Call) -> Answer {
    let answer = call.send(sandbox.addresses.events).await;
    for name in ["x-hearth-invocation", "x-hearth-node"] {
        assert!(answer.header(name).is_some(), "{answer:?}");
    }
    answer
}

/// Holds that a request is refused so, in Event Gateway's shape.
pub(crate) async fn refused(sandbox: &Sandbox, call: Call, status: u16, message: &str) {
    let answer = send(sandbox, call).await;
    answer.has_common_headers();
    let expected = json!({"errors": [{"message": message}]}).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "section 2"
    );
}

/// The envelope that the function `f` or `g` told it got.
pub(crate) async fn envelope(sandbox: &Sandbox, call: Call) -> Value {
    let answer = send(sandbox, call).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

pub(crate) fn function_error() -> Box<Failed> {
    failed(
        ErrorCode::FunctionFailed,
        Component::Function,
        Effect::Finished,
    )
}
