//! Runs a function for an event that somebody waits for.

use std::sync::Arc;

use actors::invoker::{self, Completed, Failed};
use http::HeaderMap;
use protocol::event::Encoded;
use protocol::invocation::{Body, TraceContext};
use protocol::{Event, Failure, FunctionId, InvocationId, Phases, Space, Version};
use tokio::time::Instant;
use tracing::Instrument;

use super::streamed;
use crate::error::Error;
use crate::invoke;
use crate::surface::Shared;

/// One call: which function, and for which event.
pub(super) struct FunctionCall<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a InvocationId,
    /// The headers of the client's request, for its trace context.
    pub(super) fields: &'a HeaderMap,
    pub(super) event: &'a Event,
    pub(super) space: &'a Space,
    pub(super) function_id: &'a FunctionId,
    /// The version that is to run, where one was named.
    pub(super) version: Option<Version>,
    /// When the client's request began, if an authorizer was asked about it.
    pub(super) begun: Option<Instant>,
}

impl FunctionCall<'_> {
    /// What a client is told when a plugin did not let the call be made; those who subscribed are told as well.
    pub(super) fn refused(&self, failure: Failure) -> Error {
        self.failed(Failed {
            failure,
            is_forwarded: false,
            phases: Phases::default(),
            standing: None,
        })
    }

    /// Calls the function, and tells those who subscribed to such calls; of an answer that streams, at its end.
    ///
    /// # Errors
    /// What the client is told; the cause is in the log.
    pub(super) async fn run(&self, encoded: Encoded) -> Result<Completed, Error> {
        let begun = Instant::now();
        let emitter = &self.shared.emitter;
        emitter.invoking(self.space, self.function_id, self.event);
        let outcome = match self.invoke(encoded).await {
            Ok(completed) if matches!(completed.reply.body, Body::Stream(_)) => {
                return Ok(completed);
            }
            outcome => outcome,
        };
        let start = outcome.as_ref().ok().map(|completed| completed.start);
        let meters = &self.shared.invocations;
        meters.duration(start).record(begun.elapsed());
        if let Ok(completed) = &outcome {
            let result = completed.reply.body.whole();
            emitter.invoked(self.space, self.function_id, self.event, result);
        }
        outcome.map_err(|failed| self.failed(*failed))
    }

    fn failed(&self, failed: Failed) -> Error {
        let failure = &failed.failure;
        let emitter = &self.shared.emitter;
        emitter.invocation_failed(self.space, self.function_id, self.event, failure);
        let (space, function, invocation) = (self.space, self.function_id, self.id);
        let (code, component) = (failure.code, failure.component);
        tracing::info!(%space, %function, %invocation, %code, %component, error = %failure, "a function's call failed");
        Error::function_call(failed)
    }

    /// Calls the function and tells nobody.
    pub(super) async fn invoke(&self, encoded: Encoded) -> Result<Completed, Box<Failed>> {
        let begun = Instant::now();
        let mut request = invoker::Request {
            id: self.id.clone(),
            space: self.space.clone(),
            function_id: self.function_id.clone(),
            version: self.version,
            payload: encoded.payload,
            content_type: encoded.content_type,
            call: Some(Arc::new(encoded.call)),
            trace: TraceContext::default(),
            begun: self.begun,
        };
        let span = invoke::open_span(self.shared, &mut request, self.fields);
        let mut outcome = match span.is_none() {
            true => self.shared.node.invoke(request).await,
            false => {
                let invoking = self.shared.node.invoke(request);
                invoking.instrument(span.clone()).await
            }
        };
        match &mut outcome {
            Ok(completed) => streamed::tell_end(completed, self, begun, &span),
            Err(failed) => invoke::note_failure(&span, failed.failure.code),
        }
        outcome
    }
}
