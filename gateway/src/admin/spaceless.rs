//! The routes without a space, as Event Gateway had them before there were spaces: the same records of the space `default`, in the
//! shapes of that time. There the type is inside the provider, a create answers 200, an error is `{"error"}`, and a subscription's
//! id is `event-function` or `event-METHOD-path`.

use std::sync::Arc;

use accounts::Caller;
use actors::catalog;
use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Uri};
use protocol::subscription::{self, escape_segment};
use protocol::{Function, Subscription, SubscriptionId};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::filter::MetadataFilter;
use super::functions::expected_revision;
use super::{Line, Segments, gone, read_body, tags};
use crate::auth;
use crate::error::Error;
use crate::surface::Shared;

const SPACE: &str = "default";

/// Names of provider fields, before there were spaces and since.
const RENAMED: [(&str, &str); 1] = [("awsAccessKeyID", "awsAccessKeyId")];

/// An error in the shape of these routes.
struct Spaceless(Error);

/// How these routes tell an error.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "it is described and not made: gateway/src/error.rs writes it"
)]
struct SpacelessError {
    /// What is wrong.
    error: String,
}

impl<E: Into<Error>> From<E> for Spaceless {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Spaceless {
    fn into_response(self) -> Response {
        self.0.spaceless().into_response()
    }
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Shared>> {
    OpenApiRouter::new()
        .routes(routes!(list_functions, create_function))
        .routes(routes!(read_function, replace_function, delete_function))
        .routes(routes!(list_subscriptions, create_subscription))
        .routes(routes!(delete_subscription))
}

/// Register a function of the space `default`.
#[utoipa::path(
    post,
    operation_id = "spaceless_create_function",
    path = "/v1/functions",
    tag = "spaceless",
    request_body = serde_json::Value,
    responses((status = 200, description = "The record", body = serde_json::Value)),
)]
async fn create_function(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Spaceless> {
    let (_, body) = read_body(&shared, request).await?;
    let function = parse_function(None, &body)?;
    auth::may_register(&caller, &function)?;
    let stored = shared.node.create(function).await?;
    Ok(tags::tagged(
        function_record(&stored.function),
        stored.revision,
    ))
}

/// List the functions of the space `default`.
#[utoipa::path(
    get,
    operation_id = "spaceless_list_functions",
    path = "/v1/functions",
    tag = "spaceless",
    params(("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = serde_json::Value)),
)]
async fn list_functions(
    State(shared): State<Arc<Shared>>,
    filter: MetadataFilter,
) -> Result<Response, Spaceless> {
    let stored = shared.node.list(SPACE).await?;
    let functions: Vec<Value> = stored
        .iter()
        .filter(|stored| filter.accepts(stored.function.metadata.as_ref()))
        .map(|stored| function_record(&stored.function))
        .collect();
    Ok(Line(json!({ "functions": functions })).into_response())
}

/// Read a function of the space `default`.
#[utoipa::path(
    get,
    operation_id = "spaceless_read_function",
    path = "/v1/functions/{id}",
    tag = "spaceless",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The record", body = serde_json::Value),
        (status = 404, description = "There is none", body = SpacelessError),
    ),
)]
async fn read_function(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
) -> Result<Response, Spaceless> {
    let stored = shared.node.get(SPACE, &id).await?;
    Ok(tags::tagged(
        function_record(&stored.function),
        stored.revision,
    ))
}

/// Replace a function of the space `default`.
#[utoipa::path(
    put,
    operation_id = "spaceless_replace_function",
    path = "/v1/functions/{id}",
    tag = "spaceless",
    params(("id" = String, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = serde_json::Value,
    responses(
        (status = 200, description = "The record", body = serde_json::Value),
        (status = 404, description = "There is none", body = SpacelessError),
        (status = 409, description = "Others change it at the same time", body = SpacelessError),
        (status = 412, description = "`if-match` names another revision", body = SpacelessError),
    ),
)]
async fn replace_function(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Spaceless> {
    let (fields, body) = read_body(&shared, request).await?;
    check_json(&body)?;
    // Whether it is there was asked before whether it validates.
    shared.node.get(SPACE, &id).await?;
    let function = parse_function(Some(&id), &body)?;
    auth::may_register(&caller, &function)?;
    let at = expected_revision(&shared, SPACE, &id, &fields).await?;
    let stored = shared.node.update(function, at).await?;
    Ok(tags::tagged(
        function_record(&stored.function),
        stored.revision,
    ))
}

/// Remove a function of the space `default`.
#[utoipa::path(
    delete,
    operation_id = "spaceless_delete_function",
    path = "/v1/functions/{id}",
    tag = "spaceless",
    params(("id" = String, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = SpacelessError),
        (status = 409, description = "Others change it at the same time", body = SpacelessError),
        (status = 412, description = "`if-match` names another revision", body = SpacelessError),
    ),
)]
async fn delete_function(
    State(shared): State<Arc<Shared>>,
    Segments(id): Segments<String>,
    fields: HeaderMap,
) -> Result<Response, Spaceless> {
    let at = expected_revision(&shared, SPACE, &id, &fields).await?;
    shared.node.delete(SPACE, &id, at).await?;
    Ok(gone())
}

