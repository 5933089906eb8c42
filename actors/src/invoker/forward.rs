//! Hands an invocation to a peer: one hop, corrected books, and the difference between refused and interrupted.

use std::sync::Arc;

use cluster::peer::Error as PeerError;
use config::recurring::Due;
use protocol::invocation::Body;
use protocol::peer::{InvokeHead, ReplyHead, ReplyOutcome};
use protocol::{Effect, ErrorCode, Failure, Invocation, NodeId, Phases, Reply};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Attempt, Completed, Invoker, Step, micros, passing};
use crate::registry_cache::Registered;

impl Invoker {
    /// Forwards to a peer, for a free slot or, when it `may_start`, for a start or its queue.
    pub(super) async fn forward(
        &self,
        id: &NodeId,
        may_start: bool,
        registered: &Registered,
        invocation: Invocation,
        attempt: &mut Attempt,
    ) -> Step {
        let Some(route) = self.parts.routes.load().peers.get(id).cloned() else {
            attempt.peer_refusals += 1;
            return Step::Again(passing("the peer left"));
        };
        attempt.is_forwarded = true;
        let in_flight = route.health.begin();
        route.note_sent(registered.key);
        let (span, trace) = self.span(
            || tracing::info_span!("forward", otel.kind = "client", peer = %route.peer.name),
            &invocation.trace,
        );
        let remaining = invocation.deadline.remaining(Instant::now().into_std());
        let head = InvokeHead {
            invocation: invocation.id,
            space: invocation.space,
            function_id: invocation.function_id,
            version: registered.function.version,
            instance_key: registered.key,
            from: self.parts.node_id.clone(),
            remaining_ms: u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX),
            content_type: invocation.content_type,
            call: invocation.call,
            may_start,
            trace,
        };
        let begun = Instant::now();
        let call =
            self.parts
                .client
                .invoke(&route.peer, head, invocation.payload, invocation.deadline);
        let result = call.instrument(span).await;
        let took_us = micros(begun.elapsed());
        match result {
            Ok((head, body)) => {
                // A peer that has a stream of ours is probed until its end.
                let body = body.on_end(|_| drop(in_flight));
                route.health.note_answered();
                // Gossip may have made the route anew since the call began.
                let newest = self.parts.routes.load().peers.get(id).cloned();
                let newest = newest.filter(|newest| newest.generation == route.generation);
                newest.as_ref().unwrap_or(&route).note_reply(
                    registered.key,
                    head.free_slots,
                    head.instances,
                );
                self.on_reply(
                    &route.peer.name,
                    (id, may_start),
                    head,
                    body,
                    took_us,
                    registered,
                    attempt,
                )
            }
            Err(error) => {
                drop(in_flight);
                let failure = Failure::from(&error).at_node(&route.peer.name);
                attempt.phases.forward = Some(took_us);
                if let Some(Due { times, .. }) = route.health.note_failed_call() {
                    tracing::info!(peer = %route.peer.name, %error, effect = ?error.effect(), times, "call to peer failed");
                }
                match error {
                    PeerError::Refused {
                        is_answer: true, ..
                    } => route.health.note_answered(),
                    PeerError::Refused { .. } => route.health.note_refused(),
                    _ => {}
                }
                let may_retry = match error.effect() {
                    Effect::Refused => true,
                    Effect::Interrupted | Effect::Finished => {
                        failure.code == ErrorCode::Interrupted
                            && registered.function.is_idempotent()
                    }
                };
                attempt.step(id, failure, may_retry)
            }
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one reply, used once"
    )]
    fn on_reply(
        &self,
        peer: &str,
        (id, may_start): (&NodeId, bool),
        head: ReplyHead,
        body: Body,
        took_us: u64,
        registered: &Registered,
        attempt: &mut Attempt,
    ) -> Step {
        let ReplyHead {
            outcome, phases, ..
        } = head;
        attempt.phases = Phases {
            route: attempt.phases.route,
            forward: Some(took_us.saturating_sub(phases.total())),
            ..phases
        };
        match outcome {
            ReplyOutcome::Replied {
                status,
                content_type,
                headers,
                start,
                ended,
            } => Step::Done(Completed {
                reply: Reply {
                    status,
                    content_type,
                    headers,
                    body,
                    ended,
                },
                node: Arc::from(peer),
                start,
                is_forwarded: true,
                phases: attempt.phases,
                standing: None,
            }),
            ReplyOutcome::Failed(failure)
                if failure.code == ErrorCode::FunctionBusy && !may_start =>
            {
                // Somebody else was quicker. It was asked for a free slot only, so it may be asked for more.
                attempt.without_slot.push(id.clone());
                attempt.again(failure.at_node(peer))
            }
            ReplyOutcome::Failed(failure) => {
                let may_retry = match failure.effect {
                    Effect::Refused => is_the_nodes_own(failure.code),
                    Effect::Interrupted => {
                        failure.code == ErrorCode::Interrupted
                            && registered.function.is_idempotent()
                    }
                    Effect::Finished => false,
                };
                attempt.step(id, failure.at_node(peer), may_retry)
            }
        }
    }
}

/// Whether a refusal is for a reason that another node may not have.
fn is_the_nodes_own(code: ErrorCode) -> bool {
    !matches!(
        code,
        ErrorCode::StartFailed
            | ErrorCode::ImageNotFound
            | ErrorCode::PayloadTooLarge
            | ErrorCode::InvalidRequest
    )
}

impl Attempt {
    fn step(&mut self, id: &NodeId, failure: Failure, may_retry: bool) -> Step {
        if !may_retry {
            return Step::Failed(failure);
        }
        self.refused_by.push(id.clone());
        self.again(failure)
    }

    fn again(&mut self, failure: Failure) -> Step {
        self.peer_refusals += 1;
        // Whatever comes of the next attempt is told of that one.
        self.is_forwarded = false;
        Step::Again(failure)
    }
}
