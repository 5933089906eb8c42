use std::net::SocketAddr;

use futures_util::{FutureExt, StreamExt};
use protocol::invocation::{AnswerRule, Body, Call};
use protocol::{Effect, ErrorCode, Invocation, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::HttpInstance;
use super::super::tests::{function, invocation, limits};
use super::*;
use crate::{AnswerLimits, Invoke};

const BOUND: Duration = Duration::from_secs(10);
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// A function's server, of which the test is the function.
struct Server {
    listener: TcpListener,
    instance: Arc<HttpInstance>,
}

impl Server {
    async fn start(limits: AnswerLimits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let record = function(5_000);
        let instance = HttpInstance::new(
            address,
            None,
            &record,
            limits,
            Arc::default(),
            Arc::default(),
        );
        Self {
            listener,
            instance: Arc::new(instance),
        }
    }

    /// Makes a call whose answer begins with `start`; gives the function's end of the connection too.
    async fn call(&self, start: &str, timeout_ms: u32) -> (Result<Reply, Error>, TcpStream) {
        let serving = async {
            let (mut stream, _) = self.listener.accept().await.unwrap();
            request(&mut stream).await;
            stream.write_all(start.as_bytes()).await.unwrap();
            stream
        };
        let record = function(timeout_ms);
        let invocation = streaming();
        let (outcome, stream) = tokio::join!(self.instance.invoke(&record, &invocation), serving);
        (outcome, stream)
    }

    fn idle(&self) -> usize {
        self.instance.shared.pool.len()
    }
}

async fn request(stream: &mut TcpStream) {
    let read = stream.read(&mut [0; 4096]).await.unwrap();
    assert!(read > 0);
}

/// An invocation whose answer is told whole and may stream.
fn streaming() -> Invocation {
    let call = Call {
        answer: AnswerRule::Whole,
        may_stream: true,
        ..Call::default()
    };
    Invocation {
        call: Some(Arc::new(call)),
        ..invocation("x")
    }
}

fn body(outcome: Result<Reply, Error>) -> BodyStream {
    match outcome.unwrap().body {
        Body::Stream(stream) => stream,
        Body::Whole(body) => panic!("it came whole: {body:?}"),
    }
}

async fn next(body: &mut BodyStream) -> Option<Result<Bytes, Failure>> {
    timeout(BOUND, body.next()).await.expect("a piece in time")
}

async fn piece(body: &mut BodyStream) -> Bytes {
    next(body).await.expect("a piece").expect("no failure")
}

async fn failure(body: &mut BodyStream) -> Failure {
    let failure = next(body).await.expect("an item").unwrap_err();
    assert!(next(body).await.is_none(), "the failure is the last item");
    failure
}

#[tokio::test]
async fn pieces_arrive_before_the_end_and_the_connection_is_kept() {
    let server = Server::start(limits()).await;
    let (outcome, mut function) = server.call(CHUNKED, 5_000).await;
    let mut body = body(outcome);
    assert_eq!(body.length(), None);
    assert!(body.next().now_or_never().is_none(), "nothing was written");
    for (written, expected) in [
        ("3\r\none\r\n", "one"),
        ("1;x=y\r\n2\r\n2\r\n34\r\n", "234"),
    ] {
        function.write_all(written.as_bytes()).await.unwrap();
        let mut got = Vec::new();
        while got.len() < expected.len() {
            got.extend_from_slice(&piece(&mut body).await);
        }
        assert_eq!(got, expected.as_bytes());
    }
    assert_eq!(server.idle(), 0, "the call holds its connection");
    function.write_all(b"0\r\n\r\n").await.unwrap();
    assert!(next(&mut body).await.is_none());
    assert_eq!(server.idle(), 1);

    // And the next call is on it.
    let serving = async {
        request(&mut function).await;
        function.write_all(CHUNKED.as_bytes()).await.unwrap();
    };
    let (record, invocation) = (super::super::tests::function(5_000), streaming());
    let (outcome, ()) = tokio::join!(server.instance.invoke(&record, &invocation), serving);
    assert_eq!(
        outcome.unwrap().content_type.as_deref(),
        Some("text/event-stream")
    );
}

#[tokio::test]
async fn a_long_answer_streams_with_its_length() {
    let server = Server::start(limits()).await;
    let start = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nfirst";
    let (outcome, mut function) = server.call(start, 5_000).await;
    let mut body = body(outcome);
    assert_eq!(body.length(), Some(100_000));
    assert_eq!(piece(&mut body).await, "first");
    let writing = async {
        function.write_all(&vec![b'x'; 99_995]).await.unwrap();
        // More than it said is none of this answer.
        function.write_all(b"more").await.unwrap();
    };
    let reading = async {
        let mut left = 99_995;
        while left > 0 {
            left -= piece(&mut body).await.len();
        }
        assert!(next(&mut body).await.is_none());
    };
    tokio::join!(writing, reading);
    assert_eq!(piece_of_body_until_close().await, "old");
}

/// The end of the connection is the end of a body that has no other.
async fn piece_of_body_until_close() -> Bytes {
    let server = Server::start(limits()).await;
    let (outcome, mut function) = server.call("HTTP/1.1 200 OK\r\n\r\n", 5_000).await;
    let mut body = body(outcome);
    function.write_all(b"old").await.unwrap();
    let old = piece(&mut body).await;
    drop(function);
    assert!(next(&mut body).await.is_none());
    assert_eq!(server.idle(), 0);
    old
}

#[tokio::test]
async fn what_is_short_or_there_at_once_comes_whole() {
    let whole = [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ];
    for start in whole {
        let server = Server::start(limits()).await;
        let (outcome, _function) = server.call(start, 5_000).await;
        let body = outcome.unwrap().body;
        assert_eq!(
            body.whole().len(),
            if start.contains("ok") { 2 } else { 0 },
            "{start}"
        );
        assert_eq!(server.idle(), 1, "{start}");
    }
}

/// A function that works on its payload as it reads it.
#[tokio::test]
async fn an_answer_may_begin_before_the_payload_was_read() {
    let server = Server::start(limits()).await;
    let payload = Bytes::from(vec![b'x'; 6_000_000]);
    let serving = async {
        let (mut stream, _) = server.listener.accept().await.unwrap();
        request(&mut stream).await;
        let start = format!("{CHUNKED}3\r\none\r\n");
        stream.write_all(start.as_bytes()).await.unwrap();
        stream
    };
    let invocation = Invocation {
        payload: payload.clone(),
        ..streaming()
    };
    let record = function(60_000);
    let (outcome, mut function) =
        tokio::join!(server.instance.invoke(&record, &invocation), serving);
    let mut body = body(outcome);
    assert_eq!(piece(&mut body).await, "one");
    let reading = async {
        let mut buffer = vec![0; 100_000];
        let mut got = 0;
        while got < payload.len() - 4096 {
            got += function.read(&mut buffer).await.unwrap();
        }
        function.write_all(b"3\r\ntwo\r\n").await.unwrap();
    };
    let (second, ()) = tokio::join!(piece(&mut body), reading);
    assert_eq!(second, "two");
}

/// So calls a peer of a version that knows no streams.
#[tokio::test]
async fn a_call_that_may_not_stream_is_answered_whole() {
    let server = Server::start(limits()).await;
    let serving = async {
        let (mut stream, _) = server.listener.accept().await.unwrap();
        request(&mut stream).await;
        for part in [CHUNKED, "2\r\nok\r\n", "0\r\n\r\n"] {
            stream.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        stream
    };
    let call = Call {
        answer: AnswerRule::Whole,
        ..Call::default()
    };
    let invocation = Invocation {
        call: Some(Arc::new(call)),
        ..invocation("x")
    };
    let record = function(5_000);
    let (outcome, _stream) = tokio::join!(server.instance.invoke(&record, &invocation), serving);
    assert_eq!(outcome.unwrap().body.whole(), "ok");
}

#[tokio::test]
async fn a_cut_is_told_and_never_an_end() {
    for start in [
        format!("{CHUNKED}5\r\nhe"),
        format!("{CHUNKED}2\r\nhe\r\n"),
        "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\nhe".to_owned(),
    ] {
        let server = Server::start(limits()).await;
        let (outcome, function) = server.call(&start, 5_000).await;
        let mut body = body(outcome);
        assert_eq!(piece(&mut body).await, "he", "{start}");
        drop(function);
        let failure = failure(&mut body).await;
        let told = (failure.code, failure.effect);
        assert_eq!(
            told,
            (ErrorCode::Interrupted, Effect::Interrupted),
            "{start}"
        );
        assert_eq!(server.idle(), 0);
    }
}

#[tokio::test]
async fn what_is_no_http_any_more_is_malformed() {
    let server = Server::start(limits()).await;
    let (outcome, mut function) = server.call(CHUNKED, 5_000).await;
    let mut body = body(outcome);
    function.write_all(b"zz\r\n").await.unwrap();
    let failure = failure(&mut body).await;
    assert_eq!(failure.code, ErrorCode::MalformedAnswer, "{failure}");
}

#[tokio::test]
async fn limits_hold() {
    // A function that goes on and on.
    let server = Server::start(limits()).await;
    let (outcome, mut function) = server.call(CHUNKED, 5_000).await;
    let mut body = body(outcome);
    let writing = async {
        let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
        // It fails once the other side has closed.
        while function.write_all(chunk.as_bytes()).await.is_ok() {}
    };
    let reading = async {
        let mut bytes = 0;
        loop {
            match next(&mut body).await.unwrap() {
                Ok(piece) => bytes += piece.len(),
                Err(failure) => break (bytes, failure),
            }
        }
    };
    let ((), (bytes, failure)) = tokio::join!(writing, reading);
    assert!(bytes <= limits().stream, "{bytes}");
    assert_eq!(failure.code, ErrorCode::MalformedAnswer);
    assert!(
        failure.message.contains("larger than 200000 bytes"),
        "{failure}"
    );

    // One that says beforehand that it is too long.
    let start = "HTTP/1.1 200 OK\r\ncontent-length: 200001\r\n\r\n";
    let server = Server::start(limits()).await;
    let (outcome, _function) = server.call(start, 5_000).await;
    assert!(matches!(
        outcome,
        Err(Error::AnswerTooLarge { bytes_max: 200_000 })
    ));
}

#[tokio::test]
async fn a_silent_function_and_one_that_is_over_its_time_are_cut() {
    let silence = AnswerLimits {
        stream_idle_timeout: Duration::from_millis(50),
        ..limits()
    };
    for (limits, timeout_ms, expected) in [
        (silence, 5_000, "limits.stream_idle_timeout"),
        (limits(), 100, "longer than its limit of 100 ms"),
    ] {
        let server = Server::start(limits).await;
        let (outcome, mut function) = server.call(CHUNKED, timeout_ms).await;
        let mut body = body(outcome);
        let failure = failure(&mut body).await;
        assert_eq!(failure.code, ErrorCode::DeadlineExceeded);
        assert_eq!(failure.effect, Effect::Interrupted);
        assert!(failure.message.contains(expected), "{failure}");
        // Its connection is closed by then.
        let closed = timeout(BOUND, function.read(&mut [0])).await.unwrap();
        assert!(matches!(closed, Ok(0) | Err(_)));
    }
}

#[tokio::test]
async fn a_stream_that_is_dropped_closes_its_connection() {
    let server = Server::start(limits()).await;
    let (outcome, mut function) = server.call(CHUNKED, 5_000).await;
    let body = body(outcome);
    drop(body);
    let closed = timeout(BOUND, function.read(&mut [0])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert_eq!(server.idle(), 0);
}

/// What nobody reads stays with the function: no task reads ahead.
#[tokio::test]
async fn a_slow_reader_slows_the_function_down() {
    let server = Server::start(limits()).await;
    let (outcome, function) = server.call(CHUNKED, 60_000).await;
    let mut body = body(outcome);
    let chunk = format!("2710\r\n{}\r\n", "x".repeat(10_000));
    let mut written = 0;
    while written < 64_000_000 {
        match function.try_write(chunk.as_bytes()) {
            Ok(count) => written += count,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written < 64_000_000, "the function was not slowed down");
    let first = piece(&mut body).await;
    assert!(first.len() <= 64 * 1024, "{}", first.len());
}
