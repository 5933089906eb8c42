//! CloudEvents 1.0 as they come in: each refusal names the attribute.

use super::*;
use crate::support::eventually;

fn binary() -> Call {
    Call::post("/", "hi")
        .header("ce-specversion", "1.0")
        .header("ce-id", "1")
        .header("ce-source", "/s")
}

fn structured(body: &str) -> Call {
    Call::post("/", body).header(
        "content-type",
        "application/cloudevents+json; charset=utf-8",
    )
}

fn batch(body: &str) -> Call {
    Call::post("/", body).header("content-type", "application/cloudevents-batch+json")
}

#[tokio::test]
async fn what_is_no_cloud_event_is_refused() {
    let sandbox = sandbox(&[]);
    let refuse = async |call: Call, why: &str| {
        let message = format!("CloudEvent is not valid: {why}");
        refused(&sandbox, call, 400, &message).await;
    };
    refuse(binary(), "ce-type is missing").await;
    refuse(
        binary().header("ce-type", "a").header("ce-time", "noon"),
        "ce-time is no time as RFC 3339 writes them",
    )
    .await;
    refuse(
        binary().header("ce-type", "a").header("ce-id", "2"),
        "ce-id is there twice",
    )
    .await;
    refuse(
        binary()
            .header("ce-type", "a")
            .header("content-type", "application/json"),
        "the body is no valid JSON, as its content type says",
    )
    .await;
    refuse(structured("{"), "the body is no JSON object").await;
    refuse(
        structured(r#"{"specversion":"1.0","id":"1","type":"a"}"#),
        "source is missing",
    )
    .await;
    refuse(
        structured(r#"{"specversion":"0.3","id":"1","type":"a","source":"/"}"#),
        "specversion is not supported, expected 1.0",
    )
    .await;
    refuse(batch("{}"), "the body is no JSON array").await;
    let avro = Call::post("/", "").header("content-type", "application/cloudevents+avro");
    refuse(
        avro,
        "the format application/cloudevents+avro is not supported, only JSON is",
    )
    .await;
    let in_batch = r#"[{"specversion":"1.0","id":"1","type":"gateway.a","source":"/"},{"specversion":"1.0","type":"a","source":"/"}]"#;
    refused(
        &sandbox,
        batch(in_batch),
        400,
        "event 1 of the batch: CloudEvent is not valid: id is missing",
    )
    .await;
}

#[tokio::test]
async fn events_of_the_gateways_own_names_reach_nobody() {
    let sandbox = sandbox(&[]);
    let answer = send(&sandbox, binary().header("ce-type", "gateway.x")).await;
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert_eq!(send(&sandbox, batch("[]")).await.status, 202);
}

/// An event of the type `invoke` runs its function, however it came.
#[tokio::test]
async fn an_invoke_event_may_come_as_a_cloud_event() {
    let sandbox = sandbox(&[(
        "default",
        json!({"event": "invoke", "functionId": "binary"}),
    )]);
    let call = binary()
        .header("ce-type", "invoke")
        .header("ce-tenant", "t")
        .header("function-id", "binary");
    let answer = send(&sandbox, call).await;
    assert_eq!((answer.status, answer.text()), (200, "hi"));
    let call = sandbox.node.requests.lock().unwrap()[0]
        .call
        .clone()
        .unwrap();
    let header = |name: &str| {
        call.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(header("ce-id"), Some("1".into()));
    assert_eq!(header("ce-source"), Some("/s".into()));
    assert_eq!(header("ce-tenant"), Some("t".into()));
    let body = r#"[{"specversion":"1.0","id":"1","type":"invoke","source":"/"}]"#;
    let message =
        "an event of the type invoke is answered by its function and can not come in a batch";
    refused(&sandbox, batch(body), 400, message).await;
}

/// An event that was emitted in any mode reaches its subscribers with all its attributes.
#[tokio::test]
async fn every_mode_is_accepted_and_delivered() {
    let sandbox = sandbox(&[(
        "default",
        json!({"event": "user.created", "functionId": "binary", "path": "/p"}),
    )]);
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"user.created","tenant":"t","datacontenttype":"text/plain","data":"hi"}"#;
    let headers = |call: Call| {
        call.header("ce-specversion", "1.0")
            .header("ce-id", "1")
            .header("ce-source", "/s")
            .header("ce-type", "user.created")
            .header("ce-tenant", "t")
    };
    let calls = [
        headers(Call::post("/p", "hi")).header("content-type", "text/plain"),
        Call::post("/p", event).header("content-type", "application/cloudevents+json"),
        Call::post("/p", format!("[{event}]"))
            .header("content-type", "application/cloudevents-batch+json"),
    ];
    for (count, call) in calls.into_iter().enumerate() {
        let answer = send(&sandbox, call).await;
        assert_eq!((answer.status, answer.text()), (202, ""));
        eventually("it is delivered", || sandbox.node.calls() == count + 1).await;
        let request = sandbox.node.requests.lock().unwrap()[count].clone();
        assert_eq!(
            (&request.payload[..], request.content_type.as_str()),
            (&b"hi"[..], "text/plain")
        );
        let call = request.call.unwrap();
        let header = |name: &str| {
            call.headers
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, value)| value.clone())
        };
        for (name, value) in [
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "user.created"),
            ("ce-tenant", "t"),
        ] {
            assert_eq!(header(name), Some(value.into()), "{count} {name}");
        }
    }
}
