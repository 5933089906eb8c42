//! How calls that are not waited for are delivered: AWS's event invoke configuration is `delivery` of a record.

use std::sync::Arc;

use accounts::Scope;
use actors::catalog::Stored;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use http::StatusCode;
use protocol::function::DeliverySpec;
use protocol::{Destination, Function};
use serde_json::{Value, json};

use super::Context;
use super::deploy::{Image, Page, change, read};
use super::invoke::Qualified;
use super::name::Named;
use super::sent::{Sent, unlike};
use crate::admin::{Query, Segments};
use crate::error::{AwsKind, Error};
use crate::surface::Shared;

/// What AWS's clients may set.
const ATTEMPTS: (u32, u32) = (0, 2);
const AGE_SECONDS: (u32, u32) = (60, 21_600);

/// What a client wants.
#[derive(Debug)]
struct Wanted {
    retries: Option<u32>,
    age_seconds: Option<u32>,
    destinations: Option<Destinations>,
}

#[derive(Debug, Default)]
struct Destinations {
    on_success: Option<Destination>,
    on_failure: Option<Destination>,
}

impl Wanted {
    fn read(body: &Bytes) -> Result<Self, Error> {
        let mut sent = Sent::read(body)?;
        let destinations = match sent.object("DestinationConfig")? {
            None => None,
            Some(mut config) => {
                let destinations = Destinations {
                    on_success: destination(&mut config, "OnSuccess")?,
                    on_failure: destination(&mut config, "OnFailure")?,
                };
                config.finish("DestinationConfig.")?;
                Some(destinations)
            }
        };
        let wanted = Self {
            retries: sent.number("MaximumRetryAttempts", ATTEMPTS)?,
            age_seconds: sent.number("MaximumEventAgeInSeconds", AGE_SECONDS)?,
            destinations,
        };
        sent.finish("")?;
        Ok(wanted)
    }

    /// Sets what there is of it.
    fn apply(&self, delivery: &mut DeliverySpec) {
        if let Some(retries) = self.retries {
            delivery.attempts = Some(retries + 1);
        }
        if let Some(seconds) = self.age_seconds {
            delivery.max_age_seconds = Some(seconds);
        }
        if let Some(destinations) = &self.destinations {
            delivery.on_success.clone_from(&destinations.on_success);
            delivery.on_failure.clone_from(&destinations.on_failure);
        }
    }
}

/// A destination: another function of the space.
fn destination(config: &mut Sent, name: &str) -> Result<Option<Destination>, Error> {
    let Some(mut member) = config.object(name)? else {
        return Ok(None);
    };
    let target = member
        .text("Destination")?
        .filter(|target| !target.is_empty());
    member.finish(&format!("DestinationConfig.{name}."))?;
    let Some(target) = target else {
        return Ok(None);
    };
    match Named::read(&target, None) {
        Ok(Named {
            id,
            qualifier: None,
        }) => Ok(Some(Destination::Function(id))),
        _ => Err(unlike(
            &format!("DestinationConfig.{name}.Destination"),
            &json!(target),
            "the ARN of a function, without a qualifier",
        )),
    }
}

/// Forgets all that these operations set.
fn forget(delivery: &mut DeliverySpec) {
    delivery.attempts = None;
    delivery.max_age_seconds = None;
    delivery.on_success = None;
    delivery.on_failure = None;
}

/// The configuration of a function that has one.
fn of(context: &Context, stored: &Stored) -> Option<Value> {
    let delivery = stored.function.delivery.as_ref()?;
    let mut rest = delivery.clone();
    forget(&mut rest);
    if rest == *delivery {
        return None;
    }
    let destination = |set: &Option<Destination>| {
        let told = match set.as_ref()? {
            Destination::Function(id) => context.arn(id, None),
            Destination::Event(event_type) => event_type.to_string(),
            Destination::Url(url) => url.clone(),
        };
        Some(json!({"Destination": told}))
    };
    let on_success = destination(&delivery.on_success).unwrap_or_else(|| json!({}));
    let on_failure = destination(&delivery.on_failure).unwrap_or_else(|| json!({}));
    let mut told = json!({
        "FunctionArn": context.arn(&stored.function.function_id, Some("$LATEST")),
        "DestinationConfig": {"OnSuccess": on_success, "OnFailure": on_failure},
    });
    if let Some(attempts) = delivery.attempts {
        told["MaximumRetryAttempts"] = json!(attempts - 1);
    }
    if let Some(seconds) = delivery.max_age_seconds {
        told["MaximumEventAgeInSeconds"] = json!(seconds);
    }
    Some(told)
}

/// The function itself: its deliveries are the same for all its versions.
fn named(name: &str, query: &Qualified) -> Result<Named, Error> {
    let named = Named::read(name, query.qualifier.as_deref())?;
    match &named.qualifier {
        None => Ok(named),
        Some(qualifier) => Err(Error::aws(
            AwsKind::InvalidParameterValue,
            format!(
                "Qualifier is {qualifier}, expected $LATEST or none: how calls are delivered is set for a function, not for a version or alias of it"
            ),
        )),
    }
}

