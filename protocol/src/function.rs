//! The record of a function: what the APIs show and the config store keeps.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::destination::Destination;
use crate::id::{FunctionId, InstanceKey, SecretName, Space};
use crate::quota::RateSpec;
use crate::secret::SecretUse;
use crate::version::Version;

mod aws;
mod cloud;
mod parse;
mod schema;

pub use aws::{
    AwsCredentials, AwsFirehoseProvider, AwsKinesisProvider, AwsLambdaProvider, AwsSqsProvider,
};
pub use cloud::{
    AzureFunctionProvider, GcloudFunctionProvider, OpenWhiskProvider, ServiceAccountKey,
};
pub use parse::Invalid;
pub(crate) use parse::check_delivery;

/// A registered function. A field that was not set is absent from answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Function {
    /// The function's space.
    pub space: Space,
    /// The function's id within its space.
    pub function_id: FunctionId,
    /// Which published version it is; nothing for the record that can still be changed. Set by the node, never by a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// What runs it: the record's `type` and `provider`.
    #[serde(flatten)]
    pub provider: Provider,
    /// Limits that were set; see [`Function::limits`] for the effective ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsSpec>,
    /// Scaling that was set; see [`Function::scaling`] for the effective one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaling: Option<ScalingSpec>,
    /// Delivery rules that were set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,
    /// Sandbox rules that were set; see [`Function::sandbox`] for the effective ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxSpec>,
    /// The form of events that was set; see [`Function::event_format`] for the effective one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_format: Option<EventFormat>,
    /// What its owner notes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<BTreeMap<String, String>>,
}

/// What runs a function, by the record's `type`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", content = "provider", rename_all = "lowercase")]
pub enum Provider {
    /// Pooled: instances of a container image.
    Container(ContainerProvider),
    /// Pooled: instances of a local command.
    Process(ProcessProvider),
    /// Remote: a webhook.
    Http(HttpProvider),
    /// Remote: a function of AWS Lambda.
    AwsLambda(AwsLambdaProvider),
    /// Remote: a stream of AWS Kinesis.
    AwsKinesis(AwsKinesisProvider),
    /// Remote: a delivery stream of AWS Firehose.
    AwsFirehose(AwsFirehoseProvider),
    /// Remote: a queue of AWS SQS.
    AwsSqs(AwsSqsProvider),
    /// Remote: a function of Google Cloud.
    GcloudFunction(GcloudFunctionProvider),
    /// Remote: a function of Azure.
    AzureFunction(AzureFunctionProvider),
    /// Remote: an action of Apache OpenWhisk.
    OpenWhisk(OpenWhiskProvider),
}

/// The form in which a function gets events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EventFormat {
    /// Event Gateway's JSON object; the answer to an `http` event is its response object.
    Envelope,
    /// CloudEvents 1.0: attributes as headers, the data as body.
    CloudeventsBinary,
    /// CloudEvents 1.0: one JSON object.
    CloudeventsStructured,
    /// The data as it came, and nothing else.
    Raw,
}

/// `provider` of type `container`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerProvider {
    /// The image reference as the user gave it.
    pub image: String,
    /// What the tag resolved to at registration: `sha256:…`; set by the node, never by the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// How the code meets an invocation; `http` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// The port an `http` instance listens on, 8080 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Replaces the image's entry point, and with it the image's own command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// Replaces the image's command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The absolute path of the directory that it is started in; the image's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_directory: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the space that its instances get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
}

/// `provider` of type `process`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ProcessProvider {
    /// Program and arguments; the program is found on `PATH` or is an absolute path.
    pub command: Vec<String>,
    /// How the code meets an invocation; `http` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Contract>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the space that its instances get.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
}

/// `provider` of type `http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HttpProvider {
    /// The absolute URL that invocations are posted to.
    pub url: String,
}

/// How the code of a pooled function meets an invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Contract {
    /// The instance listens on `$PORT`; an invocation is a `POST /`, 2xx is success.
    Http,
    /// One run an invocation: payload on stdin, result on stdout, exit code 0 is success.
    Stdio,
    /// The instance asks the Runtime API of AWS Lambda at `$AWS_LAMBDA_RUNTIME_API` for invocations, and answers there.
    Lambda,
}

/// `limits` as they were set; each absent field has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Memory of an instance in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u32>,
    /// Processors of an instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Milliseconds a run may take, from the payload handed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u32>,
    /// Slots an instance; for remote types calls in flight a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Bytes of a payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<u32>,
    /// Invocations a second, over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateSpec>,
    /// Invocations in flight, over all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u32>,
}

