//! Limits, and shapes of requests with which one hides another: what each is answered.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::*;

/// Sends bytes as they are and reads until the connection ends.
async fn raw(sandbox: &Sandbox, bytes: &str) -> Answer {
    let mut stream = TcpStream::connect(sandbox.addresses.events).await.unwrap();
    let _ = stream.write_all(bytes.as_bytes()).await;
    let _ = stream.shutdown().await;
    Answer::read_to_end(&mut stream).await
}

/// Each is answered once, and what is behind it is never taken for a request of its own. Of two lengths the chunks count, as
/// RFC 9112 has it, and no function is told the other one.
#[tokio::test]
async fn no_request_hides_in_another() {
    let sandbox = sandbox(&[
        ("default", http("POST", "/a", "f")),
        ("default", http("GET", "/hidden", "g")),
    ]);
    let hidden = "GET /hidden HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let post = |fields: &str, body: &str| {
        format!("POST /a HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{fields}\r\n{body}")
    };
    let chunked = "transfer-encoding: chunked\r\n";
    let mut wrong = Vec::new();
    for (shape, bytes, status) in [
        (
            "both lengths",
            post(
                "content-length: 4\r\ntransfer-encoding: chunked\r\n",
                &format!("0\r\n\r\n{hidden}"),
            ),
            200,
        ),
        (
            "both lengths, other order",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 0\r\n",
                &format!("0\r\n\r\n{hidden}"),
            ),
            200,
        ),
        (
            "two content lengths",
            post("content-length: 4\r\ncontent-length: 5\r\n", "abcde"),
            400,
        ),
        (
            "a list of lengths",
            post("content-length: 4, 5\r\n", "abcde"),
            400,
        ),
        (
            "a signed length",
            post("content-length: +4\r\n", "abcd"),
            400,
        ),
        (
            "a hexadecimal length",
            post("content-length: 0x4\r\n", "abcd"),
            400,
        ),
        (
            "a chunk without size",
            post(chunked, "x\r\nabc\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk longer than its size",
            post(chunked, "3\r\nabcdef\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk with a negative size",
            post(chunked, "-1\r\n\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a size beyond all numbers",
            post(chunked, "ffffffffffffffffff\r\n"),
            400,
        ),
        (
            "an encoding that is not chunked",
            post("transfer-encoding: gzip\r\n", "abcd"),
            400,
        ),
        (
            "chunked is not last",
            post("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
            400,
        ),
        (
            "a space before the colon",
            post("content-length : 4\r\n", "abcd"),
            400,
        ),
        (
            "a folded line",
            post("x-a: 1\r\n content-length: 4\r\n", ""),
            400,
        ),
        ("a bare NUL", post("x-a: 1\x002\r\n", ""), 400),
    ] {
        let answer = raw(&sandbox, &bytes).await;
        let is_one = !String::from_utf8_lossy(&answer.body).contains("HTTP/1.1");
        let tells_length = String::from_utf8_lossy(&answer.body).contains("Content-Length");
        if (answer.status, is_one, tells_length) != (status, true, false) {
            wrong.push((shape, answer.status));
        }
    }
    assert_eq!(wrong, []);
    let hidden_ran = sandbox
        .node
        .requests
        .lock()
        .unwrap()
        .iter()
        .any(|request| request.function_id.as_str() == "g");
    assert!(!hidden_ran);
}

#[tokio::test]
async fn targets_are_what_they_say() {
    let sandbox = sandbox(&[
        ("default", http("GET", "/a", "f")),
        ("default", http("GET", "/b/*rest", "f")),
    ]);
    let get = |target: &str, version: &str| {
        format!("GET {target} HTTP/{version}\r\nhost: x\r\nconnection: close\r\n\r\n")
    };
    let mut wrong = Vec::new();
    for (shape, bytes, status) in [
        (
            "an absolute target",
            get("http://other.example/a", "1.1"),
            200,
        ),
        (
            "an absolute target of another scheme",
            get("https://other.example/a", "1.1"),
            200,
        ),
        ("dots climb nowhere", get("/b/../a", "1.1"), 200),
        (
            "dots climb nowhere from a known path",
            get("/a/..", "1.1"),
            404,
        ),
        ("an escaped slash is no slash", get("/%2Fa", "1.1"), 404),
        ("an escaped path is not the path", get("/%61", "1.1"), 404),
        ("a backslash is no slash", get("/b\\..\\a", "1.1"), 404),
        (
            "an asterisk",
            "OPTIONS * HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "a tunnel",
            "CONNECT x:80 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".to_owned(),
            404,
        ),
        (
            "no host",
            "GET /a HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(),
            200,
        ),
        ("an old client", "GET /a HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("a space in the target", get("/a b", "1.1"), 400),
    ] {
        let answer = raw(&sandbox, &bytes).await;
        if answer.status != status {
            wrong.push((shape, answer.status));
        }
    }
    assert_eq!(wrong, []);
    let answer = raw(&sandbox, &get("http://other.example/a", "1.1")).await;
    assert_eq!(answer.json()["data"]["host"], "other.example");
}

/// Section 1 and the node's settings.
#[tokio::test]
async fn bodies_and_heads_have_limits() {
    let sandbox = Sandbox::with(|settings| settings.limits.body_max = bytesize::ByteSize(1000));
    subscribe(&sandbox, &[("default", http("POST", "/a", "f"))]);
    let exact = Call::post("/a", vec![b'x'; 1000]);
    assert_eq!(send(&sandbox, exact).await.status, 200);
    for call in [
        Call::post("/a", vec![b'x'; 1001]),
        Call::post("/nowhere", vec![b'x'; 1001]).header("event", "a"),
    ] {
        let message = "the request's body is larger than 1000 bytes (limits.body_max)";
        refused(&sandbox, call, 413, message).await;
    }
    let long = "x".repeat(70 * 1024);
    let answer = Call::get("/a")
        .header("x-long", &long)
        .send(sandbox.addresses.events)
        .await;
    assert_eq!(answer.status, 431);
    assert_eq!(sandbox.node.calls(), 1);
}
