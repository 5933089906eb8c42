//! What a node costs that nobody calls: memory, start-up, the binary.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::time::Instant;

use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::node::{Node, NodeOptions};
use crate::process::resident_bytes;
use crate::sandbox::{Builder, Sandbox};
use crate::wait::outage;

const IDLE: &str = "idle_rss_mib";
const BINARY: &str = "binary_mib";
const READY: &str = "ready_ms";

/// The rows of this part.
pub(super) const NAMES: [&str; 3] = [IDLE, READY, BINARY];

/// How long nodes lie idle before their memory is read.
const IDLE_FOR: Duration = Duration::from_secs(10);

const STARTS: usize = 5;

/// How long a node may take, and how often it is asked.
const READY_WITHIN: Duration = Duration::from_secs(30);
const ASK_EVERY: Duration = Duration::from_millis(1);

const MIB: f64 = 1024.0 * 1024.0;

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if selection.wants_any(&[IDLE, BINARY]) {
        idle(selection, report).await?;
    }
    if selection.wants(READY) {
        ready(report).await?;
    }
    Ok(())
}

/// Three nodes of one cluster are three runs.
async fn idle(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    progress("three idle nodes for 10 s");
    let sandbox = nodes(3).start().await;
    outage(IDLE_FOR).await;
    let (mut memory, mut binary) = (Vec::new(), Vec::new());
    for node in sandbox.nodes() {
        let id = node.process_id();
        let bytes = resident_bytes(id).with_context(|| format!("{} has ended", node.name()))?;
        memory.push(bytes as f64 / MIB);
        let program = std::fs::metadata(format!("/proc/{id}/exe"))?;
        binary.push(program.len() as f64 / MIB);
    }
    let runs = memory.len();
    if selection.wants(IDLE) {
        report.row(Row::alone(IDLE, median(memory), "MiB", Some(60.0), runs));
    }
    if selection.wants(BINARY) {
        report.row(Row::alone(BINARY, median(binary), "MiB", None, runs));
    }
    Ok(())
}

/// A node with an empty data directory that joins a cluster, from the start of its process.
async fn ready(report: &mut Report) -> anyhow::Result<()> {
    progress("start-up");
    let sandbox = nodes(1).start().await;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let node = sandbox.add_node(NodeOptions::default());
        times.push(until_ready(&node, begun).await?.as_secs_f64() * 1e3);
        node.kill9();
    }
    report.row(Row::alone(READY, median(times), "ms", Some(500.0), STARTS));
    Ok(())
}

async fn until_ready(node: &Node, begun: Instant) -> anyhow::Result<Duration> {
    while !node.is_ready().await {
        ensure!(
            node.is_running() && begun.elapsed() < READY_WITHIN,
            "{} does not get ready:\n{}",
            node.name(),
            node.log_tail(40)
        );
        tokio::time::sleep(ASK_EVERY).await;
    }
    Ok(begun.elapsed())
}

/// Nodes with the suite's container engine where there is one, as most nodes have one.
fn nodes(count: usize) -> Builder {
    let builder = Sandbox::builder().nodes(count);
    match std::env::var_os("HEARTH_TEST_DOCKER") {
        Some(_) => builder.containers(),
        None => builder,
    }
}
