//! `hearth event-type …`: the events that typed subscriptions may ask for.

use clap::{Args, Subcommand};
use protocol::{EventTypeRecord, FunctionId};
use reqwest::Method;
use serde_json::{Map, Value};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::{Options, pair};
use crate::records::{self, List, text};

/// What can be done with event types.
#[derive(Debug, Clone, Subcommand)]
pub enum EventTypeCommand {
    /// Register an event type
    Create(CreateArgs),

    /// List the event types of the space
    List,

    /// Print an event type's record, as JSON
    Get(EventTypeArgs),

    /// Delete an event type that no subscription is for
    Delete(EventTypeArgs),
}

/// Arguments of `hearth event-type create`.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// The name of the events, such as `user.created`; `http.request` is that of plain requests
    #[arg(value_name = "NAME")]
    name: String,

    /// Function that is asked before such an event is delivered
    #[arg(long, value_name = "FUNCTION")]
    authorizer: Option<FunctionId>,

    /// Note on the record; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    metadata: Vec<(String, String)>,
}

/// Names one event type.
#[derive(Debug, Clone, Args)]
pub struct EventTypeArgs {
    /// The event type's name
    #[arg(value_name = "NAME")]
    name: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &EventTypeCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        EventTypeCommand::Create(args) => create(options, args, console).await,
        EventTypeCommand::List => list(options, console).await,
        EventTypeCommand::Get(args) => {
            let path = one(options, &args.name);
            records::get(options, Call::get(&path), console).await
        }
        EventTypeCommand::Delete(args) => {
            let path = one(options, &args.name);
            records::delete(options, Call::delete(&path), &args.name, console).await
        }
    }
}

async fn create(
    options: &Options,
    args: &CreateArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let mut record = Map::from_iter([("name".to_owned(), args.name.as_str().into())]);
    if let Some(authorizer) = &args.authorizer {
        record.insert("authorizerId".to_owned(), authorizer.as_str().into());
    }
    if !args.metadata.is_empty() {
        let metadata = args.metadata.iter().cloned();
        let metadata: Map<String, Value> =
            metadata.map(|(key, value)| (key, value.into())).collect();
        record.insert("metadata".to_owned(), metadata.into());
    }
    let body = Value::Object(record).to_string().into_bytes();
    // The node checks the same, but asking it for a mistake that is plain from here would hide it behind the network.
    EventTypeRecord::parse(options.space.as_str(), None, &body)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let path = all(options);
    let call = Call::new(Method::POST, &path, Some(body));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    console.text(&format!("created {} in space {}", args.name, options.space))?;
    Ok(())
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = List {
        path: &all(options),
        member: "eventTypes",
        none: format!(
            "space {} has no event types; `hearth event-type create` adds one",
            options.space
        ),
        heading: ["EVENT TYPE", "AUTHORIZER"],
        row: |record| ["name", "authorizerId"].map(|name| text(&record[name])),
    };
    list.print(options, console).await
}

fn all(options: &Options) -> [&str; 4] {
    ["v1", "spaces", options.space.as_str(), "eventtypes"]
}

fn one<'a>(options: &'a Options, name: &'a str) -> [&'a str; 5] {
    ["v1", "spaces", options.space.as_str(), "eventtypes", name]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{Server, check_ok};

    const RECORD: &str = r#"{"space":"default","name":"a","authorizerId":"f"}"#;

    #[track_caller]
    fn check_created(options: &str, expected: &Value) {
        let server = Server::new(&[("201 Created", &[], RECORD)]);
        let outcome = server.run(&format!("event-type create {options}"));
        check_ok(&outcome, "created a in space default\n");
        let request = server.request();
        assert_eq!(request.line, "POST /v1/spaces/default/eventtypes");
        let sent: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(sent, *expected, "{options}");
    }

    #[test]
    fn create_sends_only_what_was_set() {
        check_created("a", &json!({"name": "a"}));
        check_created(
            "a --authorizer f --metadata team=shop",
            &json!({"name": "a", "authorizerId": "f", "metadata": {"team": "shop"}}),
        );
        let server = Server::new(&[]);
        let outcome = server.run("event-type create user.*");
        assert_eq!(outcome.code, 64);
        assert!(outcome.err.contains("'eventType' tag"), "{}", outcome.err);
    }

    #[test]
    fn event_types_are_listed_read_and_deleted() {
        let listed = format!(r#"{{"eventTypes":[{RECORD},{{"name":"b"}}]}}"#);
        let server = Server::new(&[("200 OK", &[], &listed)]);
        let outcome = server.run("event-type list");
        let lines: Vec<Vec<&str>> = outcome
            .out
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1..], [["a", "f"], ["b", "-"]]);
        let server = Server::new(&[("200 OK", &[], RECORD)]);
        check_ok(
            &server.run("--json event-type get a"),
            &format!("{RECORD}\n"),
        );
        let line = "/v1/spaces/default/eventtypes/a";
        assert_eq!(server.request().line, format!("GET {line}"));
        let server = Server::new(&[("204 No Content", &[], "")]);
        check_ok(
            &server.run("event-type delete a"),
            "deleted a from space default\n",
        );
        assert_eq!(server.request().line, format!("DELETE {line}"));
        let server = Server::new(&[("200 OK", &[], r#"{"eventTypes":[]}"#)]);
        let outcome = server.run("event-type list");
        assert!(
            outcome.err.contains("has no event types"),
            "{}",
            outcome.err
        );
    }
}
