//! Bodies of the HTTP APIs, as the gateway writes them and the command line reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::cors::CorsRecord;
use crate::destination::Destination;
use crate::event_type::EventTypeRecord;
use crate::execution::{self, Execution, ExecutionId};
use crate::function::Function;
use crate::id::{FunctionId, SecretName, Space};
use crate::schedule::ScheduleRecord;
use crate::subscription::Subscription;
use crate::version::{Alias, PublishedVersion, Target};

mod owned;

pub use owned::{FunctionCreated, FunctionDeleted, OwnedFunction, OwnedFunctionDetail};

/// An error of the events and config APIs, in Event Gateway's shape. Exactly one element is ever sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Errors {
    /// The errors.
    pub errors: Vec<ErrorMessage>,
}

/// One element of [`Errors`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorMessage {
    /// What went wrong.
    pub message: String,
}

impl Errors {
    /// The body for one message.
    pub fn one(message: impl Into<String>) -> Self {
        Self {
            errors: vec![ErrorMessage {
                message: message.into(),
            }],
        }
    }
}

/// An error of `/invoke` and of `/api/v1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InvokeError {
    /// What went wrong.
    pub error: String,
    /// The error code.
    pub code: String,
    /// The component it comes from.
    pub component: String,
    /// The node where it happened.
    pub node: String,
    /// The invocation's id.
    pub invocation: String,
}

/// The body of `POST /invoke`.
#[derive(Debug, Deserialize, ToSchema)]
pub struct InvokeRequest<'a> {
    /// The function's id, or `id:qualifier`: the number of a version, the name of an alias, or `$LATEST`.
    pub function_name: std::borrow::Cow<'a, str>,
    /// The function's space; `default` when absent.
    #[serde(default)]
    pub space: Option<Space>,
    /// The payload, any JSON, handed on as it was written; `null` when absent.
    #[serde(default, borrow)]
    #[schema(value_type = Option<serde_json::Value>)]
    pub payload: Option<&'a RawValue>,
    /// Whether the answer is not waited for.
    #[serde(default, rename = "async")]
    pub is_async: bool,
}

/// `GET /v1/spaces/{space}/functions`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Functions {
    /// The functions of the space, by id.
    pub functions: Vec<Function>,
}

/// `GET /v1/spaces/{space}/functions/{id}/versions`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Versions {
    /// The versions of the function, the first first.
    pub versions: Vec<PublishedVersion>,
}

/// The body of `POST /v1/spaces/{space}/functions/{id}/versions`; it may be left out.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PublishVersion {
    /// What is to be known of the version, 1024 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// The body of `PUT /v1/spaces/{space}/functions/{id}/aliases/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetAlias {
    /// What is to be known of the alias, 1024 bytes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its calls go.
    #[serde(flatten)]
    pub target: Target,
}

/// `GET /v1/spaces/{space}/functions/{id}/aliases`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Aliases {
    /// The aliases of the function, by name.
    pub aliases: Vec<Alias>,
}

/// `GET /v1/spaces/{space}/subscriptions`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Subscriptions {
    /// The subscriptions of the space.
    pub subscriptions: Vec<Subscription>,
}

/// `GET /v1/spaces/{space}/eventtypes`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypes {
    /// The event types of the space, by name.
    pub event_types: Vec<EventTypeRecord>,
}

/// `GET /v1/spaces/{space}/cors`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AllCors {
    /// The CORS configurations of the space, by id.
    pub cors: Vec<CorsRecord>,
}

/// `GET /v1/spaces/{space}/schedules`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Schedules {
    /// The schedules of the space, by id.
    pub schedules: Vec<Schedule>,
}

/// A schedule, and when it was and will be due.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Schedule {
    /// The record.
    #[serde(flatten)]
    pub schedule: ScheduleRecord,
    /// Its next slot by the clock of the answering node; none when it is off or over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What was fired last, since it was changed to be due at other times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<FiredSlot>,
}

/// A slot that was fired.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FiredSlot {
    /// When it was due.
    pub slot: String,
    /// When its event was queued.
    pub at: String,
    /// The name of the node that did.
    pub node: String,
}

/// `GET /v1/spaces/{space}/secrets`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Secrets {
    /// The secrets of the space, by name.
    pub secrets: Vec<Secret>,
}

/// A secret, without its value, which no API shows.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Its name.
    pub name: SecretName,
    /// Another one each time that its value is set.
    pub version: String,
    /// When it was made.
    pub created_at: String,
    /// When its value was set last.
    pub updated_at: String,
    /// The functions whose instances get it, as the answering node knows them.
    pub functions: Vec<FunctionId>,
}

/// `GET /v1/dead-letters`: those that the answering node keeps, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetters {
    /// The name of the answering node.
    pub node: String,
    /// The dead letters of this page.
    pub dead_letters: Vec<DeadLetter>,
    /// What `after` is for the next page; nothing at the end.
    pub next: Option<u64>,
}

