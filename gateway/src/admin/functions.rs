//! Function records in Event Gateway's shape, and what functions wrote.

use std::sync::Arc;

use actors::catalog::{self, Stored};
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::{Function, api};
use serde::Deserialize;

use super::{Line, Query, Segments};
use crate::error::Error;
use crate::surface::Shared;
use crate::{body, headers};

/// `POST /v1/spaces/{space}/functions`
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let function =
        Function::parse(&space, None, &body).map_err(|error| Error::invalid_function(&error))?;
    let stored = shared.node.create(function).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// `GET /v1/spaces/{space}/functions`
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
) -> Result<Line<api::Functions>, Error> {
    let stored = shared.node.list(&space).await?;
    Ok(Line(api::Functions {
        functions: stored.into_iter().map(|stored| stored.function).collect(),
    }))
}

/// `GET /v1/spaces/{space}/functions/{id}`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Response, Error> {
    Ok(record(shared.node.get(&space, &id).await?))
}

/// `PUT /v1/spaces/{space}/functions/{id}`
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let function = Function::parse(&space, Some(&id), &body)
        .map_err(|error| Error::invalid_function(&error))?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    Ok(record(shared.node.update(function, at).await?))
}

/// `DELETE /v1/spaces/{space}/functions/{id}`
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete(&space, &id, at).await?;
    Ok((
        StatusCode::NO_CONTENT,
        [(header::CONTENT_TYPE, headers::JSON)],
    )
        .into_response())
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    #[serde(default)]
    follow: bool,
}

/// `GET /v1/spaces/{space}/functions/{id}/logs[?follow=true]`: one JSON object a line.
pub(super) async fn logs(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    Query(query): Query<LogsQuery>,
) -> Result<Response, Error> {
    let function = shared.node.get(&space, &id).await?.function;
    let lines = shared
        .node
        .output(&function.space, &function.function_id, query.follow)
        .await;
    let lines = match query.follow {
        // It has no end of its own and would hold up a drain.
        true => lines
            .take_until(shared.closing.clone().cancelled_owned())
            .left_stream(),
        false => lines.right_stream(),
    };
    let content_type = HeaderValue::from_static("application/x-ndjson");
    Ok((
        [(header::CONTENT_TYPE, content_type)],
        Body::from_stream(lines),
    )
        .into_response())
}

async fn read_body(shared: &Shared, request: Request) -> Result<(HeaderMap, Bytes), Error> {
    let (parts, mut body) = request.into_parts();
    let bytes = body::read(&parts.headers, &mut body, &shared.limits).await?;
    Ok((parts.headers, bytes))
}

/// A record with its revision as `ETag`.
fn record(stored: Stored) -> Response {
    let tag = headers::text(&format!("\"{}\"", stored.revision.0));
    ([(header::ETAG, tag)], Line(stored.function)).into_response()
}

/// The revision that `If-Match` asks for. A list of them is looked up; what is no revision of ours matches no record.
async fn expected_revision(
    shared: &Shared,
    space: &str,
    id: &str,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let mut tags = Vec::new();
    for value in fields.get_all(header::IF_MATCH) {
        tags.extend(value.to_str().unwrap_or("").split(',').map(str::trim));
    }
    if tags.is_empty() || tags == ["*"] {
        return Ok(None);
    }
    let revisions: Vec<Revision> = tags.into_iter().filter_map(revision).collect();
    if let [revision] = revisions[..] {
        return Ok(Some(revision));
    }
    let current = shared.node.get(space, id).await?.revision;
    match revisions.contains(&current) {
        true => Ok(Some(current)),
        false => Err(catalog::Error::Changed(id.to_owned()).into()),
    }
}

fn revision(tag: &str) -> Option<Revision> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok().map(Revision)
}
