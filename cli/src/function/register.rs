//! `hearth function register`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use protocol::id::InvalidId;
use protocol::{Destination, Function, FunctionId, SecretUse};
use reqwest::{Method, StatusCode};

use super::record;
use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;

const EXAMPLES: &str = "\
Examples:
  # A container that listens on $PORT and answers POST /.
  hearth function register hello --image hello:latest
  # A container that runs once per invocation: payload on stdin, result on stdout.
  hearth function register wordcount --image wordcount:latest --contract stdio
  # Up to 4 instances of 16 calls each, one of them always up.
  hearth function register api --image api:2 --concurrency 16 --min 1 --max 4
  # A command of the node's machine, on nodes that run with --allow-process.
  hearth function register count --process --contract stdio -- wc -w
  # A webhook.
  hearth function register hook --url https://example.com/hook
  # Failed deliveries are told to another function, successes to a URL.
  hearth function register pay --image pay:3 --on-failure function:alarm --on-success https://example.com/paid
  # Edit a record and put it back.
  hearth function get hello > hello.json
  hearth function register --file hello.json --update

Exit codes:
  0 registered, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

const USAGE: &str = "\
hearth function register <ID> --image <IMAGE> [OPTIONS] [-- <COMMAND>...]
       hearth function register <ID> --process [OPTIONS] -- <COMMAND>...
       hearth function register <ID> --url <URL> [OPTIONS]
       hearth function register [ID] --file <FILE> [OPTIONS]";

/// Arguments of `hearth function register`.
#[derive(Debug, Clone, Default, Args)]
#[command(
    override_usage = USAGE,
    after_help = EXAMPLES,
    group = ArgGroup::new("source").args(["image", "url", "process", "file"])
)]
pub struct RegisterArgs {
    /// The function's id: letters, digits, `.`, `-` and `_`; with `--file` the record's own when left out
    #[arg(value_name = "ID", required_unless_present = "file", value_parser = super::function_id)]
    pub(super) id: Option<FunctionId>,

    /// Run a container of this image; its tag is resolved now, once
    #[arg(long, value_name = "IMAGE")]
    pub(super) image: Option<String>,

    /// Post invocations to this webhook
    #[arg(long, value_name = "URL", conflicts_with_all = ["contract", "port", "env", "secret", "command", "arguments"])]
    pub(super) url: Option<String>,

    /// Run a command of the node's machine, given after `--`
    #[arg(long, conflicts_with = "port")]
    pub(super) process: bool,

    /// Take the whole record from a JSON file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "contract", "port", "env", "secret", "command", "arguments", "memory_mb", "cpus", "timeout_ms", "concurrency",
        "body_bytes", "rate", "burst", "concurrent", "min", "max", "idle_seconds", "idempotent", "attempts", "max_age_seconds", "on_success", "on_failure", "read_only_root", "capability", "no_network", "event_format",
    ])]
    pub(super) file: Option<PathBuf>,

    /// Replace the record of a function that is registered already
    #[arg(long)]
    pub(super) update: bool,

    /// How the code meets an invocation [default: http]
    #[arg(long, value_enum, help_heading = CODE)]
    pub(super) contract: Option<Contract>,

    /// The form in which the function gets events [default: cloudevents-binary; webhooks: envelope]
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = CODE)]
    pub(super) event_format: Option<EventFormat>,

    /// Port the container listens on, which it is told as `$PORT` [default: 8080]
    #[arg(long, value_name = "N", help_heading = CODE)]
    pub(super) port: Option<u16>,

    /// Environment variable; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = variable, help_heading = CODE)]
    pub(super) env: Vec<(String, String)>,

    /// Secret of the space that instances get: as the file `$HEARTH_SECRETS/NAME`, or as a file or variable of another name; may be given again
    #[arg(long, value_name = "NAME[=file:FILE|env:VARIABLE]", value_parser = secret, help_heading = CODE)]
    pub(super) secret: Vec<SecretUse>,

    /// Program and arguments, as after `--`, as long as none begins with a hyphen
    #[arg(long, value_name = "ARG", num_args = 1.., conflicts_with = "arguments", help_heading = CODE)]
    pub(super) command: Vec<String>,

    /// Program and arguments: what `--process` runs, or what replaces the image's command
    #[arg(value_name = "COMMAND", last = true)]
    pub(super) arguments: Vec<String>,

    /// Memory of an instance, in MiB [default: 128]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) memory_mb: Option<u32>,

    /// Processors of an instance, such as 0.5 [default: 1]
    #[arg(long, value_name = "X", help_heading = LIMITS)]
    pub(super) cpus: Option<f64>,

    /// How long a run may take, in milliseconds [default: 30000; webhooks: 5000]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) timeout_ms: Option<u32>,

    /// Invocations an instance takes at once [default: 1; webhooks: 256 a node]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) concurrency: Option<u32>,

    /// Largest payload, in bytes [default: the node's own limit]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) body_bytes: Option<u32>,

    /// Invocations a second, over all nodes [default: no limit]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) rate: Option<u32>,

    /// Invocations at once after a pause, with --rate [default: as many as a second has]
    #[arg(long, value_name = "N", requires = "rate", help_heading = LIMITS)]
    pub(super) burst: Option<u32>,

    /// Invocations in flight, over all nodes [default: no limit]
    #[arg(long, value_name = "N", help_heading = LIMITS)]
    pub(super) concurrent: Option<u32>,

    /// Instances that are kept up [default: 0]
    #[arg(long, value_name = "N", help_heading = SCALING)]
    pub(super) min: Option<u32>,

    /// Instances that may be up at once [default: 10]
    #[arg(long, value_name = "N", help_heading = SCALING)]
    pub(super) max: Option<u32>,

    /// Seconds without an invocation after which an instance is stopped [default: 300]
    #[arg(long, value_name = "N", help_heading = SCALING)]
    pub(super) idle_seconds: Option<u32>,

    /// The function may run twice for one invocation, so one that was interrupted is tried again
    #[arg(long, help_heading = SCALING)]
    pub(super) idempotent: bool,

    /// How often a queued event or invocation is tried [default: the node's queue.attempts_max]
    #[arg(long, value_name = "N", help_heading = SCALING)]
    pub(super) attempts: Option<u32>,

    /// Seconds after which a queued event or invocation is not begun any more [default: the node's queue.max_age]
    #[arg(long, value_name = "N", help_heading = SCALING)]
    pub(super) max_age_seconds: Option<u32>,

    /// Tell each success of a queued event or invocation there: `function:ID`, `event:TYPE` or a URL
    #[arg(long, value_name = "DESTINATION", value_parser = destination, help_heading = SCALING)]
    pub(super) on_success: Option<Destination>,

    /// Tell there what did not succeed and is not tried again: `function:ID`, `event:TYPE` or a URL
    #[arg(long, value_name = "DESTINATION", value_parser = destination, help_heading = SCALING)]
    pub(super) on_failure: Option<Destination>,

    /// Mount the root file system read-only
    #[arg(long, help_heading = SANDBOX)]
    pub(super) read_only_root: bool,

    /// Linux capability to keep, such as NET_BIND_SERVICE; may be given again
    #[arg(long, value_name = "NAME", help_heading = SANDBOX)]
    pub(super) capability: Vec<String>,

    /// Keep instances off the network
    #[arg(long, help_heading = SANDBOX)]
    pub(super) no_network: bool,
}

