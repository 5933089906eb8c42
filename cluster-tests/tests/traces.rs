//! Traces: one tree from the caller's context, across the hop, into the function's start and run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::{Record, Sandbox, eventually};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A trace id that a caller brings along.
const TRACE: [u8; 16] = [0xa7; 16];

#[derive(Debug, Clone, PartialEq)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_spans_the_hop_the_cold_start_and_the_run() {
    let (endpoint, spans) = collector().await;
    let sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_TELEMETRY__OTLP_ENDPOINT", &endpoint)
        .start()
        .await;
    sandbox.register(&Record::process("hello", "hello")).await;
    // One of the two is not the function's home, so one of the two cold or warm calls is forwarded.
    for node in sandbox.nodes() {
        let url = node.functions_url("/invoke");
        let request = sandbox.client().post(url).header(
            "traceparent",
            format!("00-{}-00f067aa0ba902b7-01", hex(&TRACE)),
        );
        let body = json!({ "function_name": "hello", "payload": {} });
        let answer = request.json(&body).send().await.unwrap();
        assert!(answer.status().is_success());
    }
    let names = ["invoke", "forward", "serve", "cold_start", "run"];
    let of_the_trace = eventually(
        "all spans are exported",
        Duration::from_secs(20),
        || async {
            let all = spans.lock().unwrap().clone();
            let traced: Vec<Span> = all.into_iter().filter(|span| span.trace == TRACE).collect();
            let seen: Vec<&str> = traced.iter().map(|span| span.name.as_str()).collect();
            match names.iter().all(|name| seen.contains(name)) {
                true => Ok(traced.clone()),
                false => Err(format!("{seen:?}")),
            }
        },
    )
    .await;
    let parent_of = |name: &str| {
        let span = of_the_trace.iter().find(|span| span.name == name).unwrap();
        let parent = of_the_trace.iter().find(|other| other.id == span.parent);
        parent.map(|parent| parent.name.clone())
    };
    assert_eq!(parent_of("invoke"), None, "its parent is the caller's span");
    assert_eq!(parent_of("forward").as_deref(), Some("invoke"));
    assert_eq!(parent_of("serve").as_deref(), Some("forward"));
}

/// Listens for OTLP over HTTP and keeps the spans.
async fn collector() -> (String, Arc<Mutex<Vec<Span>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let spans = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&spans);
    tokio_util::task::TaskTracker::new().spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio_util::task::TaskTracker::new().spawn(async move {
                // A connection that breaks off is the exporter's to make again.
                let _ = receive(connection, &kept).await;
            });
        }
    });
    (endpoint, spans)
}

async fn receive(connection: TcpStream, kept: &Mutex<Vec<Span>>) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if connection.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body).await?;
        // ExportTraceServiceRequest.resource_spans = 1, ResourceSpans.scope_spans = 2, ScopeSpans.spans = 2.
        for resource in fields(&body, 1) {
            for scope in fields(resource, 2) {
                kept.lock().unwrap().extend(fields(scope, 2).map(span));
            }
        }
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        connection.write_all(answer).await?;
    }
}

/// Span.trace_id = 1, span_id = 2, parent_span_id = 4, name = 5 of OTLP's trace.proto.
fn span(bytes: &[u8]) -> Span {
    let first = |number| fields(bytes, number).next().unwrap_or_default().to_vec();
    Span {
        trace: first(1),
        id: first(2),
        parent: first(4),
        name: String::from_utf8(first(5)).unwrap(),
    }
}

/// The length-delimited fields of a protobuf message that have a number.
fn fields(mut bytes: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let value = match tag & 7 {
                0 => {
                    varint(&mut bytes);
                    continue;
                }
                1 => take(&mut bytes, 8),
                5 => take(&mut bytes, 4),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    take(&mut bytes, length)
                }
                kind => panic!("a field of kind {kind}"),
            };
            if tag >> 3 == number && tag & 7 == 2 {
                return Some(value);
            }
        }
        None
    })
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (value, rest) = bytes.split_at(length);
    *bytes = rest;
    value
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    let mut shift = 0;
    loop {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
