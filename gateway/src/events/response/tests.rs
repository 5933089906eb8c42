use http::header::ACCESS_CONTROL_ALLOW_ORIGIN;

use super::*;

fn fields() -> HeaderMap {
    let origin = HeaderValue::from_static("*");
    let vary = HeaderValue::from_static("Origin");
    HeaderMap::from_iter([(ACCESS_CONTROL_ALLOW_ORIGIN, origin), (VARY, vary)])
}

fn shown(response: &Response<AnswerBody>) -> (u16, Bytes, String) {
    let body = match response.body() {
        AnswerBody::Pieces([body, ..]) => body.clone(),
        AnswerBody::Stream(_) | AnswerBody::Routed(_) | AnswerBody::Counted(..) => Bytes::new(),
    };
    let lines = response.headers().iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        format!("{name}: {value}")
    });
    let mut lines: Vec<_> = lines
        .filter(|line| {
            !line.starts_with("vary: Origin") && line != "access-control-allow-origin: *"
        })
        .collect();
    lines.sort();
    (response.status().as_u16(), body, lines.join("; "))
}

fn check(object: &str, status: u16, body: &'static [u8], headers: &str) {
    let response = from_object(object.as_bytes(), fields()).expect(object);
    let expected = (status, Bytes::from_static(body), headers.to_owned());
    assert_eq!(shown(&response), expected, "{object}");
}

/// Section 7: what a response object comes to.
#[test]
fn response_objects() {
    let text = "content-type: text/plain; charset=utf-8";
    check("{}", 200, b"", "");
    check("null", 200, b"", "");
    check(" { } ", 200, b"", "");
    check(r#"{"statusCode":201,"body":"x"}"#, 201, b"x", text);
    check(
        r#"{"statusCode":null,"headers":null,"body":null}"#,
        200,
        b"",
        "",
    );
    check(
        r#"{"unknown":{"a":[1]},"body":"\u00e9"}"#,
        200,
        "é".as_bytes(),
        text,
    );
    check(r#"{"StatusCode":202,"BODY":"x"}"#, 202, b"x", text);
    check(r#"{"statusCode":999}"#, 999, b"", "");
    check(r#"{"statusCode":204,"body":"x"}"#, 204, b"", "");
    check(
        r#"{"headers":{"X-A":"1","Content-Type":"a/b"},"body":"x"}"#,
        200,
        b"x",
        "content-type: a/b; x-a: 1",
    );
    check(
        r#"{"headers":{"Access-Control-Allow-Origin":"http://a"}}"#,
        200,
        b"",
        "access-control-allow-origin: http://a",
    );
    check(
        r#"{"headers":{"X-A":"1\r\nX-B: 2","bad name":"x","X-C":null}}"#,
        200,
        b"",
        "x-a: 1  X-B: 2; x-c: ",
    );
    check(
        r#"{"headers":{"Connection":"close","Content-Length":"9","Transfer-Encoding":"chunked","X-Hearth-Node":"evil"},"body":"x"}"#,
        200,
        b"x",
        text,
    );
    check(
        r#"{"body":"<!DOCTYPE html><p>"}"#,
        200,
        b"<!DOCTYPE html><p>",
        "content-type: text/html; charset=utf-8",
    );
    check(
        r#"{"isBase64Encoded":true,"body":"iVBORw0KGgo="}"#,
        200,
        b"\x89PNG\r\n\x1a\n",
        "content-type: image/png",
    );
    check(
        r#"{"headers":{"Content-Encoding":"gzip"},"isBase64Encoded":true,"body":"H4s="}"#,
        200,
        b"\x1f\x8b",
        "content-encoding: gzip",
    );
    check(
        r#"{"isBase64Encoded":false,"body":"H4s="}"#,
        200,
        b"H4s=",
        text,
    );
}

/// Section 7: what is malformed.
#[test]
fn malformed_response_objects() {
    for object in [
        "",
        " ",
        "[]",
        "[200]",
        "5",
        "\"text\"",
        "true",
        "{",
        "{} x",
        r#"{"statusCode":"200"}"#,
        r#"{"statusCode":200.5}"#,
        r#"{"statusCode":99}"#,
        r#"{"statusCode":1000}"#,
        r#"{"statusCode":100}"#,
        r#"{"statusCode":-1}"#,
        r#"{"headers":[]}"#,
        r#"{"headers":{"a":1}}"#,
        r#"{"headers":{"a":["b"]}}"#,
        r#"{"body":{}}"#,
        r#"{"body":1}"#,
        r#"{"isBase64Encoded":"yes"}"#,
        r#"{"isBase64Encoded":true,"body":"*"}"#,
    ] {
        let response = from_object(object.as_bytes(), fields());
        assert!(response.is_err(), "{object}");
    }
}

#[test]
fn a_whole_answer_keeps_status_headers_and_body() {
    let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from(value));
    let reply = || Reply {
        status: 418,
        content_type: Some("a/b".to_owned()),
        headers: vec![
            header("set-cookie", "a=1"),
            header("set-cookie", "b=2"),
            header("access-control-allow-origin", "http://a"),
            header("vary", "accept"),
            header("x-hearth-node", "evil"),
            header("content-length", "7"),
        ],
        body: Bytes::from_static(b"x").into(),
        ended: None,
    };
    let response = whole(reply(), fields(), false).unwrap();
    let headers = "access-control-allow-origin: http://a; content-type: a/b; set-cookie: a=1; set-cookie: b=2; vary: accept";
    assert_eq!(
        shown(&response),
        (418, Bytes::from_static(b"x"), headers.to_owned())
    );
    let vary: Vec<_> = response.headers().get_all(VARY).iter().collect();
    assert_eq!(vary, ["Origin", "accept"]);
    let of_head = whole(reply(), fields(), true).unwrap();
    assert_eq!(of_head.headers()[CONTENT_LENGTH], "7");
    for status in [0, 99, 101, 1000] {
        let reply = Reply { status, ..reply() };
        assert!(whole(reply, fields(), false).is_err(), "{status}");
    }
}
