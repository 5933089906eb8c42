//! Tells how executions and queued deliveries ended, where that is wanted: see docs/adr/0025.
//!
//! An end is an event in the queue like others, under a name that follows from what ended, so that whoever tells it once more gives it
//! the same one. It is put there before what ended is done with.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use actors::executions::{Tell, Untold};
use async_trait::async_trait;
use bytes::Bytes;
use config::settings::DestinationsSettings;
use protocol::destination::{DEPTH, ENDED, Ended, Reason, Told, destinations, name_of};
use protocol::event::rfc3339;
use protocol::function::DeliverySpec;
use protocol::invocation::TraceContext;
use protocol::{Component, Destination, Effect, ErrorCode, Event, Failure, FunctionId, Space, api};
use queue::{Delivery, DeliveryId, Origin};
use tokio::time::Instant;

use crate::content;
use crate::events::Emitter;

mod deliver;

pub(crate) use deliver::{Notice, emit, post};

/// The pauses between attempts to put an end into a queue.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Posts to URLs that no function has.
#[async_trait]
pub trait Post: Send + Sync + fmt::Debug + 'static {
    /// Posts, and waits for a status that says it was taken.
    ///
    /// # Errors
    /// Why it was not, with the status where there was one.
    async fn post(&self, url: &str, letter: Letter) -> Result<(), Failure>;
}

/// What is posted.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Headers, by name in lower case, besides the content type.
    pub headers: Vec<(String, Bytes)>,
    /// The media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

/// What the telling of ends needs of a node.
#[derive(Debug, Clone)]
pub struct Destinations {
    /// Its bounds.
    pub settings: DestinationsSettings,
    /// The way to URLs.
    pub post: Arc<dyn Post>,
}

/// One end, and who may have to hear of it.
pub(crate) struct End<'a> {
    /// What ended: an execution or a delivery.
    pub(crate) id: DeliveryId,
    pub(crate) data: Ended,
    pub(crate) ended_at_ms: u64,
    /// How many ends led to what ended.
    pub(crate) depth: u32,
    /// Where whoever invoked wants it told.
    pub(crate) callback: Option<&'a str>,
    pub(crate) trace: TraceContext,
}

/// Tells the ends of executions that their own nodes left untold.
#[derive(Debug)]
pub struct LeftUntold(Arc<Emitter>);

impl LeftUntold {
    /// Puts them into the queue of this emitter.
    pub fn new(emitter: Arc<Emitter>) -> Self {
        Self(emitter)
    }
}

#[async_trait]
impl Tell for LeftUntold {
    async fn tell(&self, untold: Untold) -> bool {
        let id = untold.0.id;
        let told = tell_execution(&self.0, untold, None, None, Duration::ZERO).await;
        if let Err(failure) = &told {
            tracing::warn!(execution = %id, error = %failure, "the end of an execution can not be queued for its destinations, and is tried again with the next sweep");
        }
        told.is_ok()
    }
}

/// Puts the end of an execution into the queue for whoever wants to hear of it, and notes that in its record. `payload` and `result` are
/// what the caller has of them. While that fails it tries as long as `patience`.
///
/// # Errors
/// When it is still to be told. Nothing is lost by that: the record says so.
pub(crate) async fn tell_execution(
    emitter: &Emitter,
    Untold(execution): Untold,
    payload: Option<(protocol::destination::Content, TraceContext)>,
    result: Option<api::ExecutionResult>,
    patience: Duration,
) -> Result<Vec<Told>, Failure> {
    let executions = emitter.node().executions();
    let (space, id) = (execution.space.clone(), execution.id);
    let result = match result {
        None if execution.status == protocol::execution::Status::Succeeded => {
            let kept = executions.get(&space, id).await;
            kept.map_err(|error| Failure::from(&error))?.1
        }
        result => result,
    };
    let (payload, trace) = payload.unzip();
    let value_max = emitter.destinations().settings.value_max.as_u64();
    let data = Ended {
        space: space.clone(),
        function_id: execution.function_id,
        execution: Some(id),
        delivery: None,
        subscription_id: None,
        event: None,
        status: execution.status,
        attempts: execution.attempts_made,
        payload,
        result: result.map(|result| content::bounded(result, value_max)),
        error: execution.error,
    };
    let end = End {
        id: DeliveryId::from_bytes(id.as_u128().to_be_bytes()),
        data,
        ended_at_ms: execution.ended_at_ms.unwrap_or_default(),
        depth: 0,
        callback: execution.callback.as_deref(),
        trace: trace.unwrap_or_default(),
    };
    let told = tell(emitter, end, patience).await?;
    let noted = executions.told(&space, id, told.clone()).await;
    // It is in the queue: what is told once more is told under the same name.
    if let Err(error) = noted {
        tracing::info!(execution = %id, %error, "the end of an execution is queued for its destinations, and its record does not say so");
    }
    Ok(told)
}

