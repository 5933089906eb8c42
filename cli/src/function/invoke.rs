//! `hearth function invoke`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use protocol::{ErrorCode, FunctionId, Qualifier, Space, api};
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{Answer, Api, Call};
use crate::console::{Console, shown};
use crate::failure::Failure;
use crate::options::{self, Options};

/// A record allows a run of at most 24 h, and its node ends the call soon after; later no answer can come.
const INVOKE_TIMEOUT: Duration = Duration::from_secs(25 * 60 * 60);

/// The headers that say where and how it ran, with the names `--verbose` gives them.
const DETAILS: [(&str, &str); 6] = [
    ("node", "x-hearth-node"),
    ("version", "x-hearth-version"),
    ("start", "x-hearth-start"),
    ("route", "x-hearth-route"),
    ("server-timing", "server-timing"),
    ("invocation", "x-hearth-invocation"),
];

const EXAMPLES: &str = "\
Examples:
  # Without a payload the function gets null.
  hearth function invoke hello
  hearth function invoke hello --payload '{\"name\": \"Ada\"}'
  # The version that the alias prod stands for.
  hearth function invoke hello:prod
  # A text is a JSON string: the quotes are part of it.
  hearth function invoke wordcount --payload '\"to be or not to be\"'
  # From a pipe; where it ran and how long it took goes to standard error.
  jq -c .order request.json | hearth function invoke price --payload-file - -v
  # Queued: prints the execution's id, for `hearth execution wait` on any node.
  hearth function invoke report --async --idempotency-key 2026-11 --delay 10m
  # The same, and its end is posted to a URL.
  hearth function invoke report --async --callback https://example.com/ended

A result that is a string is printed as it is, any other as JSON.

Exit codes:
  0 result printed, 1 function not found or failed, 64 payload is not JSON,
  69 no answer, 77 not authorised";

/// Arguments of `hearth function invoke`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct InvokeArgs {
    /// The function's id, or `ID:QUALIFIER`: the number of a version, or an alias
    #[arg(value_name = "ID", value_parser = named)]
    function: Named,

    /// The payload, any JSON
    #[arg(
        long,
        value_name = "JSON",
        conflicts_with = "payload_file",
        allow_hyphen_values = true
    )]
    payload: Option<String>,

    /// File with the payload, any JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    payload_file: Option<PathBuf>,

    /// Say on standard error which node ran it, whether it was warm, and what took how long
    #[arg(long, short)]
    verbose: bool,

    /// Do not wait for the result: queue the invocation and print the id of its execution
    #[arg(long = "async")]
    is_async: bool,

    /// Queue it once, however often this is repeated with the same key
    #[arg(long, value_name = "KEY", requires = "is_async", value_parser = key)]
    idempotency_key: Option<HeaderValue>,

    /// Begin no sooner than after this long, such as `10m`
    #[arg(long, value_name = "DURATION", requires = "is_async", value_parser = options::duration)]
    delay: Option<Duration>,

    /// Post the end of the execution to this URL, whatever it is
    #[arg(long, value_name = "URL", requires = "is_async")]
    callback: Option<String>,
}

/// A function, and which version of it, as the user wrote both.
#[derive(Debug, Clone)]
struct Named {
    id: FunctionId,
    text: String,
}

fn named(text: &str) -> Result<Named, String> {
    let (id, _) = Qualifier::split(text).map_err(|error| error.to_string())?;
    Ok(Named {
        id: super::function_id(id.as_str())?,
        text: text.to_owned(),
    })
}

/// The body of `POST /invoke`; `protocol::api::InvokeRequest` is its reading side.
#[derive(Serialize)]
struct Body<'a> {
    function_name: &'a str,
    payload: &'a RawValue,
    space: &'a Space,
    #[serde(rename = "async", skip_serializing_if = "std::ops::Not::not")]
    is_async: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    callback: Option<&'a str>,
}

/// The success body of `POST /invoke`.
#[derive(Deserialize)]
pub(crate) struct Invoked {
    /// What the function answered.
    pub(crate) result: Box<RawValue>,
}

