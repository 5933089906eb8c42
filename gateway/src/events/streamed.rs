//! Answers that are passed on as they come: what is held until their end, and what is told of it.

use std::sync::Arc;

use actors::invoker::Completed;
use metrics::Histogram;
use protocol::invocation::{Body, BodyStream};
use protocol::{
    Component, Deadline, Effect, ErrorCode, Event, Failure, FunctionId, InvocationId, Space,
};
use tokio::sync::SemaphorePermit;
use tokio::time::Instant;
use tracing::Span;

use super::call::FunctionCall;
use super::emit::Emitter;
use crate::body::AnswerBody;
use crate::invoke;
use crate::surface::Shared;

/// Lets an answer that streams hold its place among the invocations in flight until its end.
pub(super) fn hold(
    body: AnswerBody,
    shared: &Arc<Shared>,
    permit: SemaphorePermit<'_>,
) -> AnswerBody {
    let AnswerBody::Stream(stream) = body else {
        return body;
    };
    permit.forget();
    let admitted = Admitted(Arc::clone(shared));
    AnswerBody::Stream(stream.on_end(move |_| drop(admitted)))
}

/// Tells at the end of an answer that streams what is told of others when they are there.
pub(super) fn tell_end(
    completed: &mut Completed,
    call: &FunctionCall<'_>,
    begun: Instant,
    span: &Span,
) {
    let body = std::mem::take(&mut completed.reply.body);
    completed.reply.body = match body {
        Body::Whole(_) => body,
        Body::Stream(stream) => {
            let ending = Ending::new(&stream, completed, call, begun, span);
            Body::Stream(stream.on_end(move |ended| match ended {
                Ok(()) => ending.finished(),
                Err(failure) => ending.cut(failure),
            }))
        }
    };
}

/// A place among the invocations in flight.
struct Admitted(Arc<Shared>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.in_flight.add_permits(1);
    }
}

/// All that is needed to tell how an answer ended.
struct Ending {
    emitter: Arc<Emitter>,
    event: Event,
    id: InvocationId,
    space: Space,
    function_id: FunctionId,
    node: Arc<str>,
    begun: Instant,
    deadline: Deadline,
    answered: Histogram,
    failed: Histogram,
    span: Span,
    is_told: bool,
}

impl Ending {
    fn new(
        stream: &BodyStream,
        completed: &Completed,
        call: &FunctionCall<'_>,
        begun: Instant,
        span: &Span,
    ) -> Self {
        let meters = &call.shared.invocations;
        Self {
            emitter: Arc::clone(&call.shared.emitter),
            event: call.event.clone(),
            id: call.id.clone(),
            space: call.space.clone(),
            function_id: call.function_id.clone(),
            node: Arc::clone(&completed.node),
            begun,
            deadline: stream.deadline(),
            answered: meters.duration(Some(completed.start)).clone(),
            failed: meters.duration(None).clone(),
            span: span.clone(),
            is_told: false,
        }
    }

    fn finished(mut self) {
        self.is_told = true;
        count("finished");
        self.answered.record(self.begun.elapsed());
        // Nobody has kept what went by.
        let result = bytes::Bytes::new();
        self.emitter
            .invoked(&self.space, &self.function_id, &self.event, &result);
    }

    fn cut(mut self, failure: &Failure) {
        self.tell_cut(failure);
    }

    fn tell_cut(&mut self, failure: &Failure) {
        self.is_told = true;
        count("cut");
        self.failed.record(self.begun.elapsed());
        invoke::note_failure(&self.span, failure.code);
        let (space, function, invocation) = (&self.space, &self.function_id, &self.id);
        let (code, component) = (failure.code, failure.component);
        let node = failure.node.as_deref().unwrap_or(&self.node);
        tracing::info!(%space, %function, %invocation, %node, %code, %component, error = %failure, "a function's answer was cut short, and its client's connection with it");
        self.emitter
            .invocation_failed(space, function, &self.event, failure);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        // A client that takes its answer too slowly keeps the stream from noticing by itself that its time is over.
        if self.deadline.remaining(Instant::now().into_std()).is_zero() {
            let failure = Failure::new(
                ErrorCode::DeadlineExceeded,
                Component::Function,
                Effect::Interrupted,
                "the client had not taken the whole answer when the function's time limit was over",
            );
            self.tell_cut(&failure);
        } else {
            count("left");
        }
    }
}

fn count(outcome: &'static str) {
    metrics::counter!("hearth_streams_total", "outcome" => outcome).increment(1);
}
