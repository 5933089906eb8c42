//! CORS configurations in the shape of Event Gateway's last versions.

use std::sync::Arc;

use actors::catalog::{self, StoredCors};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::{CorsId, CorsRecord, api};

use super::filter::MetadataFilter;
use super::named::Named;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// `POST /v1/spaces/{space}/cors`
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let stored = shared.node.create_cors(parse(&space, &body)?).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// `GET /v1/spaces/{space}/cors[?metadata.<key>=<value>]`
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

/// `GET /v1/spaces/{space}/cors/{id}`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<CorsId>,
) -> Result<Response, Error> {
    Ok(record(shared.node.cors(&space, &id).await?))
}

/// `PUT /v1/spaces/{space}/cors/{id}`
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

/// `DELETE /v1/spaces/{space}/cors/{id}`
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