async fn set(
    shared: &Shared,
    context: &Context,
    named: &Named,
    edit: impl Fn(&mut DeliverySpec),
) -> Result<Stored, Error> {
    let edit = |function: &mut Function| {
        edit(function.delivery.get_or_insert_default());
        Ok(())
    };
    change(shared, context, named, (Image::AsItWas, None), edit).await
}

fn without(context: &Context, named: &Named) -> Error {
    let arn = context.arn(&named.id, None);
    Error::aws(
        AwsKind::ResourceNotFound,
        format!("The function {arn} doesn't have an EventInvokeConfig"),
    )
}

/// Set how calls of a function are delivered that are not waited for (AWS Lambda's `PutFunctionEventInvokeConfig`).
#[utoipa::path(
    put,
    path = "/2019-09-25/functions/{name}/event-invoke-config",
    operation_id = "aws_put_function_event_invoke_config",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Qualified),
    request_body = Value,
    responses(
        (status = 200, description = "How they are delivered", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn put(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
    body: Bytes,
) -> Result<Json<Option<Value>>, Error> {
    context.may(Scope::Write)?;
    let named = named(&name, &query)?;
    let wanted = Wanted::read(&body)?;
    let stored = set(&shared, &context, &named, |delivery| {
        forget(delivery);
        wanted.apply(delivery);
    });
    let stored = stored.await?;
    Ok(Json(of(&context, &stored).or_else(|| Some(json!({})))))
}

/// Change how calls of a function are delivered that are not waited for (AWS Lambda's `UpdateFunctionEventInvokeConfig`).
#[utoipa::path(
    post,
    path = "/2019-09-25/functions/{name}/event-invoke-config",
    operation_id = "aws_update_function_event_invoke_config",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Qualified),
    request_body = Value,
    responses(
        (status = 200, description = "How they are delivered", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn update(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
    body: Bytes,
) -> Result<Json<Option<Value>>, Error> {
    context.may(Scope::Write)?;
    let named = named(&name, &query)?;
    let wanted = Wanted::read(&body)?;
    let stored = set(&shared, &context, &named, |delivery| wanted.apply(delivery));
    let stored = stored.await?;
    Ok(Json(of(&context, &stored).or_else(|| Some(json!({})))))
}

/// Read how calls of a function are delivered that are not waited for (AWS Lambda's `GetFunctionEventInvokeConfig`).
#[utoipa::path(
    get,
    path = "/2019-09-25/functions/{name}/event-invoke-config",
    operation_id = "aws_get_function_event_invoke_config",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Qualified),
    responses(
        (status = 200, description = "How they are delivered", body = Value),
        (status = 404, description = "There is no such function, or nothing is set for it"),
    ),
)]
pub(super) async fn get(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = named(&name, &query)?;
    let stored = read(&shared, &context, &named).await?;
    let told = of(&context, &stored);
    told.map(Json).ok_or_else(|| without(&context, &named))
}

/// Have calls of a function delivered as others are (AWS Lambda's `DeleteFunctionEventInvokeConfig`).
#[utoipa::path(
    delete,
    path = "/2019-09-25/functions/{name}/event-invoke-config",
    operation_id = "aws_delete_function_event_invoke_config",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Qualified),
    responses(
        (status = 204, description = "Nothing is set for it"),
        (status = 404, description = "There is no such function, or nothing is set for it"),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(query): Query<Qualified>,
    context: Context,
) -> Result<StatusCode, Error> {
    context.may(Scope::Write)?;
    let named = named(&name, &query)?;
    let stored = read(&shared, &context, &named).await?;
    if of(&context, &stored).is_none() {
        return Err(without(&context, &named));
    }
    set(&shared, &context, &named, forget).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// List how calls of a function are delivered that are not waited for (AWS Lambda's `ListFunctionEventInvokeConfigs`).
#[utoipa::path(
    get,
    path = "/2019-09-25/functions/{name}/event-invoke-config/list",
    operation_id = "aws_list_function_event_invoke_configs",
    tag = "aws",
    params(("name" = String, Path, description = "A name, a partial ARN or an ARN"), Page),
    responses(
        (status = 200, description = "That of the function, where one is set", body = Value),
        (status = 404, description = "There is no such function"),
    ),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(name): Segments<String>,
    Query(page): Query<Page>,
    context: Context,
) -> Result<Json<Value>, Error> {
    context.may(Scope::Read)?;
    let named = Named::read(&name, None)?;
    let stored = read(&shared, &context, &named).await?;
    let all: Vec<_> = of(&context, &stored).into_iter().collect();
    let (all, _) = page.of(all, |_| named.id.to_string(), shared.lambda.page_len_max)?;
    Ok(Json(json!({"FunctionEventInvokeConfigs": all})))
}