/// `scaling` as it was set; each absent field has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScalingSpec {
    /// Instances that are kept up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<u32>,
    /// Instances that may be up at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Seconds without an invocation after which an instance above `min` is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u32>,
}

/// `delivery` as it was set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// The function may run twice for one invocation, so an interrupted one is retried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// How often a queued event or invocation is tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Seconds after which a queued event or invocation is not begun any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_seconds: Option<u32>,
    /// Where it is told that a queued event or invocation succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<Destination>,
    /// Where it is told that one did not, and is not tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<Destination>,
}

impl DeliverySpec {
    /// Where ends are told, each with the name of its field.
    pub fn destinations(&self) -> impl Iterator<Item = (&'static str, &Destination)> {
        let on_success = ("delivery.onSuccess", &self.on_success);
        let on_failure = ("delivery.onFailure", &self.on_failure);
        let both = [on_success, on_failure].into_iter();
        both.filter_map(|(field, set)| Some((field, set.as_ref()?)))
    }

    /// How old a queued event or invocation may get, where that was set.
    pub fn age_max(&self) -> Option<Duration> {
        let seconds = self.max_age_seconds?;
        Some(Duration::from_secs(seconds.into()))
    }
}

/// `sandbox` as it was set; each absent field has its default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// The root file system can not be written; false when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only_root: Option<bool>,
    /// Linux capabilities given back after all were dropped, such as `NET_BIND_SERVICE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
    /// Whether the instance reaches the network; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
}

/// The effective limits of a function.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Memory of an instance in MiB.
    pub memory_mb: u32,
    /// Processors of an instance.
    pub cpus: f64,
    /// How long a run may take, from the payload handed over.
    pub timeout: Duration,
    /// Slots an instance; for remote types calls in flight a node.
    pub concurrency: u32,
    /// Bytes of a payload; `None` is the node's own limit.
    pub body_bytes: Option<u32>,
}

/// The effective scaling of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scaling {
    /// Instances that are kept up.
    pub min: u32,
    /// Instances that may be up at once.
    pub max: u32,
    /// Idle time after which an instance above `min` is stopped.
    pub idle: Duration,
}

/// The effective sandbox of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// The root file system can not be written.
    pub read_only_root: bool,
    /// Linux capabilities given back after all were dropped.
    pub capabilities: Vec<String>,
    /// Whether the instance reaches the network.
    pub network: bool,
}

/// The variable of every instance with the URL that it calls its node at. The node sets it, and no record can.
pub const URL_VARIABLE: &str = "HEARTH_URL";

/// The variable of every instance with the token that it shows there. The node sets it, and no record can.
pub const TOKEN_VARIABLE: &str = "HEARTH_TOKEN";

/// The variable of an instance with the directory that its files with secrets are in. The node sets it, and no record can.
pub const SECRETS_VARIABLE: &str = "HEARTH_SECRETS";

/// The variables of an instance of the `lambda` contract that the node sets, and no record can; those that AWS Lambda reserves,
/// but for credentials, which are the record's to give here.
pub const LAMBDA_VARIABLES: [&str; 14] = [
    "AWS_LAMBDA_RUNTIME_API",
    "AWS_LAMBDA_FUNCTION_NAME",
    "AWS_LAMBDA_FUNCTION_VERSION",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_LAMBDA_INITIALIZATION_TYPE",
    "AWS_LAMBDA_MAX_CONCURRENCY",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_EXECUTION_ENV",
    "LAMBDA_TASK_ROOT",
    "LAMBDA_RUNTIME_DIR",
    "_X_AMZN_TRACE_ID",
];

/// The values of `type` that can be registered.
pub const TYPES: [&str; 10] = [
    "container",
    "process",
    "http",
    "awslambda",
    "awskinesis",
    "awsfirehose",
    "awssqs",
    "gcloudfunction",
    "azurefunction",
    "openwhisk",
];

