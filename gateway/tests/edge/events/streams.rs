//! Answers of functions that are passed on as they come.

use std::time::Duration;

use futures_util::stream;
use protocol::Deadline;
use protocol::invocation::{Body, BodyStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use super::*;
use crate::support::{PATIENCE, eventually};

type Piece = Result<Bytes, protocol::Failure>;

/// The function's end of its answers, one for each call.
pub(crate) type Calls = mpsc::UnboundedReceiver<mpsc::UnboundedSender<Piece>>;

/// Makes the function `raw` answer with server-sent events that the test sends, within `time`.
pub(crate) fn stream_raw(sandbox: &Sandbox, length: Option<u64>, time: Duration) -> Calls {
    let (calls, received) = mpsc::unbounded_channel();
    sandbox.node.on_invoke(move |request| {
        let calls = calls.clone();
        async move {
            if request.function_id.as_str() != "raw" {
                return run(request);
            }
            let (pieces, receiver) = mpsc::unbounded_channel();
            calls.send(pieces).unwrap();
            let pieces = stream::unfold(receiver, |mut receiver| async move {
                let piece: Piece = receiver.recv().await?;
                Some((piece, receiver))
            });
            let deadline = Deadline::at((Instant::now() + time).into_std());
            let mut completed = replied(Some("text/event-stream"), "");
            completed.reply.body = Body::Stream(BodyStream::new(length, deadline, pieces));
            Ok(completed)
        }
    });
    received
}

fn streaming(length: Option<u64>) -> (Sandbox, Calls) {
    let sandbox = sandbox(&[("default", http("GET", "/s", "raw"))]);
    let calls = stream_raw(&sandbox, length, PATIENCE);
    (sandbox, calls)
}

/// A client of one connection, which keeps all that came.
pub(crate) struct Client {
    stream: TcpStream,
    came: Vec<u8>,
}

impl Client {
    pub(crate) async fn get(sandbox: &Sandbox, path: &str) -> Self {
        let stream = TcpStream::connect(sandbox.addresses.events).await.unwrap();
        let mut client = Self {
            stream,
            came: Vec::new(),
        };
        client.ask(path).await;
        client
    }

    async fn ask(&mut self, path: &str) {
        let call = Call::get(path).header("connection", "keep-alive");
        self.stream.write_all(&call.bytes()).await.unwrap();
    }

    /// Reads until a text came; gives all that came up to its end, and forgets it.
    pub(crate) async fn until(&mut self, text: &str) -> String {
        let reading = async {
            loop {
                let found = self
                    .came
                    .windows(text.len())
                    .position(|came| came == text.as_bytes());
                if let Some(at) = found {
                    let rest = self.came.split_off(at + text.len());
                    return String::from_utf8(std::mem::replace(&mut self.came, rest)).unwrap();
                }
                let count = self.stream.read_buf(&mut self.came).await.unwrap();
                assert_ne!(count, 0, "it ended without {text:?}: {:?}", self.came);
            }
        };
        timeout(PATIENCE, reading)
            .await
            .unwrap_or_else(|_| panic!("{text:?} did not come"))
    }

    /// What came until the connection ended, however it did.
    async fn rest(mut self) -> String {
        let reading = self.stream.read_to_end(&mut self.came);
        let _ = timeout(PATIENCE, reading)
            .await
            .expect("the connection ends");
        String::from_utf8(self.came).unwrap()
    }
}

fn piece(text: &'static str) -> Piece {
    Ok(Bytes::from_static(text.as_bytes()))
}

fn broke() -> Piece {
    Err(protocol::Failure::new(
        ErrorCode::FunctionFailed,
        Component::Function,
        Effect::Finished,
        "the function died",
    ))
}

#[tokio::test]
async fn head_and_pieces_reach_the_client_while_the_function_holds_back_the_next() {
    let (sandbox, mut calls) = streaming(None);
    let mut client = Client::get(&sandbox, "/s").await;
    for _ in 0..2 {
        let pieces = calls.recv().await.unwrap();
        let head = client.until("\r\n\r\n").await.to_ascii_lowercase();
        for line in [
            "http/1.1 200 ok\r\n",
            "content-type: text/event-stream\r\n",
            "transfer-encoding: chunked\r\n",
            "x-hearth-start: warm\r\n",
            "server-timing: route;dur=0.004, run;dur=1.250\r\n",
        ] {
            assert!(head.contains(line), "{head}");
        }
        assert!(!head.contains("content-encoding"), "{head}");
        pieces.send(piece("data: 1\n\n")).unwrap();
        assert_eq!(
            client.until("data: 1\n\n\r\n").await,
            "9\r\ndata: 1\n\n\r\n"
        );
        pieces.send(piece("data: 2\n\n")).unwrap();
        client.until("data: 2\n\n\r\n").await;
        drop(pieces);
        assert_eq!(client.until("\r\n\r\n").await, "0\r\n\r\n");
        // The connection takes another request.
        client.ask("/s").await;
    }
}

#[tokio::test]
async fn an_answer_that_told_its_length_keeps_it() {
    let (sandbox, mut calls) = streaming(Some(6));
    let mut client = Client::get(&sandbox, "/s").await;
    let pieces = calls.recv().await.unwrap();
    let head = client.until("\r\n\r\n").await;
    assert!(head.contains("content-length: 6\r\n"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
    for text in ["one", "two"] {
        pieces.send(piece(text)).unwrap();
        client.until(text).await;
    }
    drop(pieces);
    client.ask("/s").await;
    assert!(calls.recv().await.is_some(), "the connection goes on");
}

#[tokio::test]
async fn an_answer_that_breaks_off_has_no_end() {
    for length in [None, Some(100)] {
        let (sandbox, mut calls) = streaming(length);
        let mut client = Client::get(&sandbox, "/s").await;
        let pieces = calls.recv().await.unwrap();
        pieces.send(piece("one")).unwrap();
        client.until("one").await;
        pieces.send(broke()).unwrap();
        let rest = client.rest().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    }
}

/// HTTP/1.0 has no chunks, so that the end of the connection is the end of the answer; some proxies speak it.
#[tokio::test]
async fn a_client_of_http_1_0_can_tell_a_cut_from_an_end() {
    for is_cut in [false, true] {
        let (sandbox, mut calls) = streaming(None);
        let mut client = TcpStream::connect(sandbox.addresses.events).await.unwrap();
        client.write_all(b"GET /s HTTP/1.0\r\n\r\n").await.unwrap();
        let pieces = calls.recv().await.unwrap();
        pieces.send(piece("one")).unwrap();
        let mut came = Vec::new();
        while !came.ends_with(b"\r\n\r\none") {
            assert_ne!(client.read_buf(&mut came).await.unwrap(), 0);
        }
        assert!(!String::from_utf8(came).unwrap().contains("chunked"));
        if is_cut {
            pieces.send(broke()).unwrap();
        }
        drop(pieces);
        let end = timeout(PATIENCE, client.read(&mut [0])).await.unwrap();
        assert_eq!(end.is_err(), is_cut, "{end:?}");
    }
}

#[tokio::test]
async fn a_client_that_hangs_up_ends_the_run_and_frees_its_place() {
    let sandbox = Sandbox::with(|settings| settings.limits.in_flight_max = 1);
    subscribe(&sandbox, &[("default", http("GET", "/s", "raw"))]);
    let mut calls = stream_raw(&sandbox, None, PATIENCE);
    let mut client = Client::get(&sandbox, "/s").await;
    let pieces = calls.recv().await.unwrap();
    client.until("\r\n\r\n").await;
    let shed = send(&sandbox, Call::get("/s")).await;
    assert_eq!(shed.status, 503, "a stream is in flight: {shed:?}");
    drop(client);
    timeout(PATIENCE, pieces.closed())
        .await
        .expect("the run is cancelled");
    // The place is given back in the same moment.
    let mut next = Client::get(&sandbox, "/s").await;
    assert!(next.until("\r\n").await.contains("200 OK"));

    // So it is at the end of a stream.
    drop(calls.recv().await.unwrap());
    next.until("0\r\n\r\n").await;
    let mut last = Client::get(&sandbox, "/s").await;
    assert!(last.until("\r\n").await.contains("200 OK"));
}

/// The run's deadline holds whether or not its client reads.
#[tokio::test]
async fn a_client_that_does_not_read_does_not_lengthen_the_run() {
    let sandbox = sandbox(&[("default", http("GET", "/s", "raw"))]);
    let mut calls = stream_raw(&sandbox, None, Duration::from_millis(300));
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(64 * 1024).unwrap();
    let mut stream = socket.connect(sandbox.addresses.events).await.unwrap();
    stream.write_all(&Call::get("/s").bytes()).await.unwrap();
    let pieces = calls.recv().await.unwrap();
    let large = Bytes::from(vec![b'x'; 64 * 1024 * 1024]);
    pieces.send(Ok(large)).unwrap();
    timeout(PATIENCE, pieces.closed())
        .await
        .expect("the run is cancelled");
    let broken = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(broken.expect("it ends").is_err(), "it is reset");
}

#[tokio::test]
async fn a_drain_lets_a_stream_finish_and_cuts_it_at_the_deadline() {
    for finishes in [true, false] {
        let (mut sandbox, mut calls) = streaming(None);
        let mut client = Client::get(&sandbox, "/s").await;
        let pieces = calls.recv().await.unwrap();
        client.until("\r\n\r\n").await;
        sandbox.shutdown.cancel();
        pieces.send(piece("one")).unwrap();
        client.until("one\r\n").await;
        if finishes {
            drop(pieces);
            assert!(sandbox.finish(PATIENCE).await);
            assert_eq!(client.rest().await, "0\r\n\r\n");
        } else {
            assert!(!sandbox.finish(Duration::from_millis(300)).await);
            assert_eq!(client.rest().await, "", "no end");
            assert!(pieces.is_closed());
        }
    }
}

/// Section 10: what the gateway says of a call, it says of a stream at its end.
#[tokio::test]
async fn the_end_of_a_stream_is_told_to_those_who_watch_calls() {
    let watch = |name| ("default", json!({"event": name, "functionId": "g"}));
    let sandbox = sandbox(&[
        ("default", http("GET", "/s", "raw")),
        watch("gateway.function.invoked"),
        watch("gateway.function.invocationFailed"),
    ]);
    let mut calls = stream_raw(&sandbox, None, PATIENCE);
    let told = |sandbox: &Sandbox| {
        let requests = sandbox.node.requests.lock().unwrap();
        let of_watcher = requests
            .iter()
            .filter(|request| request.function_id.as_str() == "g");
        let told = of_watcher.map(|request| serde_json::from_slice(&request.payload).unwrap());
        told.collect::<Vec<Value>>()
    };
    for (count, ends_well) in [(1, true), (2, false)] {
        let mut client = Client::get(&sandbox, "/s").await;
        let pieces = calls.recv().await.unwrap();
        pieces.send(piece("one")).unwrap();
        client.until("one").await;
        assert_eq!(told(&sandbox).len(), count - 1, "not before the end");
        if !ends_well {
            pieces.send(broke()).unwrap();
        }
        drop(pieces);
        eventually("it is told", || told(&sandbox).len() == count).await;
        let told = told(&sandbox).pop().unwrap();
        let (name, field, text) = match ends_well {
            true => ("gateway.function.invoked", "result", ""),
            false => (
                "gateway.function.invocationFailed",
                "error",
                "the function died",
            ),
        };
        assert_eq!(
            (&told["event"], &told["data"][field]),
            (&json!(name), &json!(text))
        );
    }
}

#[tokio::test]
async fn only_what_is_passed_on_as_it_is_may_stream() {
    let sandbox = sandbox(&[
        ("default", http("GET", "/raw", "raw")),
        ("default", http("HEAD", "/raw", "raw")),
        ("default", http("GET", "/binary", "binary")),
        ("default", http("GET", "/envelope", "f")),
        ("default", json!({"event": "invoke", "functionId": "raw"})),
        ("default", json!({"event": "a", "functionId": "raw"})),
    ]);
    let invoke = Call::post("/", "").header("event", "invoke");
    let cases = [
        (Call::get("/raw"), true),
        (Call::new("HEAD", "/raw"), false),
        (Call::get("/binary"), true),
        (Call::get("/envelope"), false),
        (invoke.header("function-id", "raw"), false),
        (Call::post("/", "").header("event", "a"), false),
    ];
    for (count, (call, expected)) in (1..).zip(cases) {
        send(&sandbox, call).await;
        eventually("the call", || sandbox.node.calls() == count).await;
        let requests = sandbox.node.requests.lock().unwrap();
        let call = requests[count - 1].call.clone().unwrap();
        assert_eq!(call.may_stream, expected, "{call:?}");
    }
}
