//! How many calls of a function there may be at once: AWS's reserved concurrency is `limits.concurrent` of a record.

use std::sync::Arc;

use accounts::Scope;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use protocol::Function;
use serde_json::{Value, json};

use super::Context;
use super::deploy::{Image, change, read};
use super::name::Named;
use super::sent::{Sent, unlike};
use crate::admin::Segments;
use crate::error::Error;
use crate::surface::Shared;

/// What a function may have; AWS's clients can stop a function with 0, which a record can not say.
const RANGE: (u32, u32) = (1, 1_000_000);

/// Limit the calls at once of a function (AWS Lambda's `PutFunctionConcurrency`).
#[utoipa::path(
    put,
    path = "/2017-10-31/functions/{name}/concurrency",
    operation_id = "aws_put_function_concurrency",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    request_body = Value,
    responses(
        (status = 200, description = "The limit", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
    body: Bytes,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, None)?;
    let mut sent = Sent::read(&body)?;
    let member = "ReservedConcurrentExecutions";
    let max = sent.number(member, RANGE)?;
    let max = max.ok_or_else(|| unlike(member, &Value::Null, "1 to 1000000"))?;
    sent.finish("")?;
    set(&shared, &context, &named, Some(max)).await?;
    Ok(Json(json!({"ReservedConcurrentExecutions": max})))
}

/// Take the limit of a function away (AWS Lambda's `DeleteFunctionConcurrency`).
#[utoipa::path(
    delete,
    path = "/2017-10-31/functions/{name}/concurrency",
    operation_id = "aws_delete_function_concurrency",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    responses(
        (status = 204, description = "There is no limit"),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = Named::read(&name, None)?;
    set(&shared, &context, &named, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Read the limit of a function (AWS Lambda's `GetFunctionConcurrency`).
#[utoipa::path(
    get,
    path = "/2019-09-30/functions/{name}/concurrency",
    operation_id = "aws_get_function_concurrency",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN")),
    responses(
        (status = 200, description = "The limit, where there is one", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&name, None)?;
    let stored = read(&shared, &context, &named).await?;
    let limits = stored.function.limits;
    Ok(Json(match limits.and_then(|limits| limits.concurrent) {
        Some(max) => json!({"ReservedConcurrentExecutions": max}),
        None => json!({}),
    }))
}

async fn set(
    shared: &Shared,
    context: &Context,
    named: &Named,
    max: Option<u32>,
) -> Result<(), Error> {
    let edit = |function: &mut Function| {
        function.limits.get_or_insert_default().concurrent = max;
        Ok(())
    };
    change(shared, context, named, (Image::AsItWas, None), edit)
        .await
        .map(|_| ())
}