impl Function {
    /// The record's `type`.
    pub fn type_name(&self) -> &'static str {
        match self.provider {
            Provider::Container(_) => "container",
            Provider::Process(_) => "process",
            Provider::Http(_) => "http",
            Provider::AwsLambda(_) => "awslambda",
            Provider::AwsKinesis(_) => "awskinesis",
            Provider::AwsFirehose(_) => "awsfirehose",
            Provider::AwsSqs(_) => "awssqs",
            Provider::GcloudFunction(_) => "gcloudfunction",
            Provider::AzureFunction(_) => "azurefunction",
            Provider::OpenWhisk(_) => "openwhisk",
        }
    }

    /// How the code meets an invocation; `None` for remote types.
    pub fn contract(&self) -> Option<Contract> {
        match &self.provider {
            Provider::Container(provider) => Some(provider.contract.unwrap_or(Contract::Http)),
            Provider::Process(provider) => Some(provider.contract.unwrap_or(Contract::Http)),
            _ => None,
        }
    }

    /// The form in which it gets events: what was set, else the envelope for remote types and for those of the `lambda` contract,
    /// which get no headers, and binary CloudEvents for others.
    pub fn event_format(&self) -> EventFormat {
        match (self.event_format, self.contract()) {
            (Some(format), _) => format,
            (None, None | Some(Contract::Lambda)) => EventFormat::Envelope,
            (None, Some(Contract::Http | Contract::Stdio)) => EventFormat::CloudeventsBinary,
        }
    }

    /// Whether instances of it are kept for later invocations.
    pub fn is_pooled(&self) -> bool {
        matches!(self.contract(), Some(Contract::Http | Contract::Lambda))
    }

    /// The image digest an engine must hold to run it; `None` for other types than `container`.
    pub fn image_digest(&self) -> Option<&str> {
        match &self.provider {
            Provider::Container(provider) => provider.digest.as_deref(),
            _ => None,
        }
    }

    /// The secrets that its instances get; remote types have none.
    pub fn secrets(&self) -> &[SecretUse] {
        match &self.provider {
            Provider::Container(provider) => &provider.secrets,
            Provider::Process(provider) => &provider.secrets,
            _ => &[],
        }
    }

    /// The effective limits.
    pub fn limits(&self) -> Limits {
        let set = self.limits.clone().unwrap_or_default();
        let is_remote = self.contract().is_none();
        let timeout_ms = set
            .timeout_ms
            .unwrap_or(if is_remote { 5_000 } else { 30_000 });
        Limits {
            memory_mb: set.memory_mb.unwrap_or(128),
            cpus: set.cpus.unwrap_or(1.0),
            timeout: Duration::from_millis(timeout_ms.into()),
            concurrency: set.concurrency.unwrap_or(if is_remote { 256 } else { 1 }),
            body_bytes: set.body_bytes,
        }
    }

    /// The effective scaling.
    pub fn scaling(&self) -> Scaling {
        let set = self.scaling.clone().unwrap_or_default();
        Scaling {
            min: set.min.unwrap_or(0),
            max: set.max.unwrap_or_else(|| set.min.unwrap_or(0).max(10)),
            idle: Duration::from_secs(set.idle_seconds.unwrap_or(300).into()),
        }
    }

    /// The effective sandbox.
    pub fn sandbox(&self) -> Sandbox {
        let set = self.sandbox.clone().unwrap_or_default();
        Sandbox {
            read_only_root: set.read_only_root.unwrap_or(false),
            capabilities: set.capabilities.unwrap_or_default(),
            network: set.network.unwrap_or(true),
        }
    }

    /// Whether an interrupted invocation may be run again.
    pub fn is_idempotent(&self) -> bool {
        self.delivery
            .as_ref()
            .and_then(|delivery| delivery.idempotent)
            .unwrap_or(false)
    }

    /// Hash of space, id, version and all that shapes an instance; an image counts by its digest, not by its tag, and a secret by its version.
    pub fn instance_key<'a>(
        &self,
        version_of: impl Fn(&SecretName) -> Option<&'a str>,
    ) -> InstanceKey {
        let mut provider = self.provider.clone();
        if let Provider::Container(container) = &mut provider
            && container.digest.is_some()
        {
            container.image.clear();
        }
        let limits = self.limits();
        let sandbox = self.sandbox();
        let mut shape = serde_json::json!({
            "provider": provider,
            "contract": self.contract(),
            "memoryMb": limits.memory_mb,
            "cpus": limits.cpus,
            "concurrency": limits.concurrency,
            "readOnlyRoot": sandbox.read_only_root,
            "capabilities": sandbox.capabilities,
            "network": sandbox.network,
        });
        let secrets = self.secrets();
        if !secrets.is_empty() {
            // Their names and targets are the provider's.
            let versions = secrets.iter().map(|secret| version_of(&secret.name));
            shape["secretVersions"] = versions.collect::<serde_json::Value>();
        }
        if let Some(version) = self.version {
            // Each version has instances of its own, so that what one of them does is no other's.
            shape["version"] = version.number().into();
        }
        InstanceKey::hash([
            self.space.as_str().as_bytes(),
            self.function_id.as_str().as_bytes(),
            shape.to_string().as_bytes(),
        ])
    }
}
