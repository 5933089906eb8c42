//! `hearth key …`: the API keys of whoever is logged in.

use std::time::Duration;

use clap::{Args, Subcommand};
use protocol::Space;
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::{Options, duration};
use crate::records::text;
use crate::table::table;
use crate::user::tell;

/// What can be done with API keys.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make a key and print it, which is the only time it is shown
    Create(CreateArgs),

    /// List the keys
    List,

    /// Revoke a key, on every node at once
    Revoke(KeyArgs),
}

/// A new key.
#[derive(Debug, Clone, Args)]
pub struct CreateArgs {
    /// What it is called
    #[arg(value_name = "NAME")]
    name: String,

    /// What it may do, again for each
    #[arg(long = "scope", value_name = "SCOPE", required = true,
        value_parser = ["invoke", "emit", "read", "write", "admin"])]
    scopes: Vec<String>,

    /// The only space it may do it in, again for each [default: all of the user's]
    #[arg(long = "only-space", value_name = "SPACE")]
    spaces: Vec<Space>,

    /// When it ends by itself, such as `30days` [default: never]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    expires_in: Option<Duration>,

    /// Makes an access key for AWS's clients: prints its id and, this once, its secret access key
    #[arg(long)]
    aws: bool,
}

/// Names one key.
#[derive(Debug, Clone, Args)]
pub struct KeyArgs {
    /// The key's id, as `hearth key list` shows it
    #[arg(value_name = "ID")]
    id: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &KeyCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        KeyCommand::Create(args) => create(options, args, console).await,
        KeyCommand::List => list(options, console).await,
        KeyCommand::Revoke(args) => {
            let path = ["api", "v1", "keys", &args.id];
            let call = Call::delete(&path);
            let answer = Api::functions(options)?.call(call).await?.accept()?;
            tell(options, &answer, console)
        }
    }
}

async fn create(
    options: &Options,
    args: &CreateArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Created {
        key: Option<String>,
        access_key_id: Option<String>,
        secret_access_key: Option<String>,
    }
    let mut body = Map::new();
    body.insert("name".to_owned(), json!(args.name));
    body.insert("scopes".to_owned(), json!(args.scopes));
    if !args.spaces.is_empty() {
        body.insert("spaces".to_owned(), json!(args.spaces));
    }
    if let Some(expires_in) = args.expires_in {
        let seconds = expires_in.as_secs().max(1);
        body.insert("expiresInSeconds".to_owned(), json!(seconds));
    }
    if args.aws {
        body.insert("aws".to_owned(), json!(true));
    }
    let body = Value::Object(body).to_string().into_bytes();
    let call = Call::new(Method::POST, &PATH, Some(body));
    let answer = Api::functions(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Created {
        key,
        access_key_id,
        secret_access_key,
    } = answer.json()?;
    // As AWS's clients read them from the environment.
    let pair = access_key_id
        .zip(secret_access_key)
        .map(|(id, secret)| format!("AWS_ACCESS_KEY_ID={id}\nAWS_SECRET_ACCESS_KEY={secret}"));
    Ok(console.text(&pair.or(key).unwrap_or_default())?)
}

const PATH: [&str; 3] = ["api", "v1", "keys"];

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let call = Call::get(&PATH);
    let answer = Api::functions(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let keys = answer.list("keys")?;
    if keys.is_empty() {
        writeln!(console.err, "no keys; `hearth key create` makes one")?;
        return Ok(());
    }
    let rows = keys.iter().map(|key| {
        let all = |value: &Value| {
            let all = value.as_array().into_iter().flatten();
            all.map(text).collect::<Vec<_>>().join(",")
        };
        [
            text(&key["id"]),
            text(&key["name"]),
            all(&key["scopes"]),
            all(&key["spaces"]),
        ]
    });
    Ok(console.text(&table(["KEY", "NAME", "SCOPES", "SPACES"], rows))?)
}
