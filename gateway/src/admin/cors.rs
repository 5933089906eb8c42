//! CORS configurations in the shape of Event Gateway's last versions.

use std::sync::Arc;

use actors::catalog::{self, StoredCors};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::api::{self, AllCors, Errors};
use protocol::{CorsId, CorsRecord, Space};

use super::filter::MetadataFilter;
use super::named::Named;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// Register a CORS configuration.
#[utoipa::path(
    post,
    operation_id = "create_cors",
    path = "/v1/spaces/{space}/cors",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = CorsRecord,
    responses(
        (status = 201, description = "Registered", body = CorsRecord),
        (status = 409, description = "There is one of that id", body = Errors),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let stored = shared.node.create_cors(parse(&space, &body)?).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// List the CORS configurations of a space.
#[utoipa::path(
    get,
    operation_id = "list_cors",
    path = "/v1/spaces/{space}/cors",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = AllCors)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    filter: MetadataFilter,
) -> Result<Line<api::AllCors>, Error> {
    let stored = shared.node.all_cors(&space).await?;
    let cors = stored
        .into_iter()
        .map(|stored| Arc::unwrap_or_clone(stored.cors))
        .filter(|cors| filter.accepts(cors.metadata.as_ref()));
    Ok(Line(api::AllCors {
        cors: cors.collect(),
    }))
}

/// Read a CORS configuration.
#[utoipa::path(
    get,
    operation_id = "read_cors",
    path = "/v1/spaces/{space}/cors/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = CorsId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The record", body = CorsRecord),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<CorsId>,
) -> Result<Response, Error> {
    Ok(record(shared.node.cors(&space, &id).await?))
}

/// Replace a CORS configuration.
#[utoipa::path(
    put,
    operation_id = "replace_cors",
    path = "/v1/spaces/{space}/cors/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = CorsId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = CorsRecord,
    responses(
        (status = 200, description = "The record", body = CorsRecord),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<CorsId>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let cors = parse(&space, &body)?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    Ok(record(shared.node.update_cors(&id, cors, at).await?))
}

/// Remove a CORS configuration.
#[utoipa::path(
    delete,
    operation_id = "delete_cors",
    path = "/v1/spaces/{space}/cors/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = CorsId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<CorsId>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete_cors(&space, &id, at).await?;
    Ok(gone())
}

fn parse(space: &str, body: &[u8]) -> Result<CorsRecord, Error> {
    CorsRecord::parse(space, body).map_err(|tail| {
        let message = format!("CORS configuration doesn't validate. Validation error: {tail}");
        refused(Error::invalid(message), body)
    })
}

fn record(stored: StoredCors) -> Response {
    tags::tagged(&*stored.cors, stored.revision)
}

async fn expected_revision(
    shared: &Shared,
    space: &str,
    id: &CorsId,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async { Ok(shared.node.cors(space, id).await?.revision) };
    let changed = catalog::Error::CorsChanged(id.to_string());
    tags::expected(fields, current, changed).await
}
