//! The inner listener: who is let in, which API a request is for, in which space it is, and when it stops to listen.

use std::net::IpAddr;

use async_trait::async_trait;
use config::settings::AuthMode;
use gateway::{Callers, Stranger};
use protocol::Space;
use serde_json::json;

use crate::events::{http, subscribe};
use crate::support::{Answer, Call, PATIENCE, Sandbox};

/// The instances of a node: the token `mine` is one's in the space `other`, at 127.0.0.1; `elsewhere` is that of one elsewhere.
#[derive(Debug)]
pub(crate) struct ScriptedCallers;

#[async_trait]
impl Callers for ScriptedCallers {
    async fn space_of(&self, token: &[u8], from: IpAddr) -> Result<Space, Stranger> {
        match token {
            b"mine" if from.is_loopback() => Ok("other".parse().unwrap()),
            b"elsewhere" => Err(Stranger::OtherAddress),
            _ => Err(Stranger::UnknownToken),
        }
    }
}

fn with_auth(mode: AuthMode) -> Sandbox {
    let sandbox = Sandbox::with(|settings| settings.auth.mode = mode);
    let emitted = |event: &str| json!({"event": event, "path": "/", "functionId": "f"});
    let raw = |path: &str| http("POST", path, "raw");
    subscribe(
        &sandbox,
        &[
            ("default", http("GET", "/where", "f")),
            ("other", http("GET", "/where", "f")),
            ("default", http("GET", "/default", "f")),
            ("other", raw("/raw")),
            ("other", raw("/invoke")),
            ("default", emitted("user.created")),
            ("other", emitted("user.created")),
            (
                "other",
                json!({"event": "invoke", "path": "/", "functionId": "f"}),
            ),
        ],
    );
    sandbox
}

async fn send(sandbox: &Sandbox, call: Call) -> Answer {
    let answer = call.send(sandbox.inner).await;
    assert!(answer.header("x-hearth-invocation").is_some(), "{answer:?}");
    assert_eq!(answer.header("x-hearth-node"), Some("n1"), "{answer:?}");
    answer
}

fn mine(call: Call) -> Call {
    call.header("authorization", "Bearer mine")
}

fn invoke(body: &str) -> Call {
    Call::post("/invoke", body)
}

