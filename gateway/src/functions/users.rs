//! `/api/v1/users`: sign up, log in and out, and what users do to their own account. The statuses and texts are those that clients of
//! this API know.

use std::sync::Arc;

use accounts::{Caller, Tokens, UserId};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use config::settings::Secret;
use http::{HeaderValue, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::read_json;
use crate::deletion;
use crate::error::Error;
use crate::surface::{Client, Shared};

/// What a sign-up and a login are sent.
const CREDENTIALS: &str = r#"{"email","password"}"#;

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
struct Passwords {
    password: Secret,
    new_password: Secret,
}

/// `POST /api/v1/users`
async fn sign_up(
    State(shared): State<Arc<Shared>>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Error> {
    let Credentials { email, password } = read_json(&shared, request, CREDENTIALS).await?;
    let caller = caller.as_deref();
    let accounts = shared.guard.accounts()?;
    accounts.sign_up(caller, &email, &password).await?;
    let told = json!({ "message": "User created successfully." });
    Ok((StatusCode::CREATED, Json(told)).into_response())
}

/// `POST /api/v1/users/login`
async fn login(
    State(shared): State<Arc<Shared>>,
    Client(from): Client,
    request: Request,
) -> Result<Response, Error> {
    let Credentials { email, password } = read_json(&shared, request, CREDENTIALS).await?;
    let accounts = shared.guard.accounts()?;
    let tokens = accounts.login(&email, &password, from).await?;
    let told = "User logged successfully.";
    Ok(given(StatusCode::CREATED, told, &tokens))
}

/// `POST /api/v1/users/refresh`
async fn refresh(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response, Error> {
    let sent: Refresh = read_json(&shared, request, r#"{"refreshToken"}"#).await?;
    let tokens = shared
        .guard
        .accounts()?
        .refresh(&sent.refresh_token)
        .await?;
    let told = "Token refreshed successfully.";
    Ok(given(StatusCode::CREATED, told, &tokens))
}

/// `POST /api/v1/users/logout`
async fn logout(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Error> {
    shared.guard.accounts()?.logout(&caller).await?;
    Ok(Json(json!({ "message": "User logged out successfully." })))
}

/// `GET /api/v1/users/me`
async fn me(Extension(caller): Extension<Caller>) -> Result<Json<Value>, Error> {
    let id = caller.user_id().ok_or_else(Error::no_account)?;
    Ok(Json(json!({ "userId": id, "email": caller.email() })))
}

/// `DELETE /api/v1/users/me`: credentials are refused when this answers; what the user had is removed after.
async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Value>, Error> {
    let id = caller.user_id().ok_or_else(Error::no_account)?;
    let email = begin_delete(&shared, id).await?;
    let message = format!("User email {email} deleted successfully.");
    Ok(Json(json!({ "message": message })))
}

/// Ends all that a user may, and has what it had removed; returns its email.
pub(crate) async fn begin_delete(shared: &Arc<Shared>, id: &UserId) -> Result<String, Error> {
    let accounts = shared.guard.accounts()?.clone();
    let user = accounts.begin_delete(id).await?;
    let shared = Arc::clone(shared);
    let tasks = shared.tasks.clone();
    // In a task, so that it goes on when the client leaves; what it does not finish, the sweep does.
    tasks.spawn(async move { deletion::remove(&*shared.node, &accounts, &user.id).await });
    Ok(user.email)
}

/// `POST /api/v1/users/me/password`: ends every session of the user, this one too.
async fn change_password(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Client(from): Client,
    request: Request,
) -> Result<Json<Value>, Error> {
    let expected = r#"{"password","newPassword"}"#;
    let sent: Passwords = read_json(&shared, request, expected).await?;
    let accounts = shared.guard.accounts()?;
    accounts
        .change_password(&caller, &sent.password, &sent.new_password, from)
        .await?;
    let message = "Password changed successfully. Log in again.";
    Ok(Json(json!({ "message": message })))
}

/// Tokens, which no cache may keep.
fn given(status: StatusCode, message: &str, tokens: &Tokens) -> Response {
    let told = json!({
        "message": message,
        "token": tokens.token.expose(),
        "expiresInSeconds": tokens.expires_in.as_secs(),
        "refreshToken": tokens.refresh_token.expose(),
    });
    let uncached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, uncached, Json(told)).into_response()
}
