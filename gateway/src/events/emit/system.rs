//! What the gateway says of itself: events on the path `/` of every space, in a lane of their own, as far as there is room. Async
//! plugins are told the same.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use bytes::Bytes;
use plugins::{Mode, Stage};
use protocol::event::Payload;
use protocol::{Event, Failure, FunctionId, Space, Subscription};

use super::{Emitter, delivery, write};

/// The path that subscribers of system events are on.
const PATH: &str = "/";

/// What a stage is called for typed subscriptions.
fn typed_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Received => "eventgateway.event.received",
        Stage::Invoking => "eventgateway.function.invoking",
        Stage::Invoked => "eventgateway.function.invoked",
        Stage::InvocationFailed => "eventgateway.function.invocationFailed",
    }
}

/// What is said of an event at a stage.
pub(crate) enum About<'a> {
    /// It was received: on which path, with which headers.
    Received {
        path: &'a str,
        headers: Vec<(String, String)>,
    },
    /// A function is called for it.
    Call {
        space: &'a Space,
        function_id: &'a FunctionId,
        outcome: Outcome<'a>,
    },
}

/// How a call ended.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// It has not.
    Open,
    /// The function's answer.
    Answered(&'a Bytes),
    /// Why it failed.
    Failed(&'a str),
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
        let headers = || About::Received {
            path,
            headers: headers(),
        };
        self.system(Stage::Received, None, event, headers);
    }

    /// Whether anybody hears that an event was received, so that one is not written for nobody.
    pub(crate) fn is_received_heard(&self) -> bool {
        let registry = self.node.registry();
        let subscriptions = &registry.subscriptions;
        let mut named = subscriptions.subscribers(None, Stage::Received.name(), PATH);
        named.next().is_some()
            || subscriptions.knows(typed_name(Stage::Received))
            || self.plugins.any(Stage::Received, Mode::Async)
    }

    /// Says that a function is about to be called.
    pub(crate) fn invoking(&self, space: &Space, function_id: &FunctionId, event: &Event) {
        self.call(Stage::Invoking, space, function_id, event, Outcome::Open);
    }

    /// Says that a function was called, and what it answered.
    pub(crate) fn invoked(
        &self,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        result: &Bytes,
    ) {
        let outcome = Outcome::Answered(result);
        self.call(Stage::Invoked, space, function_id, event, outcome);
    }

    /// Says that a call failed, whatever the reason, and why.
    pub(crate) fn invocation_failed(
        &self,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        failure: &Failure,
    ) {
        let outcome = Outcome::Failed(&failure.message);
        self.call(Stage::InvocationFailed, space, function_id, event, outcome);
    }

    fn call(
        &self,
        stage: Stage,
        space: &Space,
        function_id: &FunctionId,
        event: &Event,
        outcome: Outcome<'_>,
    ) {
        // The delivery of a system event has no events about it: they would never end.
        if event.is_system() {
            return;
        }
        let about = || About::Call {
            space,
            function_id,
            outcome,
        };
        self.system(stage, Some(space), event, about);
    }

    /// Tells async plugins and the subscribers of a system event. `of` is the space it is about, for the count of what was received.
    fn system<'a>(
        &self,
        stage: Stage,
        of: Option<&Space>,
        event: &Event,
        about: impl Fn() -> About<'a>,
    ) {
        if self.plugins.any(stage, Mode::Async) {
            self.plugins
                .tell(stage, about().write(&event.to_envelope()));
        }
        let registry = self.node.registry();
        let subscriptions = &registry.subscriptions;
        let named = subscriptions.subscribers(None, stage.name(), PATH);
        self.tell(stage.name(), stage, named, of, || {
            about().write(&event.to_envelope())
        });
        let name = typed_name(stage);
        let typed = subscriptions.async_subscribers(None, name, "POST", PATH);
        self.tell(name, stage, typed, of, || {
            about().write(&event.to_version_01())
        });
    }

    /// Tells the subscribers of one of the names of a stage.
    fn tell<'a>(
        &self,
        name: &'static str,
        stage: Stage,
        subscribers: impl Iterator<Item = &'a Arc<Subscription>>,
        of: Option<&Space>,
        data: impl FnOnce() -> Bytes,
    ) {
        let mut subscribers = subscribers.peekable();
        if subscribers.peek().is_none() {
            return;
        }
        if let Some(space) = of {
            let (space, name) = (space.as_str().to_owned(), stage.name());
            metrics::counter!("gateway_events_received_total", "space" => space, "type" => name)
                .increment(1);
        }
        let now = SystemTime::now();
        let event = system_event(name, data(), now);
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

impl<'a> About<'a> {
    /// What is said before a function is called.
    pub(crate) fn invoking(space: &'a Space, function_id: &'a FunctionId) -> Self {
        Self::Call {
            space,
            function_id,
            outcome: Outcome::Open,
        }
    }

    /// Writes it as a JSON object, with the event in the envelope of whoever is told.
    pub(crate) fn write(&self, envelope: &[u8]) -> Bytes {
        let mut json = Vec::with_capacity(envelope.len() + 256);
        match self {
            Self::Received { path, headers } => {
                json.extend_from_slice(br#"{"path":"#);
                write_text(path, &mut json);
                json.extend_from_slice(br#","event":"#);
                json.extend_from_slice(envelope);
                json.extend_from_slice(br#","headers":{"#);
                for (index, (name, value)) in headers.iter().enumerate() {
                    if index > 0 {
                        json.push(b',');
                    }
                    write_text(name, &mut json);
                    json.push(b':');
                    write_text(value, &mut json);
                }
                json.push(b'}');
            }
            Self::Call {
                space,
                function_id,
                outcome,
            } => {
                json.extend_from_slice(br#"{"space":"#);
                write_text(space.as_str(), &mut json);
                json.extend_from_slice(br#","functionId":"#);
                write_text(function_id.as_str(), &mut json);
                json.extend_from_slice(br#","event":"#);
                json.extend_from_slice(envelope);
                match outcome {
                    Outcome::Open => {}
                    Outcome::Answered(result) => {
                        json.extend_from_slice(br#","result":"#);
                        let result = base64::engine::general_purpose::STANDARD.encode(result);
                        write_text(&result, &mut json);
                    }
                    Outcome::Failed(why) => {
                        json.extend_from_slice(br#","error":"#);
                        write_text(why, &mut json);
                    }
                }
            }
        }
        json.push(b'}');
        json.into()
    }
}

fn write_text(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("a text can be written as JSON");
}

fn system_event(name: &'static str, data: Bytes, now: SystemTime) -> Event {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let received_at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    let data = Payload::Json(data);
    Event::new(name, PATH, data, "application/json", received_at_ms)
}
