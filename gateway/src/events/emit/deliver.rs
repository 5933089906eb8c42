//! Hands queued events to their functions.

use std::fmt;
use std::sync::Arc;

use actors::invoker::Request;
use async_trait::async_trait;
use protocol::invocation::TraceContext;
use protocol::{Component, Effect, ErrorCode, Event, Failure, InvocationId};
use queue::{Deliver, Delivery};

use super::Emitter;
use crate::node::Node;

/// Runs a function for each delivery, here or on a peer, as a call of a client would. The events about these calls go to the
/// emitter; about the delivery of a system event there are none.
pub struct Invocations {
    node: Arc<dyn Node>,
    emitter: Arc<Emitter>,
}

impl Invocations {
    /// Delivers through this node.
    pub fn new(node: Arc<dyn Node>, emitter: Arc<Emitter>) -> Self {
        Self { node, emitter }
    }

    fn request(&self, delivery: &Delivery, event: &Event) -> Result<Request, Failure> {
        let registry = self.node.registry();
        let (space, function_id) = (&delivery.space, &delivery.function_id);
        let Some(registered) = registry.function(space, function_id) else {
            let message = format!("function {function_id} is not registered in space {space}");
            return Err(Failure::new(
                ErrorCode::FunctionNotFound,
                Component::Gateway,
                Effect::Refused,
                message,
            ));
        };
        let format = registered.function.event_format();
        let encoded = match delivery.subscription_id.is_typed() {
            true => event.encode_typed(format),
            false => event.encode(format),
        };
        let extensions = &event.attributes.extensions;
        Ok(Request {
            id: InvocationId::random(),
            space: space.clone(),
            function_id: function_id.clone(),
            payload: encoded.payload,
            content_type: encoded.content_type,
            call: Some(Arc::new(encoded.call)),
            trace: TraceContext {
                parent: extensions.get("traceparent").cloned(),
                state: extensions.get("tracestate").cloned(),
            },
        })
    }
}

#[async_trait]
impl Deliver for Invocations {
    async fn deliver(&self, delivery: &Delivery) -> Result<(), Failure> {
        let event: Event = rmp_serde::from_slice(&delivery.event).map_err(|error| {
            let message = format!("the event in the queue can not be read: {error}");
            Failure::new(
                ErrorCode::Internal,
                Component::Queue,
                Effect::Refused,
                message,
            )
        })?;
        let (space, function_id) = (&delivery.space, &delivery.function_id);
        let request = self.request(delivery, &event)?;
        self.emitter.invoking(space, function_id, &event);
        match self.node.invoke(request).await {
            Ok(completed) => {
                let result = completed.reply.body.whole();
                self.emitter.invoked(space, function_id, &event, result);
                Ok(())
            }
            Err(failed) => {
                let failure = failed.failure;
                self.emitter
                    .invocation_failed(space, function_id, &event, &failure);
                Err(failure)
            }
        }
    }
}

impl fmt::Debug for Invocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invocations")
    }
}
