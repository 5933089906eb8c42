//! `hearth secret …`: values that functions get and nobody is shown.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand};
use protocol::SecretName;
use protocol::id::InvalidId;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::password;
use crate::records::{self, List, text};

#[cfg(test)]
mod tests;

const EXAMPLES: &str = "\
Examples:
  # Asked for on the terminal, and not shown.
  hearth secret set db-password
  # All bytes count, the end of the last line as well.
  printf %s \"$PASSWORD\" | hearth secret set db-password --file -
  hearth secret set tls-key --file tls.key
  # A function that gets both: as a variable, and as the file $HEARTH_SECRETS/tls-key.
  hearth function register api --image api:2 --secret db-password=env:DB_PASSWORD --secret tls-key

Exit codes:
  0 done, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

/// What can be done with secrets.
#[derive(Debug, Clone, Subcommand)]
pub enum SecretCommand {
    /// Set a secret; functions that have it get new instances
    Set(SetArgs),

    /// List the secrets of the space, without their values
    List,

    /// Delete a secret that no function has
    Delete(DeleteArgs),
}

/// Arguments of `hearth secret set`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SetArgs {
    /// The secret's name: letters, digits, `.`, `-` and `_`
    #[arg(value_name = "NAME", value_parser = name)]
    name: SecretName,

    /// File whose bytes are the value, `-` for standard input [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Names one secret.
#[derive(Debug, Clone, Args)]
pub struct DeleteArgs {
    /// The secret's name
    #[arg(value_name = "NAME", value_parser = name)]
    name: SecretName,
}

pub(crate) fn name(text: &str) -> Result<SecretName, InvalidId> {
    text.parse()
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &SecretCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        SecretCommand::Set(args) => set(options, args, console).await,
        SecretCommand::List => list(options, console).await,
        SecretCommand::Delete(args) => {
            let name = args.name.as_str();
            let path = one(options, name);
            records::delete(options, Call::delete(&path), name, console).await
        }
    }
}

async fn set(options: &Options, args: &SetArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let name = args.name.as_str();
    let value = match &args.file {
        Some(path) => console.read(path)?,
        None => password::ask(
            &format!("value of {name}"),
            "--file FILE reads it, --file - from standard input",
            console,
        )?
        .into_bytes(),
    };
    if value.is_empty() {
        return Err(Failure::usage("the value is empty"));
    }
    let body = match String::from_utf8(value) {
        Ok(text) => json!({ "value": text }),
        Err(error) => json!({ "base64": STANDARD.encode(error.as_bytes()) }),
    };
    let path = one(options, name);
    let call = Call::new(Method::PUT, &path, Some(body.to_string().into_bytes()));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let is_new = answer.status == StatusCode::CREATED;
    let said: Value = answer.json()?;
    let functions = functions(&said);
    let space = &options.space;
    let told = match (is_new, functions.as_str()) {
        (true, _) => format!("made {name} in space {space}"),
        (false, "") => format!("set {name} in space {space}"),
        (false, functions) => {
            format!("set {name} in space {space}; new instances of {functions} get it")
        }
    };
    Ok(console.text(&told)?)
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = List {
        path: &all(options),
        member: "secrets",
        none: format!(
            "space {} has no secrets; `hearth secret set` makes one",
            options.space
        ),
        heading: ["SECRET", "VERSION", "SET", "FUNCTIONS"],
        row,
    };
    list.print(options, console).await
}

fn row(secret: &Value) -> [String; 4] {
    let version = text(&secret["version"]).chars().take(8).collect();
    [
        text(&secret["name"]),
        version,
        text(&secret["updatedAt"]),
        functions(secret),
    ]
}

fn functions(secret: &Value) -> String {
    let named = secret["functions"].as_array().into_iter().flatten();
    let named: Vec<&str> = named.filter_map(Value::as_str).collect();
    named.join(", ")
}

fn all(options: &Options) -> [&str; 4] {
    ["v1", "spaces", options.space.as_str(), "secrets"]
}

fn one<'a>(options: &'a Options, name: &'a str) -> [&'a str; 5] {
    ["v1", "spaces", options.space.as_str(), "secrets", name]
}
