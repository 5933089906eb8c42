//! `hearth alias …` and `hearth rollback`: names for versions, and which of them gets how many calls.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use protocol::id::InvalidId;
use protocol::version::{Canary, Target};
use protocol::{AliasName, FunctionId, Version, api};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::function::function_id;
use crate::options::Options;
use crate::table::table;
use crate::version::number;

#[cfg(test)]
mod tests;

const EXAMPLES: &str = "\
Examples:
  # All calls of hello:prod go to version 3.
  hearth alias set hello prod --version 3
  # One in ten goes to version 4, and so does any with the header x-canary: 1.
  hearth alias set hello prod --version 3 --weight 4=0.1 --canary-header x-canary=1:4
  # All go to version 4, and back to version 3.
  hearth alias set hello prod --version 4
  hearth rollback hello prod

Exit codes:
  0 done, 1 refused, 64 bad usage or value, 69 no answer, 77 not authorised";

/// What can be done with aliases.
#[derive(Debug, Clone, Subcommand)]
pub enum AliasCommand {
    /// Make an alias, or have its calls go elsewhere from now on
    Set(SetArgs),

    /// List the aliases of a function
    List(ListArgs),

    /// Print an alias's record, as JSON
    Show(AliasArgs),

    /// Delete an alias; its versions stay
    Delete(AliasArgs),
}

/// Arguments of `hearth alias set`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct SetArgs {
    #[command(flatten)]
    alias: AliasArgs,

    /// The version that gets all calls that no other option says something of
    #[arg(long, value_name = "VERSION", value_parser = number)]
    version: Version,

    /// Another version, and its share of the calls, from 0 to 1
    #[arg(long = "weight", value_name = "VERSION=SHARE", value_parser = weight)]
    weights: Vec<(Version, f64)>,

    /// Calls with this header, and this value if one is given, all go to another version
    #[arg(long, value_name = "HEADER[=VALUE]:VERSION", value_parser = canary)]
    canary_header: Option<Canary>,

    /// What is to be known of the alias
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

/// Names an alias.
#[derive(Debug, Clone, Args)]
pub struct AliasArgs {
    /// The function's id
    #[arg(value_name = "FUNCTION", value_parser = function_id)]
    function: FunctionId,

    /// The alias's name: letters, digits, `-` and `_`
    #[arg(value_name = "ALIAS", value_parser = name)]
    name: AliasName,
}

fn name(text: &str) -> Result<AliasName, InvalidId> {
    text.parse()
}

fn weight(text: &str) -> Result<(Version, f64), String> {
    let (version, share) = text
        .split_once('=')
        .ok_or("expected a version and its share, such as 4=0.1")?;
    let version = number(version).map_err(|error| error.to_string())?;
    match share.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok((version, number)),
        _ => Err(format!("the share is {share}, expected 0 to 1")),
    }
}

fn canary(text: &str) -> Result<Canary, String> {
    let (header, version) = text
        .rsplit_once(':')
        .ok_or("expected a header and a version, such as x-canary=1:4")?;
    let (header, value) = match header.split_once('=') {
        Some((header, value)) => (header, Some(value.to_owned())),
        None => (header, None),
    };
    Ok(Canary {
        header: header.to_ascii_lowercase(),
        value,
        version: number(version).map_err(|error| error.to_string())?,
    })
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &AliasCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        AliasCommand::Set(args) => set(options, args, console).await,
        AliasCommand::List(args) => list(options, &args.function, console).await,
        AliasCommand::Show(args) => show(options, args, console).await,
        AliasCommand::Delete(args) => delete(options, args, console).await,
    }
}

async fn set(options: &Options, args: &SetArgs, console: &mut Console<'_>) -> Result<(), Failure> {
    let target = Target {
        version: args.version,
        weights: args.weights.iter().copied().collect::<BTreeMap<_, _>>(),
        canary: args.canary_header.clone(),
    };
    let checked = target.check();
    checked.map_err(|why| Failure::usage(why.to_string()))?;
    let sent = api::SetAlias {
        description: args.description.clone(),
        target,
    };
    let body = serde_json::to_vec(&sent).expect("an alias has string keys only");
    let path = one(options, &args.alias);
    let call = Call::new(Method::PUT, &path, Some(body));
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let verb = match answer.status {
        StatusCode::CREATED => "made",
        _ => "set",
    };
    let said: Value = answer.json()?;
    Ok(console.text(&told(verb, options, &args.alias, &said))?)
}

