//! `hearth up`: builds a function, registers it or replaces its record, and invokes it.

use std::time::{Duration, SystemTime};

use clap::Args;
use protocol::ErrorCode;
use reqwest::header::{ETAG, HeaderValue};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use crate::api::{Answer, Api, Call};
use crate::build::{self, How, Source};
use crate::console::Console;
use crate::failure::{Exit, Failure};
use crate::function::invoke;
use crate::manifest::{Manifest, Runs, is_ours};
use crate::options::Options;
use crate::program;

/// How long the node that is invoked may take to hear of a function that another one has registered.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  hearth up
  # Without a container engine, on a node of this machine that may run commands.
  hearth up --process
  hearth up --payload '{\"name\": \"Ada\"}'
  # For a cluster: nodes get the image from the registry.
  hearth up --push registry.example.com/team/hello --api https://node1.example.com:4001 --no-invoke

The answer goes to standard output; what was built, where it ran and how long it took to standard error.

Exit codes:
  0 up, and its answer printed, 1 the build, the API or the function failed, 64 bad usage or hearth.toml,
  69 no container engine or no answer of the node, 77 not authorised";

/// Arguments of `hearth up`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct UpArgs {
    #[command(flatten)]
    source: Source,

    #[command(flatten)]
    how: How,

    /// Run the command of hearth.toml's `process`, in the directory, and not a container
    #[arg(long, conflicts_with = "push")]
    process: bool,

    /// The payload of the invocation, any JSON [default: hearth.toml's]
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    payload: Option<String>,

    /// Do not invoke it
    #[arg(long, conflicts_with = "payload")]
    no_invoke: bool,

    /// Replace a function of this id that `hearth up` did not make
    #[arg(long)]
    replace: bool,
}

/// Builds, registers and invokes the function.
///
/// # Errors
/// The first of these that fails; what came before it stays.
pub(crate) async fn run(
    options: &Options,
    args: &UpArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let manifest = Manifest::read(&args.source.dir, console)?;
    if args.process {
        manifest.process()?;
    }
    let payload = match &args.payload {
        Some(text) => invoke::json(text, "the payload")?,
        None => manifest.payload()?,
    };
    // A node that does not answer, or does not let one in, is better met before a build than after it.
    let before = before(options, &manifest, args.replace).await?;
    let record = if args.process {
        compile(&manifest, args.source.build_timeout, console).await?;
        let build = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
        manifest.record(&options.space, Runs::Process(&build))?
    } else {
        let image = build::image(&manifest, &args.source, &args.how, console).await?;
        manifest.record(&options.space, Runs::Image(&image))?
    };
    let is_new = before.is_none();
    register(options, &manifest, before, record).await?;
    let (id, space) = (manifest.id(), &options.space);
    let verb = if is_new { "registered" } else { "updated" };
    writeln!(console.err, "{verb} {id} in space {space}")?;
    if args.no_invoke {
        return Ok(());
    }
    let began = Instant::now();
    let answer = answer(options, &manifest, &payload).await?;
    let took = began.elapsed();
    if !answer.status.is_success() {
        return Err(invoke::failure(options, id, &answer));
    }
    match options.json {
        true => console.json(&answer.text())?,
        false => invoke::print(&answer.json::<invoke::Invoked>()?.result, console)?,
    }
    tell(&answer, took, console)
}

/// The revision of the record that is there already.
async fn before(
    options: &Options,
    manifest: &Manifest,
    may_replace: bool,
) -> Result<Option<HeaderValue>, Failure> {
    let (space, id) = (options.space.as_str(), manifest.id());
    let path = ["v1", "spaces", space, "functions", id.as_str()];
    let answer = Api::config(options)?.call(Call::get(&path)).await?;
    if answer.status == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let answer = answer.accept()?;
    if !may_replace && !is_ours(&answer.json::<Value>()?) {
        let message =
            format!("function {id} is registered in space {space}, and not by `hearth up`");
        return Err(Failure::new(Exit::Failed, message)
            .hint("--replace replaces it; another functionId in hearth.toml, or another --space, leaves it as it is"));
    }
    // A node always tells the revision; without it, whatever is there is replaced.
    let any = || HeaderValue::from_static("*");
    Ok(Some(answer.headers.get(ETAG).cloned().unwrap_or_else(any)))
}

/// Builds the program that the command runs.
async fn compile(
    manifest: &Manifest,
    limit: Duration,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let Some((name, arguments)) = manifest.process()?.build.split_first() else {
        return Ok(());
    };
    let began = Instant::now();
    let mut command = Command::new(name);
    command.args(arguments).current_dir(&manifest.dir);
    program::run(command, limit).await?;
    Ok(writeln!(
        console.err,
        "built it in {:.1?}",
        began.elapsed()
    )?)
}

/// Registers the function, or replaces the record of that revision.
async fn register(
    options: &Options,
    manifest: &Manifest,
    before: Option<HeaderValue>,
    record: Vec<u8>,
) -> Result<(), Failure> {
    let (space, id) = (options.space.as_str(), manifest.id());
    let functions = ["v1", "spaces", space, "functions"];
    let function = ["v1", "spaces", space, "functions", id.as_str()];
    let call = match &before {
        Some(revision) => {
            Call::new(Method::PUT, &function, Some(record)).header("if-match", revision)
        }
        None => Call::new(Method::POST, &functions, Some(record)),
    };
    let answer = Api::config(options)?.call(call).await?;
    if answer.status.is_success() {
        return Ok(());
    }
    let failure = answer.failure();
    let says = |text: &str| failure.message.contains(text);
    Err(if says("--allow-process") {
        failure.hint("`hearth dev` starts a node that runs commands; `hearth node` needs --allow-process, on this machine")
    } else if says("image") && says("not found") {
        failure.hint("the image is on this machine's engine, and no node's engine has it: --push REGISTRY/NAME pushes it where nodes find it")
    } else if says("already registered") || says("changed meanwhile") || says("not found") {
        failure.hint("somebody else changed it while it was built; look at it with `hearth function get`, and run this again")
    } else {
        failure
    })
}

/// Invokes the function, again while the node has not heard of it.
async fn answer(
    options: &Options,
    manifest: &Manifest,
    payload: &RawValue,
) -> Result<Answer, Failure> {
    let until = Instant::now() + KNOWN_WITHIN;
    loop {
        let answer = invoke::once(options, manifest.id(), payload).await?;
        let is_unknown = invoke::code(&answer) == ErrorCode::FunctionNotFound.as_str();
        if !is_unknown || Instant::now() >= until {
            return Ok(answer);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Says where it ran, and how long that took as the user saw it.
fn tell(answer: &Answer, took: Duration, console: &mut Console<'_>) -> Result<(), Failure> {
    let header = |name: &str| {
        answer
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let node = header("x-hearth-node").unwrap_or("a node");
    let start = match header("x-hearth-start") {
        Some("cold") => ", with a new instance",
        _ => "",
    };
    let took = Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    let took = humantime::format_duration(took);
    Ok(writeln!(console.err, "ran on {node}{start}, in {took}")?)
}

#[cfg(test)]
mod tests;
