//! Reads a function record from a client's JSON, with the checks and messages Event Gateway's clients know.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::aws::{check_endpoint, check_name};
use super::cloud::check_url;
use super::{
    AwsCredentials, AwsFirehoseProvider, AwsKinesisProvider, AwsLambdaProvider, AwsSqsProvider,
    AzureFunctionProvider, ContainerProvider, Contract, DeliverySpec, EventFormat, Function,
    GcloudFunctionProvider, HttpProvider, LAMBDA_VARIABLES, LimitsSpec, OpenWhiskProvider,
    ProcessProvider, Provider, SECRETS_VARIABLE, SandboxSpec, ScalingSpec, TOKEN_VARIABLE, TYPES,
    URL_VARIABLE,
};
use crate::id::{FunctionId, InvalidId, Space};
use crate::quota::check_calls;
use crate::secret;

#[cfg(test)]
mod tests;

/// Why a record is refused: the text after `Validation error: `.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

/// The types that Event Gateway had.
const ORIGINAL_TYPES: [&str; 5] = ["http", "awslambda", "awskinesis", "awsfirehose", "awssqs"];

/// A record as a client sends it; `space` is taken from the URL and what the body says of it is passed over.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    #[serde(default)]
    #[expect(dead_code, reason = "known, so not an unknown field; the URL decides")]
    space: Option<Value>,
    #[serde(default)]
    function_id: Option<String>,
    #[serde(default, rename = "type")]
    type_name: Option<String>,
    #[serde(default)]
    provider: Option<Value>,
    #[serde(default)]
    limits: Option<LimitsSpec>,
    #[serde(default)]
    scaling: Option<ScalingSpec>,
    #[serde(default)]
    delivery: Option<DeliverySpec>,
    #[serde(default)]
    sandbox: Option<SandboxSpec>,
    #[serde(default)]
    event_format: Option<EventFormat>,
    #[serde(default)]
    metadata: Option<BTreeMap<String, String>>,
}

impl Function {
    /// Reads and checks a record. `id` comes from the URL of an update and replaces the body's.
    ///
    /// # Errors
    /// The first check that fails: JSON, provider, names, then limits and the like, each naming field, value and
    /// what was expected.
    pub fn parse(space: &str, id: Option<&str>, body: &[u8]) -> Result<Self, Invalid> {
        let mut unknown = Vec::new();
        let sent: Sent = read(objects(body)?, "", &mut unknown)?;
        let type_name = match sent.type_name.as_deref() {
            None | Some("") => return Err(Invalid("provider configuration not set".into())),
            Some(name) => name,
        };
        let provider = read_provider(type_name, sent.provider.as_ref(), &mut unknown)?;
        // Types of the original ignore unknown fields, as it did.
        let is_strict = !ORIGINAL_TYPES.contains(&type_name);
        if let Some(path) = unknown.first().filter(|_| is_strict) {
            return Err(Invalid(format!(
                "unknown field \"{path}\" for type {type_name}"
            )));
        }
        let (space, function_id) = names(space, id.or(sent.function_id.as_deref()).unwrap_or(""))?;
        let function = Self {
            space,
            function_id,
            version: None,
            provider,
            limits: sent.limits,
            scaling: sent.scaling,
            delivery: sent.delivery,
            sandbox: sent.sandbox,
            event_format: sent.event_format,
            metadata: sent.metadata.filter(|metadata| !metadata.is_empty()),
        };
        function.check_ranges()?;
        function.check_lambda()?;
        Ok(function)
    }

