//! What of boto3's call of a warm function is ours: its calls of a node, less its calls of the function itself, in turns. The node asks for
//! signatures, so checking them is a part of it.

use anyhow::{Context, ensure};
use reqwest::Method;

use super::function::{Upstream, program};
use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::account::{Person, SPACE};
use crate::ports::Ports;
use crate::program;
use crate::record::Record;
use crate::sandbox::Sandbox;

const OUR_PART: &str = "boto3_our_part_us";

/// The rows of this part.
pub(super) const NAMES: [&str; 1] = [OUR_PART];

/// The most that is to be ours, in microseconds.
const OUR_PART_MAX: f64 = 300.0;

/// Calls of each in a round.
const CALLS: u32 = 500;

const FUNCTION: &str = "bench";

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if !selection.wants_any(&NAMES) {
        return Ok(());
    }
    progress("boto3's calls of a warm function, and of the function itself");
    let sandbox = Sandbox::builder().nodes(1).auth_required().start().await;
    let key = Person::sign_up(&sandbox)
        .await
        .access_key(&["invoke"])
        .await;
    let program = program()?;
    let record = Record::command(FUNCTION, [program.as_str(), "serve"])
        .concurrency(128)
        .max(1);
    let path = format!("/v1/spaces/{SPACE}/functions");
    let node = sandbox.node(0);
    let registered = node.config(Method::POST, &path, Some(record.json())).await;
    ensure!(registered.status == 201, "{}", registered.summary());
    let ports = Ports::reserve();
    let function = Upstream::start(sandbox.dir(), &ports).await?;
    let mut boto3 = tokio::process::Command::new(program::library("venv/bin/python"));
    boto3
        .arg(program::path("aws_bench.py"))
        .args([
            node.functions_url(""),
            format!("http://{}", function.address()),
        ])
        .args([selection.rounds.to_string(), CALLS.to_string()])
        .env("AWS_ACCESS_KEY_ID", &key.access_key_id)
        .env("AWS_SECRET_ACCESS_KEY", &key.secret_access_key);
    let told = program::told("aws_bench.py", boto3).await;
    // Of each round the medians of the node and of the function, in microseconds.
    let rounds: Vec<[f64; 2]> = serde_json::from_str(&told).context("read what boto3 measured")?;
    ensure!(rounds.len() == selection.rounds, "{told}");
    let ours = median(rounds.iter().map(|[node, function]| node - function));
    report.row(Row::alone(
        OUR_PART,
        ours,
        "us",
        Some(OUR_PART_MAX),
        selection.rounds,
    ));
    for (way, which) in [("boto3, node", 0), ("boto3, function", 1)] {
        report.detail([
            "1 at once".to_owned(),
            way.to_owned(),
            format!("{:.1}", median(rounds.iter().map(|round| round[which]))),
            "-".to_owned(),
            "-".to_owned(),
            "-".to_owned(),
            rounds.len().to_string(),
        ]);
    }
    Ok(())
}
