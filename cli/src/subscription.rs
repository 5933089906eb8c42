//! `hearth subscription …`: the rules that bind events to functions.

use clap::{Args, Subcommand};
use protocol::{Subscription, SubscriptionId};
use serde::Deserialize;
use serde_json::Value;

use crate::api::Call;
use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records::{self, List, text};

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
        SubscriptionCommand::Get(args) => {
            let path = path(options);
            let call = Call::get(&path).escaped(&args.id);
            records::get(options, call, console).await
        }
        SubscriptionCommand::Delete(args) => {
            let path = path(options);
            let call = Call::delete(&path).escaped(&args.id);
            records::delete(options, call, &args.id, console).await
        }
    }
}

async fn list(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = List {
        path: &path(options),
        member: "subscriptions",
        none: format!(
            "nothing is subscribed in space {}; `hearth subscription create` adds one",
            options.space
        ),
        heading: [
            "SUBSCRIPTION",
            "EVENT",
            "METHOD",
            "PATH",
            "FUNCTION",
            "AUTHORIZER",
        ],
        row,
    };
    list.print(options, console).await
}

fn row(record: &Value) -> [String; 6] {
    let Ok(subscription) = Subscription::deserialize(record) else {
        return [
            "subscriptionId",
            "event",
            "method",
            "path",
            "functionId",
            "authorizerId",
        ]
        .map(|name| text(&record[name]));
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
        (subscription.authorizer_id.as_ref())
            .map(ToString::to_string)
            .unwrap_or_default(),
    ]
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
