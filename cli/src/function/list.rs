//! `hearth function list`.

use protocol::Function;
use protocol::function::Provider;
use serde::Deserialize;
use serde_json::Value;

use crate::console::Console;
use crate::failure::Failure;
use crate::options::Options;
use crate::records::{List, text};

/// Prints the functions of the space, by id.
///
/// # Errors
/// When the node can not be asked, or its answer not be printed.
pub(super) async fn run(options: &Options, console: &mut Console<'_>) -> Result<(), Failure> {
    let list = List {
        path: &["v1", "spaces", options.space.as_str(), "functions"],
        member: "functions",
        none: format!(
            "no function is registered in space {}; `hearth function register` adds one",
            options.space
        ),
        heading: [
            "FUNCTION", "TYPE", "CONTRACT", "SLOTS", "MIN-MAX", "MEMORY", "TIMEOUT", "RUNS",
        ],
        row,
    };
    list.print(options, console).await
}

fn row(record: &Value) -> [String; 8] {
    let Ok(function) = Function::deserialize(record) else {
        let field = |name: &str| text(&record[name]);
        let unknown = String::new;
        return [
            field("functionId"),
            field("type"),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            unknown(),
            record["provider"].to_string(),
        ];
    };
    let (limits, scaling) = (function.limits(), function.scaling());
    let is_pooled = function.is_pooled();
    let has_instances = function.contract().is_some();
    [
        function.function_id.to_string(),
        function.type_name().to_owned(),
        function
            .contract()
            .map(contract_name)
            .unwrap_or_default()
            .to_owned(),
        limits.concurrency.to_string(),
        if is_pooled {
            format!("{}-{}", scaling.min, scaling.max)
        } else {
            String::new()
        },
        if has_instances {
            format!("{} MiB", limits.memory_mb)
        } else {
            String::new()
        },
        humantime::format_duration(limits.timeout).to_string(),
        runs(&function),
    ]
}

fn contract_name(contract: protocol::function::Contract) -> &'static str {
    match contract {
        protocol::function::Contract::Http => "http",
        protocol::function::Contract::Stdio => "stdio",
        protocol::function::Contract::Lambda => "lambda",
    }
}

/// What runs when the function is invoked.
fn runs(function: &Function) -> String {
    match &function.provider {
        Provider::Container(provider) if provider.command.is_empty() => provider.image.clone(),
        Provider::Container(provider) => {
            format!("{} {}", provider.image, provider.command.join(" "))
        }
        Provider::Process(provider) => provider.command.join(" "),
        Provider::Http(provider) => provider.url.clone(),
        Provider::AwsLambda(provider) => provider.arn.clone(),
        Provider::AwsKinesis(provider) => provider.stream_name.clone(),
        Provider::AwsFirehose(provider) => provider.delivery_stream_name.clone(),
        Provider::AwsSqs(provider) => provider.queue_url.clone(),
        Provider::GcloudFunction(provider) => provider.url.clone(),
        Provider::AzureFunction(provider) => provider.url.clone(),
        Provider::OpenWhisk(provider) => {
            let (host, action) = (&provider.api_host, &provider.action);
            format!("{host} {}/{action}", provider.namespace())
        }
    }
}
