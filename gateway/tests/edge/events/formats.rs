//! The forms of events, and functions whose answer is the client's as it is.

use protocol::invocation::{AnswerRule, Call as FunctionCall};

use super::*;

async fn call(function: &str, call: Call) -> (Answer, Request, Arc<FunctionCall>) {
    let sandbox = sandbox(&[("default", http("POST", "/a/:id", function))]);
    let answer = send(&sandbox, call).await;
    let request = sandbox.node.requests.lock().unwrap()[0].clone();
    let call = request.call.clone().unwrap();
    (answer, request, call)
}

fn post() -> Call {
    Call::post("/a/7?q=1", "{\"n\":1.0}")
        .header("content-type", "application/json")
        .header("x-mine", "1")
}

fn is_the_functions_own(answer: &Answer) {
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (418, Some("text/x-own"))
    );
    let head = answer.all("set-cookie");
    assert_eq!(head, ["a=1", "b=2"]);
    assert_eq!(answer.header("x-hearth-node"), Some("n1"), "ours stay ours");
}

#[tokio::test]
async fn binary_cloud_events_carry_the_same_data_as_the_envelope() {
    let (answer, request, call) = call("binary", post()).await;
    is_the_functions_own(&answer);
    assert_eq!(
        (call.method.as_str(), call.target.as_str(), call.answer),
        ("POST", "/", AnswerRule::Whole)
    );
    let header = |name: &str| {
        call.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
            .unwrap()
    };
    assert_eq!(header("ce-type"), "http");
    assert_eq!(
        header("ce-id"),
        answer.header("x-hearth-invocation").unwrap()
    );
    assert_eq!(header("ce-source"), "/a/7");
    assert!(header("ce-time").ends_with(b"Z"));
    let data: Value = serde_json::from_slice(&request.payload).unwrap();
    assert_eq!(
        (&data["params"], &data["body"]),
        (&json!({"id": "7"}), &json!({"n": 1.0}))
    );
}

#[tokio::test]
async fn structured_cloud_events_are_one_object() {
    let (answer, request, call) = call("structured", post()).await;
    is_the_functions_own(&answer);
    assert_eq!(request.content_type, "application/cloudevents+json");
    assert_eq!(call.headers, []);
    let event: Value = serde_json::from_slice(&request.payload).unwrap();
    assert_eq!(
        (&event["type"], &event["data"]["method"]),
        (&json!("http"), &json!("POST"))
    );
}

#[tokio::test]
async fn raw_functions_get_the_request_as_it_was_sent() {
    let sent = post()
        .header("te", "x")
        .header("x-hearth-node", "evil")
        .header("host", "a.example");
    let (answer, request, call) = call("raw", sent).await;
    is_the_functions_own(&answer);
    assert_eq!(answer.text(), "{\"n\":1.0}");
    assert_eq!(
        (call.method.as_str(), call.target.as_str()),
        ("POST", "/a/7?q=1")
    );
    assert_eq!(request.content_type, "application/json");
    let mut headers: Vec<_> = call
        .headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value)))
        .collect();
    headers.sort();
    assert_eq!(
        headers,
        [
            "host: a.example",
            "x-forwarded-host: a.example",
            "x-mine: 1"
        ]
    );
}

#[tokio::test]
async fn a_pooled_function_may_want_the_envelope() {
    let (answer, _, call) = call("pooled-envelope", post()).await;
    assert_eq!(answer.json()["event"], "http");
    assert_eq!(call.answer, AnswerRule::Envelope);
}
