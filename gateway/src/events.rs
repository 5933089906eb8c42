//! The events API on port 4000: custom events, CloudEvents, `http` events and `invoke` events.
//!
//! Every request is read whole before it is routed, so that a body that can not be read is refused whatever the route. There is
//! no router: what a request is, its headers tell, and where it goes, the subscriptions.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, header};
use hyper::body::Incoming;
use protocol::InvocationId;
use protocol::event::cloudevents::Mode;

mod call;
mod cors;
mod custom;
mod dispatch;
mod emit;
mod hosted;
mod http_event;
mod invoke;
mod names;
mod plugins;
mod response;
mod sniff;
mod streamed;
mod target;
mod typed;

use self::dispatch::Kind;
pub(crate) use self::dispatch::SPACE;
pub use self::emit::{Emitter, Invocations, Scheduled};
use self::target::Target;
use self::typed::Heard;
use crate::body::{self, AnswerBody};
use crate::error::{Error, Shape};
use crate::surface::Shared;

/// A request that was read.
#[derive(Clone)]
struct Arrival {
    parts: Parts,
    target: Target,
    body: Bytes,
    received_at_ms: u64,
    /// Whether the caller may run functions; a preflight comes without credentials.
    is_trusted: bool,
}

/// Answers a request, whatever it is. `is_trusted` says whether its credential was checked, which of a preflight it is not.
pub(crate) async fn answer(
    shared: &Arc<Shared>,
    id: &InvocationId,
    request: Request<Incoming>,
    is_trusted: bool,
) -> Response<AnswerBody> {
    let (parts, mut body) = request.into_parts();
    // Of what came without a credential only a preflight goes on, and it makes nothing run.
    if !is_trusted && cors::preflight_method(&parts.method, &parts.headers).is_none() {
        body::discard(&parts.headers, &mut body).await;
        return Error::unauthorized().answer(Shape::EventGateway, id, shared.node.name());
    }
    let kind = dispatch::decide(&parts.method, &parts.headers);
    // Whatever comes of a custom event, the page that emitted it may read.
    let fields = match &kind {
        Ok(Kind::CustomPreflight) => {
            body::discard(&parts.headers, &mut body).await;
            let fields = cors::of_custom_preflight(&*shared.node, &parts);
            return http_event::preflight(fields);
        }
        Ok(Kind::Http | Kind::HttpOrTyped(_)) => HeaderMap::new(),
        Ok(Kind::Custom(_) | Kind::CloudEvents(_)) | Err(_) => {
            cors::of_custom(&*shared.node, &parts)
        }
    };
    let answered = match kind {
        Ok(kind) => read_and_answer(shared, id, parts, body, kind, is_trusted).await,
        Err(error) => {
            body::discard(&parts.headers, &mut body).await;
            Err(Error::invalid(error.to_string()))
        }
    };
    let mut response =
        answered.unwrap_or_else(|error| error.answer(Shape::EventGateway, id, shared.node.name()));
    response.headers_mut().extend(fields);
    response
}

/// Whether a request says of itself that it is an event with a name, or tries to.
pub(crate) fn is_named(method: &Method, fields: &HeaderMap) -> bool {
    !matches!(dispatch::decide(method, fields), Ok(Kind::Http))
}

async fn read_and_answer(
    shared: &Arc<Shared>,
    id: &InvocationId,
    parts: Parts,
    mut body: Incoming,
    kind: Kind,
    is_trusted: bool,
) -> Result<Response<AnswerBody>, Error> {
    let refused = match check(&parts, &kind) {
        Ok(target) => match shared.in_flight.try_acquire() {
            Ok(permit) => Ok((target, permit)),
            // Before the body is read, so that an overloaded node does not buffer what it can not run.
            Err(_) => Err(Error::in_flight(shared.limits.in_flight_max)),
        },
        Err(error) => Err(error),
    };
    let (target, permit) = match refused {
        Ok(admitted) => admitted,
        Err(error) => {
            body::discard(&parts.headers, &mut body).await;
            return Err(error);
        }
    };
    let body = body::read(&parts.headers, &mut body, &shared.limits).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let received_at_ms = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let arrival = Arrival {
        parts,
        target,
        body,
        received_at_ms,
        is_trusted,
    };
    let answered = match kind {
        Kind::Custom(name) => custom::answer(shared, id, &arrival, name).await,
        Kind::CloudEvents(mode) => custom::answer_cloud_events(shared, id, &arrival, mode).await,
        Kind::HttpOrTyped(mode) => answer_typed(shared, id, arrival, mode).await,
        Kind::CustomPreflight | Kind::Http => http_event::answer(shared, id, arrival).await,
    };
    answered.map(|answer| answer.map(|body| streamed::hold(body, shared, permit)))
}

/// Answers a request that carries an event with a method that only typed subscriptions take: if none does, it is a plain request.
async fn answer_typed(
    shared: &Shared,
    id: &InvocationId,
    arrival: Arrival,
    mode: Mode,
) -> Result<Response<AnswerBody>, Error> {
    let space = http_event::named_space(&arrival.parts.headers)?;
    let registry = shared.node.registry();
    let heard = Heard::new(shared, id, &arrival, &registry, space.as_ref());
    let event = typed::carried(&arrival, mode);
    match event.filter(|event| heard.is_meant(event)) {
        Some(event) => {
            let fields = cors::of_typed(&*shared.node, &arrival.parts);
            let mut answer = custom::take(shared, id, &arrival, event)
                .await
                .map_err(|error| error.with_fields(fields.clone()))?;
            answer.headers_mut().extend(fields);
            Ok(answer)
        }
        None => http_event::answer(shared, id, arrival).await,
    }
}

/// What can be refused by the head alone.
fn check(parts: &Parts, kind: &Kind) -> Result<Target, Error> {
    if let Kind::Custom(_) = kind {
        custom::check_method(&parts.method)?;
    }
    Target::of(parts).map_err(|_| Error::invalid("the path has a % that is no escape"))
}

impl Arrival {
    /// The media type of the body, if the client named one.
    fn content_type(&self) -> Option<&str> {
        let value = self.parts.headers.get(header::CONTENT_TYPE)?;
        value.to_str().ok().filter(|value| !value.is_empty())
    }
}
