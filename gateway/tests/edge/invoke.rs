//! `POST /invoke`: bodies, results, errors, headers.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use actors::invoker::{Completed, Failed};
use bytes::Bytes;
use protocol::invocation::{StartKind, TraceContext};
use protocol::{Component, Effect, ErrorCode, Failure, Phases};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Call, Sandbox, eventually, failed, replied};

const CALL: &str = r#"{"function_name":"hello","payload":{"b": 1.0}}"#;

#[tokio::test]
async fn a_result_comes_with_all_headers() {
    let sandbox = Sandbox::start();
    let answer = sandbox.invoke(CALL).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.text(),
        r#"{"message":"Function invoked successfully","result":{"b": 1.0}}"#
    );
    answer.has_common_headers();
    for (name, expected) in [
        ("content-type", "application/json"),
        ("x-hearth-node", "n1"),
        ("x-hearth-start", "warm"),
        ("x-hearth-route", "local"),
        ("server-timing", "route;dur=0.004, run;dur=1.250"),
    ] {
        assert_eq!(answer.header(name), Some(expected), "{name}");
    }
    let requests = sandbox.node.requests.lock().unwrap();
    let request = &requests[0];
    assert_eq!(request.space.as_str(), "default");
    assert_eq!(request.function_id.as_str(), "hello");
    assert_eq!(request.content_type, "application/json");
    assert_eq!(
        answer.header("x-hearth-invocation"),
        Some(request.id.as_str())
    );
}

#[tokio::test]
async fn a_forwarded_cold_call_names_the_node_where_it_ran() {
    let sandbox = Sandbox::start();
    sandbox.node.on_invoke(async |_| {
        let phases = Phases {
            forward: Some(90),
            create: Some(20_000),
            ..Phases::default()
        };
        Ok(Completed {
            node: "n2".into(),
            start: StartKind::Cold,
            is_forwarded: true,
            phases,
            ..replied(None, "x")
        })
    });
    let answer = sandbox.invoke(CALL).await;
    assert_eq!(answer.header("x-hearth-node"), Some("n2"));
    assert_eq!(answer.header("x-hearth-start"), Some("cold"));
    assert_eq!(answer.header("x-hearth-route"), Some("forwarded"));
    assert_eq!(
        answer.header("server-timing"),
        Some("forward;dur=0.090, create;dur=20.000")
    );
}

