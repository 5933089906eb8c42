//! Bounds: bodies, heads, time, connections, invocations in flight; and a port that is taken.

use std::sync::Arc;
use std::time::Duration;

use bytesize::ByteSize;
use config::Settings;
use config::settings::AuthMode;
use gateway::Listeners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Answer, Call, PATIENCE, Sandbox, eventually, replied};

const CALL: &str = r#"{"function_name":"hello"}"#;

fn small() -> Sandbox {
    Sandbox::with(|settings| settings.limits.body_max = ByteSize::kib(1))
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_on_both_apis() {
    let sandbox = small();
    let long = format!(r#"{{"function_name":"{}"}}"#, "x".repeat(2_000));
    let check = |answer: Answer| {
        assert_eq!(answer.status, 413, "{answer:?}");
        assert_eq!(
            answer.header("x-hearth-error"),
            Some("payload_too_large;gateway")
        );
        assert!(answer.text().contains("limits.body_max"), "{answer:?}");
    };
    check(sandbox.invoke(&long).await);
    check(
        sandbox
            .admin(Call::post("/v1/spaces/default/functions", &long))
            .await,
    );
    check(
        sandbox
            .admin(Call::new("PUT", "/v1/spaces/default/functions/f").body(&long))
            .await,
    );
    // Without a length that tells.
    let chunks = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000));
    let chunked = Call::post("/invoke", chunks).header("transfer-encoding", "chunked");
    check(chunked.send(sandbox.addresses.functions).await);
    let at_the_limit = format!(
        r#"{{"function_name":"hello","x":"{}"}}"#,
        "x".repeat(1_024 - 32)
    );
    assert_eq!(at_the_limit.len(), 1_024);
    assert_eq!(sandbox.invoke(at_the_limit).await.status, 200);
    assert_eq!(sandbox.node.calls(), 1);
}

#[tokio::test]
async fn a_client_that_sends_much_too_much_still_reads_its_answer() {
    let sandbox = small();
    let answer = sandbox.invoke(vec![b'x'; 20 * 1024 * 1024]).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn a_client_that_asks_before_it_sends_is_told_at_once() {
    let sandbox = small();
    let call = Call::post("/invoke", "")
        .header("content-length", "4000")
        .header("expect", "100-continue");
    assert_eq!(call.send(sandbox.addresses.functions).await.status, 413);
}

#[tokio::test]
async fn a_chunked_body_is_read_whole() {
    let sandbox = Sandbox::start();
    let (one, two) = CALL.split_at(9);
    let chunks = format!(
        "{:x}\r\n{one}\r\n{:x}\r\n{two}\r\n0\r\n\r\n",
        one.len(),
        two.len()
    );
    let call = Call::post("/invoke", chunks).header("transfer-encoding", "chunked");
    assert_eq!(call.send(sandbox.addresses.functions).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let sandbox =
        Sandbox::with(|settings| settings.limits.body_timeout = Duration::from_millis(50));
    let call = Call::post("/invoke", &CALL[..5]).header("content-length", "100");
    let answer = call.send(sandbox.addresses.functions).await;
    assert_eq!(answer.status, 408);
    assert!(
        answer.json()["error"]
            .as_str()
            .unwrap()
            .contains("limits.body_timeout")
    );
    let call = Call::post("/v1/spaces/default/functions", "{").header("content-length", "100");
    assert_eq!(sandbox.admin(call).await.status, 408);
}

#[tokio::test]
async fn a_slow_head_ends_the_connection() {
    let sandbox =
        Sandbox::with(|settings| settings.limits.head_timeout = Duration::from_millis(50));
    for head in ["", "POST /invoke HTTP/1.1\r\nhost: localhost\r\n"] {
        let mut stream = TcpStream::connect(sandbox.addresses.functions)
            .await
            .unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        timeout(PATIENCE, stream.read_to_end(&mut rest))
            .await
            .expect("the connection ends")
            .unwrap();
    }
}

/// Between requests a connection may be idle for longer than a head may take: whoever keeps it would else send into its end.
#[tokio::test]
async fn an_idle_connection_outlives_a_slow_head() {
    let sandbox = Sandbox::with(|settings| {
        settings.limits.head_timeout = Duration::from_millis(50);
        settings.limits.idle_timeout = Duration::from_millis(400);
    });
    let address = sandbox.addresses.functions;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begun = tokio::time::Instant::now();
    let call = Call::get("/").header("connection", "keep-alive");
    stream.write_all(&call.bytes()).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut rest))
        .await
        .expect("the connection ends")
        .unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(400));
    assert!(rest.starts_with(b"HTTP/1.1 "), "it was answered before");
}

