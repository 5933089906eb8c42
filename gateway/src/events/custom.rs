//! Custom events: emitted by name, or as CloudEvents, and queued for each subscriber.

use http::{Method, Response, StatusCode};
use protocol::event::cloudevents::{self, Mode};
use protocol::event::{self, Event, Payload};
use protocol::{InvocationId, Space};

use super::emit::Emission;
use super::http_event::named_space;
use super::typed::Heard;
use super::{Arrival, invoke};
use crate::body::AnswerBody;
use crate::error::Error;
use crate::surface::Shared;

/// Answers an event that the `Event` header names.
pub(super) async fn answer(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    name: String,
) -> Result<Response<AnswerBody>, Error> {
    let data = Payload::parse(arrival.content_type(), arrival.body.clone())
        .map_err(|error| Error::invalid(error.to_string()))?;
    let event = Event {
        id: id.as_str().to_owned(),
        event_type: name,
        received_at_ms: arrival.received_at_ms,
        data,
        data_type: arrival.data_type(),
        attributes: event::Attributes {
            source: arrival.target.escaped_path.clone(),
            is_transformed: true,
            ..event::Attributes::default()
        },
    };
    take(shared, id, arrival, event).await
}

/// Answers a request that carries CloudEvents.
pub(super) async fn answer_cloud_events(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    mode: Mode,
) -> Result<Response<AnswerBody>, Error> {
    let invalid = |error: cloudevents::Invalid| Error::invalid(error.to_string());
    let now = arrival.received_at_ms;
    match mode {
        Mode::Binary | Mode::BinaryVersion01 => {
            let event = read_binary(arrival, mode).map_err(invalid)?;
            take(shared, id, arrival, event).await
        }
        Mode::Structured => {
            let event = cloudevents::read_structured(&arrival.body, now).map_err(invalid)?;
            take(shared, id, arrival, event).await
        }
        Mode::Batch => {
            let mut events = cloudevents::read_batch(&arrival.body, now).map_err(invalid)?;
            let space = named_space(&arrival.parts.headers)?;
            answer_batch(shared, id, arrival, &mut events, space.as_ref()).await
        }
    }
}

/// Reads an event in either binary mode.
pub(super) fn read_binary(arrival: &Arrival, mode: Mode) -> Result<Event, cloudevents::Invalid> {
    let fields = arrival.parts.headers.iter();
    let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
    let (content_type, body) = (arrival.content_type(), arrival.body.clone());
    match mode {
        Mode::BinaryVersion01 => {
            cloudevents::read_binary_version_01(fields, content_type, body, arrival.received_at_ms)
        }
        _ => cloudevents::read_binary(fields, content_type, body, arrival.received_at_ms),
    }
}

async fn answer_batch(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    events: &mut [Event],
    space: Option<&Space>,
) -> Result<Response<AnswerBody>, Error> {
    let registry = shared.node.registry();
    let mut heard = Heard::new(shared, id, arrival, &registry, space);
    for event in &*events {
        if event.event_type == event::INVOKE || heard.is_answered(event) {
            let name = &event.event_type;
            let why = format!(
                "an event of the type {name} is answered by its function and can not come in a batch"
            );
            return Err(Error::invalid(why));
        }
        check_name(event)?;
    }
    arrival.ask_received(shared, events).await?;
    let mut emissions = Vec::with_capacity(events.len());
    for event in &*events {
        arrival.tell_received(shared, event);
        emissions.push(Emission {
            event,
            typed: heard.queued(event).await,
            is_custom: true,
        });
    }
    let path = arrival.target.event_path();
    shared.emitter.emit(&emissions, space, &path).await?;
    Ok(with_status(StatusCode::ACCEPTED))
}

/// Refuses what is no POST.
pub(super) fn check_method(method: &Method) -> Result<(), Error> {
    match method == Method::POST {
        true => Ok(()),
        false => Err(Error::invalid(
            "custom event can be emitted only with POST method",
        )),
    }
}

/// Answers an emitted event.
pub(super) async fn take(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    mut event: Event,
) -> Result<Response<AnswerBody>, Error> {
    check_name(&event)?;
    arrival
        .ask_received(shared, std::slice::from_mut(&mut event))
        .await?;
    arrival.tell_received(shared, &event);
    if event.event_type == event::INVOKE {
        return invoke::answer(shared, id, arrival, event).await;
    }
    let space = named_space(&arrival.parts.headers)?;
    let registry = shared.node.registry();
    let heard = Heard::new(shared, id, arrival, &registry, space.as_ref());
    let answered = heard.emitted(&event).await?;
    // What only the gateway itself may say is heard by nobody.
    Ok(match event.is_system() {
        true => with_status(StatusCode::OK),
        false => answered,
    })
}

/// The last versions of Event Gateway refused what only they may say, by their name for it.
fn check_name(event: &Event) -> Result<(), Error> {
    match event.is_typed_system() {
        true => Err(Error::invalid(format!(
            "the event type is {}, expected another: {}… is for events of the gateway itself",
            event.event_type,
            event::TYPED_SYSTEM_PREFIX
        ))),
        false => Ok(()),
    }
}

pub(super) fn with_status(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(""));
    *response.status_mut() = status;
    response
}
