//! `hearth execution …`: invocations that were queued, as any node tells of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use protocol::execution::{Status, Trouble};
use protocol::{Execution, ExecutionId, FunctionId, api};
use reqwest::Method;
use serde::Deserialize;
use tokio::time::Instant;

use crate::api::{Answer, Api, Call};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::function::invoke;
use crate::options::{self, Options};
use crate::table::table;

/// The pause between two looks of `wait`; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Executions that are asked for at once.
const PAGE_LEN: usize = 500;

/// What can be done with executions.
#[derive(Debug, Clone, Subcommand)]
pub enum ExecutionCommand {
    /// List executions, newest first
    List(ListArgs),

    /// Print an execution with its attempts and its result, as JSON
    Get(ExecutionArgs),

    /// Wait until an execution has ended, and print its result: exit code 1 when it did not succeed
    Wait(WaitArgs),

    /// End an execution, whether it waits or runs
    Cancel(ExecutionArgs),
}

/// Names one execution.
#[derive(Debug, Clone, Args)]
pub struct ExecutionArgs {
    /// The execution's id, as `function invoke --async` and `list` print it
    #[arg(value_name = "ID")]
    id: ExecutionId,
}

/// Arguments of `hearth execution wait`.
#[derive(Debug, Clone, Args)]
pub struct WaitArgs {
    /// The execution's id, as `function invoke --async` and `list` print it
    #[arg(value_name = "ID")]
    id: ExecutionId,

    /// Wait for at most so long, such as `30s` [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    within: Option<Duration>,
}

/// Arguments of `hearth execution list`.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// Only those of this function
    #[arg(long, value_name = "ID")]
    function: Option<FunctionId>,

    /// Only those that are accepted, queued, running, succeeded, failed, cancelled or expired
    #[arg(long, value_name = "STATUS", value_parser = status)]
    status: Option<Status>,

    /// Only those that were accepted within this time, such as `1h`
    #[arg(long, value_name = "DURATION", value_parser = options::duration)]
    since: Option<Duration>,

    /// List at most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// What an execution answered, where it did.
#[derive(Deserialize)]
struct Answered {
    #[serde(default)]
    result: Option<api::ExecutionResult>,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &ExecutionCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let api = Api::config(options)?;
    match command {
        ExecutionCommand::List(args) => list(&api, options, args, console).await,
        ExecutionCommand::Get(args) => {
            let answer = one(&api, options, Method::GET, args.id).await?;
            Ok(console.json(&answer.text())?)
        }
        ExecutionCommand::Wait(args) => wait(&api, options, args, console).await,
        ExecutionCommand::Cancel(args) => {
            let answer = one(&api, options, Method::DELETE, args.id).await?;
            match options.json {
                true => Ok(console.json(&answer.text())?),
                false => Ok(console.text(&format!("cancelled {}", args.id))?),
            }
        }
    }
}

async fn one(
    api: &Api,
    options: &Options,
    method: Method,
    id: ExecutionId,
) -> Result<Answer, Failure> {
    let id = id.to_string();
    let path = ["v1", "spaces", options.space.as_str(), "executions", &id];
    api.call(Call::new(method, &path, None)).await?.accept()
}

async fn wait(
    api: &Api,
    options: &Options,
    args: &WaitArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let give_up = args.within.map(|within| Instant::now() + within);
    let mut pause = PAUSE;
    loop {
        let answer = one(api, options, Method::GET, args.id).await?;
        let execution: Execution = answer.json()?;
        if execution.status.is_end() {
            return ended(&execution, &answer, options, console);
        }
        if give_up.is_some_and(|moment| Instant::now() + pause > moment) {
            let message = format!("execution {} is {} still", args.id, execution.status);
            return Err(Failure::new(Exit::Failed, message));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

fn ended(
    execution: &Execution,
    answer: &Answer,
    options: &Options,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    if options.json {
        console.json(&answer.text())?;
    } else if let Some(result) = answer.json::<Answered>()?.result {
        invoke::print(&result.value, console)?;
        if result.truncated {
            let bytes = result.bytes;
            writeln!(console.err, "only the beginning of {bytes} bytes is kept")?;
        }
    }
    if execution.status == Status::Succeeded {
        return Ok(());
    }
    let Execution { id, status, .. } = execution;
    let why = match &execution.error {
        Some(Trouble { code, message, .. }) => format!(": {message} ({code})"),
        None => String::new(),
    };
    let message = format!("execution {id} is {status}{why}");
    Err(Failure::new(Exit::Failed, message))
}

async fn list(
    api: &Api,
    options: &Options,
    args: &ListArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let found = all(api, options, args).await?;
    if options.json {
        let text = serde_json::to_string(&found).expect("executions have a JSON form");
        return Ok(console.json(&text)?);
    }
    if found.is_empty() {
        writeln!(console.err, "there are none in space {}", options.space)?;
        return Ok(());
    }
    let rows = found.into_iter().map(|execution| {
        let node = execution.attempts.last().map(|last| last.node.clone());
        let error = execution.error.map(|error| error.code);
        [
            execution.id.to_string(),
            execution.function_id.to_string(),
            execution.status.to_string(),
            moment(execution.accepted_at_ms),
            execution.attempts_made.to_string(),
            node.unwrap_or_default(),
            error.unwrap_or_default(),
        ]
    });
    let heading = [
        "ID", "FUNCTION", "STATUS", "ACCEPTED", "ATTEMPTS", "NODE", "ERROR",
    ];
    Ok(console.text(&table(heading, rows))?)
}

async fn all(api: &Api, options: &Options, args: &ListArgs) -> Result<Vec<Execution>, Failure> {
    let path = ["v1", "spaces", options.space.as_str(), "executions"];
    let mut wanted = String::new();
    if let Some(function) = &args.function {
        wanted.push_str(&format!("&function={function}"));
    }
    if let Some(status) = args.status {
        wanted.push_str(&format!("&status={status}"));
    }
    if let Some(since) = args.since {
        let moment = SystemTime::now().checked_sub(since).unwrap_or(UNIX_EPOCH);
        let since_1970 = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
        wanted.push_str(&format!("&since={}", since_1970.as_millis()));
    }
    let (mut found, mut after) = (Vec::new(), None::<ExecutionId>);
    while found.len() < args.limit {
        let limit = (args.limit - found.len()).min(PAGE_LEN);
        let from = after.map_or_else(String::new, |id| format!("&after={id}"));
        let query = format!("limit={limit}{wanted}{from}");
        let answer = api.call(Call::get(&path).query(&query)).await?.accept()?;
        let page: api::Executions = answer.json()?;
        found.extend(page.executions);
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    Ok(found)
}

fn status(text: &str) -> Result<Status, String> {
    let found = Status::ALL
        .into_iter()
        .find(|status| status.as_str() == text);
    found.ok_or_else(|| {
        let all = Status::ALL.map(Status::as_str).join(", ");
        format!("expected one of: {all}")
    })
}

fn moment(since_1970_ms: u64) -> String {
    let moment = UNIX_EPOCH.checked_add(Duration::from_millis(since_1970_ms));
    let is_told = |moment: &SystemTime| *moment < UNIX_EPOCH + Duration::from_secs(253_402_300_800);
    match moment.filter(is_told) {
        Some(moment) => humantime::format_rfc3339_seconds(moment).to_string(),
        None => since_1970_ms.to_string(),
    }
}

#[cfg(test)]
mod tests;
