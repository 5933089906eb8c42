//! The one closed list of error codes, and the two questions every error answers.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What went wrong, as clients and metrics see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed: a missing or wrongly typed field, broken JSON, a value out of range.
    InvalidRequest,
    /// No valid credential came with the request.
    Unauthorized,
    /// The request is understood and not allowed: wrong Host, Origin or role.
    Forbidden,
    /// The function is not registered in that space.
    FunctionNotFound,
    /// The resource, other than a function, does not exist: a path, or a version or alias of a function.
    NotFound,
    /// The method is not one of the path's.
    MethodNotAllowed,
    /// The record exists already, or changed meanwhile.
    Conflict,
    /// The payload or the answer is larger than its limit.
    PayloadTooLarge,
    /// The function's own limit (its slots and waiters) is reached.
    FunctionBusy,
    /// More came than a rate or quota of the caller, the function or the space allows.
    RateLimited,
    /// The node's own limit (memory, instances, calls in flight) is reached everywhere.
    Overloaded,
    /// The node is draining and admits nothing new.
    Draining,
    /// The function ran and failed by itself.
    FunctionFailed,
    /// The function answered something that is no valid answer of its contract.
    MalformedAnswer,
    /// An instance could not be started.
    StartFailed,
    /// The image exists neither on a live node's engine nor in a registry.
    ImageNotFound,
    /// The container engine is missing, down or hung.
    EngineUnavailable,
    /// The function's endpoint refused the connection or is ejected after repeated failures, or the cloud that it is on does not take the call.
    Unreachable,
    /// The node or instance was lost while the function may have been running.
    Interrupted,
    /// The deadline passed.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// A queued event grew too old before it was delivered.
    Expired,
    /// The config store can not be reached.
    StoreUnavailable,
    /// A plugin did not let the event pass.
    Vetoed,
    /// A plugin that has to be asked failed or took too long.
    PluginFailed,
    /// A peer speaks another protocol version or sent something that can not be understood.
    PeerProtocol,
    /// A bug or a broken invariant; the log says more.
    Internal,
}

impl ErrorCode {
    /// Returns the code as it stands in `x-hearth-error` and in bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::FunctionNotFound => "function_not_found",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::Conflict => "conflict",
            Self::PayloadTooLarge => "payload_too_large",
            Self::FunctionBusy => "function_busy",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Draining => "draining",
            Self::FunctionFailed => "function_failed",
            Self::MalformedAnswer => "malformed_answer",
            Self::StartFailed => "start_failed",
            Self::ImageNotFound => "image_not_found",
            Self::EngineUnavailable => "engine_unavailable",
            Self::Unreachable => "unreachable",
            Self::Interrupted => "interrupted",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::StoreUnavailable => "store_unavailable",
            Self::Vetoed => "vetoed",
            Self::PluginFailed => "plugin_failed",
            Self::PeerProtocol => "peer_protocol",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an error says about the function: only [`Effect::Refused`] is always safe to retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing ran.
    Refused,
    /// It may have run, wholly or in part.
    Interrupted,
    /// It ran and failed by itself.
    Finished,
}

/// The part of the system an error comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Component {
    /// The HTTP edge.
    Gateway,
    /// Another node, or the way there.
    Peer,
    /// What runs functions: the engine, a process, an outbound call.
    Provider,
    /// The user's own function.
    Function,
    /// The config store.
    Store,
    /// The queue.
    Queue,
    /// A plugin.
    Plugin,
}

impl Component {
    /// Returns the component as it stands in `x-hearth-error` and in bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Peer => "peer",
            Self::Provider => "provider",
            Self::Function => "function",
            Self::Store => "store",
            Self::Queue => "queue",
            Self::Plugin => "plugin",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error that crossed a crate's or a node's border: all that a client or the retry logic may know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What went wrong.
    pub code: ErrorCode,
    /// Where.
    pub component: Component,
    /// Whether the function may have run.
    pub effect: Effect,
    /// What was tried and with which value; lower case, no full stop, no internals.
    pub message: String,
    /// The name of the node where it happened, if not the one that answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// After how many milliseconds another attempt makes sense.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The answer by which the function said that it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<Box<Answered>>,
}

/// An answer by which a function said that it failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answered {
    /// Its status.
    pub status: u16,
    /// The beginning of its body.
    pub said: String,
    /// After how many milliseconds it wants to be asked again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    /// Builds a failure; node and retry hint are added by whoever knows them.
    pub fn new(
        code: ErrorCode,
        component: Component,
        effect: Effect,
        message: impl Into<String>,
    ) -> Self {
        Self {
            code,
            component,
            effect,
            message: message.into(),
            node: None,
            retry_after_ms: None,
            answered: None,
        }
    }

    /// Adds the name of the node where it happened, unless it is known already.
    #[must_use]
    pub fn at_node(mut self, name: &str) -> Self {
        self.node.get_or_insert_with(|| name.to_owned());
        self
    }

    /// Adds after how many milliseconds another attempt makes sense.
    #[must_use]
    pub fn retry_after_ms(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }
}