#[tokio::test]
async fn results_of_every_kind() {
    let sandbox = Sandbox::start();
    let check = async |content_type: Option<&'static str>, body: Bytes, expected: &str| {
        let reply = body.clone();
        sandbox.node.on_invoke(move |_| {
            let reply = reply.clone();
            async move { Ok(replied(content_type, reply)) }
        });
        let answer = sandbox.invoke(CALL).await;
        assert_eq!(answer.status, 200, "{content_type:?} {body:?}: {answer:?}");
        let expected =
            format!(r#"{{"message":"Function invoked successfully","result":{expected}}}"#);
        assert_eq!(answer.text(), expected, "{content_type:?} {body:?}");
    };
    let json = Some("application/json");
    check(json, " [1, 2.50]\n".into(), "[1, 2.50]").await;
    check(
        Some("application/problem+json; charset=utf-8"),
        "{}".into(),
        "{}",
    )
    .await;
    check(json, "".into(), "null").await;
    check(None, "".into(), "null").await;
    check(None, "{\"a\":1}\n".into(), r#""{\"a\":1}\n""#).await;
    check(
        Some("text/html"),
        "<p>\"é\"\u{1}".into(),
        r#""<p>\"é\"\u0001""#,
    )
    .await;
    check(
        Some("image/png"),
        Bytes::from_static(b"\xff\x00"),
        r#""/wA=","encoding":"base64""#,
    )
    .await;
    // Larger than what is copied into one piece.
    let large = format!("[\"{}\"]", "x".repeat(300_000));
    check(json, large.clone().into(), &large).await;
}

#[tokio::test]
async fn json_that_is_none_is_a_malformed_answer() {
    let sandbox = Sandbox::start();
    for body in ["{", "{} {}", "\u{feff}{}", "NaN"] {
        sandbox
            .node
            .on_invoke(move |_| async move { Ok(replied(Some("application/json"), body)) });
        let answer = sandbox.invoke(CALL).await;
        assert_eq!(answer.status, 502, "{body:?}");
        assert_eq!(
            answer.header("x-hearth-error"),
            Some("malformed_answer;function")
        );
        assert_eq!(answer.header("x-hearth-start"), Some("warm"));
        assert_eq!(
            answer.header("server-timing"),
            Some("route;dur=0.004, run;dur=1.250")
        );
    }
}

#[tokio::test]
async fn a_wrong_request_is_told_what_is_wrong() {
    let sandbox = Sandbox::start();
    for (body, expected) in [
        ("", "EOF"),
        ("{", "EOF"),
        ("\u{feff}{}", "no valid JSON"),
        ("[]", "the body is no object"),
        (r#"["hello"]"#, "the body is no object"),
        ("{}", "missing field `function_name`"),
        (
            r#"{"function_name":7}"#,
            "function_name: invalid type: integer `7`, expected",
        ),
        (r#"{"function_name":"a/b"}"#, r#"got "a/b""#),
        (
            r#"{"function_name":"hello","space":"x"}"#,
            "space: a space has at least 3 characters",
        ),
    ] {
        let answer = sandbox.invoke(body).await;
        assert_eq!(answer.status, 400, "{body}");
        answer.has_common_headers();
        assert_eq!(
            answer.header("x-hearth-error"),
            Some("invalid_request;gateway"),
            "{body}"
        );
        let json = answer.json();
        assert!(
            json["error"].as_str().unwrap().contains(expected),
            "{body}: {json}"
        );
        assert_eq!(json["code"], "invalid_request");
        assert_eq!(json["component"], "gateway");
        assert_eq!(json["node"], "n1");
        assert_eq!(
            json["invocation"].as_str(),
            answer.header("x-hearth-invocation")
        );
    }
    let not_utf8 = sandbox
        .invoke(b"{\"function_name\":\"hello\",\"payload\":\"\xff\"}")
        .await;
    assert_eq!(not_utf8.status, 400);
    assert_eq!(sandbox.node.calls(), 0);
}

#[tokio::test]
async fn fields_that_are_absent_or_unknown_are_fine() {
    let sandbox = Sandbox::start();
    let answer = sandbox
        .invoke(r#"{"more":[1],"space":"team.a","function_name":"f"}"#)
        .await;
    assert_eq!(answer.json()["result"], json!(null));
    assert_eq!(
        sandbox.node.requests.lock().unwrap()[0].space.as_str(),
        "team.a"
    );
}

#[tokio::test]
async fn failures_have_status_code_and_component() {
    let sandbox = Sandbox::start();
    let check =
        async |code: ErrorCode, component: Component, effect: Effect, status: u16, text: &str| {
            sandbox
                .node
                .on_invoke(move |_| async move { Err(failed(code, component, effect)) });
            let answer = sandbox.invoke(CALL).await;
            assert_eq!(answer.status, status, "{code}");
            answer.has_common_headers();
            assert_eq!(
                answer.header("x-hearth-error"),
                Some(format!("{code};{component}").as_str())
            );
            assert_eq!(answer.header("x-hearth-route"), Some("local"));
            assert_eq!(
                answer.header("retry-after").is_some(),
                matches!(status, 429 | 503),
                "{code}"
            );
            assert_eq!(answer.json()["error"], text);
        };
    let may_have_run = "the reason; the function may have run";
    check(
        ErrorCode::FunctionNotFound,
        Component::Gateway,
        Effect::Refused,
        404,
        "Function not found",
    )
    .await;
    check(
        ErrorCode::PayloadTooLarge,
        Component::Gateway,
        Effect::Refused,
        413,
        "the reason",
    )
    .await;
    check(
        ErrorCode::FunctionBusy,
        Component::Gateway,
        Effect::Refused,
        429,
        "the reason",
    )
    .await;
    check(
        ErrorCode::FunctionFailed,
        Component::Function,
        Effect::Finished,
        502,
        "the reason",
    )
    .await;
    check(
        ErrorCode::Interrupted,
        Component::Peer,
        Effect::Interrupted,
        502,
        may_have_run,
    )
    .await;
    check(
        ErrorCode::Overloaded,
        Component::Gateway,
        Effect::Refused,
        503,
        "the reason",
    )
    .await;
    check(
        ErrorCode::EngineUnavailable,
        Component::Provider,
        Effect::Refused,
        503,
        "the reason",
    )
    .await;
    check(
        ErrorCode::DeadlineExceeded,
        Component::Function,
        Effect::Interrupted,
        504,
        may_have_run,
    )
    .await;
}

#[tokio::test]
async fn a_failure_elsewhere_names_that_node_and_when_to_come_back() {
    let sandbox = Sandbox::start();
    sandbox.node.on_invoke(async |_| {
        let failure = Failure::new(
            ErrorCode::FunctionBusy,
            Component::Peer,
            Effect::Refused,
            "all slots are taken",
        );
        let failure = failure.at_node("n3").retry_after_ms(1_500);
        Err(Box::new(Failed {
            failure,
            is_forwarded: true,
            phases: Phases {
                queue: Some(7),
                ..Phases::default()
            },
            standing: None,
        }))
    });
    let answer = sandbox.invoke(CALL).await;
    assert_eq!(answer.header("x-hearth-node"), Some("n3"));
    assert_eq!(answer.header("x-hearth-route"), Some("forwarded"));
    assert_eq!(answer.header("retry-after"), Some("2"));
    assert_eq!(answer.header("server-timing"), Some("queue;dur=0.007"));
    assert_eq!(answer.json()["node"], "n3");
}

#[tokio::test]
async fn an_invocation_that_went_nowhere_names_no_route() {
    let sandbox = Sandbox::start();
    sandbox.node.on_invoke(async |_| {
        let failed = failed(
            ErrorCode::FunctionNotFound,
            Component::Gateway,
            Effect::Refused,
        );
        Err(Box::new(Failed {
            phases: Phases::default(),
            ..*failed
        }))
    });
    let answer = sandbox.invoke(CALL).await;
    assert_eq!(answer.status, 404);
    answer.has_common_headers();
    assert_eq!(answer.header("x-hearth-route"), None);
}

#[tokio::test]
async fn other_paths_and_methods() {
    let sandbox = Sandbox::start();
    let address = sandbox.addresses.functions;
    let answer = Call::get("/invoke").send(address).await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
    assert!(answer.json()["error"].as_str().unwrap().contains("POST"));
    let answer = Call::post("/invoke/", CALL).send(address).await;
    assert_eq!(
        (answer.status, answer.header("x-hearth-error")),
        (404, Some("not_found;gateway"))
    );
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .contains("POST /invoke")
    );
    let answer = Call::get("/").send(address).await;
    assert_eq!(
        (answer.status, answer.json()["node"].as_str()),
        (200, Some("n1"))
    );
    answer.has_common_headers();
    let answer = Call::post("/invoke?trace=1", CALL).send(address).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_client_that_hangs_up_cancels_its_invocation() {
    let sandbox = Sandbox::start();
    sandbox
        .node
        .on_invoke(async |_| std::future::pending().await);
    let mut stream = TcpStream::connect(sandbox.addresses.functions)
        .await
        .unwrap();
    stream
        .write_all(&Call::post("/invoke", CALL).bytes())
        .await
        .unwrap();
    eventually("the call", || sandbox.node.calls() == 1).await;
    drop(stream);
    eventually("the cancellation", || {
        sandbox.node.cancelled.load(Ordering::SeqCst) == 1
    })
    .await;
}

#[tokio::test]
async fn one_connection_carries_many_calls() {
    let sandbox = Sandbox::start();
    let mut stream = TcpStream::connect(sandbox.addresses.functions)
        .await
        .unwrap();
    let call = Call::post("/invoke", CALL).header("connection", "keep-alive");
    let mut ids = Vec::new();
    for _ in 0..20 {
        stream.write_all(&call.bytes()).await.unwrap();
        let answer = Answer::read_one(&mut stream).await;
        assert_eq!(answer.status, 200);
        ids.push(answer.header("x-hearth-invocation").unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "each call has an id of its own");
}

#[tokio::test]
async fn trace_context_is_handed_on_as_it_came() {
    let sandbox = Sandbox::start();
    let call = Call::post("/invoke", CALL)
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tracestate", "a=1")
        .header("tracestate", "b=2");
    call.send(sandbox.addresses.functions).await;
    let trace = sandbox.node.requests.lock().unwrap()[0].trace.clone();
    assert_eq!(
        trace.parent.as_deref(),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    assert_eq!(trace.state.as_deref(), Some("a=1,b=2"));
}

#[tokio::test]
async fn with_telemetry_its_context_is_handed_on() {
    let propagate: gateway::Propagate = Arc::new(|headers, _span| TraceContext {
        parent: headers
            .get("traceparent")
            .map(|parent| format!("child of {}", parent.to_str().unwrap())),
        state: None,
    });
    let sandbox = Sandbox::with_propagate(|_| {}, Some(propagate));
    Call::post("/invoke", CALL)
        .header("traceparent", "p")
        .send(sandbox.addresses.functions)
        .await;
    assert_eq!(
        sandbox.node.requests.lock().unwrap()[0]
            .trace
            .parent
            .as_deref(),
        Some("child of p")
    );
}
