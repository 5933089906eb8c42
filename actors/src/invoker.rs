//! The warm path: reads three snapshots, takes a slot, calls the instance or a peer. Never a mailbox.

use bytes::Bytes;
use protocol::invocation::{StartKind, TraceContext};
use protocol::{Failure, FunctionId, InvocationId, Phases, Reply, Space};

/// A client's request to run a function.
#[derive(Debug, Clone)]
pub struct Request {
    /// The id that names it in headers, logs and traces.
    pub id: InvocationId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The payload, whole.
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: String,
    /// W3C trace context of the request's span.
    pub trace: TraceContext,
}

/// An invocation that the function answered.
#[derive(Debug, Clone)]
pub struct Completed {
    /// What the function answered.
    pub reply: Reply,
    /// The name of the node where it ran.
    pub node: std::sync::Arc<str>,
    /// Whether it found an instance that was up.
    pub start: StartKind,
    /// Whether it ran on a peer.
    pub is_forwarded: bool,
    /// How long each phase took.
    pub phases: Phases,
}

/// An invocation that the function did not answer.
#[derive(Debug, Clone)]
pub struct Failed {
    /// Why, where, and whether it may have run.
    pub failure: Failure,
    /// Whether a peer was asked.
    pub is_forwarded: bool,
    /// How long each phase took, as far as it got.
    pub phases: Phases,
}

/// Runs functions, here or on a peer; cheap to clone.
#[derive(Debug, Clone)]
pub struct Invoker {}

impl Invoker {
    /// Runs a function once and waits for its answer, at most its `timeoutMs` plus `node.start_timeout`.
    ///
    /// # Errors
    /// [`Failed`], with the code to answer with.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the invocation; an instance that had its payload is recycled.
    pub async fn invoke(&self, request: Request) -> Result<Completed, Box<Failed>> {
        let _ = request;
        todo!()
    }
}