/// A call whose answer is far more than the buffers between the two sides hold, and the client that made it.
async fn call_for_much(sandbox: &Sandbox) -> TcpStream {
    let answer = vec![b'x'; ANSWER_BYTES];
    sandbox.node.on_invoke(move |_| {
        let answer = answer.clone();
        async move { Ok(replied(None, answer)) }
    });
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(sandbox.addresses.functions).await.unwrap();
    let call = Call::post("/invoke", CALL);
    stream.write_all(&call.bytes()).await.unwrap();
    eventually("the call", || sandbox.node.calls() == 1).await;
    stream
}

const ANSWER_BYTES: usize = 32 * 1024 * 1024;

fn impatient() -> Sandbox {
    Sandbox::with(|settings| settings.limits.write_timeout = Duration::from_secs(1))
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_connection() {
    let mut sandbox = impatient();
    let mut stream = call_for_much(&sandbox).await;
    // The edge waits for the connection to end by itself, and it does although nobody reads.
    assert!(sandbox.finish(PATIENCE).await);
    let mut answer = Vec::new();
    let broken = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    assert!(broken.expect("it ends").is_err(), "it is reset");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_its_whole_answer() {
    let sandbox = impatient();
    let mut stream = call_for_much(&sandbox).await;
    let (mut read, mut buffer) = (0, vec![0; ANSWER_BYTES / 16]);
    loop {
        // Sixteen of these are longer than the timeout, each is shorter.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = read;
        while read < before + buffer.len() {
            match stream.read(&mut buffer).await.unwrap() {
                0 => {
                    assert!(read > ANSWER_BYTES, "{read} bytes");
                    return;
                }
                count => read += count,
            }
        }
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let sandbox = Sandbox::start();
    let call = Call::get("/").header("x-long", &"x".repeat(70_000));
    assert_eq!(call.send(sandbox.addresses.functions).await.status, 431);
}

#[tokio::test]
async fn more_headers_than_a_request_may_have_are_431() {
    let sandbox = Sandbox::start();
    let with = |count| (0..count).fold(Call::get("/"), |call, _| call.header("x-a", "1"));
    // Three are of every call of these tests.
    let at_the_limit = with(97).send(sandbox.addresses.functions).await;
    assert_eq!(at_the_limit.status, 200, "{at_the_limit:?}");
    for address in [
        sandbox.addresses.functions,
        sandbox.addresses.events,
        sandbox.addresses.config,
    ] {
        assert_eq!(with(98).send(address).await.status, 431);
    }
}

/// A token is a part of the head, so a giant one is refused before anybody looks at it.
#[tokio::test]
async fn a_giant_token_is_431_and_a_large_one_is_wrong() {
    let sandbox = Sandbox::with(|settings| {
        settings.auth.mode = AuthMode::Required;
        settings.limits.head_max = ByteSize::kib(16);
    });
    for (bytes, status) in [(12_000, 401), (20_000, 431), (2_000_000, 431)] {
        let token = format!("Bearer {}", "e".repeat(bytes));
        let call = Call::post("/invoke", CALL).header("authorization", &token);
        let answer = call.send(sandbox.addresses.functions).await;
        assert_eq!(answer.status, status, "{bytes} bytes: {answer:?}");
    }
}

/// Bodies of different requests share one room, and a small one needs none.
#[tokio::test]
async fn bodies_that_would_take_too_much_together_are_shed() {
    let sandbox = Sandbox::with(|settings| {
        settings.limits.body_max = ByteSize::kib(200);
        settings.limits.bodies_max = ByteSize::kib(250);
    });
    let path = "/v1/spaces/default/functions";
    // No record of a function, which whoever reads it whole says.
    let large = "x".repeat(150 * 1024);
    let slow =
        Call::post(path, &large[..140 * 1024]).header("content-length", &large.len().to_string());
    let mut first = TcpStream::connect(sandbox.addresses.config).await.unwrap();
    first.write_all(&slow.bytes()).await.unwrap();
    // The edge reads what was sent, and gives room back, a moment later.
    let eventually_answered = async |status| {
        loop {
            let answer = sandbox.admin(Call::post(path, &large)).await;
            if answer.status == status {
                return answer;
            }
        }
    };
    let shed = timeout(PATIENCE, eventually_answered(503)).await.unwrap();
    assert_eq!(shed.header("x-hearth-error"), Some("overloaded;gateway"));
    assert!(shed.text().contains("limits.bodies_max"), "{shed:?}");
    assert_eq!(sandbox.invoke(CALL).await.status, 200, "a small one");
    let rest = &large.as_bytes()[140 * 1024..];
    first.write_all(rest).await.unwrap();
    assert_eq!(Answer::read_to_end(&mut first).await.status, 400);
    timeout(PATIENCE, eventually_answered(400)).await.unwrap();
}

#[tokio::test]
async fn an_address_with_too_many_connections_gets_no_more() {
    let sandbox = Sandbox::with(|settings| settings.limits.connections_per_address_max = 2);
    let address = sandbox.addresses.functions;
    let call = Call::post("/invoke", CALL).header("connection", "keep-alive");
    let connect = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        // One that is refused may be closed by now.
        let _ = stream.write_all(&call.bytes()).await;
        stream
    };
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect("127.0.0.1").await;
        assert_eq!(Answer::read_one(&mut stream).await.status, 200);
        open.push(stream);
    }
    let mut refused = connect("127.0.0.1").await;
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, refused.read_to_end(&mut rest))
        .await
        .expect("it is closed");
    assert!(rest.is_empty());
    let mut other = connect("127.0.0.2").await;
    assert_eq!(Answer::read_one(&mut other).await.status, 200);
    open.pop();
    timeout(PATIENCE, async {
        loop {
            let mut again = connect("127.0.0.1").await;
            let mut head = [0; 12];
            if again.read_exact(&mut head).await.is_ok() {
                return assert_eq!(&head, b"HTTP/1.1 200");
            }
        }
    })
    .await
    .expect("another one gets in");
}

