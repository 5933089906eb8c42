//! `/v1/users` of the config API: what admins do to the accounts of others.

use std::sync::Arc;

use accounts::{Caller, Role, User, UserId};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::settings::Secret;
use http::StatusCode;
use protocol::Space;
use serde::{Deserialize, Serialize};

use super::{Line, Query, Segments, gone, read_json};
use crate::error::Error;
use crate::functions::begin_delete;
use crate::surface::Shared;

/// Users on a page of the list, where the caller does not say.
const PAGE_LEN: usize = 100;

/// The most users on a page.
const PAGE_LEN_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    email: String,
    password: Secret,
    role: Option<Role>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    role: Option<Role>,
    password: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    limit: Option<usize>,
    after: Option<UserId>,
}

#[derive(Serialize)]
pub(super) struct Users {
    users: Vec<User>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<UserId>,
}

/// `GET /v1/users?limit=&after=`
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Query(page): Query<Page>,
) -> Result<Line<Users>, Error> {
    let limit = page.limit.unwrap_or(PAGE_LEN);
    if !(1..=PAGE_LEN_MAX).contains(&limit) {
        let message = format!("limit is {limit}, expected 1 to {PAGE_LEN_MAX}");
        return Err(Error::invalid(message));
    }
    let accounts = shared.guard.accounts()?;
    let users = accounts.users(page.after.as_ref(), limit).await?;
    let next = match users.len() == limit {
        true => users.last().map(|user| user.id.clone()),
        false => None,
    };
    Ok(Line(Users { users, next }))
}

/// `POST /v1/users`
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Error> {
    let expected = r#"{"email","password","role"?}"#;
    let new: New = read_json(&shared, request, expected).await?;
    let accounts = shared.guard.accounts()?;
    let made = accounts.sign_up(Some(&caller), &new.email, &new.password);
    let mut user = made.await?;
    if let Some(role) = new.role.filter(|role| *role != user.role) {
        user = accounts.set_role(&user.id, role).await?;
    }
    Ok((StatusCode::CREATED, Line(user)).into_response())
}

/// `GET /v1/users/{id}`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
) -> Result<Line<User>, Error> {
    Ok(Line(shared.guard.accounts()?.user(&id).await?))
}

/// `PATCH /v1/users/{id}`: a new password ends the user's sessions.
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
    request: Request,
) -> Result<Line<User>, Error> {
    let change: Change = read_json(&shared, request, r#"{"role"?,"password"?}"#).await?;
    let accounts = shared.guard.accounts()?;
    if let Some(password) = &change.password {
        accounts.set_password(&id, password).await?;
    }
    let user = match change.role {
        Some(role) => accounts.set_role(&id, role).await?,
        None => accounts.user(&id).await?,
    };
    Ok(Line(user))
}

/// `DELETE /v1/users/{id}`
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
) -> Result<Response, Error> {
    begin_delete(&shared, &id).await?;
    Ok(gone())
}

/// `PUT /v1/spaces/{space}/members/{id}`
pub(super) async fn join(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(Space, UserId)>,
) -> Result<Line<User>, Error> {
    Ok(Line(
        shared.guard.accounts()?.join_space(&id, &space).await?,
    ))
}

/// `DELETE /v1/spaces/{space}/members/{id}`
pub(super) async fn leave(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(Space, UserId)>,
) -> Result<Response, Error> {
    shared.guard.accounts()?.leave_space(&id, &space).await?;
    Ok(gone())
}