/// Subscribe a function of the space `default`.
#[utoipa::path(
    post,
    operation_id = "spaceless_create_subscription",
    path = "/v1/subscriptions",
    tag = "spaceless",
    request_body = serde_json::Value,
    responses((status = 200, description = "The record", body = serde_json::Value)),
)]
async fn create_subscription(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Spaceless> {
    let (_, body) = read_body(&shared, request).await?;
    check_json(&body)?;
    let subscription = Subscription::parse(SPACE, &body).map_err(|why| match why {
        subscription::Invalid::Validation(tail) => Error::invalid(format!(
            "Subscription doesn't validate. Validation error: {tail:?}"
        )),
        why @ (subscription::Invalid::UnknownFunction(_)
        | subscription::Invalid::UnknownAuthorizer(_)) => Error::invalid_subscription(&why),
    })?;
    let id = spaceless_id(&subscription);
    match shared.node.create_subscription(subscription).await {
        Ok(stored) => {
            let record = subscription_record(&stored.subscription);
            Ok(tags::tagged(record, stored.revision))
        }
        Err(catalog::Error::SubscriptionExists(_)) => {
            let message = format!("Subscription \"{id}\" already exits.");
            Err(Error::invalid(message).into())
        }
        Err(error) => Err(error.into()),
    }
}

/// List the subscriptions of the space `default`.
#[utoipa::path(
    get,
    operation_id = "spaceless_list_subscriptions",
    path = "/v1/subscriptions",
    tag = "spaceless",
    params(("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = serde_json::Value)),
)]
async fn list_subscriptions(
    State(shared): State<Arc<Shared>>,
    filter: MetadataFilter,
) -> Result<Response, Spaceless> {
    let stored = shared.node.subscriptions(SPACE).await?;
    let subscriptions: Vec<Value> = stored
        .iter()
        .filter(|stored| filter.accepts(stored.subscription.metadata.as_ref()))
        .map(|stored| subscription_record(&stored.subscription))
        .collect();
    Ok(Line(json!({ "subscriptions": subscriptions })).into_response())
}

/// Remove a subscription of the space `default`.
#[utoipa::path(
    delete,
    operation_id = "spaceless_delete_subscription",
    path = "/v1/subscriptions/{id}",
    tag = "spaceless",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = SpacelessError),
    ),
)]
async fn delete_subscription(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Response, Spaceless> {
    // As under spaces, the id is what stands in the path.
    let id = uri.path().rsplit('/').next().unwrap_or_default();
    let stored = shared.node.subscriptions(SPACE).await?;
    let mut subscriptions = stored.iter().map(|stored| &stored.subscription);
    let found = subscriptions.find(|subscription| spaceless_id(subscription) == id);
    let not_found = || catalog::Error::SubscriptionNotFound(id.to_owned());
    let found: SubscriptionId = found.ok_or_else(not_found)?.subscription_id.clone();
    match shared.node.delete_subscription(SPACE, &found, None).await {
        Err(catalog::Error::SubscriptionNotFound(_)) => Err(not_found().into()),
        deleted => {
            deleted?;
            Ok(gone())
        }
    }
}

/// Bodies that are no JSON object had an error of their own.
fn check_json(body: &[u8]) -> Result<Map<String, Value>, Error> {
    serde_json::from_slice(body)
        .map_err(|why| Error::invalid(format!("Malformed JSON payload: {why}.")).undecodable())
}

/// Reads a function whose type is inside its provider; one that has it beside the provider is read as well.
fn parse_function(id: Option<&str>, body: &[u8]) -> Result<Function, Error> {
    let mut record = check_json(body)?;
    if let Some(provider) = record.get_mut("provider").and_then(Value::as_object_mut) {
        for (old, new) in RENAMED {
            if let Some(value) = provider.remove(old) {
                provider.insert(new.to_owned(), value);
            }
        }
        if let Some(type_name) = provider.remove("type") {
            record.entry("type").or_insert(type_name);
        }
    }
    let body = Value::Object(record).to_string();
    Function::parse(SPACE, id, body.as_bytes()).map_err(|tail| {
        let tail = tail.to_string();
        Error::invalid(format!(
            "Function doesn't validate. Validation error: {tail:?}"
        ))
    })
}

fn function_record(function: &Function) -> Value {
    let mut record = object(function);
    record.remove("space");
    let type_name = record.remove("type");
    if let Some(provider) = record.get_mut("provider").and_then(Value::as_object_mut) {
        for (old, new) in RENAMED {
            if let Some(value) = provider.remove(new) {
                provider.insert(old.to_owned(), value);
            }
        }
        provider.extend(type_name.map(|type_name| ("type".to_owned(), type_name)));
    }
    Value::Object(record)
}

fn subscription_record(subscription: &Subscription) -> Value {
    let mut record = object(subscription);
    record.remove("space");
    record.insert(
        "subscriptionId".to_owned(),
        spaceless_id(subscription).into(),
    );
    if is_plain(subscription) {
        record.remove("path");
    }
    Value::Object(record)
}

fn object(record: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(record) {
        Ok(Value::Object(record)) => record,
        // Records are structs whose maps have string keys.
        _ => Map::new(),
    }
}

/// Whether neither method nor path were given: then the path is the root of all events.
fn is_plain(subscription: &Subscription) -> bool {
    subscription.method.is_none() && subscription.path == "/"
}

fn spaceless_id(subscription: &Subscription) -> String {
    let event = &subscription.event;
    if subscription.is_typed() {
        return subscription.subscription_id.to_string();
    }
    if is_plain(subscription) {
        return format!("{event}-{}", subscription.function_id);
    }
    let method = subscription.method.map_or("", |method| method.as_str());
    format!("{event}-{method}-{}", escape_segment(&subscription.path))
}
