//! `hearth version …`: what a function was when it was published, for good.

use clap::{Args, Subcommand};
use protocol::id::InvalidId;
use protocol::{FunctionId, Version};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::function::function_id;
use crate::options::Options;
use crate::table::table;

const EXAMPLES: &str = "\
Examples:
  hearth version publish hello --description 'greets politely'
  hearth function invoke hello:3 --payload '{\"name\": \"Ada\"}'
  # A name that calls go by, and that can be moved and rolled back.
  hearth alias set hello prod --version 3

Exit codes:
  0 done, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

/// What can be done with versions.
#[derive(Debug, Clone, Subcommand)]
pub enum VersionCommand {
    /// Publish a function as it is now, unless it has not changed since its newest version
    Publish(PublishArgs),

    /// List the versions of a function
    List(ListArgs),

    /// Delete a version that no alias names; its instances end after their last call
    Delete(DeleteArgs),
}

/// Arguments of `hearth version publish`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct PublishArgs {
    /// The function's id
    #[arg(value_name = "FUNCTION", value_parser = function_id)]
    function: FunctionId,

    /// What is to be known of the version
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// Names a function.
#[derive(Debug, Clone, Args)]
pub struct ListArgs {
    /// The function's id
    #[arg(value_name = "FUNCTION", value_parser = function_id)]
    function: FunctionId,
}

/// Names a version.
#[derive(Debug, Clone, Args)]
pub struct DeleteArgs {
    /// The function's id
    #[arg(value_name = "FUNCTION", value_parser = function_id)]
    function: FunctionId,

    /// The number of the version
    #[arg(value_name = "VERSION", value_parser = number)]
    version: Version,
}

pub(crate) fn number(text: &str) -> Result<Version, InvalidId> {
    text.parse()
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &VersionCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        VersionCommand::Publish(args) => publish(options, args, console).await,
        VersionCommand::List(args) => list(options, &args.function, console).await,
        VersionCommand::Delete(args) => delete(options, args, console).await,
    }
}

async fn publish(
    options: &Options,
    args: &PublishArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let id = args.function.as_str();
    let body = match &args.description {
        Some(text) => json!({ "description": text }),
        None => json!({}),
    };
    let path = all(options, id);
    let call = Call::new(Method::POST, &path, Some(body.to_string().into_bytes()));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let is_new = answer.status == StatusCode::CREATED;
    let said: Value = answer.json()?;
    let (version, space) = (&said["version"], &options.space);
    let told = match is_new {
        true => format!("published {id}:{version} in space {space}"),
        false => format!("{id} in space {space} has not changed since {id}:{version}"),
    };
    Ok(console.text(&told)?)
}

/// The answer, read element by element, so that what this version does not know hides no other.
#[derive(Deserialize)]
struct Listed {
    versions: Vec<Value>,
}

async fn list(
    options: &Options,
    id: &FunctionId,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let path = all(options, id.as_str());
    let answer = Api::config(options)?
        .call(Call::get(&path))
        .await?
        .accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Listed { versions } = answer.json()?;
    if versions.is_empty() {
        writeln!(
            console.err,
            "function {id} has no versions; `hearth version publish {id}` makes one"
        )?;
        return Ok(());
    }
    let heading = ["VERSION", "PUBLISHED", "DIGEST", "DESCRIPTION"];
    Ok(console.text(&table(heading, versions.iter().map(row)))?)
}

fn row(version: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let published = version["publishedAtMs"].as_u64();
    [
        version["version"].to_string(),
        published.map_or_else(String::new, protocol::event::rfc3339),
        text(&version["digest"]).chars().take(19).collect(),
        text(&version["description"]),
    ]
}

async fn delete(
    options: &Options,
    args: &DeleteArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let (id, version) = (args.function.as_str(), args.version.to_string());
    let [root, spaces, space, functions, _, versions] = all(options, id);
    let path = [root, spaces, space, functions, id, versions, &version];
    let call = Call::new(Method::DELETE, &path, None);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    let shown = if options.json {
        answer.text()
    } else {
        format!("deleted {id}:{version} from space {space}")
    };
    Ok(console.text(&shown)?)
}

fn all<'a>(options: &'a Options, id: &'a str) -> [&'a str; 6] {
    let space = options.space.as_str();
    ["v1", "spaces", space, "functions", id, "versions"]
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::testing::{Server, check_ok};

    const VERSION: &str = r#"{"version":3,"description":"polite","publishedAtMs":1767312000000,"digest":"sha256:0123456789abcdef0123","function":{}}"#;

    #[test]
    fn a_version_is_published_once() {
        for (status, words, sent, told) in [
            (
                "201 Created",
                "version publish hello --description polite",
                json!({"description": "polite"}),
                "published hello:3 in space default\n",
            ),
            (
                "200 OK",
                "version publish hello",
                json!({}),
                "hello in space default has not changed since hello:3\n",
            ),
        ] {
            let server = Server::new(&[(status, &[], VERSION)]);
            check_ok(&server.run(words), told);
            let request = server.request();
            let line = "POST /v1/spaces/default/functions/hello/versions";
            assert_eq!(request.line, line);
            let body: Value = serde_json::from_str(&request.body).unwrap();
            assert_eq!(body, sent);
        }
    }

    #[test]
    fn versions_are_listed_and_deleted() {
        let listed = format!(r#"{{"versions":[{VERSION}]}}"#);
        let outcome = Server::new(&[("200 OK", &[], &listed)]).run("version list hello");
        let line = outcome.out.lines().nth(1).unwrap();
        assert_eq!(
            line,
            "3        2026-01-02T00:00:00.000Z  sha256:0123456789ab  polite"
        );
        let outcome = Server::new(&[("200 OK", &[], r#"{"versions":[]}"#)]).run("version list f");
        assert!(outcome.err.contains("`hearth version publish f` makes one"));
        let server = Server::new(&[("204 No Content", &[], "")]);
        let told = "deleted hello:3 from space default\n";
        check_ok(&server.run("version delete hello 3"), told);
        let line = "DELETE /v1/spaces/default/functions/hello/versions/3";
        assert_eq!(server.request().line, line);
    }
}
