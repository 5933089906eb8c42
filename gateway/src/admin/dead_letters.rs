//! Deliveries that ended without success, as this node keeps them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use http::StatusCode;
use protocol::api::{self, DeadLetters, Errors};
use protocol::{Event, Failure};
use queue::{DeadLetter, DeliveryId, Origin};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use super::{Line, Query, Segments};
use crate::destinations::Notice;
use crate::error::Error;
use crate::surface::Shared;

/// Dead letters of a page where the request does not say, and at most.
const PAGE_LEN: usize = 100;
const PAGE_LEN_MAX: usize = 1_000;

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many; 100 where it is not said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those after this position; `next` of the page before.
    #[serde(default)]
    after: u64,
}

/// List the dead letters of this node, the oldest first.
#[utoipa::path(
    get,
    operation_id = "list_dead_letters",
    path = "/v1/dead-letters",
    tag = "config",
    params(Page),
    responses((status = 200, description = "A page of them", body = DeadLetters)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(page): Query<Page>,
) -> Result<Line<api::DeadLetters>, Error> {
    let limit = page.limit.unwrap_or(PAGE_LEN);
    if !(1..=PAGE_LEN_MAX).contains(&limit) {
        let why = format!("limit is {limit}, expected 1 to {PAGE_LEN_MAX}");
        return Err(Error::invalid(why));
    }
    let queue = shared.emitter.queue();
    let found = queue.dead_letters(page.after, limit).await;
    let found = found.map_err(|error| Failure::from(&error))?;
    let last = found.last().map(|dead| dead.position);
    Ok(Line(api::DeadLetters {
        node: shared.node.name().to_string(),
        next: last.filter(|_| found.len() >= limit),
        dead_letters: found.iter().map(|dead| shown(dead).0).collect(),
    }))
}

/// Read a dead letter, with its event.
#[utoipa::path(
    get,
    operation_id = "read_dead_letter",
    path = "/v1/dead-letters/{id}",
    tag = "config",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The dead letter", body = api::DeadLetter),
        (status = 404, description = "This node has none of that id", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
) -> Result<Line<api::DeadLetter>, Error> {
    let found = shared.emitter.queue().dead_letter(parse(&id)?).await;
    let found = found.map_err(|error| Failure::from(&error))?;
    let found = found.ok_or_else(|| not_here(&shared, &id))?;
    let (letter, event) = shown(&found);
    let event = event.and_then(|event| {
        let envelope = String::from_utf8(event.to_envelope().into()).ok()?;
        RawValue::from_string(envelope).ok()
    });
    Ok(Line(api::DeadLetter { event, ..letter }))
}

/// Deliver a dead letter once more.
#[utoipa::path(
    post,
    operation_id = "redrive_dead_letter",
    path = "/v1/dead-letters/{id}/redrive",
    tag = "config",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "It waits to be delivered"),
        (status = 404, description = "This node has none of that id", body = Errors),
    ),
)]
pub(super) async fn redrive(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
) -> Result<StatusCode, Error> {
    let is_redriven = shared.emitter.queue().redrive(parse(&id)?).await;
    done(&shared, &id, is_redriven)
}

/// Forget a dead letter.
#[utoipa::path(
    delete,
    operation_id = "purge_dead_letter",
    path = "/v1/dead-letters/{id}",
    tag = "config",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Forgotten"),
        (status = 404, description = "This node has none of that id", body = Errors),
    ),
)]
pub(super) async fn purge(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
) -> Result<StatusCode, Error> {
    let is_purged = shared.emitter.queue().purge(parse(&id)?).await;
    done(&shared, &id, is_purged)
}

fn done(shared: &Shared, id: &str, done: Result<bool, queue::Error>) -> Result<StatusCode, Error> {
    match done.map_err(|error| Failure::from(&error))? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_here(shared, id)),
    }
}

fn parse(id: &str) -> Result<DeliveryId, Error> {
    id.parse()
        .map_err(|error: queue::backend::InvalidDeliveryId| Error::invalid(error.to_string()))
}

fn not_here(shared: &Shared, id: &str) -> Error {
    let node = shared.node.name();
    Error::not_found(format!("node {node} has no dead letter {id}"))
}

/// A dead letter as it is told, and its event if that can be read.
fn shown(dead: &DeadLetter) -> (api::DeadLetter, Option<Event>) {
    let DeadLetter {
        delivery, reason, ..
    } = dead;
    let notice = matches!(delivery.origin, Origin::End(_)).then(|| Notice::read(delivery));
    let (destination, event) = match notice {
        Some(Ok(notice)) => (Some(notice.destination), Some(notice.event)),
        Some(Err(_)) => (None, None),
        None => (None, rmp_serde::from_slice(&delivery.event).ok()),
    };
    let of_event = |what: fn(&Event) -> &String| event.as_ref().map(what).cloned();
    let letter = api::DeadLetter {
        id: delivery.id.to_string(),
        position: dead.position,
        space: delivery.space.clone(),
        function_id: delivery.function_id.clone(),
        subscription_id: match &delivery.origin {
            Origin::Subscription(id) => Some(id.to_string()),
            Origin::Execution(_) | Origin::End(_) => None,
        },
        destination,
        event_id: of_event(|event| &event.id).unwrap_or_default(),
        event_type: of_event(|event| &event.event_type).unwrap_or_default(),
        accepted_at_ms: millis(delivery.accepted_at),
        died_at_ms: millis(dead.died_at),
        attempts: dead.attempts,
        code: reason.code.to_string(),
        message: reason.message.clone(),
        status: reason.answered.as_ref().map(|answered| answered.status),
        answer: String::from_utf8_lossy(&dead.answer).into_owned(),
        event: None,
    };
    (letter, event)
}

fn millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
