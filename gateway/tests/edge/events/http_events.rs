//! Section 7: the envelope of `http` events.

use super::*;

fn any(path: &str) -> Vec<(&'static str, Value)> {
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    methods
        .map(|method| ("default", http(method, path, "f")))
        .into()
}

#[tokio::test]
async fn the_envelope_has_its_five_members() {
    let sandbox = sandbox(&any("/a"));
    let answer = send(
        &sandbox,
        Call::post("/a?x=1", "{\"n\": 1.10}").header("content-type", "application/json"),
    )
    .await;
    let text = answer.text();
    let told = answer.json();
    let names: Vec<_> = told
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert_eq!(told["event"], "http");
    assert_eq!(told["id"], answer.header("x-hearth-invocation").unwrap());
    let id = told["id"].as_str().unwrap();
    assert!(
        id.len() == 36 && id.as_bytes()[14] == b'4' && id == id.to_lowercase(),
        "{id}"
    );
    assert!(told["receivedAt"].as_u64().unwrap() > 1_600_000_000_000);
    assert_eq!(told["dataType"], "application/json");
    let members = told["data"].as_object().unwrap();
    assert_eq!(members.len(), 7, "{members:?}");
    assert!(
        text.contains(r#""body":{"n": 1.10}"#),
        "numbers stay exact: {text}"
    );
    // What is sent to a webhook, and how its answer is read.
    let request = sandbox.node.requests.lock().unwrap()[0].clone();
    assert_eq!(request.content_type, "application/json");
    let call = request.call.unwrap();
    assert_eq!((call.method.as_str(), call.target.as_str()), ("POST", "/"));
    assert_eq!(call.headers, [], "none of the original headers");
}

#[tokio::test]
async fn bodies_are_told_by_their_media_type() {
    let sandbox = sandbox(&any("/a"));
    let cases: [(&str, &[u8], Value, &str); 10] = [
        ("application/json", b"[1]", json!([1]), "application/json"),
        ("application/json", b"null", json!(null), "application/json"),
        ("application/json", b"", json!(""), "application/json"),
        (
            "application/json; charset=utf-8",
            b"{}",
            json!({}),
            "application/json; charset=utf-8",
        ),
        (
            "application/vnd.a+json",
            b"{}",
            json!({}),
            "application/vnd.a+json",
        ),
        ("text/plain", b"hi", json!("aGk="), "text/plain"),
        (
            "application/x-www-form-urlencoded",
            b"a=1",
            json!("YT0x"),
            "application/x-www-form-urlencoded",
        ),
        ("image/png", b"\xff\x00", json!("/wA="), "image/png"),
        ("", b"hi", json!("aGk="), "application/octet-stream"),
        ("", b"", json!(""), "application/octet-stream"),
    ];
    for (content_type, body, told, data_type) in cases {
        let call = Call::post("/a", body);
        let call = match content_type {
            "" => call,
            content_type => call.header("content-type", content_type),
        };
        let envelope = envelope(&sandbox, call).await;
        let got = (&envelope["data"]["body"], &envelope["dataType"]);
        assert_eq!(got, (&told, &json!(data_type)), "section 7: {content_type}");
    }
}

#[tokio::test]
async fn data_tells_the_request() {
    let sandbox = sandbox(&any("/a"));
    let call = Call::new("PUT", "/a?b=2&a=1&b=3&c=%20x+y")
        .header("x-request-id", "7")
        .header("accept", "a/b")
        .header("accept", "c/d")
        .header("x-hop", "1")
        .header("connection", "close, x-hop")
        .header("te", "trailers")
        .header("host", "example.com:81");
    let data = envelope(&sandbox, call).await["data"].take();
    assert_eq!(data["method"], "PUT");
    assert_eq!(data["host"], "example.com:81");
    assert_eq!(
        data["query"],
        json!({"b": ["2", "3"], "a": ["1"], "c": [" x y"]})
    );
    let headers = json!({"X-Request-Id": "7", "Accept": "a/b, c/d", "Content-Length": "0"});
    assert_eq!(
        data["headers"], headers,
        "canonical, joined, without Host and what is of the connection"
    );
    let data = envelope(&sandbox, Call::new("PATCH", "/a")).await["data"].take();
    assert_eq!(
        (&data["query"], &data["params"], &data["body"]),
        (&json!({}), &json!({}), &json!(""))
    );
    // Section 9: a plain OPTIONS request is an event like any other.
    let data = envelope(&sandbox, Call::new("OPTIONS", "/a")).await["data"].take();
    assert_eq!(data["method"], "OPTIONS");
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let sandbox = sandbox(&any("/a"));
    let answer = send(&sandbox, Call::new("HEAD", "/a")).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert!(
        answer
            .header("content-length")
            .is_some_and(|length| length != "0"),
        "{answer:?}"
    );
    let answer = send(&sandbox, Call::new("HEAD", "/nowhere")).await;
    assert_eq!((answer.status, answer.text()), (404, ""));
}

#[tokio::test]
async fn every_answer_says_where_and_how_it_ran() {
    let sandbox = sandbox(&any("/a"));
    let answer = send(&sandbox, Call::get("/a")).await;
    let told = [
        "x-hearth-node",
        "x-hearth-start",
        "x-hearth-route",
        "server-timing",
    ];
    let told = told.map(|name| answer.header(name).unwrap_or_default());
    assert_eq!(
        told,
        ["n1", "warm", "local", "route;dur=0.004, run;dur=1.250"]
    );
}

/// Section 7: the client is told nothing of the cause. What the original could not run into has statuses of its own.
#[tokio::test]
async fn a_failed_call_is_500_and_says_no_more() {
    let sandbox = sandbox(&any("/a"));
    let message = "Function call failed. Please check logs.";
    for (code, effect, status) in [
        (ErrorCode::FunctionFailed, Effect::Finished, 500),
        (ErrorCode::Unreachable, Effect::Refused, 500),
        (ErrorCode::DeadlineExceeded, Effect::Interrupted, 500),
        (ErrorCode::Interrupted, Effect::Interrupted, 500),
        (ErrorCode::FunctionNotFound, Effect::Refused, 500),
        (ErrorCode::MalformedAnswer, Effect::Finished, 500),
        (ErrorCode::FunctionBusy, Effect::Refused, 429),
        (ErrorCode::Overloaded, Effect::Refused, 503),
    ] {
        sandbox
            .node
            .on_invoke(move |_| async move { Err(failed(code, Component::Provider, effect)) });
        refused(&sandbox, Call::get("/a"), status, message).await;
        let answer = send(&sandbox, Call::get("/a")).await;
        assert_eq!(
            answer.header("x-hearth-error"),
            Some(format!("{code};provider").as_str())
        );
        assert_eq!(answer.header("retry-after").is_some(), status != 500);
    }
}

/// Section 10: changes come one after the other. The original answered 500 to a subscription whose function it did not know yet, or
/// no more; here it is as good as none.
#[tokio::test]
async fn a_subscription_without_its_function_is_none() {
    let invoke = json!({"event": "invoke", "path": "/", "functionId": "gone"});
    let subscriptions = [
        ("default", http("GET", "/gone", "gone")),
        ("default", invoke),
    ];
    let sandbox = sandbox(&subscriptions);
    refused(&sandbox, Call::get("/gone"), 404, "resource not found").await;
    let call = Call::post("/", "")
        .header("event", "invoke")
        .header("function-id", "gone");
    refused(&sandbox, call, 404, "function or subscription not found").await;
}
