//! `hearth subscription …`: the rules that bind events to functions.

use clap::{Args, Subcommand};
use protocol::{Subscription, SubscriptionId};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use crate::api::{Api, Call};
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::table::table;

mod create;

/// What can be done with subscriptions.
#[derive(Debug, Clone, Subcommand)]
pub enum SubscriptionCommand {
    /// Subscribe a function to an event
    Create(Box<create::CreateArgs>),

    /// List the subscriptions of the space
    List,

    /// Print a subscription's record, as JSON
    Get(SubscriptionArgs),

    /// Delete a subscription; its function stays
    Delete(SubscriptionArgs),
}

/// Names one subscription.
#[derive(Debug, Clone, Args)]
pub struct SubscriptionArgs {
    /// The subscription's id exactly as `list` prints it, such as `http,GET,%2Fusers`
    #[arg(value_name = "ID", value_parser = subscription_id)]
    id: String,
}

/// Runs one of the subcommands.
///
/// # Errors
/// The subcommand's.
pub(crate) async fn run(
    options: &Options,
    command: &SubscriptionCommand,
    console: &mut Console<'_>,
) -> Result<(), Failure> {
    match command {
        SubscriptionCommand::Create(args) => create::run(options, args, console).await,
        SubscriptionCommand::List => list(options, console).await,
        SubscriptionCommand::Get(args) => get(options, &args.id, console).await,
        SubscriptionCommand::Delete(args) => delete(options, &args.id, console).await,
    }
}

/// The answer, read element by element, so that what this version does not know hides no other subscription.
#[derive(Deserialize)]
struct Listed {
    subscriptions: Vec<Value>,
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = path(options);
    let answer = Api::config(options)?
        .call(Call::get(&path))
        .await?
        .accept()?;
    if options.json {
        return Ok(console.json(&answer.text())?);
    }
    let Listed { subscriptions } = answer.json()?;
    if subscriptions.is_empty() {
        let space = &options.space;
        writeln!(
            console.err,
            "nothing is subscribed in space {space}; `hearth subscription create` adds one"
        )?;
        return Ok(());
    }
    let heading = ["SUBSCRIPTION", "EVENT", "METHOD", "PATH", "FUNCTION"];
    let mut rows: Vec<_> = subscriptions.iter().map(row).collect();
    rows.sort();
    Ok(console.text(&table(heading, rows))?)
}

fn row(record: &Value) -> [String; 5] {
    let Ok(subscription) = Subscription::deserialize(record) else {
        let field = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        return ["subscriptionId", "event", "method", "path", "functionId"].map(field);
    };
    [
        subscription.subscription_id.to_string(),
        subscription.event.to_string(),
        subscription
            .method
            .map(|method| method.to_string())
            .unwrap_or_default(),
        subscription.path.clone(),
        subscription.function_id.to_string(),
    ]
}

async fn get(options: &Options, id: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = path(options);
    let answer = Api::config(options)?
        .call(Call::get(&path).escaped(id))
        .await?
        .accept()?;
    Ok(console.json(&answer.text())?)
}

async fn delete(options: &Options, id: &str, console: &mut Console<'_>) -> Result<(), Failure> {
    let path = path(options);
    let call = Call::new(Method::DELETE, &path, None).escaped(id);
    let answer = Api::config(options)?.call(call).await?.accept()?;
    let shown = if options.json {
        answer.text()
    } else {
        format!("deleted {id} from space {}", options.space)
    };
    Ok(console.text(&shown)?)
}

fn path(options: &Options) -> [&str; 4] {
    ["v1", "spaces", options.space.as_str(), "subscriptions"]
}

/// Reads an id. It goes into the URL as it is, so what can not stand there is no id.
fn subscription_id(text: &str) -> Result<String, String> {
    // One of a typed subscription has no comma, and a key that differs from it.
    let is_ours = text.contains(',') || SubscriptionId::from_url(text).key() != text;
    let is_id = is_ours
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'?' | b'#'));
    match is_id {
        true => Ok(text.to_owned()),
        false => Err("expected an id as `hearth subscription list` prints it".to_owned()),
    }
}

#[cfg(test)]
mod tests;
