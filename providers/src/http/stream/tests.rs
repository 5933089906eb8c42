use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use protocol::invocation::{AnswerRule, Body, Call};
use protocol::{ErrorCode, Function, Invocation, Reply};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::super::Webhook;
use super::super::tests::{both_ways, invocation, limits, webhook, webhook_with};
use super::*;
use crate::Remote;

const BOUND: Duration = Duration::from_secs(10);
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nx-a: 1\r\ntransfer-encoding: chunked\r\n\r\n";

/// The ways to a webhook: see [`both_ways`].
const WAYS: [usize; 2] = [0, 1];

/// Calls a webhook whose answer begins with `start`; gives its end of the connection too, to go on.
async fn call(
    way: usize,
    webhook: &Webhook,
    limits: &str,
    start: &str,
) -> (Function, Result<Reply, Error>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let function = both_ways(listener.local_addr().unwrap(), limits)[way].clone();
    let serving = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(start.as_bytes()).await.unwrap();
        stream
    };
    let (invocation, record) = (streaming(), function.clone());
    let (outcome, stream) = tokio::join!(webhook.invoke(&record, &invocation), serving);
    (function, outcome, stream)
}

fn streaming() -> Invocation {
    let call = Call {
        answer: AnswerRule::Whole,
        may_stream: true,
        ..Call::default()
    };
    Invocation {
        call: Some(Arc::new(call)),
        ..invocation()
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

#[tokio::test]
async fn pieces_arrive_before_the_end_and_the_call_is_in_flight_until_then() {
    for way in WAYS {
        let webhook = webhook();
        let limits = r#"{"concurrency":1}"#;
        let (function, outcome, mut stream) = call(way, &webhook, limits, CHUNKED).await;
        let mut body = body(outcome);
        stream.write_all(b"3\r\none\r\n").await.unwrap();
        assert_eq!(next(&mut body).await.unwrap().unwrap(), "one");
        let busy = webhook.invoke(&function, &streaming()).await;
        assert!(
            matches!(busy, Err(Error::Busy { calls_max: 1 })),
            "{busy:?}"
        );
        stream.write_all(b"0\r\n\r\n").await.unwrap();
        assert!(next(&mut body).await.is_none());
        let endpoint = webhook.endpoint(&function).unwrap();
        assert_eq!(endpoint.in_flight(), 0);
    }
}

#[tokio::test]
async fn what_is_short_comes_whole_and_what_is_long_has_its_length() {
    for way in WAYS {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (_, outcome, _stream) = call(way, &webhook(), "{}", answer).await;
        assert_eq!(outcome.unwrap().body.whole(), "ok");
        let start = "HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
        let (_, outcome, _stream) = call(way, &webhook(), "{}", start).await;
        assert_eq!(body(outcome).length(), Some(100_000));
        let start = "HTTP/1.1 200 OK\r\ncontent-length: 200001\r\n\r\n";
        let (_, outcome, _stream) = call(way, &webhook(), "{}", start).await;
        let too_large = matches!(outcome, Err(Error::AnswerTooLarge { bytes_max: 200_000 }));
        assert!(too_large, "{outcome:?}");
    }
}

/// How a stream ends whose webhook wrote `start` and goes on with `then`, or says nothing more.
async fn end(way: usize, webhook: &Webhook, limits: &str, then: Option<Vec<u8>>) -> Failure {
    let (_, outcome, mut stream) = call(way, webhook, limits, CHUNKED).await;
    let mut body = body(outcome);
    let writing = async {
        match then {
            // The other side may have had enough before the end.
            Some(then) => drop((stream.write_all(&then).await, stream)),
            None => std::future::pending().await,
        }
    };
    let reading = async {
        loop {
            if let Err(failure) = next(&mut body).await.expect("no clean end") {
                return failure;
            }
        }
    };
    tokio::select! {
        failure = reading => failure,
        failure = async { writing.await; std::future::pending().await } => failure,
    }
}

#[tokio::test]
async fn what_goes_wrong_on_the_way_is_told_and_never_an_end() {
    for way in WAYS {
        let cut = Some(b"3\r\none\r\n".to_vec());
        let failure = end(way, &webhook(), "{}", cut).await;
        assert_eq!(failure.code, ErrorCode::Interrupted, "{failure}");
        let long = format!("30d41\r\n{}", "x".repeat(200_001)).into_bytes();
        let failure = end(way, &webhook(), "{}", Some(long)).await;
        assert!(
            failure.message.contains("larger than 200000 bytes"),
            "{failure}"
        );
        let failure = end(way, &webhook(), r#"{"timeoutMs":100}"#, None).await;
        assert_eq!(failure.code, ErrorCode::DeadlineExceeded);
        assert!(failure.message.contains("its limit of 100 ms"), "{failure}");
        let silence = webhook_with(AnswerLimits {
            stream_idle_timeout: Duration::from_millis(50),
            ..limits()
        });
        let failure = end(way, &silence, "{}", None).await;
        assert!(
            failure.message.contains("limits.stream_idle_timeout"),
            "{failure}"
        );
    }
}
