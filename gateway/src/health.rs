//! Whether the node is up, and whether it should get requests.

use std::sync::Arc;

use actors::view::Readiness;
use axum::extract::State;
use protocol::ErrorCode;
use serde_json::{Value, json};
use utoipa::ToSchema;

use crate::admin::Line;
use crate::error::Error;
use crate::surface::Shared;

/// Whether a balancer should send requests here.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it is described and not made: an error of it is written elsewhere"
)]
pub(crate) struct Ready {
    /// Whether it should.
    ready: bool,
    /// Why not.
    why: Option<String>,
}

/// Tell that the process answers.
#[utoipa::path(
    get,
    operation_id = "show_status",
    path = "/v1/status",
    tag = "config",
    security(()),
    responses((status = 200, description = "It does")),
)]
pub(crate) async fn status() {}

/// Tell whether a balancer should send requests here.
#[utoipa::path(
    get,
    operation_id = "show_readiness",
    path = "/v1/ready",
    tag = "config",
    security(()),
    responses(
        (status = 200, description = "It should", body = Ready),
        (status = 503, description = "It should not, with the reason", body = Ready),
    ),
)]
pub(crate) async fn ready(State(shared): State<Arc<Shared>>) -> Result<Line<Value>, Error> {
    match shared.node.readiness() {
        Readiness::Ready => Ok(Line(json!({ "ready": true }))),
        Readiness::Loading => {
            let why = "the functions are not loaded yet, neither from the store nor from the snapshot on disk";
            Err(Error::not_ready(ErrorCode::StoreUnavailable, why))
        }
        Readiness::Draining => Err(Error::not_ready(
            ErrorCode::Draining,
            "the node is draining",
        )),
    }
}