#[tokio::test]
async fn only_instances_are_let_in_whatever_the_mode() {
    for mode in [AuthMode::Off, AuthMode::Required] {
        let sandbox = with_auth(mode);
        let call = || invoke(r#"{"function_name":"binary"}"#);
        for (header, status, error) in [
            (None, 401, "unauthorized;gateway"),
            (Some("Bearer "), 401, "unauthorized;gateway"),
            (Some("Bearer mine2"), 401, "unauthorized;gateway"),
            (Some("Basic mine"), 401, "unauthorized;gateway"),
            // The administrator's is none of an instance.
            (Some("Bearer 0123456789abcdef"), 401, "unauthorized;gateway"),
            (Some("Bearer elsewhere"), 403, "forbidden;gateway"),
        ] {
            for call in [call(), Call::get("/where"), Call::new("OPTIONS", "/where")] {
                let call = match header {
                    Some(value) => call.header("authorization", value),
                    None => call,
                };
                let answer = send(&sandbox, call).await;
                let told = answer.header("x-hearth-error");
                assert_eq!((answer.status, told), (status, Some(error)), "{header:?}");
            }
        }
        assert_eq!(sandbox.node.calls(), 0);
        // The rules for browsers do not apply: the container knows its node by an address, or any name.
        let call = mine(call()).header("host", "172.18.0.1:28000");
        let call = call.header("origin", "https://any.example");
        assert_eq!(send(&sandbox, call).await.status, 200);
    }
}

#[tokio::test]
async fn both_apis_are_there_and_no_other() {
    let sandbox = with_auth(AuthMode::Off);
    let answer = send(&sandbox, mine(invoke(r#"{"function_name":"f"}"#))).await;
    assert_eq!(answer.json()["message"], "Function invoked successfully");
    // An event that is emitted to the path of the functions API is an event.
    let event = invoke("{}").header("event", "user.created");
    assert_eq!(send(&sandbox, mine(event)).await.status, 202);
    let event = invoke("{}").header("ce-type", "user.created");
    let event = event.header("ce-specversion", "1.0");
    let event = event.header("ce-id", "1").header("ce-source", "/x");
    assert_eq!(send(&sandbox, mine(event)).await.status, 202);
    for (call, status, message) in [
        (Call::get("/where"), 200, ""),
        (Call::post("/raw", "x"), 418, ""),
        // The functions API has its shape of errors, and the events API has its own.
        (Call::get("/api/v1/none"), 404, "there is nothing at"),
        (invoke("[]"), 400, "the body is no object"),
        (Call::get("/invoke"), 404, "resource not found"),
        (Call::get("/"), 404, "resource not found"),
        (Call::get("/v1/status"), 404, "resource not found"),
        (
            Call::get("/v1/spaces/other/functions"),
            404,
            "resource not found",
        ),
        (Call::get("/metrics"), 404, "resource not found"),
    ] {
        let answer = send(&sandbox, mine(call)).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.text().contains(message), "{answer:?}");
    }
}

#[tokio::test]
async fn a_call_is_in_the_space_of_its_caller() {
    let by_id = || Call::get("/where").header("space", "default");
    let emit = || Call::post("/", "{}").header("event", "user.created");
    let run = || {
        Call::post("/", "{}")
            .header("event", "invoke")
            .header("function-id", "f")
    };
    let named = r#"{"function_name":"binary","space":"default"}"#;
    for (mode, abroad) in [(AuthMode::Off, 200), (AuthMode::Required, 403)] {
        let sandbox = with_auth(mode);
        for (call, status, space) in [
            (invoke(r#"{"function_name":"binary"}"#), 200, "other"),
            (
                invoke(r#"{"function_name":"binary","space":"other"}"#),
                200,
                "other",
            ),
            (invoke(named), abroad, "default"),
            (Call::get("/where"), 200, "other"),
            (by_id(), abroad, "default"),
            (run(), 200, "other"),
            (Call::get("/default"), 404, ""),
        ] {
            let before = sandbox.node.calls();
            let answer = send(&sandbox, mine(call)).await;
            assert_eq!(answer.status, status, "{mode:?} {answer:?}");
            let called = sandbox.node.requests.lock().unwrap()[before..]
                .iter()
                .map(|request| request.space.to_string())
                .collect::<Vec<_>>();
            let expected: &[&str] = if status == 200 { &[space] } else { &[] };
            assert_eq!(called, expected, "{mode:?}");
            if status == 403 {
                let told = answer.text();
                assert!(told.contains("default") && told.contains("other"), "{told}");
            }
        }
        // A client's event reaches every space, a function's its own.
        let before = sandbox.node.calls();
        assert_eq!(send(&sandbox, mine(emit())).await.status, 202);
        let came = || sandbox.node.requests.lock().unwrap()[before..].len();
        crate::support::eventually("it was delivered", || came() == 1).await;
        let request = sandbox.node.requests.lock().unwrap()[before].clone();
        assert_eq!(request.space.as_str(), "other");
    }
}

#[tokio::test]
async fn a_token_is_handed_on_to_nobody() {
    let sandbox = with_auth(AuthMode::Off);
    let call = mine(Call::post("/raw", "x")).header("x-mine", "1");
    assert_eq!(send(&sandbox, call).await.status, 418);
    assert_eq!(send(&sandbox, mine(Call::get("/where"))).await.status, 200);
    let requests = sandbox.node.requests.lock().unwrap();
    let raw = requests[0].call.as_ref().unwrap();
    let names: Vec<&str> = raw.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"x-mine") && !names.contains(&"authorization"));
    for request in requests.iter() {
        let payload = String::from_utf8_lossy(&request.payload);
        assert!(!payload.contains("Bearer"), "{payload}");
    }
}

#[tokio::test]
async fn instances_are_served_until_clients_have_their_answers() {
    let mut sandbox = with_auth(AuthMode::Off);
    let inner = sandbox.inner;
    sandbox.shutdown.cancel();
    let serving = sandbox.serving.take().unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    assert!(serving.finish(deadline).await);
    for call in [
        invoke(r#"{"function_name":"binary"}"#),
        Call::get("/where"),
        Call::post("/", "{}").header("event", "user.created"),
    ] {
        let status = send(&sandbox, mine(call)).await.status;
        assert!(matches!(status, 200 | 202), "{status}");
    }
    assert!(serving.end(deadline).await);
    assert!(tokio::net::TcpStream::connect(inner).await.is_err());
}
