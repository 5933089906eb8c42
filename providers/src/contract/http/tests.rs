use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::http::StatusCode;
use ::http::{Request, Response};
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use protocol::invocation::TraceContext;
use protocol::{Deadline, Effect, Hop, InvocationId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::*;

pub(super) fn function(timeout_ms: u32) -> Function {
    let record = format!(
        r#"{{"space":"default","functionId":"f","type":"process","provider":{{"command":["x"]}},"limits":{{"timeoutMs":{timeout_ms},"concurrency":2}}}}"#
    );
    serde_json::from_str(&record).unwrap()
}

pub(super) fn invocation(payload: &'static str) -> Invocation {
    Invocation {
        id: InvocationId::random(),
        space: "default".parse().unwrap(),
        function_id: "f".parse().unwrap(),
        payload: Bytes::from_static(payload.as_bytes()),
        content_type: "application/json".into(),
        call: None,
        deadline: Deadline::at((Instant::now() + Duration::from_secs(20)).into_std()),
        hop: Hop::Direct,
        trace: TraceContext {
            parent: Some("00-a-b-01".into()),
            state: Some("bad\nvalue".into()),
        },
    }
}

/// Small ones, so that tests reach them.
pub(super) fn limits() -> AnswerLimits {
    AnswerLimits {
        whole: 1_000,
        stream: 200_000,
        stream_idle_timeout: Duration::from_secs(10),
    }
}

pub(super) fn instance(address: SocketAddr) -> HttpInstance {
    HttpInstance::new(
        address,
        None,
        &function(5_000),
        limits(),
        Arc::default(),
        Arc::default(),
    )
}

/// A real server that counts its connections and answers with the payload.
async fn echo() -> (SocketAddr, Arc<AtomicUsize>, TaskTracker) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let tasks = TaskTracker::new();
    let (counted, spawner) = (Arc::clone(&connections), tasks.clone());
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
            let service = service_fn(|request: Request<Incoming>| async move {
                let (head, body) = request.into_parts();
                assert_eq!(head.headers["ce-type"], "hearth.invocation");
                assert_eq!(head.headers["traceparent"], "00-a-b-01");
                assert!(
                    !head.headers.contains_key("tracestate"),
                    "what is no header value is left out"
                );
                let status = match head.headers["content-length"].to_str().unwrap() {
                    "7" => StatusCode::IM_A_TEAPOT,
                    _ => StatusCode::OK,
                };
                let response = Response::builder()
                    .status(status)
                    .header("content-type", "text/x");
                Ok::<_, Infallible>(response.body(body).unwrap())
            });
            spawner.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, connections, tasks)
}

