//! Aliases: names for versions of functions, by which calls are shared out and rolled back.

use std::sync::Arc;

use actors::catalog::{self, Expected, StoredAlias, VersionError};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::api::{self, Errors};
use protocol::{Alias, AliasName, FunctionId, Space};

use super::versions::invalid;
use super::{Line, Segments, gone, read_body, tags};
use crate::error::Error;
use crate::surface::Shared;

/// List the aliases of a function.
#[utoipa::path(
    get,
    operation_id = "list_aliases",
    path = "/v1/spaces/{space}/functions/{id}/aliases",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function")),
    responses(
        (status = 200, description = "All of them, by name", body = api::Aliases),
        (status = 404, description = "There is no such function", body = Errors),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Line<api::Aliases>, Error> {
    let stored = shared.node.catalog().await.aliases(&space, &id).await?;
    let aliases = stored
        .into_iter()
        .map(|stored| Arc::unwrap_or_clone(stored.alias));
    Ok(Line(api::Aliases {
        aliases: aliases.collect(),
    }))
}

/// Read an alias.
#[utoipa::path(
    get,
    operation_id = "read_alias",
    path = "/v1/spaces/{space}/functions/{id}/aliases/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("name" = AliasName, Path, description = "Its name")),
    responses(
        (status = 200, description = "The record", body = Alias),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, name)): Segments<(String, String, String)>,
) -> Result<Response, Error> {
    let catalog = shared.node.catalog().await;
    Ok(record(&catalog.alias(&space, &id, &name).await?))
}

/// Make an alias, or have it send its calls elsewhere. It is one change: each call goes where it said before, or where it says now.
#[utoipa::path(
    put,
    operation_id = "set_alias",
    path = "/v1/spaces/{space}/functions/{id}/aliases/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("name" = AliasName, Path, description = "Its name"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = api::SetAlias,
    responses(
        (status = 200, description = "The record", body = Alias),
        (status = 201, description = "Made", body = Alias),
        (status = 404, description = "There is no such function", body = Errors),
        (status = 409, description = "The function has as many aliases as it may have, or others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn set(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, name)): Segments<(String, String, String)>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let alias = parse(&space, &id, &name, &body)?;
    let expected = match expected_revision(&shared, (&space, &id, &name), &fields).await? {
        Some(at) => Expected::At(at),
        None => Expected::Any,
    };
    let stored = shared
        .node
        .catalog()
        .await
        .set_alias(alias, expected)
        .await?;
    let status = match stored.is_new {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    Ok((status, record(&stored)).into_response())
}

/// Remove an alias. Its versions stay.
#[utoipa::path(
    delete,
    operation_id = "delete_alias",
    path = "/v1/spaces/{space}/functions/{id}/aliases/{name}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("name" = AliasName, Path, description = "Its name"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, name)): Segments<(String, String, String)>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, (&space, &id, &name), &fields).await?;
    let catalog = shared.node.catalog().await;
    catalog.delete_alias(&space, &id, &name, at).await?;
    Ok(gone())
}

/// Roll an alias back: all its calls go to the version that all of them went to before. A second time undoes the first.
#[utoipa::path(
    post,
    operation_id = "roll_back_alias",
    path = "/v1/spaces/{space}/functions/{id}/aliases/{name}/rollback",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "The function"), ("name" = AliasName, Path, description = "Its name"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 200, description = "The record", body = Alias),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "It has stood for one version only, what it stood for is gone, or others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn roll_back(
    State(shared): State<Arc<Shared>>,
    Segments((space, id, name)): Segments<(String, String, String)>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, (&space, &id, &name), &fields).await?;
    let catalog = shared.node.catalog().await;
    Ok(record(&catalog.roll_back(&space, &id, &name, at).await?))
}

fn parse(space: &str, id: &str, name: &str, body: &[u8]) -> Result<Alias, Error> {
    let wrong = |error: protocol::id::InvalidId| Error::invalid(error.to_string());
    let space = space.parse().map_err(wrong)?;
    let id = id.parse().map_err(wrong)?;
    let name = name.parse().map_err(wrong)?;
    Alias::parse(space, id, name, body).map_err(|why| invalid(why, body))
}

fn record(stored: &StoredAlias) -> Response {
    tags::tagged(&*stored.alias, stored.revision)
}

async fn expected_revision(
    shared: &Shared,
    (space, id, name): (&str, &str, &str),
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async {
        let catalog = shared.node.catalog().await;
        Ok(catalog.alias(space, id, name).await?.revision)
    };
    let (function, name) = (id.to_owned(), name.to_owned());
    let changed = VersionError::AliasChanged { function, name };
    tags::expected(fields, current, catalog::Error::Version(changed)).await
}