    /// Checks what a function of the `lambda` contract can not have.
    fn check_lambda(&self) -> Result<(), Invalid> {
        let (Some(Contract::Lambda), Some(env)) = (self.contract(), self.env()) else {
            return Ok(());
        };
        let mut targets = self
            .secrets()
            .iter()
            .filter_map(|secret| secret.env.as_ref());
        if let Some(name) = LAMBDA_VARIABLES
            .iter()
            .find(|name| env.contains_key(**name))
        {
            return Err(set_by_the_node("env", name));
        }
        if let Some(name) = targets.find(|name| LAMBDA_VARIABLES.contains(&name.as_str())) {
            return Err(set_by_the_node("secrets", name));
        }
        if self.event_format == Some(EventFormat::CloudeventsBinary) {
            return Err(Invalid(
                "eventFormat is \"cloudevents-binary\", expected \"envelope\", \"cloudevents-structured\" or \"raw\": \
                 a function of the lambda contract gets no headers"
                    .into(),
            ));
        }
        Ok(())
    }

    fn env(&self) -> Option<&BTreeMap<String, String>> {
        match &self.provider {
            Provider::Container(provider) => Some(&provider.env),
            Provider::Process(provider) => Some(&provider.env),
            _ => None,
        }
    }

    fn check_ranges(&self) -> Result<(), Invalid> {
        if let Some(limits) = &self.limits {
            // 6 MiB: the least the container engine takes.
            check("limits.memoryMb", limits.memory_mb, 6, 1_048_576)?;
            check("limits.timeoutMs", limits.timeout_ms, 1, 86_400_000)?;
            check("limits.concurrency", limits.concurrency, 1, 10_000)?;
            check("limits.bodyBytes", limits.body_bytes, 1, 1_073_741_824)?;
            check_calls(limits.rate.as_ref(), limits.concurrent).map_err(Invalid)?;
            if let Some(cpus) = limits.cpus.filter(|cpus| !(0.01..=1024.0).contains(cpus)) {
                return Err(Invalid(format!(
                    "limits.cpus is {cpus}, expected 0.01 to 1024"
                )));
            }
        }
        if let Some(scaling) = &self.scaling {
            check("scaling.max", scaling.max, 1, 10_000)?;
            check("scaling.min", scaling.min, 0, self.scaling().max)?;
            check("scaling.idleSeconds", scaling.idle_seconds, 1, 31_536_000)?;
        }
        if let Some(delivery) = &self.delivery {
            check_delivery(delivery.attempts, delivery.max_age_seconds)?;
            for (field, destination) in delivery.destinations() {
                destination.check(field).map_err(Invalid)?;
            }
        }
        let capabilities = self.sandbox().capabilities;
        let is_capability = |name: &&String| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        };
        if let Some(name) = capabilities.iter().find(|name| !is_capability(name)) {
            return Err(Invalid(format!(
                "sandbox.capabilities has \"{name}\", expected names such as NET_BIND_SERVICE"
            )));
        }
        Ok(())
    }
}

/// Checks what a function or a subscription says of its deliveries.
pub(crate) fn check_delivery(
    attempts: Option<u32>,
    max_age_seconds: Option<u32>,
) -> Result<(), Invalid> {
    check("delivery.attempts", attempts, 1, 1_000)?;
    // 30 days.
    check("delivery.maxAgeSeconds", max_age_seconds, 1, 2_592_000)
}

fn check(field: &str, value: Option<u32>, least: u32, most: u32) -> Result<(), Invalid> {
    match value {
        Some(value) if !(least..=most).contains(&value) => Err(Invalid(format!(
            "{field} is {value}, expected {least} to {most}"
        ))),
        _ => Ok(()),
    }
}

