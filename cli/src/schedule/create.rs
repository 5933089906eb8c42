//! `hearth schedule create`.

use clap::Args;
use protocol::{FunctionId, ScheduleId, ScheduleRecord};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::{Options, pair};

const EXAMPLES: &str = "\
Examples:
  # Each night at three, by the clocks of Berlin: an event for all that subscribed to report.due.
  hearth schedule create nightly --cron '0 3 * * *' --time-zone Europe/Berlin --event report.due --missed once
  # Every 30 seconds, for one function.
  hearth schedule create poll --every 30s --function poll --data '{\"queue\":\"orders\"}'

Exit codes:
  0 created, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

/// Arguments of `hearth schedule create`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// The schedule's id
    #[arg(value_name = "ID")]
    id: ScheduleId,

    /// When it fires: minute, hour, day of month, month, day of week; six fields begin with the second
    #[arg(
        long,
        value_name = "EXPRESSION",
        required_unless_present = "every",
        conflicts_with = "every"
    )]
    cron: Option<String>,

    /// Time zone that the cron expression is read in, such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron")]
    time_zone: Option<String>,

    /// Time from slot to slot, such as `30s` or `1h 30m`, counted from 1970 in UTC
    #[arg(long, value_name = "DURATION")]
    every: Option<String>,

    /// Type of the event; without `--function` all that subscribed to it get it [default: hearth.schedule.fired]
    #[arg(long, value_name = "TYPE", required_unless_present = "function")]
    event: Option<String>,

    /// The only function that gets the event
    #[arg(long, value_name = "FUNCTION")]
    function: Option<FunctionId>,

    /// What the event says [default: the schedule's id and the time of the slot]
    #[arg(long, value_name = "JSON")]
    data: Option<String>,

    /// What becomes of slots that no node could fire in time: passed over, or the last one fired late [default: skip]
    #[arg(long, value_name = "WHAT", value_parser = ["skip", "once"])]
    missed: Option<String>,

    /// Keep it, and let it fire only when it is enabled
    #[arg(long)]
    disabled: bool,

    /// Note on the record; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// Replace the record of a schedule that is there already
    #[arg(long)]
    update: bool,
}

/// Creates the schedule, or replaces its record.
///
/// # Errors
/// When the record is not valid, the API refuses it, or no answer came.
pub(super) async fn run(
    options: &Options,
    args: &CreateArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let body = record(args)?;
    // The node checks the same, but asking it for a mistake that is plain from here would hide it behind the network.
    ScheduleRecord::parse(options.space.as_str(), None, &body)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let id = args.id.as_str();
    let (all, one) = (super::all(options), super::one(options, id));
    let call = match args.update {
        true => Call::new(Method::PUT, &one, Some(body)),
        false => Call::new(Method::POST, &all, Some(body)),
    };
    let answer = Api::config(options)?.call(call).await?;
    if !answer.status.is_success() {
        let failure = answer.failure();
        let is_about = |what: &str| {
            failure
                .message
                .starts_with(&format!("Schedule \"{id}\" {what}"))
        };
        return Err(match answer.status {
            StatusCode::NOT_FOUND if args.update && is_about("not found") => {
                failure.hint("leave out --update to create it")
            }
            StatusCode::CONFLICT if is_about("already exists") => {
                failure.hint("--update replaces its record")
            }
            _ => failure,
        });
    }
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let verb = if args.update { "updated" } else { "created" };
    let stored = answer.json::<Value>()?;
    let next = match stored["next"].as_str() {
        Some(next) => format!(", next at {next}"),
        None => String::new(),
    };
    console.text(&format!("{verb} {id} in space {}{next}", options.space))?;
    Ok(())
}

/// The record with what was set, and nothing else; the data as it was written.
fn record(args: &CreateArgs) -> Result<Vec<u8>, Failure> {
    let mut record = Map::new();
    let texts = [
        ("cron", args.cron.as_deref()),
        ("timeZone", args.time_zone.as_deref()),
        ("every", args.every.as_deref()),
        ("functionId", args.function.as_ref().map(FunctionId::as_str)),
        ("eventType", args.event.as_deref()),
        ("missed", args.missed.as_deref()),
    ];
    record.insert("scheduleId".to_owned(), args.id.as_str().into());
    for (name, text) in texts {
        record.extend(text.map(|text| (name.to_owned(), text.into())));
    }
    if args.disabled {
        record.insert("enabled".to_owned(), false.into());
    }
    if !args.metadata.is_empty() {
        let metadata = args.metadata.iter().cloned();
        let metadata: Map<String, Value> =
            metadata.map(|(key, value)| (key, value.into())).collect();
        record.insert("metadata".to_owned(), metadata.into());
    }
    let mut text = Value::Object(record).to_string();
    if let Some(data) = &args.data {
        serde_json::from_str::<serde::de::IgnoredAny>(data).map_err(|error| {
            Failure::usage(format!("--data is {data:?}, expected JSON: {error}"))
        })?;
        // After the brace that closes the rest, which is not empty.
        text.pop();
        text.push_str(&format!(",\"data\":{data}}}"));
    }
    Ok(text.into_bytes())
}