/// Runs `hearth rollback`.
///
/// # Errors
/// When there is no such alias, or nothing that it could be rolled back to.
pub(crate) async fn roll_back(
    options: &Options,
    args: &AliasArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let [root, spaces, space, functions, id, aliases, name] = one(options, args);
    let path = [
        root, spaces, space, functions, id, aliases, name, "rollback",
    ];
    let call = Call::new(Method::POST, &path, None);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let said: Value = answer.json()?;
    Ok(console.text(&told("rolled back", options, args, &said))?)
}

fn told(verb: &str, options: &Options, args: &AliasArgs, alias: &Value) -> String {
    let (id, name, space) = (&args.function, &args.name, &options.space);
    let to = goes_to(alias);
    format!("{verb} {id}:{name} in space {space}: its calls go to {to}")
}

/// Where the calls of an alias go, such as `version 3, 10 % to 4, x-canary: 1 to 4`.
fn goes_to(alias: &Value) -> String {
    let mut told = format!("version {}", alias["version"]);
    for (version, share) in alias["weights"].as_object().into_iter().flatten() {
        // As many digits as tell shares apart that anybody sets.
        let percent = (share.as_f64().unwrap_or_default() * 1e6).round() / 1e4;
        told.push_str(&format!(", {percent} % to {version}"));
    }
    let canary = &alias["canary"];
    if let Some(header) = canary["header"].as_str() {
        let value = canary["value"].as_str();
        let value = value.map_or_else(String::new, |value| format!(": {value}"));
        told.push_str(&format!(", {header}{value} to {}", canary["version"]));
    }
    told
}

/// The answer, read element by element, so that what this version does not know hides no other.
#[derive(Deserialize)]
struct Listed {
    aliases: Vec<Value>,
}

async fn list(
    options: &Options,
    id: &FunctionId,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let space = options.space.as_str();
    let path = ["v1", "spaces", space, "functions", id.as_str(), "aliases"];
    let answer = Api::config(options)?
        .call(Call::get(&path))
        .await?
        .accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Listed { aliases } = answer.json()?;
    if aliases.is_empty() {
        writeln!(
            console.err,
            "function {id} has no aliases; `hearth alias set` makes one"
        )?;
        return Ok(());
    }
    let heading = ["ALIAS", "CALLS GO TO", "BEFORE", "DESCRIPTION"];
    Ok(console.text(&table(heading, aliases.iter().map(row)))?)
}

fn row(alias: &Value) -> [String; 4] {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let previous = &alias["previous"];
    let before = match previous {
        Value::Null => String::new(),
        previous => goes_to(previous),
    };
    [
        text(&alias["name"]),
        goes_to(alias),
        before,
        text(&alias["description"]),
    ]
}

async fn show(
    options: &Options,
    args: &AliasArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let path = one(options, args);
    let answer = Api::config(options)?
        .call(Call::get(&path))
        .await?
        .accept()?;
    Ok(console.json(&answer.text())?)
}

async fn delete(
    options: &Options,
    args: &AliasArgs,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    let path = one(options, args);
    let call = Call::new(Method::DELETE, &path, None);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    let shown = if options.json {
        answer.text()
    } else {
        let (id, name, space) = (&args.function, &args.name, &options.space);
        format!("deleted {id}:{name} from space {space}")
    };
    Ok(console.text(&shown)?)
}

fn one<'a>(options: &'a Options, args: &'a AliasArgs) -> [&'a str; 7] {
    let (space, id) = (options.space.as_str(), args.function.as_str());
    let name = args.name.as_str();
    ["v1", "spaces", space, "functions", id, "aliases", name]
}
