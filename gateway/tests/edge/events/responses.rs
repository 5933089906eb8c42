//! Section 7: response objects, through the function `answers`.

use super::*;

async fn answer_to(sandbox: &Sandbox, object: &str) -> Answer {
    let call = Call::post("/", object).header("content-type", "application/json");
    send(sandbox, call).await
}

#[tokio::test]
async fn a_response_object_is_the_clients_answer() {
    let sandbox = sandbox(&[("default", http("POST", "/", "answers"))]);
    let cases: [(&str, u16, &[u8], Option<&str>); 8] = [
        ("{}", 200, b"", None),
        ("null", 200, b"", None),
        (
            r#"{"statusCode": 201, "body": "made"}"#,
            201,
            b"made",
            Some("text/plain; charset=utf-8"),
        ),
        (
            r#"{"body": "<html></html>"}"#,
            200,
            b"<html></html>",
            Some("text/html; charset=utf-8"),
        ),
        (
            r#"{"headers": {"content-type": "a/b"}, "body": "<html>"}"#,
            200,
            b"<html>",
            Some("a/b"),
        ),
        (r#"{"statusCode": 204}"#, 204, b"", None),
        (
            r#"{"isBase64Encoded": true, "body": "/wD+"}"#,
            200,
            b"\xff\x00\xfe",
            Some("application/octet-stream"),
        ),
        (
            r#"{"more": 1, "body": "x"}"#,
            200,
            b"x",
            Some("text/plain; charset=utf-8"),
        ),
    ];
    for (object, status, body, content_type) in cases {
        let answer = answer_to(&sandbox, object).await;
        let got = (
            answer.status,
            answer.body.as_slice(),
            answer.header("content-type"),
        );
        assert_eq!(got, (status, body, content_type), "section 7: {object}");
    }
    let answer = answer_to(&sandbox, r#"{"statusCode": 404, "headers": {"X-A": "1", "x-hearth-node": "evil", "connection": "upgrade"}}"#).await;
    assert_eq!((answer.status, answer.header("x-a")), (404, Some("1")));
    assert_eq!(answer.header("x-hearth-node"), Some("n1"));
    assert_ne!(answer.header("connection"), Some("upgrade"));
}

#[tokio::test]
async fn anything_else_is_malformed() {
    let sandbox = sandbox(&[("default", http("POST", "/", "answers"))]);
    for object in [
        "[]",
        "5",
        "\"x\"",
        r#"{"statusCode":"1"}"#,
        r#"{"headers":{"a":1}}"#,
        r#"{"body":{}}"#,
        r#"{"statusCode":99}"#,
    ] {
        let call = Call::post("/", object).header("content-type", "application/json");
        refused(&sandbox, call, 500, "HTTP response object malformed").await;
    }
    for body in ["", "{", "plain", "{} {}"] {
        sandbox
            .node
            .on_invoke(move |_| async move { Ok(replied(Some("application/json"), body)) });
        refused(
            &sandbox,
            Call::post("/", ""),
            500,
            "HTTP response object malformed",
        )
        .await;
    }
}
