//! What the gateway says of itself: events on the path `/` of every space, in a lane of their own, as far as there is room.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use bytes::Bytes;
use protocol::event::Payload;
use protocol::{Event, Failure, FunctionId, Space, Subscription};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{Emitter, delivery, write};

/// The path that subscribers of system events are on.
const PATH: &str = "/";

/// The names of one system event.
#[derive(Clone, Copy)]
struct Name {
    /// For subscriptions to its name.
    named: &'static str,
    /// For typed subscriptions.
    typed: &'static str,
}

const RECEIVED: Name = Name {
    named: "gateway.event.received",
    typed: "eventgateway.event.received",
};
const INVOKING: Name = Name {
    named: "gateway.function.invoking",
    typed: "eventgateway.function.invoking",
};
const INVOKED: Name = Name {
    named: "gateway.function.invoked",
    typed: "eventgateway.function.invoked",
};
const INVOCATION_FAILED: Name = Name {
    named: "gateway.function.invocationFailed",
    typed: "eventgateway.function.invocationFailed",
};

#[derive(Serialize)]
struct Received<'a> {
    path: &'a str,
    event: &'a RawValue,
    #[serde(serialize_with = "as_object")]
    headers: Vec<(String, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    space: &'a Space,
    function_id: &'a FunctionId,
    event: &'a RawValue,
    /// The function's answer in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// None of these waits, and none costs more than a look at the index while nobody is subscribed.
impl Emitter {
    /// Says that an event was received, before it is routed. `headers` are those of the request, flattened.
    pub(crate) fn received(
        &self,
        path: &str,
        event: &Event,
        headers: impl Fn() -> Vec<(String, String)>,
    ) {
        self.system(RECEIVED, None, event, |envelope| {
            serde_json::to_vec(&Received {
                path,
                event: envelope,
                headers: headers(),
            })
        });
    }

    /// Whether anybody hears that an event was received, so that one is not written for nobody.
    pub(crate) fn is_received_heard(&self) -> bool {
        let registry = self.node.registry();
        let subscriptions = &registry.subscriptions;
        let mut named = subscriptions.subscribers(None, RECEIVED.named, PATH);
        named.next().is_some() || subscriptions.knows(RECEIVED.typed)
    }

    /// Says that a function is about to be called.
    pub(crate) fn invoking(&self, space: &Space, function_id: &FunctionId, event: &Event) {
        self.call(INVOKING, space, function_id, event, || (None, None));
    }

    /// Says that a function was called, and what it answered.
    pub(crate) fn invoked(
        &self,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        result: &Bytes,
    ) {
        let encode = || base64::engine::general_purpose::STANDARD.encode(result);
        self.call(INVOKED, space, function_id, event, || {
            (Some(encode()), None)
        });
    }

    /// Says that a call failed, whatever the reason, and why.
    pub(crate) fn invocation_failed(
        &self,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        failure: &Failure,
    ) {
        self.call(INVOCATION_FAILED, space, function_id, event, || {
            (None, Some(failure.message.as_str()))
        });
    }

    fn call<'a>(
        &self,
        name: Name,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        outcome: impl Fn() -> (Option<String>, Option<&'a str>),
    ) {
        // The delivery of a system event has no events about it: they would never end.
        if event.is_system() {
            return;
        }
        self.system(name, Some(space), event, |envelope| {
            let (result, error) = outcome();
            serde_json::to_vec(&Call {
                space,
                function_id,
                event: envelope,
                result,
                error,
            })
        });
    }

    /// Tells the subscribers of a system event. `of` is the space it is about, for the count of what was received.
    fn system(
        &self,
        name: Name,
        of: Option<&Space>,
        about: &Event,
        data: impl Fn(&RawValue) -> serde_json::Result<Vec<u8>>,
    ) {
        let registry = self.node.registry();
        let subscriptions = &registry.subscriptions;
        let named = subscriptions.subscribers(None, name.named, PATH);
        let make = |now| event(name.named, &about.to_envelope(), &data, now);
        self.tell(name, named, of, make);
        let typed = subscriptions.async_subscribers(None, name.typed, "POST", PATH);
        let make = |now| event(name.typed, &about.to_version_01(), &data, now);
        self.tell(name, typed, of, make);
    }

    fn tell<'a>(
        &self,
        name: Name,
        subscribers: impl Iterator<Item = &'a Arc<Subscription>>,
        of: Option<&Space>,
        make: impl FnOnce(SystemTime) -> serde_json::Result<Event>,
    ) {
        let name = name.named;
        let mut subscribers = subscribers.peekable();
        if subscribers.peek().is_none() {
            return;
        }
        if let Some(space) = of {
            let space = space.as_str().to_owned();
            metrics::counter!("gateway_events_received_total", "space" => space, "type" => name)
                .increment(1);
        }
        let now = SystemTime::now();
        let event = match make(now) {
            Ok(event) => event,
            Err(error) => {
                tracing::error!(name, %error, "a system event can not be written");
                return;
            }
        };
        let written = write(&event);
        let deliveries = (0..)
            .zip(
                subscribers.filter(|subscription| {
                    subscription.accepts(|name| super::attribute(&event, name))
                }),
            )
            .map(|(ordinal, subscription)| delivery(subscription, written.clone(), ordinal, now))
            .collect();
        if let Err(error) = self.system.try_enqueue(deliveries) {
            tracing::debug!(name, %error, "a system event is dropped");
            self.meters.dropped.increment(1);
            self.meters.system_dropped.increment(1);
        }
    }
}

fn event(
    name: &'static str,
    about: &[u8],
    data: impl Fn(&RawValue) -> serde_json::Result<Vec<u8>>,
    now: SystemTime,
) -> serde_json::Result<Event> {
    let data = data(serde_json::from_slice(about)?)?;
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let received_at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let data = Payload::Json(data.into());
    Ok(Event::new(
        name,
        PATH,
        data,
        "application/json",
        received_at_ms,
    ))
}

fn as_object<S: serde::Serializer>(
    pairs: &[(String, String)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
