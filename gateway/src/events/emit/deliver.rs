//! Hands queued events to their functions.

use std::fmt;
use std::sync::Arc;

use actors::invoker::{Completed, Request};
use async_trait::async_trait;
use protocol::function::EventFormat;
use protocol::invocation::{AnswerRule, TraceContext};
use protocol::{
    Component, Effect, ErrorCode, Event, Failure, FunctionId, InvocationId, Space, subscription,
};
use queue::delivery::OwnRetry;
use queue::{Deliver, Delivery, End, Origin, Outcome, Promise};

use super::Emitter;
use crate::executions;
use crate::node::Node;

/// Runs a function for each delivery, here or on a peer, as a call of a client would. The events about these calls go to the
/// emitter; about the delivery of a system event there are none.
pub struct Invocations {
    node: Arc<dyn Node>,
    emitter: Arc<Emitter>,
    promise: Promise,
}

impl Invocations {
    /// Delivers through this node what a queue with this promise keeps.
    pub fn new(node: Arc<dyn Node>, emitter: Arc<Emitter>, promise: Promise) -> Self {
        Self {
            node,
            emitter,
            promise,
        }
    }

    /// The form in which a function wants events.
    fn format(&self, space: &Space, function_id: &FunctionId) -> Result<EventFormat, Failure> {
        let registry = self.node.registry();
        match registry.function(space, function_id) {
            Some(registered) => Ok(registered.function.event_format()),
            // What was kept on disk is here before the functions are known.
            None if !registry.is_loaded => Err(Failure::new(
                ErrorCode::StoreUnavailable,
                Component::Store,
                Effect::Refused,
                "this node has not heard its functions yet",
            )),
            None => Err(Failure::new(
                ErrorCode::FunctionNotFound,
                Component::Gateway,
                Effect::Refused,
                format!("function {function_id} is not registered in space {space}"),
            )),
        }
    }

    async fn call(&self, delivery: &Delivery, event: &mut Event) -> Result<Completed, Failure> {
        let (space, function_id) = (&delivery.space, &delivery.function_id);
        let format = self.format(space, function_id)?;
        let asked = self.emitter.ask_invoking(space, function_id, event).await;
        let called = match asked {
            Ok(()) => {
                self.emitter.invoking(space, function_id, event);
                let request = self.request(delivery, event, format);
                let called = self.node.invoke(request).await;
                called.map_err(|failed| failed.failure)
            }
            Err(failure) => Err(failure),
        };
        match &called {
            Ok(completed) => {
                let result = completed.reply.body.whole();
                self.emitter.invoked(space, function_id, event, result);
            }
            Err(failure) => {
                self.emitter
                    .invocation_failed(space, function_id, event, failure);
            }
        }
        called
    }

    fn request(&self, delivery: &Delivery, event: &Event, format: EventFormat) -> Request {
        let mut encoded = match &delivery.origin {
            Origin::Subscription(id) if id.is_typed() => event.encode_typed(format),
            Origin::Subscription(_) | Origin::Execution(_) => event.encode(format),
        };
        if self.promise == Promise::AtLeastOnce {
            // Event Gateway takes any status but 500 for a success, as nothing followed from it.
            encoded.call.answer = AnswerRule::Success;
        }
        let extensions = &event.attributes.extensions;
        Request {
            id: InvocationId::random(),
            space: delivery.space.clone(),
            function_id: delivery.function_id.clone(),
            payload: encoded.payload,
            content_type: encoded.content_type,
            call: Some(Arc::new(encoded.call)),
            trace: TraceContext {
                parent: extensions.get("traceparent").cloned(),
                state: extensions.get("tracestate").cloned(),
            },
        }
    }
}

#[async_trait]
impl Deliver for Invocations {
    fn own_retry(&self, delivery: &Delivery) -> OwnRetry {
        let registry = self.node.registry();
        let function = registry.function(&delivery.space, &delivery.function_id);
        let general = function.and_then(|registered| registered.function.delivery.as_ref());
        let subscribed = match &delivery.origin {
            Origin::Subscription(id) => registry.subscriptions.get(&delivery.space, id),
            Origin::Execution(_) => None,
        };
        let own = subscribed.and_then(|subscribed| subscribed.subscription.delivery.as_ref());
        let attempts_max = own.and_then(|own| own.attempts);
        let until_age = own.and_then(subscription::DeliverySpec::age_max);
        OwnRetry {
            attempts_max: attempts_max.or_else(|| general?.attempts),
            until_age: until_age.or_else(|| general?.age_max()),
        }
    }

    async fn failed(&self, delivery: &Delivery, failure: &Failure, outcome: Outcome) -> Outcome {
        match delivery.origin {
            Origin::Subscription(_) => outcome,
            Origin::Execution(id) => {
                executions::failed(&*self.node, delivery, id, failure, outcome).await
            }
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<End, Failure> {
        if let Origin::Execution(id) = delivery.origin {
            // Not begun while the functions are not known, so that this is no attempt.
            self.format(&delivery.space, &delivery.function_id)?;
            return executions::run(&*self.node, delivery, id).await;
        }
        let mut event: Event = rmp_serde::from_slice(&delivery.event).map_err(|error| {
            let message = format!("the event in the queue can not be read: {error}");
            Failure::new(
                ErrorCode::Internal,
                Component::Queue,
                Effect::Refused,
                message,
            )
        })?;
        let called = self.call(delivery, &mut event).await;
        called.map(|_| End::Delivered)
    }
}

impl fmt::Debug for Invocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invocations")
    }
}
