//! What nodes say to each other: heads as msgpack maps, and the layout of a message.
//!
//! A message is `u32 head length (big endian) | head | raw payload`. Heads are maps and are read with defaults, so a
//! node of one version understands a node of the next: a field nobody knows is passed over, a missing one has a default.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::code::Failure;
use crate::id::{FunctionId, InstanceKey, InvocationId, NodeId, Space};
use crate::invocation::{Phases, StartKind, TraceContext};

/// The version in the path of every peer request. It changes only when old heads can no longer be read.
pub const PROTOCOL_VERSION: u32 = 1;

/// The most bytes a head may have: heads are ids and numbers, so 64 KiB is generous.
pub const HEAD_BYTES_MAX: usize = 64 * 1024;

/// The head of a forwarded invocation; the payload follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvokeHead {
    /// The invocation.
    pub invocation: InvocationId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// The instance key the sender knows; a receiver that knows another refuses, as one of the two is behind.
    pub instance_key: InstanceKey,
    /// The node that forwards.
    pub from: NodeId,
    /// Milliseconds until the caller's deadline.
    pub remaining_ms: u64,
    /// The payload's media type.
    #[serde(default)]
    pub content_type: String,
    /// Whether the receiver may start an instance or let it wait; otherwise it takes only a free slot.
    #[serde(default)]
    pub may_start: bool,
    /// W3C trace context.
    #[serde(default)]
    pub trace: TraceContext,
}

/// The head of the answer to a forwarded invocation; the function's body follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplyHead {
    /// How it went.
    pub outcome: ReplyOutcome,
    /// Slots of this instance key that are free on the answering node right now.
    #[serde(default)]
    pub free_slots: u32,
    /// Instances of this key that are up on the answering node right now.
    #[serde(default)]
    pub instances: u32,
    /// The answering node's phases.
    #[serde(default)]
    pub phases: Phases,
}

/// How a forwarded invocation went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplyOutcome {
    /// The function answered; its body follows the head.
    Replied {
        /// The status of the function's answer.
        status: u16,
        /// The media type of the body.
        content_type: Option<String>,
        /// Whether it ran on an instance that was up.
        start: StartKind,
    },
    /// It did not; the failure says whether it may have run.
    Failed(Failure),
}

/// Why a message could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Fewer bytes than the length before the head promises.
    #[error("peer message ends after {bytes} bytes, before its head does")]
    Short {
        /// Bytes received.
        bytes: usize,
    },
    /// The head is longer than [`HEAD_BYTES_MAX`].
    #[error("peer message has a head of {bytes} bytes, at most {HEAD_BYTES_MAX} are read")]
    HeadTooLong {
        /// The length that was announced.
        bytes: usize,
    },
    /// The head is no map of the expected shape.
    #[error("peer message has a head that can not be read: {0}")]
    Head(String),
}

/// Lays out head and payload as one message.
pub fn encode<T: Serialize>(head: &T, payload: &[u8]) -> Bytes {
    let head =
        rmp_serde::to_vec_named(head).expect("heads have string keys and no maps of other keys");
    let mut message = BytesMut::with_capacity(4 + head.len() + payload.len());
    message.put_u32(u32::try_from(head.len()).expect("a head has at most HEAD_BYTES_MAX bytes"));
    message.put_slice(&head);
    message.put_slice(payload);
    message.freeze()
}

/// Takes a message apart; the payload shares the message's memory.
///
/// # Errors
/// When the message is cut off, its head too long, or no map of the expected shape.
pub fn decode<T: DeserializeOwned>(mut message: Bytes) -> Result<(T, Bytes), FrameError> {
    let bytes = message.len();
    let length: [u8; 4] = message
        .get(..4)
        .and_then(|length| length.try_into().ok())
        .ok_or(FrameError::Short { bytes })?;
    let length = u32::from_be_bytes(length) as usize;
    if length > HEAD_BYTES_MAX {
        return Err(FrameError::HeadTooLong { bytes: length });
    }
    if bytes < 4 + length {
        return Err(FrameError::Short { bytes });
    }
    let payload = message.split_off(4 + length);
    let head = rmp_serde::from_slice(&message[4..])
        .map_err(|error| FrameError::Head(error.to_string()))?;
    Ok((head, payload))
}
