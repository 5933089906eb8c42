//! What nodes say to each other: heads as msgpack maps, and the layout of a message.
//!
//! A message is `u32 head length (big endian) | head | raw payload`. Heads are maps and are read with defaults, so a
//! node of one version understands a node of the next: a field nobody knows is passed over, a missing one has a default.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::code::Failure;
use crate::id::{FunctionId, InstanceKey, InvocationId, NodeId, Space};
use crate::invocation::{Call, Ended, Phases, StartKind, TraceContext};
use crate::version::Version;

/// The version in the path of every peer request. It changes only when old heads can no longer be read.
pub const PROTOCOL_VERSION: u32 = 1;

/// The most bytes a head may have: ids, numbers, and the headers of one request or answer, which have 64 KiB at most.
pub const HEAD_BYTES_MAX: usize = 128 * 1024;

/// The head of a forwarded invocation; the payload follows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InvokeHead {
    /// The invocation.
    pub invocation: InvocationId,
    /// The function's space.
    pub space: Space,
    /// The function.
    pub function_id: FunctionId,
    /// Its version, where one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// The instance key the sender knows; a receiver that knows another refuses, as one of the two is behind.
    pub instance_key: InstanceKey,
    /// The node that forwards.
    pub from: NodeId,
    /// Milliseconds until the caller's deadline.
    pub remaining_ms: u64,
    /// The payload's media type.
    #[serde(default)]
    pub content_type: String,
    /// How the function is called, if not as `POST /invoke` calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<Arc<Call>>,
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
    /// Set when the body comes piece by piece, which only a call that [may stream](Call::may_stream) is answered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamHead>,
}