const CODE: &str = "What runs";
const LIMITS: &str = "Limits";
const SCALING: &str = "Scaling and retries";
const SANDBOX: &str = "Sandbox";

/// How the code of a container or process meets an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Contract {
    /// It listens on `$PORT` and answers `POST /`; instances are kept for later calls
    Http,
    /// It runs once per invocation: payload on stdin, result on stdout, exit code 0 is success
    Stdio,
    /// It asks AWS Lambda's Runtime API for invocations, as images made for Lambda do; instances are kept for later calls
    Lambda,
}

/// The form in which a function gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum EventFormat {
    /// Event Gateway's JSON object, answered with its response object
    Envelope,
    /// CloudEvents 1.0: attributes as headers, the data as body
    CloudeventsBinary,
    /// CloudEvents 1.0: one JSON object
    CloudeventsStructured,
    /// The data alone; of an http event the request as it was sent
    Raw,
}

/// Registers the function, or replaces its record.
///
/// # Errors
/// When the record is not valid, the API refuses it, or no answer came.
pub(super) async fn run(
    options: &Options,
    args: &RegisterArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let record = record::read(options, args, console)?;
    let space = options.space.as_str();
    let functions = ["v1", "spaces", space, "functions"];
    let function = ["v1", "spaces", space, "functions", record.id.as_str()];
    let call = if args.update {
        Call::new(Method::PUT, &function, Some(record.body))
    } else {
        Call::new(Method::POST, &functions, Some(record.body))
    };
    let answer = Api::config(options)?.call(call).await?;
    if !answer.status.is_success() {
        let failure = answer.failure();
        return Err(match answer.status {
            StatusCode::NOT_FOUND if args.update && is_about(&failure, &record.id, "not found") => {
                failure.hint("leave out --update to register it")
            }
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT
                if is_about(&failure, &record.id, "already registered") =>
            {
                failure.hint("--update replaces its record")
            }
            _ => failure,
        });
    }
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let verb = if args.update { "updated" } else { "registered" };
    let digest = match answer.json::<Function>() {
        Ok(function) => function
            .image_digest()
            .map(|digest| format!(", image {digest}"))
            .unwrap_or_default(),
        // A type this version does not know was registered all the same.
        Err(_) => String::new(),
    };
    console.text(&format!("{verb} {} in space {space}{digest}", record.id))?;
    Ok(())
}

/// Whether the API's message says `what` of the function itself, and not of its image or another field.
fn is_about(failure: &Failure, id: &FunctionId, what: &str) -> bool {
    failure
        .message
        .starts_with(&format!("Function \"{id}\" {what}"))
}

fn destination(text: &str) -> Result<Destination, String> {
    let invalid = |error: InvalidId| error.expected.to_owned();
    match text.split_once(':') {
        Some(("function", id)) => id.parse().map(Destination::Function).map_err(invalid),
        Some(("event", event)) => event.parse().map(Destination::Event).map_err(invalid),
        Some(("http" | "https", _)) => Ok(Destination::Url(text.to_owned())),
        _ => Err("expected function:ID, event:TYPE or a URL of http or https".to_owned()),
    }
}

fn secret(text: &str) -> Result<SecretUse, String> {
    let (name, target) = match text.split_once('=') {
        Some((name, target)) => (name, Some(target)),
        None => (text, None),
    };
    let name = crate::secret::name(name).map_err(|error| error.to_string())?;
    let (env, file) = match target.map(|target| target.split_once(':')) {
        None => (None, None),
        Some(Some(("env", variable))) => (Some(variable.to_owned()), None),
        Some(Some(("file", file))) => (None, Some(file.to_owned())),
        Some(_) => return Err("expected NAME, NAME=file:FILE or NAME=env:VARIABLE".to_owned()),
    };
    Ok(SecretUse { name, env, file })
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}
