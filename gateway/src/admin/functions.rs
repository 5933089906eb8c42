//! Function records in Event Gateway's shape, and what functions wrote.

use std::sync::Arc;

use accounts::Caller;
use actors::catalog::{self, Stored};
use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use protocol::api::{self, Errors, Functions};
use protocol::{Function, FunctionId, Space};
use serde::Deserialize;
use utoipa::IntoParams;

use super::filter::MetadataFilter;
use super::{Line, Query, Segments, gone, read_body, refused, tags};
use crate::auth;
use crate::error::Error;
use crate::surface::Shared;

/// Register a function.
#[utoipa::path(
    post,
    operation_id = "create_function",
    path = "/v1/spaces/{space}/functions",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = Function,
    responses(
        (status = 201, description = "Registered", body = Function),
        (status = 404, description = "Its image is nowhere", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let function = parse(&space, None, &body)?;
    auth::may_register(&caller, &function)?;
    let stored = shared.node.create(function).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// List the functions of a space.
#[utoipa::path(
    get,
    operation_id = "list_functions",
    path = "/v1/spaces/{space}/functions",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = Functions)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    filter: MetadataFilter,
) -> Result<Line<api::Functions>, Error> {
    let stored = shared.node.list(&space).await?;
    let functions = stored
        .into_iter()
        .map(|stored| stored.function)
        .filter(|function| filter.accepts(function.metadata.as_ref()));
    Ok(Line(api::Functions {
        functions: functions.collect(),
    }))
}

/// Read a function.
#[utoipa::path(
    get,
    operation_id = "read_function",
    path = "/v1/spaces/{space}/functions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The record", body = Function),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
) -> Result<Response, Error> {
    Ok(record(shared.node.get(&space, &id).await?))
}

/// Replace a function.
#[utoipa::path(
    put,
    operation_id = "replace_function",
    path = "/v1/spaces/{space}/functions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = Function,
    responses(
        (status = 200, description = "The record", body = Function),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(String, String)>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let function = parse(&space, Some(&id), &body)?;
    auth::may_register(&caller, &function)?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    Ok(record(shared.node.update(function, at).await?))
}

/// Remove a function.
#[utoipa::path(
    delete,
    operation_id = "delete_function",
    path = "/v1/spaces/{space}/functions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
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
    shared.node.delete(&space, &id, at).await?;
    Ok(gone())
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogsQuery {
    /// Whether the answer goes on with what is written from now on.
    #[serde(default)]
    follow: bool,
    /// Only what was written while this invocation ran.
    invocation: Option<String>,
}

/// What of a line says which invocations it may be of.
#[derive(Deserialize)]
struct LineOf<'a> {
    #[serde(default, borrow)]
    invocations: Vec<std::borrow::Cow<'a, str>>,
}

/// Read what a function wrote: one JSON object a line.
#[utoipa::path(
    get,
    operation_id = "read_function_logs",
    path = "/v1/spaces/{space}/functions/{id}/logs",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = FunctionId, Path, description = "Its id"), LogsQuery),
    responses(
        (status = 200, description = "The lines", body = String, content_type = "application/x-ndjson"),
        (status = 404, description = "There is no such function", body = Errors),
    ),
)]
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
    let lines = lines.map(move |chunk| {
        let chunk = chunk?;
        Ok::<_, std::io::Error>(match &query.invocation {
            Some(id) => only_of(&chunk, id),
            None => chunk,
        })
    });
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

/// Those of some whole lines that were written while this invocation ran.
fn only_of(lines: &[u8], id: &str) -> Bytes {
    let own = lines.split_inclusive(|byte| *byte == b'\n').filter(|line| {
        let line = serde_json::from_slice::<LineOf<'_>>(line);
        line.is_ok_and(|line| line.invocations.iter().any(|invocation| invocation == id))
    });
    own.collect::<Vec<_>>().concat().into()
}

fn parse(space: &str, id: Option<&str>, body: &[u8]) -> Result<Function, Error> {
    let parsed = Function::parse(space, id, body);
    parsed.map_err(|why| refused(Error::invalid_function(&why), body))
}

fn record(stored: Stored) -> Response {
    tags::tagged(stored.function, stored.revision)
}

pub(super) async fn expected_revision(
    shared: &Shared,
    space: &str,
    id: &str,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async { Ok(shared.node.get(space, id).await?.revision) };
    tags::expected(fields, current, catalog::Error::Changed(id.to_owned())).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_invocation_are_found_among_others() {
        let lines = [
            r#"{"text":"one","invocations":["a"]}"#,
            r#"{"text":"\"a\"","invocations":["b"]}"#,
            r#"{"text":"both","invocations":["b","a"]}"#,
            r#"{"text":"of the node"}"#,
            "broken",
        ];
        let all = lines.map(|line| format!("{line}\n")).concat();
        let own = format!("{}\n{}\n", lines[0], lines[2]);
        assert_eq!(only_of(all.as_bytes(), "a"), own.as_bytes());
        assert_eq!(only_of(all.as_bytes(), "c"), "");
        assert_eq!(only_of(b"", "a"), "");
    }
}