/// What is known ahead of a body that comes piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamHead {
    /// Its length, where the function told one.
    #[serde(default)]
    pub length: Option<u64>,
    /// Milliseconds until the run ends at the latest.
    #[serde(default)]
    pub remaining_ms: u64,
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
        /// Its other headers, where the call asked for them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        headers: Vec<(String, Bytes)>,
        /// Whether it ran on an instance that was up.
        start: StartKind,
        /// How the run ended, where the call asked for all that it printed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Box<Ended>>,
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::code::{Component, Effect, ErrorCode};
    use crate::invocation::{AnswerRule, Outcome};

    fn invoke_heads() -> impl Strategy<Value = InvokeHead> {
        let ids = (
            "[a-zA-Z0-9._-]{1,64}",
            "[a-zA-Z0-9._-]{3,20}",
            "[a-zA-Z0-9._-]{1,100}",
            "[a-zA-Z0-9._-]{1,64}",
        );
        let rest = (
            any::<Vec<u8>>(),
            any::<u64>(),
            ".{0,40}",
            any::<bool>(),
            any::<Option<String>>(),
            any::<Option<String>>(),
            proptest::option::of(calls()),
            any::<u32>(),
        );
        (ids, rest).prop_map(
            |(
                (invocation, space, function_id, from),
                (key, remaining_ms, content_type, may_start, parent, state, call, version),
            )| {
                InvokeHead {
                    invocation: invocation.parse().unwrap(),
                    space: space.parse().unwrap(),
                    function_id: function_id.parse().unwrap(),
                    version: Version::new(version),
                    instance_key: InstanceKey::hash([key.as_slice()]),
                    from: from.parse().unwrap(),
                    remaining_ms,
                    content_type,
                    call: call.map(Arc::new),
                    may_start,
                    trace: TraceContext { parent, state },
                }
            },
        )
    }

    fn headers() -> impl Strategy<Value = Vec<(String, Bytes)>> {
        let header = ("[a-z-]{1,20}", any::<Vec<u8>>());
        let header = header.prop_map(|(name, value)| (name, Bytes::from(value)));
        proptest::collection::vec(header, 0..4)
    }

    fn calls() -> impl Strategy<Value = Call> {
        let parts = (any::<String>(), any::<String>(), headers(), any::<bool>());
        parts.prop_map(|(method, target, headers, may_stream)| Call {
            method,
            target,
            headers,
            answer: AnswerRule::Whole,
            may_stream,
        })
    }

    fn ended() -> impl Strategy<Value = Ended> {
        let parts = any::<(bool, Option<i64>, Option<String>, u64)>();
        parts.prop_map(|(is_over, exit_code, why, cut_bytes)| Ended {
            outcome: match is_over {
                true => Outcome::Timeout,
                false => Outcome::Failed,
            },
            exit_code,
            why,
            cut_bytes,
        })
    }

    fn reply_heads() -> impl Strategy<Value = ReplyHead> {
        let outcomes = prop_oneof![
            (
                any::<u16>(),
                any::<Option<String>>(),
                headers(),
                any::<bool>(),
                proptest::option::of(ended())
            )
                .prop_map(|(status, content_type, headers, is_warm, ended)| {
                    let start = if is_warm {
                        StartKind::Warm
                    } else {
                        StartKind::Cold
                    };
                    ReplyOutcome::Replied {
                        status,
                        content_type,
                        headers,
                        start,
                        ended: ended.map(Box::new),
                    }
                }),
            any::<(String, Option<u64>)>().prop_map(|(message, retry_after_ms)| {
                let failure = Failure::new(
                    ErrorCode::FunctionBusy,
                    Component::Peer,
                    Effect::Refused,
                    message,
                );
                ReplyOutcome::Failed(Failure {
                    retry_after_ms,
                    ..failure.at_node("n1")
                })
            }),
        ];
        let rest = any::<(
            u32,
            u32,
            Option<u64>,
            Option<u64>,
            Option<(Option<u64>, u64)>,
        )>();
        (outcomes, rest).prop_map(|(outcome, (free_slots, instances, queue, run, stream))| {
            ReplyHead {
                outcome,
                free_slots,
                instances,
                phases: Phases {
                    queue,
                    run,
                    ..Phases::default()
                },
                stream: stream.map(|(length, remaining_ms)| StreamHead {
                    length,
                    remaining_ms,
                }),
            }
        })
    }

    /// The head of a later version: all that is known now, and a field that is not.
    #[derive(Serialize)]
    struct Later<'a, T> {
        priority: Vec<u32>,
        #[serde(flatten)]
        known: &'a T,
        zone: &'static str,
    }

    /// The head of an invocation as a version that knew only the required fields would write it.
    #[derive(Serialize)]
    struct EarlierInvokeHead<'a> {
        remaining_ms: u64,
        from: &'a NodeId,
        instance_key: InstanceKey,
        function_id: &'a FunctionId,
        space: &'a Space,
        invocation: &'a InvocationId,
    }

    #[derive(Serialize)]
    struct EarlierReplyHead<'a> {
        outcome: &'a ReplyOutcome,
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire(invoke in invoke_heads(), reply in reply_heads(), payload: Vec<u8>) {
            let (head, rest) = decode::<InvokeHead>(encode(&invoke, &payload)).unwrap();
            prop_assert_eq!((head, &rest[..]), (invoke, &payload[..]));
            let (head, rest) = decode::<ReplyHead>(encode(&reply, &payload)).unwrap();
            prop_assert_eq!((head, &rest[..]), (reply, &payload[..]));
        }

        #[test]
        fn fields_of_a_later_version_are_passed_over(invoke in invoke_heads(), reply in reply_heads()) {
            let later = encode(&Later { priority: vec![1, 2], known: &invoke, zone: "west" }, b"payload");
            prop_assert_eq!(decode::<InvokeHead>(later).unwrap(), (invoke, Bytes::from_static(b"payload")));
            let later = encode(&Later { priority: vec![], known: &reply, zone: "" }, b"");
            prop_assert_eq!(decode::<ReplyHead>(later).unwrap().0, reply);
        }

        #[test]
        fn fields_an_earlier_version_lacks_have_defaults(invoke in invoke_heads(), reply in reply_heads()) {
            let earlier = EarlierInvokeHead {
                remaining_ms: invoke.remaining_ms,
                from: &invoke.from,
                instance_key: invoke.instance_key,
                function_id: &invoke.function_id,
                space: &invoke.space,
                invocation: &invoke.invocation,
            };
            let expected = InvokeHead {
                version: None,
                content_type: String::new(),
                call: None,
                may_start: false,
                trace: TraceContext::default(),
                ..invoke.clone()
            };
            prop_assert_eq!(decode::<InvokeHead>(encode(&earlier, b"")).unwrap().0, expected);
            let read = decode::<ReplyHead>(encode(&EarlierReplyHead { outcome: &reply.outcome }, b"")).unwrap().0;
            let expected = ReplyHead { free_slots: 0, instances: 0, phases: Phases::default(), stream: None, ..reply };
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn a_message_cut_off_or_altered_is_read_without_a_panic(
            invoke in invoke_heads(), cut: prop::sample::Index, position: prop::sample::Index, change: u8,
        ) {
            let message = encode(&invoke, b"");
            let short = message.slice(..cut.index(message.len()));
            prop_assert!(decode::<InvokeHead>(short).is_err());
            let mut altered = message.to_vec();
            let position = position.index(altered.len());
            altered[position] ^= change;
            let _ = decode::<InvokeHead>(altered.clone().into());
            let _ = decode::<ReplyHead>(altered.into());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = decode::<InvokeHead>(bytes.clone().into());
            let _ = decode::<ReplyHead>(bytes.into());
        }
    }

    #[test]
    fn what_can_not_be_read_says_why() {
        let check = |bytes: &'static [u8], expected: FrameError| {
            assert_eq!(
                decode::<ReplyHead>(Bytes::from_static(bytes)).unwrap_err(),
                expected
            );
        };
        check(b"", FrameError::Short { bytes: 0 });
        check(b"\x00\x00\x00", FrameError::Short { bytes: 3 });
        check(b"\x00\x00\x00\x05abcd", FrameError::Short { bytes: 8 });
        check(
            b"\x00\x02\x00\x01",
            FrameError::HeadTooLong {
                bytes: HEAD_BYTES_MAX + 1,
            },
        );
        assert!(matches!(
            decode::<ReplyHead>(Bytes::from_static(b"\x00\x00\x00\x01\xc1")),
            Err(FrameError::Head(_))
        ));
    }
}