#[tokio::test]
async fn more_connections_wait_until_one_ends() {
    let sandbox = Sandbox::with(|settings| settings.limits.connections_max = 2);
    let address = sandbox.addresses.functions;
    let call = Call::post("/invoke", CALL).header("connection", "keep-alive");
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(&call.bytes()).await.unwrap();
        assert_eq!(Answer::read_one(&mut stream).await.status, 200);
        open.push(stream);
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(&call.bytes()).await.unwrap();
    // Other listeners have limits of their own; when this one answered, the third had had its chance.
    assert_eq!(sandbox.admin(Call::get("/v1/status")).await.status, 200);
    assert_eq!(sandbox.node.calls(), 2);
    open.pop();
    assert_eq!(Answer::read_one(&mut third).await.status, 200);
}

#[tokio::test]
async fn invocations_over_the_limit_are_shed() {
    let sandbox = Sandbox::with(|settings| settings.limits.in_flight_max = 1);
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    sandbox.node.on_invoke(move |_| {
        let waits = Arc::clone(&waits);
        async move {
            waits.notified().await;
            Ok(replied(None, "done"))
        }
    });
    let shed = async {
        eventually("the first call", || sandbox.node.calls() == 1).await;
        let shed = sandbox.invoke(CALL).await;
        go.notify_one();
        shed
    };
    let (first, shed) = tokio::join!(sandbox.invoke(CALL), shed);
    assert_eq!(first.status, 200);
    assert_eq!((shed.status, shed.header("retry-after")), (503, Some("1")));
    assert_eq!(shed.header("x-hearth-error"), Some("overloaded;gateway"));
    assert!(
        shed.json()["error"]
            .as_str()
            .unwrap()
            .contains("limits.in_flight_max")
    );
    go.notify_one();
    assert_eq!(
        sandbox.invoke(CALL).await.status,
        200,
        "the permit came back"
    );
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_setting() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut settings = Settings::default();
    settings.listen.functions.set_port(0);
    settings.listen.events = address;
    let error = Listeners::bind(&settings).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("listen.events {address}: address already in use")
    );
}
