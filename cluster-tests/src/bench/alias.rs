//! A thousand functions with an alias each: how long from the store's word of a change to the snapshot that calls go by.

use std::time::Duration;

use anyhow::ensure;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde_json::json;

use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::api::function_path;
use crate::many;
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::wait::until;

const SWAP: &str = "alias_swap_us";

/// The row of this part.
pub(super) const NAMES: [&str; 1] = [SWAP];

/// Functions that have a version and an alias.
const COUNT: usize = 1_000;

const RUNS: usize = 5;
const CHANGES: usize = 100;
const KNOWN_WITHIN: Duration = Duration::from_secs(60);
const METRIC: &str = "hearth_registry_swap_seconds";

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if !selection.wants(SWAP) {
        return Ok(());
    }
    progress("1,000 functions with an alias each");
    let sandbox = Sandbox::builder().nodes(1).start().await;
    let node = sandbox.node(0);
    // Nothing is called here, so nobody needs to listen.
    many::create(&sandbox, COUNT, "http://127.0.0.1:9/").await;
    until("the node has all functions", KNOWN_WITHIN, || async {
        node.metric("gateway_functions_total", "default").await >= COUNT as f64
    })
    .await;
    let made = stream::iter(0..COUNT).map(|at| publish(&node, at));
    made.buffer_unordered(8).try_collect::<()>().await?;
    let mut means = Vec::new();
    for run in 0..RUNS {
        let before = seconds(&node).await;
        for change in 0..CHANGES {
            let target = json!({"version": 1, "description": format!("{run}-{change}")});
            set(&node, change * (COUNT / CHANGES), &target).await?;
        }
        let after = seconds(&node).await;
        ensure!(after.1 > before.1, "changes of aliases are counted");
        means.push((after.0 - before.0) * 1e6 / (after.1 - before.1));
    }
    let row = Row::alone(SWAP, median(means), "us", Some(1_000.0), RUNS);
    report.row(row);
    Ok(())
}

async fn publish(node: &Node, at: usize) -> anyhow::Result<()> {
    let path = function_path(&format!("function-{at}"));
    let versions = format!("{path}/versions");
    let answer = node.config(Method::POST, &versions, None).await;
    ensure!(answer.status == 201, "{versions}: {answer:?}");
    set(node, at, &json!({"version": 1})).await
}

async fn set(node: &Node, at: usize, target: &serde_json::Value) -> anyhow::Result<()> {
    let path = function_path(&format!("function-{at}"));
    let alias = format!("{path}/aliases/prod");
    let answer = node.config(Method::PUT, &alias, Some(target)).await;
    ensure!(matches!(answer.status, 200 | 201), "{alias}: {answer:?}");
    Ok(())
}

/// How long the node has spent on changes of aliases, and how often.
async fn seconds(node: &Node) -> (f64, f64) {
    let of = |what: &str| format!("{METRIC}_{what}");
    (
        node.metric(&of("sum"), "aliases").await,
        node.metric(&of("count"), "aliases").await,
    )
}
