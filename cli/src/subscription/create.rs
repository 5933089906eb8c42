//! `hearth subscription create`.

use std::path::PathBuf;

use clap::Args;
use protocol::{FunctionId, Subscription};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::api::{Api, Call};
use crate::console::{Console, shown};
use crate::failure::Failure;
use crate::options::{Options, pair};

const EXAMPLES: &str = "\
Examples:
  # Requests to the events API: GET /users/7 calls hello with the parameter id.
  hearth subscription create http hello --method GET --path /users/:id
  # The same for pages of one origin.
  hearth subscription create http hello --method POST --path /users --cors-origin https://shop.example
  # Only for callers whom the function who-calls lets through.
  hearth subscription create http hello --method GET --path /account --authorizer who-calls
  # An event that clients emit, and all whose names begin with `user.`.
  hearth subscription create user.created welcome
  hearth subscription create 'user.*' audit --filter source=/shop
  # One that is worth nothing after a minute.
  hearth subscription create price.changed ticker --attempts 3 --max-age-seconds 60
  # Direct calls through the events API.
  hearth subscription create invoke hello
  # An event type whose events hello answers, or gets queued.
  hearth event-type create order.placed
  hearth subscription create order.placed hello --type sync --path /orders

Exit codes:
  0 created, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

/// Arguments of `hearth subscription create`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct CreateArgs {
    /// The event: `http`, `invoke`, a name, or a name that ends with `.*`; with `--type` an event type
    #[arg(value_name = "EVENT", required_unless_present = "file")]
    event: Option<String>,

    /// The function that gets it
    #[arg(value_name = "FUNCTION", required_unless_present = "file")]
    function: Option<FunctionId>,

    /// Take the whole record from a JSON file; `-` is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "event", "function", "mode", "method", "path", "cors", "cors_origin", "cors_method", "cors_header", "cors_credentials", "authorizer",
        "metadata", "filter", "attempts", "max_age_seconds",
    ])]
    file: Option<PathBuf>,

    /// For events of a registered type: the function answers (`sync`), or gets them queued (`async`)
    #[arg(long = "type", value_name = "TYPE", value_parser = ["sync", "async"])]
    mode: Option<String>,

    /// Method of the requests; needed for `http`, and `POST` with `--type`
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,

    /// Path that the event is sent to; for `http` with `:name` for one segment and `*name` for the rest [default: /]
    #[arg(long, value_name = "PATH")]
    path: Option<String>,

    /// Let pages of any origin call it, with the usual methods and headers
    #[arg(long, help_heading = CORS, conflicts_with = "mode")]
    cors: bool,

    /// Origin whose pages may call; may be given again
    #[arg(long, value_name = "ORIGIN", help_heading = CORS, conflicts_with = "mode")]
    cors_origin: Vec<String>,

    /// Method that pages may use; may be given again
    #[arg(long, value_name = "METHOD", help_heading = CORS, conflicts_with = "mode")]
    cors_method: Vec<String>,

    /// Header that pages may send; may be given again
    #[arg(long, value_name = "NAME", help_heading = CORS, conflicts_with = "mode")]
    cors_header: Vec<String>,

    /// Pages may send credentials
    #[arg(long, help_heading = CORS, conflicts_with = "mode")]
    cors_credentials: bool,

    /// Function of the space that is asked about each request before FUNCTION is called; for `http`, and for `http.request` with `--type sync`
    #[arg(long, value_name = "FUNCTION")]
    authorizer: Option<FunctionId>,

    /// Note on the record; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,

    /// What an attribute of the event must be; given again for the same attribute, any of the values will do
    #[arg(long, value_name = "ATTRIBUTE=VALUE", value_parser = pair)]
    filter: Vec<(String, String)>,

    /// How often a queued event is tried [default: the function's --attempts, or the node's queue.attempts_max]
    #[arg(long, value_name = "N", help_heading = DELIVERY)]
    attempts: Option<u32>,

    /// Seconds after which a queued event is not begun any more [default: the function's --max-age-seconds, or the node's queue.max_age]
    #[arg(long, value_name = "N", help_heading = DELIVERY)]
    max_age_seconds: Option<u32>,
}

const DELIVERY: &str = "Delivery";

const CORS: &str = "Cross-origin requests";

/// Creates the subscription.
///
/// # Errors
/// When the record is not valid, the API refuses it, or no answer came.
pub(super) async fn run(
    options: &Options,
    args: &CreateArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let body = match &args.file {
        Some(path) => {
            let body = console.read(path)?;
            serde_json::from_slice::<Map<String, Value>>(&body).map_err(|error| {
                let shown = shown(path);
                Failure::usage(format!(
                    "the record in {shown} is not a JSON object: {error}"
                ))
            })?;
            body
        }
        None => record(args).to_string().into_bytes(),
    };
    // The node checks the same, but asking it for a mistake that is plain from here would hide it behind the network.
    if args.file.is_none() {
        Subscription::parse(options.space.as_str(), &body)
            .map_err(|error| Failure::usage(error.to_string()))?;
    }
    let path = super::path(options);
    let call = Call::new(Method::POST, &path, Some(body));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let id = answer.json::<Value>()?;
    let id = id["subscriptionId"].as_str().unwrap_or_default();
    console.text(&format!("subscribed {id} in space {}", options.space))?;
    Ok(())
}

/// The record with what was set, and nothing else.
fn record(args: &CreateArgs) -> Value {
    let mut record = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        record.extend(value.map(|value| (name.to_owned(), value)));
    };
    let event = args.event.as_deref().map(Value::from);
    match &args.mode {
        Some(mode) => {
            set("type", Some(mode.as_str().into()));
            set("eventType", event);
        }
        None => set("event", event),
    }
    set(
        "functionId",
        args.function.as_ref().map(|id| id.as_str().into()),
    );
    set(
        "method",
        args.method
            .as_deref()
            .map(|method| method.to_uppercase().into()),
    );
    set("path", args.path.as_deref().map(Value::from));
    set("cors", cors(args));
    set(
        "authorizerId",
        args.authorizer.as_ref().map(|id| id.as_str().into()),
    );
    let metadata = args.metadata.iter().cloned();
    let metadata: Map<String, Value> = metadata.map(|(key, value)| (key, value.into())).collect();
    set(
        "metadata",
        (!metadata.is_empty()).then_some(metadata.into()),
    );
    let mut filter = Map::new();
    for (name, value) in &args.filter {
        let values = filter.entry(name.clone()).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value.as_str().into());
        }
    }
    set("filter", (!filter.is_empty()).then_some(filter.into()));
    let mut delivery = Map::new();
    for (name, value) in [
        ("attempts", args.attempts),
        ("maxAgeSeconds", args.max_age_seconds),
    ] {
        delivery.extend(value.map(|value| (name.to_owned(), value.into())));
    }
    set(
        "delivery",
        (!delivery.is_empty()).then_some(delivery.into()),
    );
    Value::Object(record)
}

fn cors(args: &CreateArgs) -> Option<Value> {
    let mut cors = Map::new();
    for (name, list) in [
        ("origins", &args.cors_origin),
        ("methods", &args.cors_method),
        ("headers", &args.cors_header),
    ] {
        if !list.is_empty() {
            cors.insert(name.to_owned(), json!(list));
        }
    }
    if args.cors_credentials {
        cors.insert("allowCredentials".to_owned(), true.into());
    }
    (args.cors || !cors.is_empty()).then_some(cors.into())
}
