//! Subscriptions in Event Gateway's shape.

use std::sync::Arc;

use actors::catalog::{self, StoredSubscription};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, StatusCode};
use protocol::{Subscription, SubscriptionId, api};

use super::filter::MetadataFilter;
use super::named::Named;
use super::{Line, Segments, gone, read_body, refused, tags};
use crate::error::Error;
use crate::surface::Shared;

/// `POST /v1/spaces/{space}/subscriptions`
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

/// `GET /v1/spaces/{space}/subscriptions[?metadata.<key>=<value>]`
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

/// `GET /v1/spaces/{space}/subscriptions/{id}`
pub(super) async fn read(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named<SubscriptionId>,
) -> Result<Response, Error> {
    Ok(record(shared.node.subscription(&space, &id).await?))
}

/// `PUT /v1/spaces/{space}/subscriptions/{id}`
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

/// `DELETE /v1/spaces/{space}/subscriptions/{id}`
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
