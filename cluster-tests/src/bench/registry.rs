//! Ten thousand functions and as many subscriptions: how long a node takes to make its index of them, and to find a route.

use std::hint::black_box;
use std::time::Duration;

use anyhow::ensure;
use protocol::PathTree;
use serde_json::json;
use tokio::time::Instant;

use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::many;
use crate::node::Node;
use crate::process::resident_bytes;
use crate::sandbox::Sandbox;
use crate::wait::until;

const REBUILD: &str = "registry_rebuild_ms";
const CHANGE: &str = "registry_change_ms";
const MEMORY: &str = "registry_20k_rss_mib";
const LOOKUP: &str = "path_lookup_ns";

/// The rows of this part.
pub(super) const NAMES: [&str; 4] = [REBUILD, CHANGE, MEMORY, LOOKUP];

/// Functions, and subscriptions.
const COUNT: usize = 10_000;

const RUNS: usize = 5;
const LOOKUPS: usize = 100_000;
const READY_WITHIN: Duration = Duration::from_secs(60);
const METRIC: &str = "hearth_registry_rebuild_seconds";

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if selection.wants(LOOKUP) {
        lookup(report)?;
    }
    if selection.wants_any(&[REBUILD, CHANGE, MEMORY]) {
        registry(selection, report).await?;
    }
    Ok(())
}

/// Every route is asked for in turn, so that no cache holds what a lookup needs.
fn lookup(report: &mut Report) -> anyhow::Result<()> {
    progress("routes among 10,000");
    let mut tree = PathTree::default();
    for (at, path) in (0..COUNT).map(|at| (at, path(at))) {
        tree.add(&path, at)?;
    }
    let asked: Vec<_> = (0..COUNT)
        .map(|at| path(at).replace(":id", "4711").replace("*rest", "a/b"))
        .collect();
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let begun = Instant::now();
        for path in asked.iter().cycle().take(LOOKUPS) {
            ensure!(black_box(tree.resolve(path)).is_some(), "{path} is found");
        }
        times.push(begun.elapsed().as_secs_f64() * 1e9 / LOOKUPS as f64);
    }
    let runs = times.len();
    report.row(Row::alone(LOOKUP, median(times), "ns", Some(1000.0), runs));
    Ok(())
}

/// A node that restarts makes its whole index anew; a subscription more, that of its method and space.
async fn registry(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    progress("10,000 functions and 10,000 subscriptions");
    let sandbox = Sandbox::builder().nodes(1).start().await;
    let node = sandbox.node(0);
    // Nothing is called here, so nobody needs to listen.
    many::create(&sandbox, COUNT, "http://127.0.0.1:9/").await;
    until("the node has all records", READY_WITHIN, || async {
        node.metric("gateway_subscriptions_total", "default").await >= COUNT as f64
    })
    .await;
    let (mut rebuilds, mut changes, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        node.kill9();
        node.restart();
        node.wait_ready(READY_WITHIN).await;
        let (sum, count) = seconds(&node).await;
        rebuilds.push(sum * 1e3 / count);
        let more = json!({
            "event": "http",
            "method": "GET",
            "path": format!("/more-{run}"),
            "functionId": "function-0",
        });
        node.subscribe(&more).await;
        until("the change is counted", READY_WITHIN, || async {
            seconds(&node).await.1 > count
        })
        .await;
        let (after, times) = seconds(&node).await;
        changes.push((after - sum) * 1e3 / (times - count));
        if let Some(bytes) = resident_bytes(node.process_id()) {
            memory.push(bytes as f64 / (1024.0 * 1024.0));
        }
    }
    let rows = [
        Row::alone(REBUILD, median(rebuilds), "ms", Some(50.0), RUNS),
        Row::alone(CHANGE, median(changes), "ms", None, RUNS),
        Row::alone(MEMORY, median(memory), "MiB", None, RUNS),
    ];
    for row in rows.into_iter().filter(|row| selection.wants(&row.name)) {
        report.row(row);
    }
    Ok(())
}

/// How long the node has spent on its index of subscriptions, and how often.
async fn seconds(node: &Node) -> (f64, f64) {
    let of = |what: &str| format!("{METRIC}_{what}");
    let label = "subscriptions";
    (
        node.metric(&of("sum"), label).await,
        node.metric(&of("count"), label).await,
    )
}

/// Routes as an API has them: of a hundred resources, with parameters and wildcards.
fn path(at: usize) -> String {
    let (resource, action) = (at % 100, at / 100);
    match at % 5 {
        0..3 => format!("/v1/resource-{resource}/action-{action}"),
        3 => format!("/v1/resource-{resource}/of/action-{action}/:id"),
        _ => format!("/v1/resource-{resource}/of/action-{action}/*rest"),
    }
}
