//! What the node says of itself and of its cluster.

use std::sync::Arc;

use accounts::{Caller, Scope};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use protocol::api::{self, Actors, Cluster, Errors, Route, Spaces};
use protocol::{FunctionId, Space};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Line, Query, Segments};
use crate::error::Error;
use crate::surface::Shared;

/// Show the nodes, as this one sees them.
#[utoipa::path(
    get,
    operation_id = "show_cluster",
    path = "/v1/cluster",
    tag = "config",
    responses((status = 200, description = "The cluster", body = Cluster)),
)]
pub(super) async fn cluster(State(shared): State<Arc<Shared>>) -> Line<api::Cluster> {
    Line(shared.node.cluster())
}

/// List the spaces that have records and that the caller may read.
#[utoipa::path(
    get,
    operation_id = "list_spaces",
    path = "/v1/spaces",
    tag = "config",
    responses((status = 200, description = "The spaces", body = Spaces)),
)]
pub(super) async fn spaces(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Line<api::Spaces> {
    let spaces = shared.node.spaces().into_iter();
    let spaces = spaces.filter(|space| caller.may(space, Scope::Read));
    Line(api::Spaces {
        spaces: spaces.collect(),
    })
}

/// Read the metrics, as Prometheus does.
#[utoipa::path(
    get,
    operation_id = "read_metrics",
    path = "/metrics",
    tag = "config",
    responses((status = 200, description = "The metrics", body = String, content_type = "text/plain")),
)]
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
    (
        [(header::CONTENT_TYPE, content_type)],
        (shared.render_metrics)(),
    )
        .into_response()
}

/// Show this node's actors.
#[utoipa::path(
    get,
    operation_id = "show_actors",
    path = "/debug/actors",
    tag = "config",
    responses((status = 200, description = "The actors", body = Actors)),
)]
pub(super) async fn actors(State(shared): State<Arc<Shared>>) -> Line<api::Actors> {
    Line(shared.node.actors().await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct RouteQuery {
    /// The function's space, `default` where it is not said.
    space: Option<String>,
    /// The function's id.
    function: String,
}

/// Show where a call of a function would run now, and why.
#[utoipa::path(
    get,
    operation_id = "explain_route",
    path = "/debug/route",
    tag = "config",
    params(RouteQuery),
    responses(
        (status = 200, description = "The choice", body = Route),
        (status = 404, description = "There is no such function", body = Errors),
    ),
)]
pub(super) async fn route(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<RouteQuery>,
) -> Result<Line<api::Route>, Error> {
    let space = query
        .space
        .as_deref()
        .map_or_else(|| Ok(Space::default_space()), str::parse);
    let space = space.map_err(|error| Error::invalid(format!("space: {error}")))?;
    let id: FunctionId = query
        .function
        .parse()
        .map_err(|error| Error::invalid(format!("function: {error}")))?;
    let route = shared.node.route(&space, &id);
    route
        .map(Line)
        .ok_or_else(|| Error::function_not_found(id.as_str()))
}

/// Kill an actor, for fault tests; only with `node.debug_kill`.
#[utoipa::path(
    post,
    operation_id = "kill_actor",
    path = "/debug/actors/{name}/kill",
    tag = "config",
    params(("name" = String, Path, description = "The actor")),
    responses(
        (status = 204, description = "Killed"),
        (status = 404, description = "There is none of that name", body = Errors),
    ),
)]
pub(super) async fn kill_actor(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
) -> Result<StatusCode, Error> {
    match shared.node.kill_actor(&name) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::not_found(format!("actor \"{name}\" not found"))),
    }
}
