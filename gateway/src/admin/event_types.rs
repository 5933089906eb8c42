//! Event types in the shape of Event Gateway's last versions.

use std::sync::Arc;

use actors::catalog::{self, StoredEventType};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::api::{self, Errors, EventTypes};
use protocol::subscription::EventType;
use protocol::{EventTypeRecord, Space};

use super::filter::MetadataFilter;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// Register an event type.
#[utoipa::path(
    post,
    operation_id = "create_event_type",
    path = "/v1/spaces/{space}/eventtypes",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = EventTypeRecord,
    responses(
        (status = 201, description = "Registered", body = EventTypeRecord),
        (status = 409, description = "There is one of that name", body = Errors),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let event_type = parse(&space, None, &body)?;
    let stored = shared.node.create_event_type(event_type).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// List the event types of a space.
#[utoipa::path(
    get,
    operation_id = "list_event_types",
    path = "/v1/spaces/{space}/eventtypes",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = EventTypes)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    filter: MetadataFilter,
) -> Result<Line<api::EventTypes>, Error> {
    let stored = shared.node.event_types(&space).await?;
    let event_types = stored
        .into_iter()
        .map(|stored| Arc::unwrap_or_clone(stored.event_type))
        .filter(|event_type| filter.accepts(event_type.metadata.as_ref()));
    Ok(Line(api::EventTypes {
        event_types: event_types.collect(),
    }))
}

/// Read an event type.
#[utoipa::path(
    get,
    operation_id = "read_event_type",
    path = "/v1/spaces/{space}/eventtypes/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("name" = EventType, Path, description = "Its name")),
    responses(
        (status = 200, description = "The record", body = EventTypeRecord),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, name)): Segments<(String, String)>,
) -> Result<Response, Error> {
    Ok(record(shared.node.event_type(&space, &name).await?))
}

/// Replace an event type.
#[utoipa::path(
    put,
    operation_id = "replace_event_type",
    path = "/v1/spaces/{space}/eventtypes/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("name" = EventType, Path, description = "Its name"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = EventTypeRecord,
    responses(
        (status = 200, description = "The record", body = EventTypeRecord),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Segments((space, name)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let event_type = parse(&space, Some(&name), &body)?;
    let at = expected_revision(&shared, &space, &name, &fields).await?;
    Ok(record(shared.node.update_event_type(event_type, at).await?))
}

/// Remove an event type.
#[utoipa::path(
    delete,
    operation_id = "delete_event_type",
    path = "/v1/spaces/{space}/eventtypes/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("name" = EventType, Path, description = "Its name"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, name)): Segments<(String, String)>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &name, &fields).await?;
    shared.node.delete_event_type(&space, &name, at).await?;
    Ok(gone())
}

fn parse(space: &str, name: Option<&str>, body: &[u8]) -> Result<EventTypeRecord, Error> {
    let parsed = EventTypeRecord::parse(space, name, body);
    parsed.map_err(|why| refused(Error::invalid_event_type(&why), body))
}

fn record(stored: StoredEventType) -> Response {
    tags::tagged(&*stored.event_type, stored.revision)
}

async fn expected_revision(
    shared: &Shared,
    space: &str,
    name: &str,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async { Ok(shared.node.event_type(space, name).await?.revision) };
    let changed = catalog::Error::EventTypeChanged(name.to_owned());
    tags::expected(fields, current, changed).await
}