/// A server that does with each connection what the test says: reads one request, sends this text, and closes or waits.
async fn scripted(answer: &'static [u8], closes: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let closed = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&closed);
    TaskTracker::new().spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let read = stream.read(&mut request).await.unwrap();
            assert!(read > 0);
            stream.write_all(answer).await.unwrap();
            if !closes {
                // Ends when the other side closes.
                let _ = stream.read(&mut request).await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    (address, closed)
}

async fn outcome(answer: &'static [u8], closes: bool) -> Result<Reply, Error> {
    let (address, _) = scripted(answer, closes).await;
    instance(address)
        .invoke(&function(5_000), &invocation("x"))
        .await
}

#[tokio::test]
async fn a_connection_serves_many_invocations() {
    let (address, connections, _tasks) = echo().await;
    let instance = instance(address);
    for payload in ["one", "two", "", "three"] {
        let reply = instance
            .invoke(&function(5_000), &invocation(payload))
            .await
            .unwrap();
        assert_eq!(
            (
                reply.status,
                &reply.body.whole()[..],
                reply.content_type.as_deref()
            ),
            (200, payload.as_bytes(), Some("text/x"))
        );
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_status_other_than_2xx_is_a_failure_and_keeps_the_connection() {
    let (address, connections, _tasks) = echo().await;
    let instance = instance(address);
    let failed = instance
        .invoke(&function(5_000), &invocation("7 bytes"))
        .await
        .unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the function failed: status 418: 7 bytes"
    );
    assert_eq!(failed.effect(), Effect::Finished);
    instance
        .invoke(&function(5_000), &invocation("fine"))
        .await
        .unwrap();
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn no_more_connections_are_kept_than_slots() {
    let (address, connections, _tasks) = echo().await;
    let instance = instance(address);
    let function = function(5_000);
    let calls =
        (0..8).map(|_| async { instance.invoke(&function, &invocation("x")).await.unwrap() });
    futures_util::future::join_all(calls).await;
    assert_eq!(connections.load(Ordering::Relaxed), 8);
    assert_eq!(instance.shared.pool.len(), 2);
}

#[tokio::test]
async fn a_connection_closed_while_idle_is_replaced() {
    let (address, _) = scripted(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true).await;
    let instance = instance(address);
    for _ in 0..20 {
        let reply = instance
            .invoke(&function(5_000), &invocation("x"))
            .await
            .unwrap();
        assert_eq!(&reply.body.whole()[..], b"ok");
        // The close arrives when the runtime next looks at its sockets.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_kept_connection_is_left_before_its_server_closes_it() {
    let answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\nok";
    let (address, closed) = scripted(answer, false).await;
    let instance = instance(address);
    instance
        .invoke(&function(5_000), &invocation("x"))
        .await
        .unwrap();
    instance
        .invoke(&function(5_000), &invocation("x"))
        .await
        .unwrap();
    assert!(
        closed.load(Ordering::Relaxed) >= 1,
        "the first connection was not used again"
    );
}

#[tokio::test]
async fn nobody_there_is_a_refusal() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = instance(address)
        .invoke(&function(5_000), &invocation("x"))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Refused);
}

#[tokio::test]
async fn garbage_is_malformed_and_a_broken_answer_interrupted() {
    let check = |outcome: Result<Reply, Error>, is_expected: fn(&Error) -> bool| {
        let error = outcome.unwrap_err();
        assert!(is_expected(&error), "{error:?}");
    };
    check(outcome(b"SSH-2.0-OpenSSH_9\r\n", true).await, |error| {
        matches!(error, Error::Malformed { .. })
    });
    check(
        outcome(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", true).await,
        |error| matches!(error, Error::Malformed { .. }),
    );
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n";
    check(outcome(chunked, false).await, |error| {
        matches!(error, Error::Malformed { .. })
    });
    check(outcome(b"", true).await, |error| {
        matches!(error, Error::Interrupted { .. })
    });
    check(
        outcome(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", true).await,
        |error| matches!(error, Error::Interrupted { .. }),
    );
}

#[tokio::test]
async fn an_answer_over_the_limit_is_refused_with_and_without_a_length() {
    let too_large = |outcome: Result<Reply, Error>| {
        matches!(outcome, Err(Error::AnswerTooLarge { bytes_max: 1_000 }))
    };
    assert!(too_large(
        outcome(b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n", false).await
    ));
    const CHUNK: &str = concat!(
        "12c\r\n",
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    );
    let mut chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..4 {
        chunked.extend_from_slice(CHUNK.split('\n').next().unwrap().as_bytes());
        chunked.push(b'\n');
        chunked.extend_from_slice(&[b'x'; 300]);
        chunked.extend_from_slice(b"\r\n");
    }
    assert!(too_large(outcome(Vec::leak(chunked), false).await));
}

#[tokio::test]
async fn a_slow_function_times_out_and_its_connection_is_closed() {
    let (address, closed) = scripted(b"", false).await;
    let instance = instance(address);
    let error = instance
        .invoke(&function(50), &invocation("x"))
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the function ran longer than its limit of 50 ms and was stopped"
    );
    until_one(&closed).await;
}

#[tokio::test]
async fn a_dropped_call_closes_its_connection() {
    let (address, closed) = scripted(b"", false).await;
    let instance = instance(address);
    let (function, invocation) = (function(5_000), invocation("x"));
    let call = instance.invoke(&function, &invocation);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), call)
            .await
            .is_err()
    );
    until_one(&closed).await;
    assert_eq!(instance.shared.pool.len(), 0);
}

#[tokio::test]
async fn an_interruption_tells_how_the_instance_ended() {
    let (address, _) = scripted(b"", true).await;
    let end = Arc::new(End::default());
    let instance = HttpInstance::new(
        address,
        None,
        &function(5_000),
        limits(),
        Arc::default(),
        Arc::clone(&end),
    );
    end.lost("the instance was removed");
    let error = instance
        .invoke(&function(5_000), &invocation("x"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().ends_with("the instance was removed"),
        "{error}"
    );
}

#[tokio::test]
async fn an_interruption_waits_for_the_end_of_an_instance_that_does_not_listen_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = Arc::new(End::default());
    let instance = HttpInstance::new(
        address,
        None,
        &function(5_000),
        limits(),
        Arc::default(),
        Arc::clone(&end),
    );
    let dies = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        drop((stream, listener));
        // Longer than a connection breaks before the provider hears of an end, as on a busy machine.
        tokio::time::sleep(2 * END_DELAY).await;
        end.lost("the instance was removed");
    };
    let (function, invocation) = (function(5_000), invocation("x"));
    let (outcome, ()) = tokio::join!(instance.invoke(&function, &invocation), dies);
    let error = outcome.unwrap_err().to_string();
    assert!(error.ends_with("the instance was removed"), "{error}");
}

