//! `hearth cluster`: the nodes as one of them sees them, and the secret that makes them one cluster.

use clap::{Args, Subcommand};
use protocol::api::{Cluster, ClusterHint, ClusterNode};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::table::{short_id, table};

mod rotate_secret;

use rotate_secret::RotateSecretArgs;

/// A store that was not heard for so long is worth a word; shorter pauses are a request on its way.
const STALENESS_SHOWN_SECONDS: f64 = 5.0;

/// Arguments of `hearth cluster`.
#[derive(Debug, Clone, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct ClusterArgs {
    /// Show as well which functions are warm where, and with how many free slots
    #[arg(long, short)]
    verbose: bool,

    #[command(subcommand)]
    command: Option<ClusterCommand>,
}

/// What can be done with the cluster besides looking at it.
#[derive(Debug, Clone, Subcommand)]
enum ClusterCommand {
    /// Replace the cluster's secret, step by step, without a restart
    #[command(after_help = rotate_secret::AFTER_HELP)]
    RotateSecret(RotateSecretArgs),
}

/// Prints the cluster's nodes, or runs the subcommand.
///
/// # Errors
/// When the node can not be asked, or its answer not be printed; and the subcommand's.
pub(crate) async fn run(
    options: &Options,
    args: &ClusterArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if let Some(ClusterCommand::RotateSecret(args)) = &args.command {
        return rotate_secret::run(options, args, console).await;
    }
    let answer = Api::config(options)?
        .call(Call::get(&["v1", "cluster"]))
        .await?
        .accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let cluster: Cluster = answer.json()?;
    console.text(&summary(&cluster))?;
    console.text(&nodes(&cluster))?;
    if args.verbose {
        console.text(&format!("\n{}", hints(&cluster)))?;
    }
    Ok(())
}

fn summary(cluster: &Cluster) -> String {
    let alive = cluster
        .nodes
        .iter()
        .filter(|node| node.state == "alive")
        .count();
    let Cluster {
        cluster: name,
        node,
        revision,
        store_staleness_seconds: staleness,
        nodes,
    } = cluster;
    let store = if *staleness > STALENESS_SHOWN_SECONDS {
        format!("config store not heard for {staleness:.0} s")
    } else {
        "config store answers".to_owned()
    };
    let count = nodes.len();
    format!(
        "cluster {name} as {node} sees it: {alive} of {count} nodes alive, {store}, revision {revision}\n"
    )
}

fn nodes(cluster: &Cluster) -> String {
    let row = |node: &ClusterNode| {
        [
            node.name.clone(),
            node.state.clone(),
            node.peer_address.clone(),
            node.in_flight.to_string(),
            node.instances.to_string(),
            format!("{} of {} MiB", node.memory_used_mb, node.memory_max_mb),
            node.version.clone(),
        ]
    };
    let heading = [
        "NODE",
        "STATE",
        "ADDRESS",
        "IN FLIGHT",
        "INSTANCES",
        "MEMORY",
        "VERSION",
    ];
    table(heading, cluster.nodes.iter().map(row))
}

fn hints(cluster: &Cluster) -> String {
    let row = |node: &ClusterNode, hint: &ClusterHint| {
        [
            node.name.clone(),
            hint.function.clone().unwrap_or_default(),
            hint.instances.to_string(),
            hint.free_slots.to_string(),
            hint.instance_key.clone(),
            hint.instance_ids
                .iter()
                .map(|id| short_id(id))
                .collect::<Vec<_>>()
                .join(","),
        ]
    };
    let rows: Vec<_> = cluster
        .nodes
        .iter()
        .flat_map(|node| node.hints.iter().map(move |hint| row(node, hint)))
        .collect();
    if rows.is_empty() {
        return "no function is warm on any node".to_owned();
    }
    table(
        [
            "NODE",
            "FUNCTION",
            "INSTANCES",
            "FREE SLOTS",
            "INSTANCE KEY",
            "IDS",
        ],
        rows,
    )
}

#[cfg(test)]
mod tests;
