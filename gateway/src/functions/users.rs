//! `/api/v1/users`: sign-up, sessions, and the user itself. The statuses are those that clients of this API know.

use std::net::IpAddr;
use std::sync::Arc;

use accounts::{Caller, Tokens};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use config::settings::Secret;
use http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::body;
use crate::error::Error;
use crate::surface::Shared;

/// Where the client of a request is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    email: String,
    password: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refresh {
    refresh_token: Secret,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ChangePassword {
    old_password: Secret,
    new_password: Secret,
}

/// Adds the routes.
pub(super) fn add_to(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    router
        .route("/api/v1/users", post(sign_up))
        .route("/api/v1/users/login", post(login))
        .route("/api/v1/users/refresh", post(refresh))
        .route("/api/v1/users/logout", post(logout))
        .route("/api/v1/users/me", get(me).delete(delete))
        .route("/api/v1/users/me/password", post(change_password))
}

async fn sign_up(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Error> {
    let sent: Credentials = read(&shared, request, r#"{"email","password"}"#).await?;
    let accounts = shared.guard.accounts()?;
    accounts.sign_up(None, &sent.email, &sent.password).await?;
    Ok(created(json!({ "message": "User created successfully." })))
}

async fn login(
    State(shared): State<Arc<Shared>>,
    Extension(from): Extension<ClientAddress>,
    request: Request,
) -> Result<Response, Error> {
    let sent: Credentials = read(&shared, request, r#"{"email","password"}"#).await?;
    let accounts = shared.guard.accounts()?;
    let tokens = accounts.login(&sent.email, &sent.password, from.0).await?;
    Ok(created(told("User logged successfully.", &tokens)))
}

async fn refresh(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Error> {
    let sent: Refresh = read(&shared, request, r#"{"refreshToken"}"#).await?;
    let tokens = shared
        .guard
        .accounts()?
        .refresh(&sent.refresh_token)
        .await?;
    Ok(created(told("Token refreshed successfully.", &tokens)))
}

async fn logout(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Error> {
    shared.guard.accounts()?.logout(&caller).await?;
    Ok(Json(json!({ "message": "User logged out successfully." })))
}

async fn me(Extension(caller): Extension<Caller>) -> Result<Json<Value>, Error> {
    let id = caller.user_id().ok_or_else(Error::no_account)?;
    Ok(Json(json!({ "userId": id, "email": caller.email() })))
}

async fn change_password(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(from): Extension<ClientAddress>,
    request: Request,
) -> Result<Json<Value>, Error> {
    let sent: ChangePassword = read(&shared, request, r#"{"oldPassword","newPassword"}"#).await?;
    let accounts = shared.guard.accounts()?;
    let changed = accounts.change_password(&caller, &sent.old_password, &sent.new_password, from.0);
    changed.await?;
    Ok(Json(json!({ "message": "Password changed successfully." })))
}

/// Every token of the user is refused from then on; what it has is removed afterwards.
async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Error> {
    let id = caller.user_id().ok_or_else(Error::no_account)?;
    let deleted = shared.guard.accounts()?.begin_delete(id).await?;
    let message = format!("User email {} deleted successfully.", deleted.email);
    Ok(Json(json!({ "message": message })))
}

/// Reads a body. What it says is not repeated in the error, since it may be a password.
async fn read<T: DeserializeOwned>(
    shared: &Shared,
    request: Request,
    expected: &str,
) -> Result<T, Error> {
    let (parts, mut body) = request.into_parts();
    let body = body::read(&parts.headers, &mut body, &shared.limits).await?;
    serde_json::from_slice(&body).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::invalid(format!(
            "the body can not be read at line {line} column {column}, expected {expected} with texts"
        ))
    })
}

fn created(body: Value) -> Response {
    (StatusCode::CREATED, Json(body)).into_response()
}

fn told(message: &str, tokens: &Tokens) -> Value {
    json!({
        "message": message,
        "token": tokens.token.expose(),
        "expiresInSeconds": tokens.expires_in.as_secs(),
        "refreshToken": tokens.refresh_token.expose(),
    })
}
