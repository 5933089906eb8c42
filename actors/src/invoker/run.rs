//! Runs an invocation on this node: on an instance that is up, one that it waits for, or once in an instance of its own.

use std::sync::Arc;

use protocol::invocation::{Body, StartKind};
use protocol::{Component, Deadline, ErrorCode, Failure, Invocation};
use providers::{Error as ProviderError, LaunchSpec};
use tokio::time::Instant;
use tracing::Instrument;

use super::{Attempt, Invoker, Step, micros, passing, refusal};
use crate::executor::{Checkout, Kind, Pool, PoolKind, Runs, WaitError};
use crate::registry_cache::Registered;

impl Invoker {
    /// Waits for a slot or a start on this node, then runs.
    pub(super) async fn wait_and_run(
        &self,
        pool: &PoolKind,
        registered: &Arc<Registered>,
        invocation: Invocation,
        attempt: &mut Attempt,
    ) -> Step {
        // What is left of the deadline when the wait ends is the function's whole time limit.
        let limit = registered.function.limits().timeout;
        let begun = Instant::now();
        let until = Instant::from_std(invocation.deadline.moment())
            .checked_sub(limit)
            .unwrap_or(begun);
        match pool {
            PoolKind::Pool(pool) => {
                let (span, _) = self.span(|| wait_span(pool), &invocation.trace);
                let waited = pool.checkout(until).instrument(span.clone()).await;
                let waited_us = micros(begun.elapsed());
                match waited {
                    Ok(checkout) => {
                        attempt.note_wait(&checkout, waited_us);
                        record(&span, &checkout);
                        drop(span);
                        self.run(checkout, registered, invocation, attempt).await
                    }
                    Err(error) => attempt.on_wait_error(error, registered, waited_us),
                }
            }
            PoolKind::Runs(runs) => {
                self.run_once(runs, until, registered, invocation, attempt)
                    .await
            }
        }
    }

    /// Runs on an instance whose slot was taken.
    pub(super) async fn run(
        &self,
        mut checkout: Checkout,
        registered: &Registered,
        mut invocation: Invocation,
        attempt: &mut Attempt,
    ) -> Step {
        let (span, trace) = self.span(
            || tracing::info_span!("run", otel.kind = "client", instance = %checkout.instance_id()),
            &invocation.trace,
        );
        invocation.trace = trace;
        checkout.hand_over();
        let begun = Instant::now();
        let call = checkout.invoke().invoke(&registered.function, &invocation);
        let result = call.instrument(span).await;
        attempt.phases.run = Some(micros(begun.elapsed()));
        let start = checkout.start();
        match result {
            Ok(mut reply) => {
                match reply.body {
                    Body::Whole(_) => checkout.finish(true),
                    // The slot is in use until the end. A stream that is dropped drops the slot, whose instance is suspect then.
                    Body::Stream(stream) => {
                        let stream = stream.on_end(move |ended| checkout.finish(ended.is_ok()));
                        reply.body = Body::Stream(stream);
                    }
                }
                Step::Done(self.completed(reply, start, attempt))
            }
            Err(error) => {
                let instance = checkout.instance_id().clone();
                // Only a function that said by itself that it failed is still as it was before.
                checkout.finish(matches!(error, ProviderError::Failed { .. }));
                let failure = Failure::from(&error);
                match error {
                    ProviderError::Unreachable { .. } => {
                        tracing::info!(%instance, %error, "instance is gone; trying another");
                        // One that was up is gone for good, so there are ever fewer; one just started counts.
                        attempt.local_failures += u32::from(start == StartKind::Cold);
                        Step::Again(failure)
                    }
                    ProviderError::Interrupted { .. } if registered.function.is_idempotent() => {
                        attempt.local_failures += 1;
                        Step::Again(failure)
                    }
                    _ => Step::Failed(failure),
                }
            }
        }
    }

