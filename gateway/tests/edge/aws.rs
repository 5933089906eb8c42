//! AWS Lambda's API at the edge: who is let in, and how calls that come to nothing are told.

use std::sync::Arc;

use actors::Registry;
use actors::scripted::registry;
use protocol::{Component, Effect, ErrorCode, Function};
use serde_json::json;

use crate::support::{Answer, Call, Sandbox, failed};

const INVOKE: &str = "/2015-03-31/functions/hello/invocations";

/// An edge behind which `hello` is known.
fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    let record = br#"{"functionId":"hello","type":"http","provider":{"url":"http://a.example/b"}}"#;
    let hello = Function::parse("default", None, record).unwrap();
    let known: Registry = registry([hello], []);
    *sandbox.node.registry.lock().unwrap() = Arc::new(known);
    sandbox
}

async fn send(sandbox: &Sandbox, call: Call) -> Answer {
    let answer = call.send(sandbox.addresses.functions).await;
    answer.has_common_headers();
    assert!(answer.header("x-amzn-requestid").is_some());
    answer
}

#[tokio::test]
async fn a_call_is_answered_with_the_payload_alone() {
    let sandbox = sandbox();
    let answer = send(&sandbox, Call::post(INVOKE, r#"{"b": 1.0}"#)).await;
    assert_eq!((answer.status, answer.text()), (200, r#"{"b": 1.0}"#));
    assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(answer.header("x-amz-function-error"), None);
    let requests = sandbox.node.requests.lock().unwrap();
    assert_eq!(
        answer.header("x-amzn-requestid"),
        Some(requests[0].id.as_str())
    );
}

#[tokio::test]
async fn without_auth_hosts_and_origins_are_those_of_this_machine() {
    let sandbox = sandbox();
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let answer = send(&sandbox, Call::post(INVOKE, "{}").header(name, value)).await;
        assert_eq!(answer.status, 403, "{value}");
        assert_eq!(
            answer.header("x-amzn-errortype"),
            Some("AccessDeniedException")
        );
        assert!(answer.json()["Message"].as_str().unwrap().contains(value));
    }
    assert_eq!(sandbox.node.calls(), 0);
}

#[tokio::test]
async fn what_the_function_did_is_told_apart_from_what_became_of_the_call() {
    let sandbox = sandbox();
    let (function, provider) = (Component::Function, Component::Provider);
    for (code, component, effect, status, told) in [
        (
            ErrorCode::FunctionFailed,
            function,
            Effect::Finished,
            200,
            "Function.Failed",
        ),
        (
            ErrorCode::DeadlineExceeded,
            function,
            Effect::Interrupted,
            200,
            "Sandbox.Timedout",
        ),
        (
            ErrorCode::PayloadTooLarge,
            function,
            Effect::Finished,
            200,
            "Function.ResponseSizeTooLarge",
        ),
        (
            ErrorCode::FunctionBusy,
            provider,
            Effect::Refused,
            429,
            "TooManyRequestsException",
        ),
        (
            ErrorCode::Overloaded,
            provider,
            Effect::Refused,
            503,
            "ServiceException",
        ),
        (
            ErrorCode::Interrupted,
            Component::Peer,
            Effect::Interrupted,
            502,
            "ServiceException",
        ),
        (
            ErrorCode::StartFailed,
            provider,
            Effect::Refused,
            502,
            "ServiceException",
        ),
    ] {
        sandbox
            .node
            .on_invoke(move |_| async move { Err(failed(code, component, effect)) });
        let answer = Call::post(INVOKE, "{}")
            .send(sandbox.addresses.functions)
            .await;
        let error = answer.header("x-hearth-error").unwrap();
        assert_eq!(error, format!("{code};{component}"));
        assert_eq!(answer.status, status, "{code}");
        let is_of_function = status == 200;
        let expected = is_of_function.then_some("Unhandled");
        assert_eq!(answer.header("x-amz-function-error"), expected, "{code}");
        let found = match is_of_function {
            true => answer.json()["errorType"].as_str().unwrap().to_owned(),
            false => answer.header("x-amzn-errortype").unwrap().to_owned(),
        };
        assert_eq!(found, told, "{code}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_in_aws_words() {
    let sandbox = sandbox();
    let check = async |call: Call, status: u16, kind: &str, body: serde_json::Value| {
        let answer = send(&sandbox, call).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert_eq!(answer.header("x-amzn-errortype"), Some(kind));
        assert_eq!(answer.json(), body);
    };
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:nothing";
    check(
        Call::post("/2015-03-31/functions/nothing/invocations", "{}"),
        404,
        "ResourceNotFoundException",
        json!({"Type": "User", "Message": format!("Function not found: {arn}")}),
    )
    .await;
    let answer = send(&sandbox, Call::new("PATCH", INVOKE)).await;
    assert_eq!(answer.status, 405);
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = send(&sandbox, Call::get("/2018-10-31/layers")).await;
    assert_eq!(
        answer.header("x-amzn-errortype"),
        Some("UnknownOperationException")
    );
    assert_eq!(sandbox.node.calls(), 0);
}

#[tokio::test]
async fn a_payload_has_its_limits() {
    let sandbox = Sandbox::with(|settings| {
        settings.lambda.payload_max = bytesize::ByteSize::b(10);
        settings.lambda.event_payload_max = bytesize::ByteSize::b(4);
    });
    let record = br#"{"functionId":"hello","type":"http","provider":{"url":"http://a.example/b"}}"#;
    let hello = Function::parse("default", None, record).unwrap();
    *sandbox.node.registry.lock().unwrap() = Arc::new(registry([hello], []));
    for (kind, payload, expected) in [
        ("RequestResponse", "\"12345678\"", 200),
        ("RequestResponse", "\"123456789\"", 413),
        ("Event", "\"123\"", 413),
        ("DryRun", "\"123\"", 204),
        ("Other", "{}", 400),
    ] {
        let call = Call::post(INVOKE, payload).header("x-amz-invocation-type", kind);
        let answer = send(&sandbox, call).await;
        assert_eq!(answer.status, expected, "{kind} {payload}");
    }
}