/// Invokes the function and prints its result.
///
/// # Errors
/// When the payload is no JSON, no answer came, or the function or the cluster failed.
pub(super) async fn run(
    options: &Options,
    args: &InvokeArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let payload = payload(args, console)?;
    let body = Body {
        function_name: &args.function.text,
        payload: &payload,
        space: &options.space,
        is_async: args.is_async,
        delay_seconds: args.delay.map(|delay| delay.as_secs_f64()),
        callback: args.callback.as_deref(),
    };
    let body = serde_json::to_vec(&body).expect("ids and JSON text have a JSON form");
    let mut call = Call::new(Method::POST, &["invoke"], Some(body)).timeout(INVOKE_TIMEOUT);
    if let Some(key) = &args.idempotency_key {
        call = call.header("idempotency-key", key);
    }
    let answer = Api::functions(options)?.call(call).await?;
    if args.verbose {
        show_details(&answer, console)?;
    }
    if !answer.status.is_success() {
        return Err(failure(options, &args.function.id, &answer));
    }
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    if args.is_async {
        let accepted: api::Accepted = answer.json()?;
        return Ok(console.text(&accepted.execution.to_string())?);
    }
    let Invoked { result } = answer.json()?;
    print(&result, console)
}

/// Invokes the function and waits; the answer may be a failure.
///
/// # Errors
/// When no answer came.
pub(crate) async fn once(
    options: &Options,
    id: &FunctionId,
    payload: &RawValue,
) -> Result<Answer, Failure> {
    let body = Body {
        function_name: id.as_str(),
        payload,
        space: &options.space,
        is_async: false,
        delay_seconds: None,
        callback: None,
    };
    let body = serde_json::to_vec(&body).expect("ids and JSON text have a JSON form");
    let call = Call::new(Method::POST, &["invoke"], Some(body)).timeout(INVOKE_TIMEOUT);
    Api::functions(options)?.call(call).await
}

/// Prints a result: a text as it is, all else as JSON.
pub(crate) fn print(result: &RawValue, console: &mut Console<'_>) -> Result<(), Failure> {
    match serde_json::from_str::<String>(result.get()) {
        Ok(text) => console.text(&text)?,
        Err(_) => console.json(result.get())?,
    }
    Ok(())
}

fn key(text: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(text).ok();
    let value = value.filter(|_| text.is_ascii() && (1..=255).contains(&text.len()));
    value.ok_or_else(|| "expected 1 to 255 visible ASCII characters".to_owned())
}

/// The payload as the user wrote it, once it is known to be JSON.
fn payload(args: &InvokeArgs, console: &mut Console<'_>) -> Result<Box<RawValue>, Failure> {
    let (text, origin) = match (&args.payload, &args.payload_file) {
        (Some(text), _) => (text.clone(), "the payload".to_owned()),
        (None, Some(path)) => {
            let origin = format!("the payload in {}", shown(path));
            let text = String::from_utf8(console.read(path)?)
                .map_err(|error| Failure::usage(format!("{origin} is not UTF-8: {error}")))?;
            (text, origin)
        }
        (None, None) => ("null".to_owned(), String::new()),
    };
    json(&text, &origin)
}

/// A text of this origin, once it is known to be JSON.
///
/// # Errors
/// When it is none.
pub(crate) fn json(text: &str, origin: &str) -> Result<Box<RawValue>, Failure> {
    RawValue::from_string(text.trim().to_owned()).map_err(|error| {
        Failure::usage(format!("{origin} is not JSON: {error}"))
            .hint("a text needs its quotes: --payload '\"text\"'")
    })
}

fn show_details(answer: &Answer, console: &mut Console<'_>) -> Result<(), Failure> {
    for (name, header) in DETAILS {
        if let Some(value) = answer.headers.get(header) {
            writeln!(
                console.err,
                "{name}: {}",
                String::from_utf8_lossy(value.as_bytes())
            )?;
        }
    }
    Ok(())
}

/// The code of our failure; empty when there is none, or it is not ours.
pub(crate) fn code(answer: &Answer) -> &str {
    let error = answer
        .headers
        .get("x-hearth-error")
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    error.split(';').next().unwrap_or_default()
}

/// What an answer that is no success means, and what the user may try.
pub(crate) fn failure(options: &Options, id: &FunctionId, answer: &Answer) -> Failure {
    let failure = answer.failure();
    let code = code(answer);
    if code == ErrorCode::FunctionNotFound.as_str() {
        let space = &options.space;
        return failure.hint(format!(
            "`hearth function list --space {space}` shows the functions of the space"
        ));
    }
    if code == ErrorCode::NotFound.as_str() {
        let of = format!("list {id} --space {}", options.space);
        return failure.hint(format!(
            "`hearth version {of}` and `hearth alias {of}` show what the function has"
        ));
    }
    if code == ErrorCode::Interrupted.as_str() {
        return failure
            .hint("only a function registered with --idempotent is tried again by itself");
    }
    if code == ErrorCode::FunctionFailed.as_str() {
        return failure.hint(format!("`hearth function logs {id}` shows what it wrote"));
    }
    failure
}

#[cfg(test)]
mod tests;