/// A delivery that ended without success.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The delivery's id.
    pub id: String,
    /// Its place among the dead letters of the node: a later one has a greater one.
    pub position: u64,
    /// The function's space.
    pub space: Space,
    /// The function that did not take it.
    pub function_id: FunctionId,
    /// The subscription that asked for it; nothing for the end of something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<String>,
    /// Where the end of something was to be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Destination>,
    /// The event's id.
    pub event_id: String,
    /// The event's name.
    pub event_type: String,
    /// When it was accepted, in milliseconds since 1970.
    pub accepted_at_ms: u64,
    /// When it ended.
    pub died_at_ms: u64,
    /// How often it was tried.
    pub attempts: u32,
    /// The error code of the last attempt, or `expired`.
    pub code: String,
    /// What went wrong.
    pub message: String,
    /// The status that the function answered last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The beginning of what it answered.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// The event, as an envelope; of a single dead letter only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub event: Option<Box<RawValue>>,
}

/// `202` to an asynchronous invocation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// The execution's id.
    pub execution: ExecutionId,
    /// How far it is; nothing when it ended and is kept no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<execution::Status>,
}

/// `GET /v1/spaces/{space}/executions`: newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Executions {
    /// The executions of this page.
    pub executions: Vec<Execution>,
    /// What `after` is for the next page; nothing at the end.
    pub next: Option<ExecutionId>,
}

/// `GET /v1/spaces/{space}/executions/{id}`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct ExecutionDetail {
    /// The execution.
    #[serde(flatten)]
    pub execution: Execution,
    /// What the function answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ExecutionResult>,
    /// The path of the config API where what it wrote is read.
    pub logs: String,
}

/// What a function answered to an asynchronous invocation, as far as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionResult {
    /// The status of the answer.
    pub status: u16,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// How long it was, in bytes.
    pub bytes: u64,
    /// Whether only its beginning is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// JSON as it is, other text as a string, other bytes as base64.
    #[schema(value_type = serde_json::Value)]
    pub value: Box<RawValue>,
    /// `base64` where the value is that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

/// `GET /v1/spaces`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Spaces {
    /// The spaces that hold something, by name.
    pub spaces: Vec<Space>,
}

/// `GET /v1/cluster`: the cluster as the answering node sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// The id of the cluster.
    pub cluster: String,
    /// The name of the answering node.
    pub node: String,
    /// The store's revision this node's registry was built from.
    pub revision: u64,
    /// Seconds since the store was last heard; 0 while it answers.
    pub store_staleness_seconds: f64,
    /// The nodes, this one included, by name.
    pub nodes: Vec<ClusterNode>,
}

/// One node of [`Cluster`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterNode {
    /// The `--name` of the node.
    pub name: String,
    /// The node's lasting id.
    pub id: String,
    /// The node's incarnation.
    pub generation: u64,
    /// The address peers reach it at.
    pub peer_address: String,
    /// `alive`, `draining`, `silent` (misses probes) or `dead`.
    pub state: String,
    /// Hearth's version.
    pub version: String,
    /// Invocations in flight there.
    pub in_flight: u32,
    /// Instances up there, of all functions.
    pub instances: u32,
    /// Memory promised to instances, in MiB.
    pub memory_used_mb: u64,
    /// Memory instances may have in all, in MiB.
    pub memory_max_mb: u64,
    /// What names the cluster's secrets that it opens gossip with, the one it seals with first ([`crate::secret_id`]).
    #[serde(default)]
    pub secrets: Vec<String>,
    /// What it says of its most recent instance keys.
    pub hints: Vec<ClusterHint>,
}

/// What a node says of one instance key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterHint {
    /// The instance key.
    pub instance_key: String,
    /// The function it belongs to, where the answering node knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub function: Option<String>,
    /// Slots said to be free.
    pub free_slots: u32,
    /// Instances said to be up.
    pub instances: u32,
    /// The ids of the instances; only for the answering node itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub instance_ids: Vec<String>,
}

/// `GET /debug/actors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Actors {
    /// The node's actors, supervisor first.
    pub actors: Vec<ActorStatus>,
}

/// One actor of [`Actors`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActorStatus {
    /// `supervisor`, `registry_cache`, `executor` or `router`.
    pub name: String,
    /// `running`, `starting` or `stopped`.
    pub status: String,
    /// How often it was restarted since the node started.
    pub restarts: u32,
    /// Messages that wait in its mailbox.
    pub mailbox_depth: u64,
    /// The revision of the snapshot it publishes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_revision: Option<u64>,
    /// Seconds since it last published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot_age_seconds: Option<f64>,
}

/// `GET /debug/route`: what `pick()` would choose now, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// `local`, `peer`, `wait`, `cold` or `shed`.
    pub choice: String,
    /// The node chosen, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The rule that decided.
    pub why: String,
    /// What the decision was made from.
    pub inputs: BTreeMap<String, serde_json::Value>,
}
