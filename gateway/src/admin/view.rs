//! What the node says of itself and of its cluster.

use std::sync::Arc;

use accounts::{Caller, Scope};
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use protocol::{FunctionId, Space, api};
use serde::Deserialize;

use super::{Line, Query, Segments};
use crate::error::Error;
use crate::surface::Shared;

/// `GET /v1/cluster`
pub(super) async fn cluster(State(shared): State<Arc<Shared>>) -> Line<api::Cluster> {
    Line(shared.node.cluster())
}

/// `GET /v1/spaces`: those that hold something and that the caller may read.
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

/// `GET /metrics`
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4");
    (
        [(header::CONTENT_TYPE, content_type)],
        (shared.render_metrics)(),
    )
        .into_response()
}

/// `GET /debug/actors`
pub(super) async fn actors(State(shared): State<Arc<Shared>>) -> Line<api::Actors> {
    Line(shared.node.actors().await)
}

#[derive(Deserialize)]
pub(super) struct RouteQuery {
    space: Option<String>,
    function: String,
}

/// `GET /debug/route?space=&function=`
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

/// `POST /debug/actors/{name}/kill`
pub(super) async fn kill_actor(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
) -> Result<StatusCode, Error> {
    match shared.node.kill_actor(&name) {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Error::not_found(format!("actor \"{name}\" not found"))),
    }
}
