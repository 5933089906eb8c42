//! `hearth dead-letter …`: deliveries that ended without success, on the node that is asked.

use clap::{Args, Subcommand};
use protocol::api;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records;
use crate::table::table;

mod each;

/// Dead letters that are asked for at once.
const PAGE_LEN: usize = 500;

/// What can be done with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum DeadLetterCommand {
    /// List the dead letters of the node, oldest first
    List,

    /// Print a dead letter with its event, as JSON
    Show(DeadLetterArgs),

    /// Deliver dead letters again, as if they had just been accepted
    #[command(after_help = each::EXIT_CODES)]
    Redrive(ChosenArgs),

    /// Forget dead letters
    #[command(after_help = each::EXIT_CODES)]
    Purge(ChosenArgs),
}

/// Names one dead letter.
#[derive(Debug, Clone, Args)]
pub struct DeadLetterArgs {
    /// The dead letter's id, as `list` prints it
    #[arg(value_name = "ID")]
    id: String,
}

/// Names several dead letters.
#[derive(Debug, Clone, Args)]
pub struct ChosenArgs {
    /// The dead letters' ids, as `list` prints them
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,

    /// All that the node has now, of all spaces
    #[arg(long, conflicts_with = "ids")]
    all: bool,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &DeadLetterCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        DeadLetterCommand::List => list(options, console).await,
        DeadLetterCommand::Show(args) => {
            let path = ["v1", "dead-letters", &args.id];
            records::get(options, Call::get(&path), console).await
        }
        DeadLetterCommand::Redrive(args) => {
            each::run(options, each::What::Redrive, args, console).await
        }
        DeadLetterCommand::Purge(args) => {
            each::run(options, each::What::Purge, args, console).await
        }
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let mut letters = Vec::new();
    let node = pages(&Api::config(options)?, |page| letters.extend(page)).await?;
    if options.json {
        let text = serde_json::to_string(&letters).unwrap_or_default();
        return Ok(console.json(&text)?);
    }
    if letters.is_empty() {
        writeln!(console.err, "node {node} has no dead letters")?;
        return Ok(());
    }
    let rows = letters.into_iter().map(|letter| {
        let status = letter.status.map(|status| status.to_string());
        [
            letter.id,
            letter.space.to_string(),
            letter.function_id.to_string(),
            letter.event_type,
            letter.attempts.to_string(),
            letter.code,
            status.unwrap_or_default(),
        ]
    });
    let heading = [
        "ID", "SPACE", "FUNCTION", "EVENT", "ATTEMPTS", "REASON", "STATUS",
    ];
    Ok(console.text(&table(heading, rows))?)
}

/// Reads all that the node has, page by page, and returns the name of the node.
async fn pages(api: &Api, mut read: impl FnMut(Vec<api::DeadLetter>)) -> Result<String, Failure> {
    let mut after = 0;
    loop {
        let query = format!("limit={PAGE_LEN}&after={after}");
        let call = Call::get(&["v1", "dead-letters"]).query(&query);
        let answer = api.call(call).await?.accept()?;
        let page: api::DeadLetters = answer.json()?;
        read(page.dead_letters);
        match page.next {
            Some(next) => after = next,
            None => return Ok(page.node),
        }
    }
}

#[cfg(test)]
mod tests;
