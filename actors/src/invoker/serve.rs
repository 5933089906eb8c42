//! The other end of the hop: runs an invocation that a peer forwarded, or refuses it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use protocol::invocation::{Body, BodyStream, StartKind};
use protocol::peer::{InvokeHead, ReplyHead, ReplyOutcome, StreamHead};
use protocol::{Component, Deadline, ErrorCode, Failure, Hop, Invocation, Reply, Version};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Attempt, Invoker, Step, choose, refusal};
use crate::executor::PoolKind;
use crate::registry_cache::Registered;
use crate::router::pick::{Choice, Question, pick};

/// No deadline is further away; a peer's number is not trusted to fit the clock.
const REMAINING_MAX: Duration = Duration::from_secs(2 * 86_400);

impl Invoker {
    /// Runs an invocation that a peer forwarded, or refuses it; the reply carries this node's fresh free slots.
    ///
    /// # Cancel safety
    /// Dropping the future, or a body that streams, cancels the invocation; an instance that had its payload is recycled.
    pub async fn serve(&self, head: InvokeHead, payload: Bytes) -> (ReplyHead, Body) {
        let counted = self.parts.in_flight.count_one();
        let mut attempt = Attempt::new();
        let (span, trace) = self.span(
            || tracing::info_span!("serve", otel.kind = "server", invocation = %head.invocation),
            &head.trace,
        );
        let (version, key) = (head.version, head.instance_key);
        let deadline = Instant::now() + Duration::from_millis(head.remaining_ms).min(REMAINING_MAX);
        let invocation = Invocation {
            id: head.invocation,
            space: head.space,
            function_id: head.function_id,
            payload,
            content_type: head.content_type,
            call: head.call,
            deadline: Deadline::at(deadline.into_std()),
            hop: Hop::Forwarded(head.from),
            trace,
        };
        let result = match self.forwarded(&invocation, version, key) {
            Ok(registered) => {
                self.serve_here(&registered, invocation, head.may_start, &mut attempt)
                    .instrument(span)
                    .await
            }
            Err(failure) => Err(failure),
        };
        let (outcome, body) = match result {
            Ok((reply, start)) => {
                let Reply {
                    status,
                    content_type,
                    headers,
                    body,
                    ended,
                } = reply;
                let outcome = ReplyOutcome::Replied {
                    status,
                    content_type,
                    headers,
                    start,
                    ended,
                };
                (outcome, body)
            }
            Err(failure) => {
                let failure = failure.at_node(&self.parts.node_name);
                (ReplyOutcome::Failed(failure), Body::default())
            }
        };
        let stream = match &body {
            Body::Whole(_) => None,
            Body::Stream(stream) => Some(stream_head(stream)),
        };
        let pools = self.parts.pools.load();
        let pool = pools.get(key);
        let reply = ReplyHead {
            outcome,
            free_slots: pool.map_or(0, PoolKind::free_slots),
            instances: pool.map_or(0, PoolKind::instances),
            phases: attempt.phases,
            stream,
        };
        (reply, body.on_end(move |_| drop(counted)))
    }

    fn forwarded(
        &self,
        invocation: &Invocation,
        version: Option<Version>,
        key: protocol::InstanceKey,
    ) -> Result<Arc<Registered>, Failure> {
        if self.parts.is_draining.load(Ordering::Acquire) {
            return Err(refusal(
                ErrorCode::Draining,
                Component::Peer,
                "the node drains",
            ));
        }
        let call = invocation.call.as_deref();
        if call.is_some_and(|call| !call.is_well_formed()) {
            let why = "the peer's call could not be written as one request";
            return Err(refusal(ErrorCode::InvalidRequest, Component::Peer, why));
        }
        let registered = self.registered(&invocation.space, &invocation.function_id, version)?;
        if registered.key != key {
            return Err(refusal(
                ErrorCode::Conflict,
                Component::Peer,
                "the node knows another version of the function",
            ));
        }
        Ok(registered)
    }

    async fn serve_here(
        &self,
        registered: &Arc<Registered>,
        invocation: Invocation,
        may_start: bool,
        attempt: &mut Attempt,
    ) -> Result<(Reply, StartKind), Failure> {
        let step = match self.free_slot(registered) {
            Some(checkout) => self.run(checkout, registered, invocation, attempt).await,
            None => match self
                .open_pool(registered, invocation.deadline, attempt)
                .await
            {
                Ok(pool) => {
                    self.wait_here(&pool, registered, invocation, may_start, attempt)
                        .await
                }
                Err(step) => step,
            },
        };
        match step {
            Step::Done(completed) => Ok((completed.reply, completed.start)),
            // A peer tries once; the node that forwards decides what comes next.
            Step::Failed(failure) | Step::Again(failure) => Err(failure),
        }
    }

    async fn wait_here(
        &self,
        pool: &PoolKind,
        registered: &Arc<Registered>,
        invocation: Invocation,
        may_start: bool,
        attempt: &mut Attempt,
    ) -> Step {
        let local = self.local(registered, pool, false);
        let question = Question {
            is_forwarded: true,
            may_start,
            instances_max: registered.function.scaling().max,
            pack_until: self.parts.pack_until,
            dice: (0, 0),
        };
        match pick(&local, &[], &question) {
            Choice::Shed(why) => Step::Failed(choose::shed(why, registered)),
            // A slot that came free this moment is taken at the head of the queue.
            Choice::Local | Choice::Wait | Choice::Cold | Choice::Peer(_) | Choice::ColdAt(_)
                if may_start =>
            {
                self.wait_and_run(pool, registered, invocation, attempt)
                    .await
            }
            _ => Step::Failed(choose::shed(
                crate::router::pick::Shed::FunctionBusy,
                registered,
            )),
        }
    }
}

fn stream_head(stream: &BodyStream) -> StreamHead {
    let remaining = stream.deadline().remaining(Instant::now().into_std());
    StreamHead {
        length: stream.length(),
        remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
    }
}
