//! Custom events: emitted by name, or as CloudEvents, and queued for each subscriber.

use http::{Method, Response, StatusCode};
use protocol::event::cloudevents::{self, Mode};
use protocol::event::{self, Event, Payload};
use protocol::{InvocationId, Space};

use super::http_event::named_space;
use super::{Arrival, emit, invoke};
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
        Mode::Binary => {
            let fields = arrival.parts.headers.iter();
            let fields = fields.map(|(name, value)| (name.as_str(), value.as_bytes()));
            let body = arrival.body.clone();
            let event = cloudevents::read_binary(fields, arrival.content_type(), body, now);
            take(shared, id, arrival, event.map_err(invalid)?).await
        }
        Mode::Structured => {
            let event = cloudevents::read_structured(&arrival.body, now).map_err(invalid)?;
            take(shared, id, arrival, event).await
        }
        Mode::Batch => {
            let events = cloudevents::read_batch(&arrival.body, now).map_err(invalid)?;
            if events.iter().any(|event| event.event_type == event::INVOKE) {
                let why = "an event of the type invoke is answered by its function and can not come in a batch";
                return Err(Error::invalid(why));
            }
            let space = named_space(&arrival.parts.headers)?;
            for event in &events {
                arrival.tell_received(shared, event);
            }
            accept(shared, arrival, &events, space.as_ref()).await?;
            Ok(with_status(StatusCode::ACCEPTED))
        }
    }
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

async fn take(
    shared: &Shared,
    id: &InvocationId,
    arrival: &Arrival,
    event: Event,
) -> Result<Response<AnswerBody>, Error> {
    arrival.tell_received(shared, &event);
    if event.event_type == event::INVOKE {
        return invoke::answer(shared, id, arrival, &event).await;
    }
    let is_system = event.is_system();
    let space = named_space(&arrival.parts.headers)?;
    accept(shared, arrival, &[event], space.as_ref()).await?;
    // What only the gateway itself may say is heard by nobody.
    Ok(with_status(match is_system {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    }))
}

/// Queues events for their subscribers, all or none.
async fn accept(
    shared: &Shared,
    arrival: &Arrival,
    events: &[Event],
    space: Option<&Space>,
) -> Result<(), Error> {
    emit::custom(shared, events, space, &arrival.target.event_path()).await
}

fn with_status(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(""));
    *response.status_mut() = status;
    response
}
