//! Custom events: how many a node accepts in a second, and that each subscriber of an accepted one is called.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::task::TaskTracker;

use super::cell::Payload;
use super::cores::Cores;
use super::load::{self, Shape, Subject};
use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::record::Record;
use crate::sandbox::{Builder, Sandbox};

const ACCEPTED: &str = "emit_accept_rps";
const FANNED_OUT: &str = "emit_fanout10_rps";
const LOST: &str = "emit_fanout10_lost";

/// The rows of this part.
pub(super) const NAMES: [&str; 3] = [ACCEPTED, FANNED_OUT, LOST];

/// How many connections emit.
const CALLERS: usize = 64;

/// Characters of an event's text.
const TEXT_LEN: usize = 100;

/// Subscribers of the event that goes to several.
const FANOUT: u64 = 10;

/// How long deliveries may take after the last event was accepted.
const DELIVERED_WITHIN: Duration = Duration::from_secs(60);

pub(super) async fn measure(
    selection: &Selection,
    cores: &Cores,
    report: &mut Report,
) -> anyhow::Result<()> {
    if selection.wants(ACCEPTED) {
        accept(selection, cores, report).await?;
    }
    if selection.wants_any(&[FANNED_OUT, LOST]) {
        fan_out(selection, cores, report).await?;
    }
    Ok(())
}

/// One subscriber that costs nothing: an action of OpenWhisk, which takes only objects, so that calls with a text end before anything is sent.
async fn accept(selection: &Selection, cores: &Cores, report: &mut Report) -> anyhow::Result<()> {
    progress("events with one subscriber that costs nothing");
    let sandbox = in_memory().start().await;
    let null = json!({
        "functionId": "null",
        "type": "openwhisk",
        "eventFormat": "raw",
        "provider": {"apiHost": "http://127.0.0.1:9", "namespace": "guest", "action": "null", "key": "a:b"},
    });
    create(&sandbox, "functions", &null).await?;
    let text = json!("x".repeat(TEXT_LEN)).to_string();
    let subject = Subject {
        body: text.into(),
        ..subscribed(&sandbox, "bench.null", ["null".to_owned()]).await
    };
    let mut rates = Vec::new();
    for _ in 0..selection.rounds {
        let shape = Shape::Closed(CALLERS);
        rates.push(load::run(cores, &subject, shape, selection.length).await?);
    }
    let rate = median(rates.iter().map(|sample| sample.rps));
    let row = Row::at_least(ACCEPTED, rate, "events/s", 20_000.0, rates.len());
    report.row(row);
    Ok(())
}

/// Ten webhooks that count what they get. Events that find no room are refused, and not counted.
async fn fan_out(selection: &Selection, cores: &Cores, report: &mut Report) -> anyhow::Result<()> {
    progress("events with ten webhooks that count them");
    let sandbox = in_memory().start().await;
    let received = Arc::new(AtomicU64::new(0));
    let webhook = count(Arc::clone(&received)).await?;
    let ids: Vec<_> = (0..FANOUT).map(|one| format!("count-{one}")).collect();
    for id in &ids {
        let record = Record::http(id, &format!("http://{webhook}/"));
        sandbox.register(&record).await;
    }
    let subject = subscribed(&sandbox, "bench.ten", ids).await;
    let (mut rates, mut expected) = (Vec::new(), 0);
    for _ in 0..selection.rounds {
        let begun = Instant::now();
        let shape = Shape::Closed(CALLERS);
        let sample = load::run(cores, &subject, shape, selection.length).await?;
        expected += sample.taken * FANOUT;
        let until = Instant::now() + DELIVERED_WITHIN;
        while received.load(Ordering::Relaxed) < expected && Instant::now() < until {
            sleep(Duration::from_millis(1)).await;
        }
        // From the first event to the last delivery: what can go on for as long as one likes.
        rates.push(sample.taken as f64 / begun.elapsed().as_secs_f64());
    }
    let lost = expected as f64 - received.load(Ordering::Relaxed) as f64;
    let runs = rates.len();
    report.row(Row::alone(
        FANNED_OUT,
        median(rates),
        "events/s",
        None,
        runs,
    ));
    report.row(Row::alone(LOST, lost, "deliveries", Some(0.0), runs));
    Ok(())
}

/// A node whose events wait in memory, so that the figures are those of taking and delivering them; the other queues have rows of their own.
fn in_memory() -> Builder {
    Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__BACKEND", "memory")
}

async fn create(sandbox: &Sandbox, kind: &str, record: &Value) -> anyhow::Result<()> {
    let path = format!("/v1/spaces/default/{kind}");
    let answer = sandbox
        .node(0)
        .config(Method::POST, &path, Some(record))
        .await;
    ensure!(answer.status == 201, "create {record}: {answer:?}");
    Ok(())
}

/// Subscribes functions to an event, which the subject emits.
async fn subscribed(
    sandbox: &Sandbox,
    event: &'static str,
    functions: impl IntoIterator<Item = String>,
) -> Subject {
    for id in functions {
        let subscription = json!({"event": event, "functionId": id});
        sandbox.subscribe(&subscription).await;
    }
    let address = sandbox.node(0).events_address();
    Subject {
        event: Some(event),
        ..Subject::new(address, "/", Payload::Small.bytes())
    }
}

/// A webhook that answers with nothing and counts its calls, on a thread of its own.
async fn count(received: Arc<AtomicU64>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let listener = listener
        .into_std()
        .context("hand the webhook's listener over")?;
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(serve(listener, received));
    });
    Ok(address)
}

async fn serve(listener: std::net::TcpListener, received: Arc<AtomicU64>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    let tasks = TaskTracker::new();
    while let Ok((stream, _)) = listener.accept().await {
        let received = Arc::clone(&received);
        let service = service_fn(move |request: Request<Incoming>| {
            let received = Arc::clone(&received);
            async move {
                let mut body = request.into_body();
                while let Some(Ok(_)) = body.frame().await {}
                received.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        // A node that hangs up is how every connection ends.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tasks.spawn(async move { drop(connection.await) });
    }
}
