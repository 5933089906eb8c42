//! `/api/v1/users`: sign up, log in and out, and what users do to their own account. The statuses and texts are those that clients of
//! this API know.

use std::sync::Arc;

use accounts::{Caller, Tokens, UserId};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use config::settings::Secret;
use http::{HeaderValue, StatusCode, header};
use protocol::api::InvokeError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::admin::read_json;
use crate::deletion;
use crate::error::Error;
use crate::surface::{Client, Shared};

/// What a sign-up and a login are sent.
const CREDENTIALS: &str = r#"{"email","password"}"#;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(me, delete))
        .routes(routes!(change_password))
}

/// Who wants an account, or has one.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    /// The email.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password: 8 characters or more.
    #[schema(value_type = String, example = "password123")]
    password: Secret,
}

/// A token for the next one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refresh {
    /// The refresh token of the last login or refresh.
    #[schema(value_type = String)]
    refresh_token: Secret,
}

/// The password that is good until now, and the next one.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Passwords {
    /// The one that is good until now.
    #[schema(value_type = String)]
    password: Secret,
    /// The one that is good from now on: 8 characters or more.
    #[schema(value_type = String)]
    new_password: Secret,
}

/// That something was done.
#[derive(Serialize, ToSchema)]
pub(super) struct Message {
    /// What was done.
    message: String,
}

impl Message {
    pub(super) fn new(message: impl Into<String>) -> Json<Self> {
        let message = message.into();
        Json(Self { message })
    }
}

/// The tokens of a session.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Tokens)]
struct Given<'a> {
    /// `User logged successfully.`
    message: &'a str,
    /// The token to call with: `Authorization: Bearer TOKEN`.
    token: &'a str,
    /// How long it is good.
    expires_in_seconds: u64,
    /// What the next token is got with, once.
    refresh_token: &'a str,
}

/// The caller.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Me {
    /// The user's id.
    user_id: UserId,
    /// The user's email.
    email: String,
}

/// Make an account.
///
/// Where `auth.sign_up` is `admin`, only an admin may.
#[utoipa::path(
    post,
    path = "/api/v1/users",
    operation_id = "sign_up",
    tag = "users",
    security((), ("bearer" = [])),
    request_body = Credentials,
    responses(
        (status = 201, description = "The account is made", body = Message),
        (status = 409, description = "There is an account with this email", body = InvokeError),
    ),
)]
async fn sign_up(
    State(shared): State<Arc<Shared>>,
    caller: Option<Extension<Caller>>,
    request: Request,
) -> Result<Response, Error> {
    let Credentials { email, password } = read_json(&shared, request, CREDENTIALS).await?;
    let caller = caller.as_deref();
    let accounts = shared.guard.accounts()?;
    accounts.sign_up(caller, &email, &password).await?;
    let told = Message::new("User created successfully.");
    Ok((StatusCode::CREATED, told).into_response())
}

/// Log in.
#[utoipa::path(
    post,
    path = "/api/v1/users/login",
    operation_id = "login",
    tag = "users",
    security(()),
    request_body = Credentials,
    responses((status = 201, description = "A session, and its token", body = Given)),
)]
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

/// Get the next token of a session.
///
/// A refresh token is good once: one that comes again ends its session.
#[utoipa::path(
    post,
    path = "/api/v1/users/refresh",
    operation_id = "refresh",
    tag = "users",
    security(()),
    request_body = Refresh,
    responses((status = 201, description = "The next token", body = Given)),
)]
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

/// Log out: end the session of the token.
#[utoipa::path(
    post,
    path = "/api/v1/users/logout",
    operation_id = "logout",
    tag = "users",
    responses((status = 200, description = "The token is good no more: here at once, on every node that reaches the config store within a second", body = Message)),
)]
async fn logout(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Message>, Error> {
    shared.guard.accounts()?.logout(&caller).await?;
    Ok(Message::new("User logged out successfully."))
}

/// Tell who the caller is.
#[utoipa::path(
    get,
    path = "/api/v1/users/me",
    operation_id = "read_me",
    tag = "users",
    responses((status = 200, description = "The caller", body = Me)),
)]
async fn me(Extension(caller): Extension<Caller>) -> Result<Json<Me>, Error> {
    let account = caller.user_id().zip(caller.email());
    let (id, email) = account.ok_or_else(Error::no_account)?;
    Ok(Json(Me {
        user_id: id.clone(),
        email: email.to_owned(),
    }))
}

/// Delete the caller's account.
///
/// Each of its tokens and keys is refused by this node when it answers, and within a second by all that reach the config store; its functions are removed, and their containers drained, after.
#[utoipa::path(
    delete,
    path = "/api/v1/users/me",
    operation_id = "delete_me",
    tag = "users",
    responses((status = 200, description = "The account is deleted", body = Message)),
)]
async fn delete(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Message>, Error> {
    let id = caller.user_id().ok_or_else(Error::no_account)?;
    let email = begin_delete(&shared, id).await?;
    let message = format!("User email {email} deleted successfully.");
    Ok(Message::new(message))
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

/// Change the caller's password.
///
/// Every session of the user ends, this one too.
#[utoipa::path(
    post,
    path = "/api/v1/users/me/password",
    operation_id = "change_password",
    tag = "users",
    request_body = Passwords,
    responses((status = 200, description = "The new password is good", body = Message)),
)]
async fn change_password(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Client(from): Client,
    request: Request,
) -> Result<Json<Message>, Error> {
    let expected = r#"{"password","newPassword"}"#;
    let sent: Passwords = read_json(&shared, request, expected).await?;
    let accounts = shared.guard.accounts()?;
    accounts
        .change_password(&caller, &sent.password, &sent.new_password, from)
        .await?;
    Ok(Message::new("Password changed successfully. Log in again."))
}

/// Tokens, which no cache may keep.
fn given(status: StatusCode, message: &str, tokens: &Tokens) -> Response {
    let told = Given {
        message,
        token: tokens.token.expose(),
        expires_in_seconds: tokens.expires_in.as_secs(),
        refresh_token: tokens.refresh_token.expose(),
    };
    let uncached = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    (status, uncached, Json(told)).into_response()
}
