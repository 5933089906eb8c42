//! `/api/v1/keys`: the API keys of the user who calls. Only a session makes and revokes them.

use std::sync::Arc;

use accounts::{Caller, Key, NewKey};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderValue, StatusCode, header};
use protocol::api::InvokeError;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::users::Message;
use crate::admin::{Segments, read_json};
use crate::error::Error;
use crate::surface::Shared;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(revoke))
}

/// A new key.
#[derive(Serialize, ToSchema)]
#[schema(as = KeyCreated)]
struct Created<'a> {
    /// The key: `Authorization: Bearer KEY`. It is shown here and never again. An access key has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    /// What an access key signs requests with, beside its `accessKeyId`. It is shown here and never again.
    #[serde(rename = "secretAccessKey", skip_serializing_if = "Option::is_none")]
    secret_access_key: Option<&'a str>,
    #[serde(flatten)]
    record: Key,
}

/// The keys of a user.
#[derive(Serialize, ToSchema)]
struct Keys {
    /// All of them, the oldest first.
    keys: Vec<Key>,
}

/// Make an API key.
#[utoipa::path(
    post,
    path = "/api/v1/keys",
    operation_id = "create_key",
    tag = "users",
    request_body = NewKey,
    responses(
        (status = 201, description = "The key, which is shown this once", body = Created),
        (status = 409, description = "The user has as many keys as it may", body = InvokeError),
    ),
)]
async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let expected = r#"{"name","scopes","spaces"?,"expiresInSeconds"?,"aws"?}"#;
    let new: NewKey = read_json(&shared, request, expected).await?;
    let (record, key) = shared.guard.accounts()?.create_key(&caller, new).await?;
    let is_access_key = record.access_key_id.is_some();
    let created = Created {
        key: (!is_access_key).then(|| key.expose()),
        secret_access_key: is_access_key.then(|| key.expose()),
        record,
    };
    let uncached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((StatusCode::CREATED, uncached, Json(created)).into_response())
}

/// List the caller's API keys.
#[utoipa::path(
    get,
    path = "/api/v1/keys",
    operation_id = "list_keys",
    tag = "users",
    responses((status = 200, description = "The keys, without what they are", body = Keys)),
)]
async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Keys>, Error> {
    let owner = caller.user_id().ok_or_else(Error::no_account)?;
    let keys = shared.guard.accounts()?.keys(owner).await?;
    Ok(Json(Keys { keys }))
}

/// Revoke an API key.
#[utoipa::path(
    delete,
    path = "/api/v1/keys/{id}",
    operation_id = "revoke_key",
    tag = "users",
    params(("id" = String, Path, description = "The key's id")),
    responses(
        (status = 200, description = "It is good no more: here at once, on every node that reaches the config store within a second", body = Message),
        (status = 404, description = "The caller has no such key", body = InvokeError),
    ),
)]
async fn revoke(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Segments(id): Segments<String>,
) -> Result<Json<Message>, Error> {
    let owner = caller.user_id().ok_or_else(Error::no_account)?;
    shared.guard.accounts()?.revoke_key(owner, &id).await?;
    Ok(Message::new("Key revoked successfully."))
}
