//! `hearth space …`: the spaces, and what is set for one.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;

/// What can be done with spaces.
#[derive(Debug, Clone, Subcommand)]
pub enum SpaceCommand {
    /// List the spaces that hold something and that you may read
    List,

    /// Print what is set for the space, as JSON
    Get,

    /// Change what is set for the space
    Set(SetArgs),
}

/// What is set for a space.
#[derive(Debug, Clone, Args)]
pub struct SetArgs {
    /// Who may emit its events: anyone, or its members
    #[arg(long, value_name = "WHO", value_parser = ["open", "authenticated"])]
    events: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &SpaceCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        SpaceCommand::List => list(options, console).await,
        SpaceCommand::Get => {
            let answer = Api::config(options)?.call(Call::get(&one(options))).await?;
            Ok(console.json(&answer.accept()?.text())?)
        }
        SpaceCommand::Set(args) => set(options, args, console).await,
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    #[derive(Deserialize)]
    struct Listed {
        spaces: Vec<String>,
    }
    let call = Call::get(&["v1", "spaces"]);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Listed { spaces } = answer.json()?;
    Ok(console.text(&spaces.join("\n"))?)
}

async fn set(options: &Options, args: &SetArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let body = json!({ "events": args.events }).to_string().into_bytes();
    let path = one(options);
    let call = Call::new(Method::PATCH, &path, Some(body));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let set: Value = answer.json()?;
    let events = set["events"].as_str().unwrap_or_default();
    Ok(console.text(&format!("events of space {} are {events}", options.space))?)
}

fn one(options: &Options) -> [&str; 3] {
    ["v1", "spaces", options.space.as_str()]
}
