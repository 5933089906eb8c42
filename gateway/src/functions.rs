//! The functions API on port 3000, but for its warm path.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::any;
use axum::{Json, Router};
use http::{Method, Uri};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin;
use crate::aws;
use crate::error::Error;
use crate::invoke;
use crate::openapi;
use crate::surface::Shared;

mod first_admin;
mod keys;
mod owned;
mod ran;
mod run;
mod sent;
mod users;

pub(crate) use users::begin_delete;

/// Everything but `POST /invoke`, and its description.
pub(crate) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(about))
        .routes(routes!(first_admin::init))
        .merge(users::routes())
        .merge(keys::routes())
        .merge(owned::routes())
        .merge(admin::executions())
        .merge(openapi::routes())
        .merge(aws::routes())
}

/// The router of the routes.
pub(crate) fn router() -> Router<Arc<Shared>> {
    let (router, _) = routes().split_for_parts();
    router
        .route(
            invoke::PATH,
            any(async || Error::method_not_allowed("POST")),
        )
        .method_not_allowed_fallback(async |method: Method| Error::method_not_taken(&method))
        .fallback(async |uri: Uri| match aws::is_path(uri.path()) {
            true => Error::no_such_operation(uri.path()),
            false => Error::no_such_path(uri.path()),
        })
}

/// Tell what this is.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "about",
    tag = "functions",
    responses((status = 200, description = "Names, and where to go on", body = Value)),
)]
async fn about(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(json!({
        "service": "hearth functions API",
        "version": env!("CARGO_PKG_VERSION"),
        "node": shared.node.name().as_ref(),
        "invoke": r#"POST /invoke {"function_name": "...", "payload": any JSON, "space": "default"}"#,
        "executions": "GET /v1/spaces/{space}/executions",
        "docs": "GET /docs",
        "users": r#"POST /api/v1/users {"email", "password"}, POST /api/v1/users/login"#,
        "functions": r#"POST /api/v1/functions {"image": "..."}, POST /api/v1/functions/{id}"#,
    }))
}
