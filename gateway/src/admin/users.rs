//! `/v1/users` of the config API: what admins do to the accounts of others.

use std::sync::Arc;

use accounts::{Caller, Role, User, UserId};
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::settings::Secret;
use http::StatusCode;
use protocol::api::Errors;
use protocol::{Space, UserLimits};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Line, Query, Segments, gone, read_json};
use crate::error::Error;
use crate::functions::begin_delete;
use crate::surface::Shared;

/// Users on a page of the list, where the caller does not say.
const PAGE_LEN: usize = 100;

/// The most users on a page.
const PAGE_LEN_MAX: usize = 1000;

/// A user that an admin makes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewUser)]
struct New {
    /// Its email.
    email: String,
    /// Its password: 8 characters or more.
    #[schema(value_type = String)]
    password: Secret,
    /// What it may; `member` where it is not said.
    role: Option<Role>,
}

/// What of a user changes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = UserChange)]
struct Change {
    /// What it may from now on.
    role: Option<Role>,
    /// Its new password, which ends its sessions.
    #[schema(value_type = Option<String>)]
    password: Option<Secret>,
    /// What it may ask for, all of it anew: a limit that is not named is as the settings of the node say.
    limits: Option<UserLimits>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// How many; 100 where it is not said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Only those after this one; `next` of the page before.
    after: Option<UserId>,
}

/// A page of users.
#[derive(Serialize, ToSchema)]
pub(super) struct Users {
    /// The users, by id.
    users: Vec<User>,
    /// Where the next page begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<UserId>,
}

/// List the users.
#[utoipa::path(
    get,
    path = "/v1/users",
    operation_id = "list_users",
    tag = "config",
    params(Page),
    responses((status = 200, description = "A page of them", body = Users)),
)]
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

/// Make a user.
#[utoipa::path(
    post,
    path = "/v1/users",
    operation_id = "create_user",
    tag = "config",
    request_body = New,
    responses(
        (status = 201, description = "The user is made", body = User),
        (status = 409, description = "There is an account with this email", body = Errors),
    ),
)]
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

/// Read a user.
#[utoipa::path(
    get,
    path = "/v1/users/{id}",
    operation_id = "read_user",
    tag = "config",
    params(("id" = UserId, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "There is no such user", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
) -> Result<Line<User>, Error> {
    Ok(Line(shared.guard.accounts()?.user(&id).await?))
}

/// Change the role or the limits of a user, or give it a new password.
///
/// A new password ends its sessions.
#[utoipa::path(
    patch,
    path = "/v1/users/{id}",
    operation_id = "change_user",
    tag = "config",
    params(("id" = UserId, Path, description = "The user's id")),
    request_body = Change,
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "There is no such user", body = Errors),
        (status = 409, description = "It is being deleted", body = Errors),
    ),
)]
pub(super) async fn change(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
    request: Request,
) -> Result<Line<User>, Error> {
    let expected =
        r#"{"role"?,"password"?,"limits"?:{"rate"?:{"perSecond","burst"?},"concurrent"?}}"#;
    let change: Change = read_json(&shared, request, expected).await?;
    if let Some(limits) = &change.limits {
        limits.check().map_err(Error::invalid)?;
    }
    let accounts = shared.guard.accounts()?;
    if let Some(password) = &change.password {
        accounts.set_password(&id, password).await?;
    }
    if let Some(limits) = change.limits {
        accounts.set_limits(&id, limits).await?;
    }
    let user = match change.role {
        Some(role) => accounts.set_role(&id, role).await?,
        None => accounts.user(&id).await?,
    };
    Ok(Line(user))
}

/// Delete a user, and all that it has.
#[utoipa::path(
    delete,
    path = "/v1/users/{id}",
    operation_id = "delete_user",
    tag = "config",
    params(("id" = UserId, Path, description = "The user's id")),
    responses(
        (status = 204, description = "Its tokens and keys are refused; its functions are removed"),
        (status = 404, description = "There is no such user", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<UserId>,
) -> Result<Response, Error> {
    begin_delete(&shared, &id).await?;
    Ok(gone())
}

/// Make a user a member of a space.
#[utoipa::path(
    put,
    path = "/v1/spaces/{space}/members/{id}",
    operation_id = "join_space",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = UserId, Path, description = "The user's id")),
    responses(
        (status = 200, description = "The user", body = User),
        (status = 404, description = "There is no such user", body = Errors),
        (status = 409, description = "It is being deleted", body = Errors),
    ),
)]
pub(super) async fn join(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(Space, UserId)>,
) -> Result<Line<User>, Error> {
    Ok(Line(
        shared.guard.accounts()?.join_space(&id, &space).await?,
    ))
}

/// Make a user no member of a space any more.
#[utoipa::path(
    delete,
    path = "/v1/spaces/{space}/members/{id}",
    operation_id = "leave_space",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = UserId, Path, description = "The user's id")),
    responses(
        (status = 204, description = "It is none"),
        (status = 404, description = "There is no such user", body = Errors),
        (status = 409, description = "It is being deleted", body = Errors),
    ),
)]
pub(super) async fn leave(
    State(shared): State<Arc<Shared>>,
    Segments((space, id)): Segments<(Space, UserId)>,
) -> Result<Response, Error> {
    shared.guard.accounts()?.leave_space(&id, &space).await?;
    Ok(gone())
}