fn names(space: &str, id: &str) -> Result<(Space, FunctionId), Invalid> {
    let line = |field: &str, error: &InvalidId| {
        let tag = error.tag;
        format!(
            "Key: 'Function.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        )
    };
    match (space.parse(), id.parse()) {
        (Ok(space), Ok(id)) => Ok((space, id)),
        (space, id) => {
            let space = space.err().map(|error| line("Space", &error));
            let id = id.err().map(|error: InvalidId| line("ID", &error));
            Err(Invalid(
                space.into_iter().chain(id).collect::<Vec<_>>().join("\n"),
            ))
        }
    }
}

fn read_provider(
    type_name: &str,
    value: Option<&Value>,
    unknown: &mut Vec<String>,
) -> Result<Provider, Invalid> {
    if !TYPES.contains(&type_name) {
        return Err(Invalid(format!("provider {type_name} not supported")));
    }
    let value = match value {
        None | Some(Value::Null) => return Err(Invalid("provider configuration not set".into())),
        Some(value) => value,
    };
    if !value.is_object() {
        return Err(Invalid(format!(
            "unable to load function provider config: provider is {value}, expected an object"
        )));
    }
    let config_error =
        |Invalid(why): Invalid| Invalid(format!("unable to load function provider config: {why}"));
    match type_name {
        "container" => {
            let provider: ContainerProvider =
                read(value, "provider", unknown).map_err(config_error)?;
            check_container(&provider)?;
            Ok(Provider::Container(provider))
        }
        "process" => {
            let provider: ProcessProvider =
                read(value, "provider", unknown).map_err(config_error)?;
            match provider.command.first() {
                Some(program) if !program.is_empty() => {}
                _ => {
                    return Err(Invalid(
                        "provider.command is empty, expected a program and its arguments".into(),
                    ));
                }
            }
            check_env(&provider.env)?;
            secret::check(&provider.secrets, &provider.env)?;
            Ok(Provider::Process(provider))
        }
        "http" => {
            let sent: SentRemote = read(value, "provider", unknown).map_err(config_error)?;
            let url = sent.url.unwrap_or_default();
            match url::Url::parse(&url) {
                Ok(parsed) if parsed.has_host() && matches!(parsed.scheme(), "http" | "https") => {
                    Ok(Provider::Http(HttpProvider { url }))
                }
                _ => Err(Invalid("missing required fields for HTTP endpoint".into())),
            }
        }
        "gcloudfunction" => {
            let provider: GcloudFunctionProvider =
                read(value, "provider", unknown).map_err(config_error)?;
            provider.check()?;
            Ok(Provider::GcloudFunction(provider))
        }
        "azurefunction" => {
            let provider: AzureFunctionProvider =
                read(value, "provider", unknown).map_err(config_error)?;
            provider.check()?;
            Ok(Provider::AzureFunction(provider))
        }
        "openwhisk" => {
            let provider: OpenWhiskProvider =
                read(value, "provider", unknown).map_err(config_error)?;
            provider.check()?;
            Ok(Provider::OpenWhisk(provider))
        }
        _ => {
            let sent: SentRemote = read(value, "provider", unknown).map_err(config_error)?;
            sent.aws(type_name)
        }
    }
}

/// `provider` of any of Event Gateway's types as a client sends it: what is missing is told in one text for each type.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SentRemote {
    url: Option<String>,
    arn: Option<String>,
    stream_name: Option<String>,
    delivery_stream_name: Option<String>,
    queue_url: Option<String>,
    region: Option<String>,
    endpoint: Option<String>,
    aws_access_key_id: Option<String>,
    aws_secret_access_key: Option<String>,
    aws_session_token: Option<String>,
}

impl SentRemote {
    fn aws(self, type_name: &str) -> Result<Provider, Invalid> {
        let is_set = |text: &String| !text.is_empty();
        let credentials = AwsCredentials {
            aws_access_key_id: self.aws_access_key_id.filter(is_set),
            aws_secret_access_key: self.aws_secret_access_key.filter(is_set),
            aws_session_token: self.aws_session_token.filter(is_set),
        };
        let (target, what) = match type_name {
            "awslambda" => (self.arn, "Lambda function"),
            "awskinesis" => (self.stream_name, "Kinesis function"),
            "awsfirehose" => (self.delivery_stream_name, "Firehose function"),
            _ => (self.queue_url, "SQS function"),
        };
        let (Some(target), Some(region)) = (target.filter(is_set), self.region.filter(is_set))
        else {
            return Err(Invalid(format!("missing required fields for AWS {what}")));
        };
        check_name("region", &region, "-", 64)?;
        let endpoint = self.endpoint.filter(is_set);
        check_endpoint(endpoint.as_deref())?;
        // What AWS takes: https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html, and for streams
        // https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecord.html and the same of Firehose.
        match type_name {
            "awslambda" => check_name("arn", &target, ":_-$", 256)?,
            "awskinesis" => check_name("streamName", &target, "_.-", 128)?,
            "awsfirehose" => check_name("deliveryStreamName", &target, "_.-", 64)?,
            _ => check_url("provider.queueUrl", &target)?,
        }
        Ok(match type_name {
            "awslambda" => Provider::AwsLambda(AwsLambdaProvider {
                arn: target,
                region,
                endpoint,
                credentials,
            }),
            "awskinesis" => Provider::AwsKinesis(AwsKinesisProvider {
                stream_name: target,
                region,
                endpoint,
                credentials,
            }),
            "awsfirehose" => Provider::AwsFirehose(AwsFirehoseProvider {
                delivery_stream_name: target,
                region,
                endpoint,
                credentials,
            }),
            _ => Provider::AwsSqs(AwsSqsProvider {
                queue_url: target,
                region,
                endpoint,
                credentials,
            }),
        })
    }
}

