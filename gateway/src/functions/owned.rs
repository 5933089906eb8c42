//! `/api/v1/functions`: functions that users make of images. They live in the space that is their user's alone, and what a user does not
//! have there is not found. The statuses are those that clients of this API know.

use std::sync::Arc;

use accounts::{Caller, Scope};
use actors::catalog;
use axum::Json;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use protocol::api::InvokeError;
use protocol::function::Provider;
use protocol::{Function, FunctionId, Space, api};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{run, sent};
use crate::admin::{self, Query, Segments, read_body};
use crate::auth;
use crate::error::Error;
use crate::surface::Shared;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(list))
        .routes(routes!(read, run::run, delete))
        .routes(routes!(run::execute))
        .routes(routes!(executions))
}

/// Who calls, as the owner of a space.
pub(super) struct Owner {
    caller: Caller,
    space: Space,
}

impl Owner {
    /// The space of its own, if its credential allows this there.
    ///
    /// # Errors
    /// When it shows an API key that does not.
    pub(super) fn may(&self, scope: Scope) -> Result<&Space, Error> {
        auth::may(&self.caller, &self.space, scope)?;
        Ok(&self.space)
    }
}

impl FromRequestParts<Arc<Shared>> for Owner {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Shared>) -> Result<Self, Error> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(Error::unauthorized)?.clone();
        let space = caller.own_space().ok_or_else(Error::no_account)?.clone();
        Ok(Self { caller, space })
    }
}

/// Make a function of an image.
///
/// It runs to completion for each call, and its output is the result, unless `contract` says `http`.
#[utoipa::path(
    post,
    path = "/api/v1/functions",
    operation_id = "create_own_function",
    tag = "users",
    request_body = sent::Wanted,
    responses(
        (status = 201, description = "The function is made", body = api::FunctionCreated),
        (status = 404, description = "The image is nowhere", body = InvokeError),
        (status = 409, description = "The caller has a function of this name", body = InvokeError),
    ),
)]
async fn create(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
    request: Request,
) -> Result<Response, Error> {
    let space = owner.may(Scope::Write)?;
    let (_, body) = read_body(&shared, request).await?;
    let function = sent::parse(space, &body)?;
    let function_id = function.function_id.clone();
    let created = shared.node.create(function).await;
    created.map_err(|error| match error {
        catalog::Error::Exists(id) => Error::taken(&id),
        error => Error::from(error),
    })?;
    let answer = api::FunctionCreated {
        message: "Function created successfully.".to_owned(),
        function_id,
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// List the caller's functions.
#[utoipa::path(
    get,
    path = "/api/v1/functions/me",
    operation_id = "list_own_functions",
    tag = "users",
    responses((status = 200, description = "All of them", body = Vec<api::OwnedFunction>)),
)]
async fn list(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
) -> Result<Json<Vec<api::OwnedFunction>>, Error> {
    let space = owner.may(Scope::Read)?;
    let stored = shared.node.list(space.as_str()).await?;
    let all = stored.into_iter().map(|stored| api::OwnedFunction {
        image: image(&stored.function),
        id: stored.function.function_id,
    });
    Ok(Json(all.collect()))
}

/// Read a function of the caller's.
#[utoipa::path(
    get,
    path = "/api/v1/functions/{id}",
    operation_id = "read_own_function",
    tag = "users",
    params(("id" = FunctionId, Path, description = "The function's id")),
    responses(
        (status = 201, description = "The function", body = api::OwnedFunctionDetail),
        (status = 404, description = "The caller has no such function", body = InvokeError),
    ),
)]
async fn read(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
    Segments(id): Segments<String>,
) -> Result<Response, Error> {
    let space = owner.may(Scope::Read)?;
    let function = shared.node.get(space.as_str(), &id).await?.function;
    let answer = api::OwnedFunctionDetail {
        image: image(&function),
        function_id: function.function_id,
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// Delete a function of the caller's.
#[utoipa::path(
    delete,
    path = "/api/v1/functions/{id}",
    operation_id = "delete_own_function",
    tag = "users",
    params(("id" = FunctionId, Path, description = "The function's id")),
    responses(
        (status = 201, description = "It is deleted", body = api::FunctionDeleted),
        (status = 404, description = "The caller has no such function", body = InvokeError),
        (status = 409, description = "Others change it at the same time", body = InvokeError),
    ),
)]
async fn delete(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
    Segments(id): Segments<String>,
) -> Result<Response, Error> {
    let space = owner.may(Scope::Write)?;
    shared.node.delete(space.as_str(), &id, None).await?;
    let answer = api::FunctionDeleted {
        message: "Function deleted successfully.".to_owned(),
    };
    Ok((StatusCode::CREATED, Json(answer)).into_response())
}

/// List the executions of a function of the caller's, the newest first.
#[utoipa::path(
    get,
    path = "/api/v1/functions/{id}/executions",
    operation_id = "list_own_executions",
    tag = "users",
    params(("id" = FunctionId, Path, description = "The function's id"), admin::executions::Page),
    responses(
        (status = 200, description = "A page of them", body = api::Executions),
        (status = 404, description = "The caller has no such function", body = InvokeError),
    ),
)]
async fn executions(
    State(shared): State<Arc<Shared>>,
    owner: Owner,
    Segments(id): Segments<String>,
    Query(page): Query<admin::executions::Page>,
) -> Result<Json<api::Executions>, Error> {
    let space = owner.may(Scope::Read)?;
    let function = shared.node.get(space.as_str(), &id).await?.function;
    let page = page.of_function(&function.function_id);
    Ok(Json(page.read(&shared, space).await?))
}

fn image(function: &Function) -> Option<String> {
    match &function.provider {
        Provider::Container(container) => Some(container.image.clone()),
        _ => None,
    }
}
