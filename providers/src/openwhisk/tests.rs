use protocol::{Effect, ErrorCode};
use serde_json::json;

use super::*;
use crate::http::tests::{answer, invocation, limits, server};

fn openwhisk() -> OpenWhisk {
    // A second test of the process finds it installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cloud = CloudSettings {
        backoff: std::time::Duration::from_millis(1),
        ..CloudSettings::default()
    };
    OpenWhisk::new((&HttpSettings::default(), &cloud), limits(), None).unwrap()
}

fn function(host: &str, action: &str) -> Function {
    let record = json!({
        "functionId": "f", "type": "openwhisk",
        "provider": {"apiHost": host, "action": action, "key": "user:password"},
    });
    Function::parse("default", None, record.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn an_action_is_invoked_and_its_result_is_the_answer() {
    let activation = json!({
        "activationId": "a1", "logs": [], "response": {"status": "success", "success": true, "result": {"b": 2}},
    });
    let (address, mut requests) = server(vec![answer("200 OK", "", &activation.to_string())]).await;
    let function = function(&format!("http://{address}"), "tools/hello world");
    let reply = openwhisk().invoke(&function, &invocation()).await.unwrap();
    let told = (reply.status, reply.content_type.as_deref());
    assert_eq!(told, (200, Some("application/json")));
    assert_eq!(reply.body.whole(), r#"{"b":2}"#);
    let sent = requests.recv().await.unwrap();
    let line =
        "POST /api/v1/namespaces/_/actions/tools/hello%20world?blocking=true&result=false HTTP/1.1";
    assert!(sent.starts_with(line), "{sent}");
    // user:password
    assert!(
        sent.contains("authorization: Basic dXNlcjpwYXNzd29yZA==\r\n"),
        "{sent}"
    );
    assert!(sent.ends_with(r#"{"a":1}"#), "{sent}");
}

#[tokio::test]
async fn a_failed_action_is_told_apart_from_a_failed_openwhisk() {
    let ended = |status: &str| {
        let response = json!({"status": status, "success": false, "result": {"error": "oh"}});
        json!({"activationId": "a1", "response": response}).to_string()
    };
    let error = |said: &str| json!({"error": said, "code": "x"}).to_string();
    for (status, body, code, effect, said) in [
        (
            "502 Bad Gateway",
            ended("application error"),
            ErrorCode::FunctionFailed,
            Effect::Finished,
            "application error: {\"error\":\"oh\"} (activation a1)",
        ),
        (
            "502 Bad Gateway",
            ended("action developer error"),
            ErrorCode::FunctionFailed,
            Effect::Finished,
            "developer error",
        ),
        (
            "502 Bad Gateway",
            ended("whisk internal error"),
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "internal error",
        ),
        (
            "202 Accepted",
            r#"{"activationId":"a1"}"#.to_owned(),
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "activation a1",
        ),
        (
            "401 Unauthorized",
            error("The supplied authentication is invalid."),
            ErrorCode::Unreachable,
            Effect::Refused,
            "authentication is invalid",
        ),
        (
            "404 Not Found",
            error("The requested resource does not exist."),
            ErrorCode::Unreachable,
            Effect::Refused,
            "action _/hello: status 404",
        ),
        (
            "429 Too Many Requests",
            error("Too many requests in the last minute."),
            ErrorCode::FunctionBusy,
            Effect::Refused,
            "Too many",
        ),
        (
            "413 Too Large",
            error("too large"),
            ErrorCode::PayloadTooLarge,
            Effect::Refused,
            "too large",
        ),
        (
            "500 Oh",
            error("There was an internal server error."),
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "internal server",
        ),
        (
            "200 OK",
            "[]".to_owned(),
            ErrorCode::MalformedAnswer,
            Effect::Finished,
            "status 200",
        ),
    ] {
        let (address, _requests) = server(vec![answer(status, "", &body)]).await;
        let function = function(&format!("http://{address}"), "hello");
        let error = openwhisk()
            .invoke(&function, &invocation())
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.effect()), (code, effect), "{error}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_object_or_too_large_is_not_sent() {
    let function = function("http://127.0.0.1:1", "hello");
    for (payload, code) in [
        (Bytes::from_static(b"[1]"), ErrorCode::InvalidRequest),
        (Bytes::from_static(b"text"), ErrorCode::InvalidRequest),
        (" ".repeat(1_048_577).into(), ErrorCode::PayloadTooLarge),
    ] {
        let invocation = Invocation {
            payload,
            ..invocation()
        };
        let error = openwhisk()
            .invoke(&function, &invocation)
            .await
            .unwrap_err();
        assert_eq!((error.code(), error.effect()), (code, Effect::Refused));
    }
}
