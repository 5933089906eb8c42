//! `/api/v1/keys`: the API keys of the user who calls. Only a session makes and revokes them.

use std::sync::Arc;

use accounts::{Caller, Key, NewKey};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Extension, Json, Router};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use crate::admin::{Segments, read_json};
use crate::error::Error;
use crate::surface::Shared;

/// Adds the routes.
pub(super) fn add_to(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        .route("/api/v1/keys", get(list).post(create))
        .route("/api/v1/keys/{id}", delete(revoke))
}

#[derive(Serialize)]
struct Created<'a> {
    /// Shown here and never again.
    key: &'a str,
    #[serde(flatten)]
    record: Key,
}

#[derive(Serialize)]
struct Keys {
    keys: Vec<Key>,
}

/// `POST /api/v1/keys`
async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let expected = r#"{"name","scopes","spaces"?,"expiresInSeconds"?}"#;
    let new: NewKey = read_json(&shared, request, expected).await?;
    let (record, key) = shared.guard.accounts()?.create_key(&caller, new).await?;
    let created = Created {
        key: key.expose(),
        record,
    };
    let uncached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, uncached, Json(created)).into_response())
}

/// `GET /api/v1/keys`
async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Keys>, Error> {
    let owner = caller.user_id().ok_or_else(Error::no_account)?;
    let keys = shared.guard.accounts()?.keys(owner).await?;
    Ok(Json(Keys { keys }))
}

/// `DELETE /api/v1/keys/{id}`
async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
) -> Result<Json<Value>, Error> {
    let owner = caller.user_id().ok_or_else(Error::no_account)?;
    shared.guard.accounts()?.revoke_key(owner, &id).await?;
    Ok(Json(json!({ "message": "Key revoked successfully." })))
}
