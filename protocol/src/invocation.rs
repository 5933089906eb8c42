//! One request to run one function once, and its answer.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{FunctionId, InvocationId, NodeId, Space};

mod body;
mod call;
mod deadline;
mod ended;

pub use body::{Body, BodyStream};
pub use call::{AnswerRule, Call, is_hop_by_hop};
pub use deadline::Deadline;
pub use ended::{Ended, Outcome};

/// A function's run, as every layer passes it on.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The id that names it in headers, logs and traces, on every node.
    pub id: InvocationId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The payload, whole: its size was checked against the function's `bodyBytes`.
    pub payload: Bytes,
    /// The payload's media type, as handed to the function; empty when it is handed none.
    pub content_type: String,
    /// How the function is called, if not as `POST /invoke` calls.
    pub call: Option<Arc<Call>>,
    /// When the caller stops waiting.
    pub deadline: Deadline,
    /// Whether it came from a client or from a peer.
    pub hop: Hop,
    /// W3C trace context to hand on.
    pub trace: TraceContext,
}

/// W3C trace context headers, verbatim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// The `tracestate` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

/// Where an invocation came from. There is one hop at most: a forwarded one is never forwarded again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hop {
    /// From a client.
    Direct,
    /// From that peer.
    Forwarded(NodeId),
}

/// What a function answered.
#[derive(Debug, Default)]
pub struct Reply {
    /// The HTTP status of an `http` contract; 200 for a `stdio` run that exited with 0.
    pub status: u16,
    /// The media type of the body, if the function named one.
    pub content_type: Option<String>,
    /// Its other headers, by name in lower case, where [`AnswerRule::Whole`] asks for them; without those that belong to one
    /// connection.
    pub headers: Vec<(String, Bytes)>,
    /// The body, whole and within the answer's limit, or as it comes.
    pub body: Body,
    /// How the run ended, where [`AnswerRule::Output`] asks for all that it printed.
    pub ended: Option<Box<Ended>>,
}

/// How long each phase of an invocation took, in microseconds; a phase that did not happen is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Phases {
    /// Waiting for a slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// Choosing where to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<u64>,
    /// The hop to the peer and back, without what the peer itself reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<u64>,
    /// Pulling the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull: Option<u64>,
    /// Creating the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<u64>,
    /// Starting the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<u64>,
    /// Waiting until the instance took connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<u64>,
    /// The function itself, from the payload handed over to its whole answer, or to the head of one that streams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<u64>,
}

impl Phases {
    /// The phases that happened, in the order of the `server-timing` header, with microseconds.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("queue", self.queue),
            ("route", self.route),
            ("forward", self.forward),
            ("pull", self.pull),
            ("create", self.create),
            ("start", self.start),
            ("ready", self.ready),
            ("run", self.run),
        ]
        .into_iter()
        .filter_map(|(name, micros)| micros.map(|micros| (name, micros)))
    }

    /// The sum of all phases that happened, in microseconds.
    pub fn total(&self) -> u64 {
        self.named().map(|(_, micros)| micros).sum()
    }

    /// Takes over the phases of a start that this invocation waited for.
    pub fn add_start(&mut self, start: &Phases) {
        self.pull = start.pull;
        self.create = start.create;
        self.start = start.start;
        self.ready = start.ready;
    }
}

/// Whether the invocation found an instance that was up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// It took a slot of an instance that was already up.
    Warm,
    /// It waited for an instance to start.
    Cold,
}

impl StartKind {
    /// The value of the `x-hearth-start` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Cold => "cold",
        }
    }
}
