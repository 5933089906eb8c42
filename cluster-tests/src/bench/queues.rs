//! The queues: how fast each takes deliveries beside what keeps them, and how soon an accepted event is on its way.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::report::{Report, Row, Target};
use super::selection::Selection;
use super::{median, progress};
use crate::etcd::Etcd;
use crate::nats::Nats;
use crate::ports::Ports;
use crate::record::Record;
use crate::sandbox::{Builder, Sandbox};

/// A row, the program of the queue that measures it, what that calls the reference, and the bound of their ratio.
struct Enqueue {
    row: &'static str,
    program: &'static str,
    reference: &'static str,
    target: Target,
}

const ENQUEUES: [Enqueue; 4] = [
    Enqueue {
        row: "enqueue_embedded_c1_p50",
        program: "enqueue",
        reference: "append and fdatasync, p50",
        target: Target::RatioAtMost(2.0),
    },
    Enqueue {
        row: "enqueue_embedded_c64_rps",
        program: "enqueue",
        reference: "appends in groups of 64",
        target: Target::RatioAtLeast(0.5),
    },
    Enqueue {
        row: "enqueue_etcd_c64_rps",
        program: "enqueue_etcd",
        reference: "puts of 64 callers",
        target: Target::RatioAtLeast(0.7),
    },
    Enqueue {
        row: "enqueue_jetstream_c64_rps",
        program: "enqueue_jetstream",
        reference: "publishes of 64 callers",
        target: Target::RatioAtLeast(0.5),
    },
];

const STARTED: &str = "accept_to_start_ms";
const STARTED_ETCD: &str = "accept_to_start_etcd_ms";

/// The rows of this part.
pub(super) const NAMES: [&str; 6] = [
    ENQUEUES[0].row,
    ENQUEUES[1].row,
    ENQUEUES[2].row,
    ENQUEUES[3].row,
    STARTED,
    STARTED_ETCD,
];

/// Events, one after the other.
const EVENTS: usize = 300;
/// How long one may take to its function.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    // On the disk of the build, since that of temporary files may be memory.
    let directory = tempfile::tempdir_in(programs()?)?;
    for program in ["enqueue", "enqueue_etcd", "enqueue_jetstream"] {
        let rows = ENQUEUES.iter().filter(|one| one.program == program);
        let rows: Vec<_> = rows.filter(|one| selection.wants(one.row)).collect();
        if !rows.is_empty() {
            enqueue(program, &rows, &directory, report).await?;
        }
    }
    if selection.wants(STARTED) {
        let builder = Sandbox::builder().nodes(1).embedded();
        started(STARTED, builder, report).await?;
    }
    if selection.wants(STARTED_ETCD) {
        started(STARTED_ETCD, Sandbox::builder().nodes(1), report).await?;
    }
    Ok(())
}

/// Where the programs are that the build made beside this one.
fn programs() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().context("a program is in a folder")?;
    Ok(folder.join("examples"))
}

/// Runs one program, with the server that it needs, and takes its figures.
async fn enqueue(
    program: &str,
    rows: &[&Enqueue],
    directory: &TempDir,
    report: &mut Report,
) -> anyhow::Result<()> {
    progress(&format!("deliveries, by {program}"));
    let ports = Ports::reserve();
    let path = directory.path();
    let (mut etcd, mut nats) = (None, None);
    let argument = match program {
        "enqueue_etcd" => {
            let started = Etcd::start(path, "127.0.0.1", ports.take(), ports.take()).await;
            etcd.insert(started).url()
        }
        "enqueue_jetstream" => nats.insert(Nats::start(path, ports.take()).await).url(),
        _ => path.display().to_string(),
    };
    let file = programs()?.join(program);
    let run = Command::new(&file).arg(argument).output().await;
    let run = run.with_context(|| format!("{} is built by make bench", file.display()))?;
    let errors = String::from_utf8_lossy(&run.stderr);
    ensure!(run.status.success(), "{program}: {errors}");
    let text = String::from_utf8_lossy(&run.stdout);
    let figures = figures(&text);
    for row in rows {
        let figure = |name: &str| {
            let figure = figures.get(name);
            figure.with_context(|| format!("{program} tells {name:?}: {text}"))
        };
        let (ours, unit) = figure(row.row)?;
        let (reference, _) = figure(row.reference)?;
        let unit = match *unit {
            "us" => "us",
            _ => "deliveries/s",
        };
        let target = Some(row.target);
        report.row(Row::compared(row.row, *ours, *reference, unit, target, 1));
    }
    Ok(())
}

/// Lines with a name, a number and its unit.
fn figures(text: &str) -> BTreeMap<String, (f64, &str)> {
    let lines = text.lines().filter_map(|line| {
        let (line, unit) = line.trim().rsplit_once(' ')?;
        let (name, number) = line.trim().rsplit_once(' ')?;
        Some((name.trim().to_owned(), (number.parse().ok()?, unit)))
    });
    lines.collect()
}

/// From the 202 to the first byte at a webhook, on a node that does nothing else.
async fn started(name: &str, builder: Builder, report: &mut Report) -> anyhow::Result<()> {
    progress("events on their way to a function");
    let sandbox = builder.start().await;
    let (address, mut arrivals, _serving) = webhook().await?;
    let record = Record::http("hook", &format!("http://{address}/"));
    sandbox.register(&record).await;
    let subscription = json!({"event": "bench.start", "functionId": "hook"});
    sandbox.subscribe(&subscription).await;
    let node = sandbox.node(0);
    let mut times = Vec::with_capacity(EVENTS);
    for number in 0..EVENTS {
        let answer = node.emit("bench.start", &json!(number)).await;
        let accepted = Instant::now();
        ensure!(answer.status == 202, "emit: {answer:?}");
        let arrived = timeout(STARTED_WITHIN, arrivals.recv()).await;
        let arrived = arrived?.context("the webhook serves")?;
        times.push(arrived.saturating_duration_since(accepted).as_secs_f64() * 1e3);
    }
    report.row(Row::alone(name, median(times), "ms", Some(5.0), EVENTS));
    Ok(())
}

/// A webhook that tells when it was called.
async fn webhook() -> anyhow::Result<(
    SocketAddr,
    mpsc::UnboundedReceiver<Instant>,
    AbortOnDropHandle<()>,
)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (called, arrivals) = mpsc::unbounded_channel();
    let tasks = TaskTracker::new();
    let serving = tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let called = called.clone();
            let service = service_fn(move |_: Request<Incoming>| {
                // The bench may have ended.
                let _ = called.send(Instant::now());
                async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tasks.spawn(async move { drop(connection.await) });
        }
    });
    Ok((address, arrivals, AbortOnDropHandle::new(serving)))
}

#[cfg(test)]
mod tests {
    use super::figures;

    #[test]
    fn a_line_is_a_name_a_number_and_a_unit() {
        let text =
            "append and fdatasync, p50         412 us\nenqueue_etcd_c64_rps   12345 /s\nnonsense\n";
        let figures = figures(text);
        assert_eq!(figures["append and fdatasync, p50"], (412.0, "us"));
        assert_eq!(figures["enqueue_etcd_c64_rps"], (12_345.0, "/s"));
        assert_eq!(figures.len(), 2);
    }
}
