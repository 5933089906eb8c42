//! Kill -9 of a node that runs a function, while a client calls it through another node without pause.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{bail, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::Instant;

use super::report::{Report, Row};
use super::selection::Selection;
use super::{median, progress};
use crate::node::Node;
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::wait::outage;

const VIEW: &str = "peer_kill_retry_ms";
const SUCCESS: &str = "peer_kill_first_success_ms";
const FAILED: &str = "peer_kill_failed_calls";

/// The rows of this part.
pub(super) const NAMES: [&str; 3] = [VIEW, SUCCESS, FAILED];

const RUNS: usize = 5;

/// How long the client calls before the node is killed.
const CALLS_BEFORE: Duration = Duration::from_millis(500);

/// How often a survivor is asked whom it sees, and for how long.
const ASK_EVERY: Duration = Duration::from_millis(5);
const NOTICED_WITHIN: Duration = Duration::from_secs(30);

/// One run.
#[derive(Debug)]
struct Loss {
    /// Until both survivors said that the node is dead.
    view_ms: f64,
    /// Until the client had an answer from another node.
    success_ms: f64,
    /// Calls that failed in between.
    failed: f64,
}

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if !selection.wants_any(&NAMES) {
        return Ok(());
    }
    progress("kill -9 of a node under load");
    let sandbox = Sandbox::processes(3).await;
    let mut losses = Vec::new();
    for run in 0..RUNS {
        let program = std::env::current_exe()?;
        let program = program.to_string_lossy();
        let id = format!("loss-{run}");
        // As many slots as nothing ever waits for, and an instance on one node only.
        let record = Record::command(&id, [&*program, "serve"]).concurrency(64);
        let (_, victim) = sandbox.register_warm(&record, json!({})).await;
        losses.push(lose(&sandbox, &id, &victim).await?);
        victim.restart();
        sandbox.wait_settled().await;
    }
    let of = |figure: fn(&Loss) -> f64| losses.iter().map(figure);
    // Bounds are promises, so it is the worst run that has to keep them.
    let worst = |figures: &mut dyn Iterator<Item = f64>| figures.fold(0.0, f64::max);
    let rows = [
        Row::alone(
            VIEW,
            worst(&mut of(|loss| loss.view_ms)),
            "ms",
            Some(1500.0),
            RUNS,
        ),
        Row::alone(
            SUCCESS,
            median(of(|loss| loss.success_ms)),
            "ms",
            None,
            RUNS,
        ),
        Row::alone(
            FAILED,
            worst(&mut of(|loss| loss.failed)),
            "calls",
            Some(1.0),
            RUNS,
        ),
    ];
    rows.into_iter()
        .filter(|row| selection.wants(&row.name))
        .for_each(|row| report.row(row));
    Ok(())
}

async fn lose(sandbox: &Sandbox, id: &str, victim: &Node) -> anyhow::Result<Loss> {
    let survivors = sandbox.others(victim.name());
    let killed = Cell::new(None);
    let killing = async {
        outage(CALLS_BEFORE).await;
        let at = Instant::now();
        killed.set(Some(at));
        victim.kill9();
        try_join_all(
            survivors
                .iter()
                .map(|survivor| noticed(survivor, victim, at)),
        )
        .await
    };
    let calling = async {
        let mut failed = 0.0;
        loop {
            let answer = survivors[0].try_invoke(id, json!({})).await;
            match (answer, killed.get()) {
                (Ok(answer), None) if answer.is_ok() => {}
                (answer, None) => bail!("a call failed before the node was killed: {answer:?}"),
                (Ok(answer), Some(at)) if answer.is_ok() => {
                    if answer.node.as_deref() != Some(victim.name()) {
                        return Ok((at.elapsed(), failed));
                    }
                }
                (_, Some(at)) => {
                    failed += 1.0;
                    ensure!(
                        at.elapsed() < NOTICED_WITHIN,
                        "no call succeeds after {} was killed",
                        victim.name()
                    );
                }
            }
        }
    };
    let (noticed, (success, failed)) = tokio::try_join!(killing, calling)?;
    let view = noticed.into_iter().max().unwrap_or_default();
    Ok(Loss {
        view_ms: view.as_secs_f64() * 1e3,
        success_ms: success.as_secs_f64() * 1e3,
        failed,
    })
}

/// How long after the kill a survivor says that the node is dead.
async fn noticed(survivor: &Node, victim: &Node, at: Instant) -> anyhow::Result<Duration> {
    loop {
        if let Ok(cluster) = survivor.cluster().await {
            let mut nodes = cluster.nodes.iter();
            if nodes.any(|node| node.name == victim.name() && node.state == "dead") {
                return Ok(at.elapsed());
            }
        }
        ensure!(
            at.elapsed() < NOTICED_WITHIN,
            "{} still sees {}, which was killed",
            survivor.name(),
            victim.name()
        );
        tokio::time::sleep(ASK_EVERY).await;
    }
}