    /// Runs once, in an instance that takes only this invocation.
    async fn run_once(
        &self,
        runs: &Arc<Runs>,
        until: Instant,
        registered: &Arc<Registered>,
        mut invocation: Invocation,
        attempt: &mut Attempt,
    ) -> Step {
        let begun = Instant::now();
        let permit = match runs.permit(until).await {
            Ok(permit) => permit,
            Err(error) => return attempt.on_wait_error(error, registered, micros(begun.elapsed())),
        };
        attempt.phases.queue = Some(micros(begun.elapsed()));
        let Some(launch) = self.parts.launchers.get(Kind::of(&registered.function)) else {
            return Step::Failed(refusal(
                ErrorCode::EngineUnavailable,
                Component::Provider,
                "this node has no provider for the type",
            ));
        };
        let (span, trace) = self.span(
            || tracing::info_span!("run", otel.kind = "client"),
            &invocation.trace,
        );
        invocation.trace = trace;
        let deadline = Deadline::at((Instant::now() + self.parts.start_timeout).into_std())
            .min(invocation.deadline);
        let secrets = match self.parts.secrets.open(registered).await {
            Ok(secrets) => secrets,
            Err(error) => return attempt.on_start_error(Failure::from(&error)),
        };
        let spec = LaunchSpec {
            function: Arc::clone(&registered.function),
            key: registered.key,
            secrets,
            deadline,
        };
        let (phases, result) = launch.run(spec, &invocation).instrument(span).await;
        drop(permit);
        attempt.phases.add_start(&phases);
        attempt.phases.run = phases.run;
        match result {
            Ok(reply) => Step::Done(self.completed(reply, StartKind::Cold, attempt)),
            Err(error) => attempt.on_start_error(Failure::from(&error)),
        }
    }
}

/// The span of a wait: a cold start, with its phases, where nothing is up that could take the invocation.
fn wait_span(pool: &Pool) -> tracing::Span {
    use tracing::field::Empty;
    if pool.status().open == 0 {
        tracing::info_span!(
            "cold_start",
            start = Empty,
            pull_us = Empty,
            create_us = Empty,
            start_us = Empty,
            ready_us = Empty
        )
    } else {
        tracing::info_span!(
            "wait",
            start = Empty,
            pull_us = Empty,
            create_us = Empty,
            start_us = Empty,
            ready_us = Empty
        )
    }
}

fn record(span: &tracing::Span, checkout: &Checkout) {
    span.record("start", checkout.start().as_str());
    if let Some(phases) = checkout.start_phases() {
        for (name, field) in [
            ("pull_us", phases.pull),
            ("create_us", phases.create),
            ("start_us", phases.start),
            ("ready_us", phases.ready),
        ] {
            if let Some(micros) = field {
                span.record(name, micros);
            }
        }
    }
}

impl Attempt {
    fn note_wait(&mut self, checkout: &Checkout, waited_us: u64) {
        let start_us = checkout.start_phases().map_or(0, |phases| phases.total());
        self.phases.queue = Some(waited_us.saturating_sub(start_us));
        if let Some(phases) = checkout.start_phases() {
            self.phases.add_start(phases);
        }
    }

    fn on_wait_error(&mut self, error: WaitError, registered: &Registered, waited_us: u64) -> Step {
        self.phases.queue = Some(waited_us);
        let function = &registered.function;
        let (id, space) = (&function.function_id, &function.space);
        match error {
            WaitError::Closed => Step::Again(passing(
                "the function was replaced or deleted while the invocation waited",
            )),
            WaitError::Full => {
                self.is_refused_here = true;
                self.local_failures += 1;
                let message = format!(
                    "too many invocations of function {id} in space {space} wait for a slot"
                );
                Step::Again(
                    refusal(ErrorCode::FunctionBusy, Component::Function, message)
                        .retry_after_ms(1000),
                )
            }
            WaitError::TimedOut => {
                let message = format!(
                    "no slot of function {id} in space {space} came free within {} ms",
                    waited_us / 1000
                );
                Step::Failed(
                    refusal(ErrorCode::FunctionBusy, Component::Function, message)
                        .retry_after_ms(1000),
                )
            }
            WaitError::Failed(failure) => self.on_start_error(failure),
        }
    }

    /// A start that failed for want of an engine may work on another node; an image that does not start works nowhere.
    fn on_start_error(&mut self, failure: Failure) -> Step {
        match failure.code {
            ErrorCode::EngineUnavailable => {
                self.is_refused_here = true;
                self.local_failures += 1;
                Step::Again(failure)
            }
            _ => Step::Failed(failure),
        }
    }
}
