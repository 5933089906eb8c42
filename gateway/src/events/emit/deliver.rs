//! Hands queued events to their functions.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use actors::invoker::{Completed, Request};
use actors::scheduler::wall_ms;
use async_trait::async_trait;
use protocol::destination::{Ended, EventName};
use protocol::execution::{Status, Trouble};
use protocol::function::{DeliverySpec, EventFormat};
use protocol::invocation::{AnswerRule, TraceContext};
use protocol::{
    Component, Destination, Effect, ErrorCode, Event, Failure, FunctionId, InvocationId, Space,
    subscription,
};
use queue::delivery::OwnRetry;
use queue::{Deliver, Delivery, End as Settled, Leased, Origin, Outcome, Promise};

use super::Emitter;
use crate::destinations::{self, End, Notice};
use crate::node::Node;
use crate::{content, executions};

/// The pause before a delivery is made again that failed for good and could not be told to its `onFailure`.
const AGAIN: Duration = Duration::from_secs(5);

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
            _ => event.encode(format),
        };
        if self.promise == Promise::AtLeastOnce {
            // Event Gateway takes any status but 500 for a success, as nothing followed from it.
            encoded.call.answer = AnswerRule::Success;
        }
        Request {
            id: InvocationId::random(),
            space: delivery.space.clone(),
            function_id: delivery.function_id.clone(),
            version: None,
            payload: encoded.payload,
            content_type: encoded.content_type,
            call: Some(Arc::new(encoded.call)),
            trace: trace_of(event),
            begun: None,
        }
    }

    /// Hands an end to its destination.
    async fn deliver_end(&self, leased: &Leased) -> Result<(), Failure> {
        let Notice {
            destination, event, ..
        } = self.notice(&leased.delivery)?;
        match &destination {
            Destination::Function(_) => self.call_and_tell(leased, event).await,
            Destination::Url(url) => destinations::post(&self.emitter, url, &event).await,
            Destination::Event(_) => {
                destinations::emit(&self.emitter, &leased.delivery, &event).await
            }
        }
    }

    /// An end in the queue, if it may be told.
    fn notice(&self, delivery: &Delivery) -> Result<Notice, Failure> {
        let notice = Notice::read(delivery)?;
        let depth_max = self.emitter.destinations().settings.depth_max;
        notice.check_depth(depth_max)?;
        Ok(notice)
    }

    /// Calls the function, and has it told where its record wants that. What can not be told is delivered again, call and all.
    async fn call_and_tell(&self, leased: &Leased, mut event: Event) -> Result<(), Failure> {
        let delivery = &leased.delivery;
        let completed = self.call(delivery, &mut event).await?;
        if !self.is_heard(delivery, &event, |set| set.on_success.is_some()) {
            return Ok(());
        }
        let value_max = self.value_max();
        // That it is not what it says to be was no failure before it was to be told.
        let result = executions::kept(&completed, value_max).ok();
        let ended = Ended {
            result,
            attempts: leased.attempts + 1,
            ..self.ended(leased, &event, Status::Succeeded)
        };
        self.tell(delivery, &event, ended).await
    }

    /// Has it told that a delivery is given up, where its function's record wants that.
    async fn tell_failure(&self, leased: &Leased, failure: &Failure) -> Result<(), Failure> {
        let delivery = &leased.delivery;
        let event = match &delivery.origin {
            Origin::Subscription(_) => read(delivery).ok(),
            // Of those to a URL or an event type no function's record is asked.
            Origin::End(_) => match self.notice(delivery) {
                Ok(Notice {
                    destination: Destination::Function(_),
                    event,
                }) => Some(event),
                _ => None,
            },
            Origin::Execution(_) => None,
        };
        let Some(event) = event else {
            return Ok(());
        };
        if !self.is_heard(delivery, &event, |set| set.on_failure.is_some()) {
            return Ok(());
        }
        let status = match failure.code {
            ErrorCode::Expired => Status::Expired,
            _ => Status::Failed,
        };
        let ended = Ended {
            // What the queue itself gave up was not begun once more.
            attempts: leased.attempts + u32::from(failure.component != Component::Queue),
            error: Some(Trouble::from(failure)),
            ..self.ended(leased, &event, status)
        };
        self.tell(delivery, &event, ended).await
    }

    /// Of system events nobody hears how they were delivered: they are told as far as there is room.
    fn is_heard(
        &self,
        delivery: &Delivery,
        event: &Event,
        is_wanted: fn(&DeliverySpec) -> bool,
    ) -> bool {
        let (space, function_id) = (&delivery.space, &delivery.function_id);
        !event.is_system() && destinations::is_heard(&self.emitter, space, function_id, is_wanted)
    }

    fn ended(&self, leased: &Leased, event: &Event, status: Status) -> Ended {
        let delivery = &leased.delivery;
        let payload = event.data.bare_bytes(&event.data_type);
        Ended {
            space: delivery.space.clone(),
            function_id: delivery.function_id.clone(),
            execution: None,
            delivery: Some(delivery.id.to_string()),
            subscription_id: match &delivery.origin {
                Origin::Subscription(id) => Some(id.to_string()),
                Origin::Execution(_) | Origin::End(_) => None,
            },
            event: Some(EventName {
                id: event.id.clone(),
                event_type: event.event_type.clone(),
                source: event.source().to_owned(),
            }),
            status,
            attempts: leased.attempts,
            payload: Some(content::payload(
                &payload,
                &event.data_type,
                self.value_max(),
            )),
            result: None,
            error: None,
        }
    }

    async fn tell(&self, delivery: &Delivery, event: &Event, data: Ended) -> Result<(), Failure> {
        let end = End {
            id: delivery.id,
            data,
            ended_at_ms: wall_ms(),
            depth: destinations::depth_of(event),
            callback: None,
            trace: trace_of(event),
        };
        let patience = self.node.executions().settings().record_timeout;
        match destinations::tell(&self.emitter, end, patience).await {
            Ok(_) => Ok(()),
            // It may not run again for that.
            Err(error) if self.promise == Promise::AtMostOnce => {
                tracing::warn!(delivery = %delivery.id, %error, "the end of a delivery is not told to its destination: it was in memory only");
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn value_max(&self) -> usize {
        let bytes = self.emitter.destinations().settings.value_max.as_u64();
        usize::try_from(bytes).unwrap_or(usize::MAX)
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
            Origin::Execution(_) | Origin::End(_) => None,
        };
        let own = subscribed.and_then(|subscribed| subscribed.subscription.delivery.as_ref());
        let attempts_max = own.and_then(|own| own.attempts);
        let until_age = own.and_then(subscription::DeliverySpec::age_max);
        OwnRetry {
            attempts_max: attempts_max.or_else(|| general?.attempts),
            until_age: until_age.or_else(|| general?.age_max()),
        }
    }

    async fn failed(&self, leased: &Leased, failure: &Failure, outcome: Outcome) -> Outcome {
        let delivery = &leased.delivery;
        if let Origin::Execution(id) = delivery.origin {
            return executions::failed(&self.emitter, delivery, id, failure, outcome).await;
        }
        if !matches!(outcome, Outcome::DeadLetter { .. }) {
            return outcome;
        }
        match self.tell_failure(leased, failure).await {
            Ok(()) => outcome,
            Err(error) => {
                tracing::warn!(
                    delivery = %delivery.id, space = %delivery.space, function = %delivery.function_id, %error,
                    "a delivery that failed can not be told to its onFailure, and is tried again"
                );
                Outcome::Again {
                    after: AGAIN,
                    counts: false,
                }
            }
        }
    }

    async fn deliver(&self, leased: &Leased) -> Result<Settled, Failure> {
        let delivery = &leased.delivery;
        match delivery.origin {
            Origin::Execution(id) => {
                // Not begun while the functions are not known, so that this is no attempt.
                self.format(&delivery.space, &delivery.function_id)?;
                executions::run(&self.emitter, delivery, id).await
            }
            Origin::End(_) => self.deliver_end(leased).await.map(|()| Settled::Delivered),
            Origin::Subscription(_) => {
                let called = self.call_and_tell(leased, read(delivery)?).await;
                called.map(|()| Settled::Delivered)
            }
        }
    }
}

fn read(delivery: &Delivery) -> Result<Event, Failure> {
    rmp_serde::from_slice(&delivery.event).map_err(|error| {
        let message = format!("the event in the queue can not be read: {error}");
        let (code, queue) = (ErrorCode::Internal, Component::Queue);
        Failure::new(code, queue, Effect::Refused, message)
    })
}

fn trace_of(event: &Event) -> TraceContext {
    let extensions = &event.attributes.extensions;
    TraceContext {
        parent: extensions.get("traceparent").cloned(),
        state: extensions.get("tracestate").cloned(),
    }
}

impl fmt::Debug for Invocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invocations")
    }
}