fn check_container(provider: &ContainerProvider) -> Result<(), Invalid> {
    if provider.image.trim().is_empty() || provider.image.contains(char::is_whitespace) {
        let image = &provider.image;
        return Err(Invalid(format!(
            "provider.image is \"{image}\", expected an image reference"
        )));
    }
    if provider.port == Some(0) {
        return Err(Invalid("provider.port is 0, expected 1 to 65535".into()));
    }
    let directory = provider.working_directory.as_deref();
    if let Some(path) = directory.filter(|path| !path.starts_with('/') || path.contains('\0')) {
        return Err(Invalid(format!(
            "provider.workingDirectory is \"{path}\", expected an absolute path"
        )));
    }
    check_env(&provider.env)?;
    secret::check(&provider.secrets, &provider.env)
}

fn check_env(env: &std::collections::BTreeMap<String, String>) -> Result<(), Invalid> {
    let reserved = [URL_VARIABLE, TOKEN_VARIABLE, SECRETS_VARIABLE];
    if let Some(name) = reserved.iter().find(|name| env.contains_key(**name)) {
        return Err(set_by_the_node("env", name));
    }
    match env
        .iter()
        .find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'))
    {
        Some((name, _)) => Err(Invalid(format!(
            "provider.env has \"{name}\", expected a name without '=' and a value without NUL"
        ))),
        None => Ok(()),
    }
}

fn set_by_the_node(field: &str, name: &str) -> Invalid {
    Invalid(format!(
        "provider.{field} has \"{name}\", which the node itself sets"
    ))
}

/// Reads the record as JSON and sees to it that it and its sections are objects: serde would take arrays for structs.
fn objects(body: &[u8]) -> Result<Value, Invalid> {
    let record: serde_json::Map<String, Value> =
        serde_json::from_slice(body).map_err(|error| Invalid(error.to_string()))?;
    for section in ["limits", "scaling", "delivery", "sandbox", "metadata"] {
        if let Some(value) = record
            .get(section)
            .filter(|value| !value.is_object() && !value.is_null())
        {
            return Err(Invalid(format!("{section} is {value}, expected an object")));
        }
    }
    Ok(Value::Object(record))
}

/// Reads a value, naming the path of what can not be read and collecting the paths of fields nobody reads.
fn read<'de, T, D>(deserializer: D, root: &str, unknown: &mut Vec<String>) -> Result<T, Invalid>
where
    T: DeserializeOwned,
    D: serde::Deserializer<'de>,
{
    let join = |path: &str| match (root, path) {
        (root, "" | ".") => root.to_owned(),
        ("", path) => path.to_owned(),
        (root, path) => format!("{root}.{path}"),
    };
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(deserializer, &mut track);
    let result = serde_ignored::deserialize(tracked, |path| {
        unknown.push(join(&path.to_string().replace("?.", "")));
    });
    result.map_err(|error: D::Error| match join(&track.path().to_string()) {
        path if path.is_empty() => Invalid(error.to_string()),
        path => Invalid(format!("{path}: {error}")),
    })
}