/// Puts an end into the queue for whoever wants to hear of it. While that fails it tries as long as `patience`.
///
/// # Errors
/// When it is in no queue.
pub(crate) async fn tell(
    emitter: &Emitter,
    end: End<'_>,
    patience: Duration,
) -> Result<Vec<Told>, Failure> {
    let registry = emitter.node().registry();
    if !registry.is_loaded {
        return Err(crate::error::Error::not_loaded().into_failure());
    }
    let Ended {
        space, function_id, ..
    } = &end.data;
    let function = registry.function(space, function_id);
    let set = function.and_then(|registered| registered.function.delivery.as_ref());
    // What was one too many is a dead letter, and leads to nothing more.
    let is_too_deep = end.depth > emitter.destinations().settings.depth_max;
    let set = set.filter(|_| !is_too_deep);
    let wanted = destinations(end.data.status, end.callback, set);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let deliveries: Vec<_> = wanted
        .iter()
        .map(|(reason, destination)| end.delivery_to(*reason, destination))
        .collect();
    let told = wanted.into_iter().zip(&deliveries);
    let told = told.map(|((_, destination), delivery)| Told {
        destination,
        delivery: delivery.id.to_string(),
    });
    let told = told.collect();
    enqueue(emitter, deliveries, patience).await?;
    Ok(told)
}

async fn enqueue(
    emitter: &Emitter,
    deliveries: Vec<Delivery>,
    patience: Duration,
) -> Result<(), Failure> {
    let until = Instant::now() + patience;
    let mut pause = PAUSE_MIN;
    loop {
        let error = match emitter.queue().enqueue(deliveries.clone()).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if error.code() == ErrorCode::PayloadTooLarge || Instant::now() + pause > until {
            let failure = Failure::from(&error);
            // Whatever the queue did: this end is tried again, under the same name.
            return Err(Failure {
                effect: Effect::Refused,
                ..failure
            });
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// How many ends led to this event.
pub(crate) fn depth_of(event: &Event) -> u32 {
    let depth = event.attributes.extensions.get(DEPTH);
    depth.and_then(|depth| depth.parse().ok()).unwrap_or(0)
}

/// What the record of a function says of its deliveries, if it wants to hear of this end.
pub(crate) fn is_heard(
    emitter: &Emitter,
    space: &Space,
    function_id: &FunctionId,
    is_wanted: fn(&DeliverySpec) -> bool,
) -> bool {
    let registry = emitter.node().registry();
    let function = registry.function(space, function_id);
    let set = function.and_then(|registered| registered.function.delivery.as_ref());
    // What is not known yet is found out when it is told.
    !registry.is_loaded || set.is_some_and(is_wanted)
}

impl End<'_> {
    /// The delivery that tells it to one destination. One to a function waits in that function's lane, others in the lane of the one
    /// whose end it is.
    fn delivery_to(&self, reason: Reason, destination: &Destination) -> Delivery {
        let Ended {
            space, function_id, ..
        } = &self.data;
        let name = name_of(self.id.into_bytes(), reason.as_str());
        let id = DeliveryId::from_bytes(name);
        let called = match destination {
            Destination::Function(called) => called,
            Destination::Event(_) | Destination::Url(_) => function_id,
        };
        let notice = Notice {
            destination: destination.clone(),
            event: self.event(destination, id),
        };
        Delivery {
            id,
            event: notice.write(),
            space: space.clone(),
            function_id: called.clone(),
            origin: Origin::End(self.id),
            ordinal: 0,
            accepted_at: SystemTime::now(),
            not_before: None,
        }
    }

    fn event(&self, destination: &Destination, id: DeliveryId) -> Event {
        let Ended {
            space, function_id, ..
        } = &self.data;
        let event_type = match destination {
            Destination::Event(event_type) => event_type.as_str(),
            Destination::Function(_) | Destination::Url(_) => ENDED,
        };
        let source = format!("/v1/spaces/{space}/functions/{function_id}");
        let mut event = Event::of_json(event_type, source, &self.data, self.ended_at_ms);
        event.id = id.to_string();
        let attributes = &mut event.attributes;
        attributes.time = Some(rfc3339(self.ended_at_ms));
        attributes.subject = Some(self.id.to_string());
        let extensions = &mut attributes.extensions;
        extensions.insert(DEPTH.to_owned(), (self.depth + 1).to_string());
        let TraceContext { parent, state } = &self.trace;
        for (name, value) in [("traceparent", parent), ("tracestate", state)] {
            if let Some(value) = value {
                extensions.insert(name.to_owned(), value.clone());
            }
        }
        event
    }
}

impl Notice {
    /// As queues keep it.
    fn write(&self) -> Bytes {
        let bytes = rmp_serde::to_vec_named(self).expect("an event is a map of texts and bytes");
        bytes.into()
    }

    /// # Errors
    /// When this version can not read it.
    pub(crate) fn read(delivery: &Delivery) -> Result<Self, Failure> {
        rmp_serde::from_slice(&delivery.event).map_err(|error| {
            let message = format!("the end in the queue can not be read: {error}");
            let (code, queue) = (ErrorCode::Internal, Component::Queue);
            Failure::new(code, queue, Effect::Refused, message)
        })
    }
}
