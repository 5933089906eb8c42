//! Whether the node is up, and whether it should get requests.

use std::sync::Arc;

use actors::view::Readiness;
use axum::extract::State;
use protocol::ErrorCode;
use serde_json::{Value, json};

use crate::admin::Line;
use crate::error::Error;
use crate::surface::Shared;

/// `GET /v1/status`: the process answers. Always 200 and empty.
pub(crate) async fn status() {}

/// `GET /v1/ready`: whether a balancer should send requests here.
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
