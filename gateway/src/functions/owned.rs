//! `/api/v1/functions`: functions that users make of images. They live in the space that is their user's alone, and what a user does not
//! have there is not found. The statuses are those that clients of this API know.

use std::sync::Arc;

use accounts::{Caller, Scope};
use actors::catalog;
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use http::request::Parts;
use protocol::function::Provider;
use protocol::{Function, Space, api};

use super::{run, sent};
use crate::admin::{self, Query, Segments, read_body};
use crate::auth;
use crate::error::Error;
use crate::surface::Shared;

/// Adds the routes.
pub(super) fn add_to(router: Router<Arc<Shared>>) -> Router<Arc<Shared>> {
    let one = get(read).post(run::run).delete(delete);
    router
        .route("/api/v1/functions", post(create))
        .route("/api/v1/functions/me", get(list))
        .route("/api/v1/functions/{id}", one)
        .route("/api/v1/functions/execute/{id}", post(run::run))
        .route("/api/v1/functions/{id}/executions", get(executions))
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

/// `POST /api/v1/functions`
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

/// `GET /api/v1/functions/me`
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

/// `GET /api/v1/functions/{id}`
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

/// `DELETE /api/v1/functions/{id}`
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

/// `GET /api/v1/functions/{id}/executions?status=&since=&limit=&after=`
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
