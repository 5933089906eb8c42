//! Subscriptions in Event Gateway's shape.

use std::sync::Arc;

use actors::catalog::{self, StoredSubscription};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::api::{self, Errors, Subscriptions};
use protocol::{Space, Subscription, SubscriptionId};

use super::filter::MetadataFilter;
use super::named::Named;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// Register a subscription.
#[utoipa::path(
    post,
    operation_id = "create_subscription",
    path = "/v1/spaces/{space}/subscriptions",
    tag = "config",
    params(("space" = Space, Path, description = "The space")),
    request_body = Subscription,
    responses(
        (status = 201, description = "Registered", body = Subscription),
        (status = 409, description = "There is one of that id", body = Errors),
    ),
)]
pub(super) async fn create(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    request: Request,
) -> Result<Response, Error> {
    let (_, body) = read_body(&shared, request).await?;
    let subscription = parse(&space, &body)?;
    let stored = shared.node.create_subscription(subscription).await?;
    Ok((StatusCode::CREATED, record(stored)).into_response())
}

/// List the subscriptions of a space.
#[utoipa::path(
    get,
    operation_id = "list_subscriptions",
    path = "/v1/spaces/{space}/subscriptions",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("metadata.KEY" = Option<String>, Query, description = "Only records whose metadata has this key with this value")),
    responses((status = 200, description = "All of them", body = Subscriptions)),
)]
pub(super) async fn list(
    State(shared): State<Arc<Shared>>,
    Segments(space): Segments<String>,
    filter: MetadataFilter,
) -> Result<Line<api::Subscriptions>, Error> {
    let stored = shared.node.subscriptions(&space).await?;
    let subscriptions = stored
        .into_iter()
        .map(|stored| Arc::unwrap_or_clone(stored.subscription))
        .filter(|subscription| filter.accepts(subscription.metadata.as_ref()));
    Ok(Line(api::Subscriptions {
        subscriptions: subscriptions.collect(),
    }))
}

/// Read a subscription.
#[utoipa::path(
    get,
    operation_id = "read_subscription",
    path = "/v1/spaces/{space}/subscriptions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = SubscriptionId, Path, description = "Its id")),
    responses(
        (status = 200, description = "The record", body = Subscription),
        (status = 404, description = "There is none", body = Errors),
    ),
)]
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<SubscriptionId>,
) -> Result<Response, Error> {
    Ok(record(shared.node.subscription(&space, &id).await?))
}

/// Replace a subscription.
#[utoipa::path(
    put,
    operation_id = "replace_subscription",
    path = "/v1/spaces/{space}/subscriptions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = SubscriptionId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    request_body = Subscription,
    responses(
        (status = 200, description = "The record", body = Subscription),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<SubscriptionId>,
    request: Request,
) -> Result<Response, Error> {
    let (fields, body) = read_body(&shared, request).await?;
    let subscription = parse(&space, &body)?;
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    let stored = shared.node.update_subscription(&id, subscription, at);
    Ok(record(stored.await?))
}

/// Remove a subscription.
#[utoipa::path(
    delete,
    operation_id = "delete_subscription",
    path = "/v1/spaces/{space}/subscriptions/{id}",
    tag = "config",
    params(("space" = Space, Path, description = "The space"), ("id" = SubscriptionId, Path, description = "Its id"), ("if-match" = Option<String>, Header, description = "Only if the record has this `ETag`")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, description = "There is none", body = Errors),
        (status = 409, description = "Others change it at the same time", body = Errors),
        (status = 412, description = "`if-match` names another revision", body = Errors),
    ),
)]
pub(super) async fn delete(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<SubscriptionId>,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete_subscription(&space, &id, at).await?;
    Ok(gone())
}

fn parse(space: &str, body: &[u8]) -> Result<Subscription, Error> {
    let parsed = Subscription::parse(space, body);
    parsed.map_err(|why| refused(Error::invalid_subscription(&why), body))
}

fn record(stored: StoredSubscription) -> Response {
    tags::tagged(&*stored.subscription, stored.revision)
}

async fn expected_revision(
    shared: &Shared,
    space: &str,
    id: &SubscriptionId,
    fields: &HeaderMap,
) -> Result<Option<Revision>, Error> {
    let current = async { Ok(shared.node.subscription(space, id).await?.revision) };
    let changed = catalog::Error::SubscriptionChanged(id.to_string());
    tags::expected(fields, current, changed).await
}
