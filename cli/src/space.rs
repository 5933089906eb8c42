//! `hearth space …`: the spaces, and what is set for one.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records;

/// What can be done with spaces.
#[derive(Debug, Clone, Subcommand)]
pub enum SpaceCommand {
    /// List the spaces that hold something and that you may read
    List,

    /// Print what is set for the space, as JSON
    Get,

    /// Change what is set for the space
    Set(SetArgs),
}

/// What is set for a space.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// Who may emit its events: anyone, or its members
    #[arg(long, value_name = "WHO", value_parser = ["open", "authenticated"])]
    events: Option<String>,

    #[command(flatten)]
    limits: LimitArgs,

    /// Functions that it may have
    #[arg(long, value_name = "N")]
    functions: Option<u32>,

    /// Events and invocations of it that may wait in the queue
    #[arg(long, value_name = "N")]
    queued: Option<u32>,
}

/// How much may be called; together they replace what was set before.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitArgs {
    /// Calls a second, over all nodes
    #[arg(long, value_name = "N")]
    rate: Option<u32>,

    /// Calls at once after a pause, with --rate [default: as many as a second has]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<u32>,

    /// Calls in flight, over all nodes
    #[arg(long, value_name = "N")]
    concurrent: Option<u32>,

    /// Take away all limits that are not given here
    #[arg(long)]
    no_limits: bool,
}

impl LimitArgs {
    /// The member `limits` of a change, with what else is limited; nothing when no limit changes.
    pub(crate) fn change(&self, more: &[(&str, Option<u32>)]) -> Option<Value> {
        let mut limits = Map::new();
        if let Some(per_second) = self.rate {
            let mut rate = Map::new();
            rate.insert("perSecond".to_owned(), per_second.into());
            rate.extend(self.burst.map(|burst| ("burst".to_owned(), burst.into())));
            limits.insert("rate".to_owned(), rate.into());
        }
        let concurrent = ("concurrent", self.concurrent);
        let set = std::iter::once(&concurrent).chain(more);
        limits.extend(set.filter_map(|(name, set)| Some(((*name).to_owned(), (*set)?.into()))));
        (self.no_limits || !limits.is_empty()).then(|| limits.into())
    }
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &SpaceCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        SpaceCommand::List => list(options, console).await,
        SpaceCommand::Get => {
            let path = one(options);
            records::get(options, Call::get(&path), console).await
        }
        SpaceCommand::Set(args) => set(options, args, console).await,
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Listed {
        spaces: Vec<String>,
    }
    let call = Call::get(&["v1", "spaces"]);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Listed { spaces } = answer.json()?;
    Ok(console.text(&spaces.join("\n"))?)
}

async fn set(options: &Options, args: &SetArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let more = [("functions", args.functions), ("queued", args.queued)];
    let mut body = Map::new();
    let events = args.events.clone().map(Value::from);
    body.extend(events.map(|events| ("events".to_owned(), events)));
    let limits = args.limits.change(&more);
    body.extend(limits.map(|limits| ("limits".to_owned(), limits)));
    if body.is_empty() {
        return Err(Failure::usage(
            "nothing is given to be set: see hearth space set --help",
        ));
    }
    let body = Value::from(body).to_string().into_bytes();
    let path = one(options);
    let call = Call::new(Method::PATCH, &path, Some(body));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let set: Value = answer.json()?;
    let events = set["events"].as_str().unwrap_or_default();
    let limits = shown(&set["limits"]);
    Ok(console.text(&format!(
        "events of space {} are {events}, limits: {limits}",
        options.space
    ))?)
}

/// Limits as they are set.
pub(crate) fn shown(limits: &Value) -> String {
    match limits.as_object() {
        Some(_) => limits.to_string(),
        None => "none of its own".to_owned(),
    }
}

fn one(options: &Options) -> [&str; 3] {
    ["v1", "spaces", options.space.as_str()]
}
