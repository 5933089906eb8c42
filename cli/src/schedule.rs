//! `hearth schedule …`: events that come by the clock.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use reqwest::Method;
use reqwest::header::ETAG;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records::{self, List, text};

mod create;
#[cfg(test)]
mod tests;

use create::CreateArgs;

/// What can be done with schedules.
#[derive(Debug, Clone, Subcommand)]
pub enum ScheduleCommand {
    /// Make a schedule, or replace one
    Create(Box<CreateArgs>),

    /// List the schedules of the space, with their next and last slots
    List,

    /// Print a schedule's record, with its next and last slot, as JSON
    Get(ScheduleArgs),

    /// Let a schedule fire that was disabled; what it would have fired meanwhile is passed over
    Enable(ScheduleArgs),

    /// Keep a schedule, and let it fire no more
    Disable(ScheduleArgs),

    /// Delete a schedule; what it has queued is delivered
    Delete(ScheduleArgs),
}

/// Names one schedule.
#[derive(Debug, Clone, Args)]
pub struct ScheduleArgs {
    /// The schedule's id
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &ScheduleCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        ScheduleCommand::Create(args) => create::run(options, args, console).await,
        ScheduleCommand::List => list(options, console).await,
        ScheduleCommand::Get(args) => {
            let path = one(options, &args.id);
            records::get(options, Call::get(&path), console).await
        }
        ScheduleCommand::Enable(args) => set_enabled(options, &args.id, true, console).await,
        ScheduleCommand::Disable(args) => set_enabled(options, &args.id, false, console).await,
        ScheduleCommand::Delete(args) => {
            let path = one(options, &args.id);
            records::delete(options, Call::delete(&path), &args.id, console).await
        }
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = List {
        path: &all(options),
        member: "schedules",
        none: format!(
            "space {} has no schedules; `hearth schedule create` makes one",
            options.space
        ),
        heading: ["SCHEDULE", "WHEN", "FIRES", "NEXT", "LAST", "BY"],
        row,
    };
    list.print(options, console).await
}

fn row(record: &Value) -> [String; 6] {
    let when = match (record["cron"].as_str(), record["timeZone"].as_str()) {
        (Some(cron), Some(zone)) => format!("{cron} {zone}"),
        (Some(cron), None) => cron.to_owned(),
        _ => format!("every {}", text(&record["every"])),
    };
    let fires = match record["functionId"].as_str() {
        Some(function) => format!("function {function}"),
        None => format!("event {}", text(&record["eventType"])),
    };
    let next = match record["enabled"] {
        Value::Bool(false) => "disabled".to_owned(),
        _ => text(&record["next"]),
    };
    let last = &record["last"];
    [
        text(&record["scheduleId"]),
        when,
        fires,
        next,
        text(&last["slot"]),
        text(&last["node"]),
    ]
}

/// Reads the record and writes it again, if nobody else has written it meanwhile.
async fn set_enabled(
    options: &Options,
    id: &str,
    is_enabled: bool,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let (api, path) = (Api::config(options)?, one(options, id));
    let read = api.call(Call::get(&path)).await?.accept()?;
    // As texts, so that no number of the data becomes another one.
    let mut record: BTreeMap<String, Box<RawValue>> = read.json()?;
    let flag = RawValue::from_string(is_enabled.to_string());
    record.insert("enabled".to_owned(), flag.expect("true and false are JSON"));
    let body = serde_json::to_vec(&record).expect("a map of JSON is JSON");
    let mut call = Call::new(Method::PUT, &path, Some(body));
    if let Some(tag) = read.headers.get(ETAG) {
        call = call.header("if-match", tag);
    }
    let answer = api.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let verb = if is_enabled { "enabled" } else { "disabled" };
    Ok(console.text(&format!("{verb} {id} in space {}", options.space))?)
}

fn all(options: &Options) -> [&str; 4] {
    ["v1", "spaces", options.space.as_str(), "schedules"]
}

fn one<'a>(options: &'a Options, id: &'a str) -> [&'a str; 5] {
    ["v1", "spaces", options.space.as_str(), "schedules", id]
}
