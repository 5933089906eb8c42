//! Schedules: their records, and when they were and will be due.

use std::sync::Arc;

use actors::catalog::{self, StoredSchedule};
use actors::scheduler::wall_ms;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::api::{self, Errors, Schedule, Schedules};
use protocol::event::rfc3339;
use protocol::{ScheduleRecord, Space};

use super::filter::MetadataFilter;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// Register a schedule.
#[utoipa::path(
    post,
    operation_id = "create_schedule",
    path = "/v1/spaces/{space}/schedules",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = ScheduleRecord,
    responses(
        (status = 201, description = "Registered", body = Schedule),
        (status = 409, description = "There is one of that id", body = Errors),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let schedule = parse(&space, None, &body)?;
    let stored = shared.node.create_schedule(schedule).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// List the schedules of a space.
#[utoipa::path(
    get,
    operation_id = "list_schedules",
    path = "/v1/spaces/{space}/schedules",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = Schedules)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    filter: MetadataFilter,
) -> Result<Line<api::Schedules>, Error> {
    let stored = shared.node.schedules(&space).await?;
    let schedules = stored
        .into_iter()
        .filter(|stored| filter.accepts(stored.schedule.metadata.as_ref()))
        .map(shown);
    Ok(Line(api::Schedules {
        schedules: schedules.collect(),
    }))
}

/// Read a schedule.
#[utoipa::path(
    get,
    operation_id = "read_schedule",
    path = "/v1/spaces/{space}/schedules/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The record", body = Schedule),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Response, Error> {
    Ok(record(shared.node.schedule(&space, &id).await?))
}

/// Replace a schedule.
#[utoipa::path(
    put,
    operation_id = "replace_schedule",
    path = "/v1/spaces/{space}/schedules/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = String, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = ScheduleRecord,
    responses(
        (status = 200, description = "The record", body = Schedule),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let schedule = parse(&space, Some(&id), &body)?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    Ok(record(shared.node.update_schedule(schedule, at).await?))
}

/// Remove a schedule.
#[utoipa::path(
    delete,
    operation_id = "delete_schedule",
    path = "/v1/spaces/{space}/schedules/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = String, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete_schedule(&space, &id, at).await?;
    Ok(gone())
}

fn parse(space: &str, id: Option<&str>, body: &[u8]) -> Result<ScheduleRecord, Error> {
    ScheduleRecord::parse(space, id, body).map_err(|why| {
        let error = catalog::Error::ScheduleLimit(why.to_string());
        refused(error.into(), body)
    })
}

fn record(stored: StoredSchedule) -> Response {
    let revision = stored.revision;
    tags::tagged(shown(stored), revision)
}

/// A schedule with its next and its last slot, as far as they are known.
fn shown(stored: StoredSchedule) -> api::Schedule {
    let StoredSchedule {
        schedule, progress, ..
    } = stored;
    let until_ms = progress.as_ref().map_or(0, |progress| progress.until_ms);
    let plan = schedule.enabled.then(|| schedule.plan().ok()).flatten();
    let next = plan.and_then(|plan| plan.next_after(wall_ms().max(until_ms)));
    let fired = progress.and_then(|progress| progress.fired);
    api::Schedule {
        schedule: Arc::unwrap_or_clone(schedule),
        next: next.map(rfc3339),
        last: fired.map(|fired| api::FiredSlot {
            slot: rfc3339(fired.slot_ms),
            at: rfc3339(fired.at_ms),
            node: fired.node,
        }),
    }
}

async fn expected_revision(
    shared: &Shared,
    space: &str,
    id: &str,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async { Ok(shared.node.schedule(space, id).await?.revision) };
    let changed = catalog::Error::ScheduleChanged(id.to_owned());
    tags::expected(fields, current, changed).await
}
