//! Versions of functions, which never change.

use std::sync::Arc;

use actors::catalog::{self, StoredVersion, VersionError};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use protocol::api::{self, Errors};
use protocol::{FunctionId, PublishedVersion, Space, Version, version};

use super::functions::expected_revision;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// Publish a version of a function: its record as it is, for good. When nothing has changed since the newest version, that is the answer.
#[utoipa::path(
    post,
    operation_id = "publish_version",
    path = "/v1/spaces/{space}/functions/{id}/versions",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("if-match" = Option<String>, Header, description = "Only if the function's record has this `ETag`")),
    request_body = Option<api::PublishVersion>,
    responses(
        (status = 200, description = "The newest version, which the function still is", body = PublishedVersion),
        (status = 201, description = "Published", body = PublishedVersion),
        (status = 404, description = "There is no such function", body = Errors),
        (status = 409, description = "It has as many versions as it may have, or others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn publish(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let description = version::description(&body).map_err(|why| invalid(why, &body))?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    let catalog = shared.node.catalog().await;
    let stored = catalog.publish(&space, &id, description, at).await?;
    let status = match stored.is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, record(stored)).into_response())
}

/// List the versions of a function.
#[utoipa::path(
    get,
    operation_id = "list_versions",
    path = "/v1/spaces/{space}/functions/{id}/versions",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function")),
    responses(
        (status = 200, description = "All of them, the first first", body = api::Versions),
        (status = 404, description = "There is no such function", body = Errors),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Line<api::Versions>, Error> {
    let stored = shared.node.catalog().await.versions(&space, &id).await?;
    let versions = stored
        .into_iter()
        .map(|stored| Arc::unwrap_or_clone(stored.published));
    Ok(Line(api::Versions {
        versions: versions.collect(),
    }))
}

/// Read a version of a function.
#[utoipa::path(
    get,
    operation_id = "read_version",
    path = "/v1/spaces/{space}/functions/{id}/versions/{version}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("version" = Version, Path, description = "Its number")),
    responses(
        (status = 200, description = "The version", body = PublishedVersion),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, version)): Segments<(String, String, String)>,
) -> Result<Response, Error> {
    let version = number(&version)?;
    let catalog = shared.node.catalog().await;
    Ok(record(catalog.version(&space, &id, version).await?))
}

/// Remove a version of a function that no alias names; its instances drain.
#[utoipa::path(
    delete,
    operation_id = "delete_version",
    path = "/v1/spaces/{space}/functions/{id}/versions/{version}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("version" = Version, Path, description = "Its number")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "An alias names it, or others change it at the same time", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, version)): Segments<(String, String, String)>,
) -> Result<Response, Error> {
    let version = number(&version)?;
    let catalog = shared.node.catalog().await;
    catalog.delete_version(&space, &id, version).await?;
    Ok(gone())
}

fn number(text: &str) -> Result<Version, Error> {
    let parsed = text.parse::<Version>();
    parsed.map_err(|error| Error::invalid(error.to_string()))
}

fn record(stored: StoredVersion) -> Response {
    tags::tagged(&*stored.published, stored.revision)
}

/// Why what was sent is refused.
pub(super) fn invalid(why: version::Invalid, body: &[u8]) -> Error {
    let error = catalog::Error::from(VersionError::Invalid(why));
    refused(error.into(), body)
}
