//! CORS configurations in the shape of Event Gateway's last versions.

use std::sync::Arc;

use actors::catalog::{self, StoredCors};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use protocol::{CorsId, CorsRecord, api};
use serde::Deserialize;

use super::filter::MetadataFilter;
use super::{Line, Segments, is_json, read_body, tags};
use crate::error::Error;
use crate::headers;
use crate::surface::Shared;

/// A space, and an id as it stands in the path: it is not decoded.
pub(super) struct Named {
    space: String,
    id: CorsId,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct InSpace {
            space: String,
        }

        let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let id = CorsId::from_url(id);
        // What can not be decoded names no configuration.
        let Segments(InSpace { space }) = Segments::from_request_parts(parts, state)
            .await
            .map_err(|_: Error| catalog::Error::CorsNotFound(id.to_string()))?;
        Ok(Self { space, id })
    }
}

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
    Named { space, id }: Named,
) -> Result<Response, Error> {
    Ok(record(shared.node.cors(&space, &id).await?))
}

/// `PUT /v1/spaces/{space}/cors/{id}`
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named,
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
    Named { space, id }: Named,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete_cors(&space, &id, at).await?;
    let content_type = [(header::CONTENT_TYPE, headers::JSON)];
    Ok((StatusCode::NO_CONTENT, content_type).into_response())
}

fn parse(space: &str, body: &[u8]) -> Result<CorsRecord, Error> {
    CorsRecord::parse(space, body).map_err(|tail| {
        let message = format!("CORS configuration doesn't validate. Validation error: {tail}");
        match is_json(body) {
            true => Error::invalid(message),
            false => Error::invalid(message).undecodable(),
        }
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