/// A server that reads so many bytes of a request and answers with how many these were; then it reads no more.
async fn reads(bytes: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; bytes];
            stream.read_exact(&mut request).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{bytes:07}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            kept.push(stream);
        }
    });
    address
}

const LARGE: usize = 6_000_000;

fn large() -> Invocation {
    Invocation {
        payload: vec![b'x'; LARGE].into(),
        ..invocation("")
    }
}

#[tokio::test]
async fn a_payload_larger_than_the_socket_takes_at_once_arrives() {
    let address = reads(LARGE).await;
    let reply = instance(address)
        .invoke(&function(5_000), &large())
        .await
        .unwrap();
    assert_eq!(reply.body.whole(), &LARGE.to_string());
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_payload_counts_and_ends_the_connection() {
    let address = reads(2_000).await;
    let instance = instance(address);
    let reply = instance.invoke(&function(5_000), &large()).await.unwrap();
    assert_eq!(reply.body.whole(), "0002000");
    assert_eq!(instance.shared.pool.len(), 0);
}

async fn until_one(count: &AtomicUsize) {
    let until = Instant::now() + Duration::from_secs(10);
    while count.load(Ordering::Relaxed) == 0 {
        assert!(
            Instant::now() < until,
            "the connection was not closed within 10 s"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_call_is_written_as_it_is_and_told_whole() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        let answer = b"HTTP/1.1 404 No\r\nx-a: 1\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(answer).await.unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    };
    let header = |name: &str, value: &'static str| (name.to_owned(), Bytes::from(value));
    let call = protocol::invocation::Call {
        method: "PATCH".to_owned(),
        target: "/a%2Fb?c=d".to_owned(),
        headers: vec![header("host", "client.example"), header("x-mine", "1")],
        answer: AnswerRule::Whole,
        may_stream: false,
    };
    let invocation = Invocation {
        id: "i".parse().unwrap(),
        content_type: String::new(),
        call: Some(Arc::new(call)),
        ..invocation("{}")
    };
    let (instance, function) = (instance(address), function(5_000));
    let (reply, request) = tokio::join!(instance.invoke(&function, &invocation), serving);
    let reply = reply.unwrap();
    assert_eq!(
        (reply.status, &reply.body.whole()[..]),
        (404, b"no".as_slice())
    );
    assert_eq!(reply.headers, [header("x-a", "1")]);
    let expected = "PATCH /a%2Fb?c=d HTTP/1.1\r\nhost: client.example\r\nx-mine: 1\r\nx-hearth-invocation: i\r\ntraceparent: 00-a-b-01\r\ncontent-length: 2\r\n\r\n{}";
    assert_eq!(request, expected);
}
