//! The functions API on port 3000, but for its warm path.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use http::{Method, Uri};
use serde_json::{Value, json};

use crate::admin;
use crate::error::Error;
use crate::invoke;
use crate::surface::Shared;

mod first_admin;
mod keys;
mod owned;
mod ran;
mod run;
mod sent;
mod users;

pub(crate) use users::begin_delete;

/// Everything but `POST /invoke`.
pub(crate) fn router() -> Router<Arc<Shared>> {
    let router = owned::add_to(admin::add_executions(Router::new()));
    keys::add_to(users::add_to(router))
        .route("/", get(about))
        .route("/api/v1/admin/init", post(first_admin::init))
        .route(
            invoke::PATH,
            any(async || Error::method_not_allowed("POST")),
        )
        .method_not_allowed_fallback(async |method: Method| Error::method_not_taken(&method))
        .fallback(async |uri: Uri| Error::no_such_path(uri.path()))
}

/// `GET /`: tells whoever looks what this is.
async fn about(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "service": "hearth functions API",
        "version": env!("CARGO_PKG_VERSION"),
        "node": shared.node.name().as_ref(),
        "invoke": r#"POST /invoke {"function_name": "...", "payload": any JSON, "space": "default"}"#,
        "executions": "GET /v1/spaces/{space}/executions",
        "users": r#"POST /api/v1/users {"email", "password"}, POST /api/v1/users/login"#,
        "functions": r#"POST /api/v1/functions {"image": "..."}, POST /api/v1/functions/{id}"#,
    }))
}
