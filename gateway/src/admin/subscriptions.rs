//! Subscriptions in Event Gateway's shape.

use std::sync::Arc;

use actors::catalog::{self, StoredSubscription};
use axum::extract::{FromRequestParts, Request, State};
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::request::Parts;
use http::{HeaderMap, StatusCode, header};
use protocol::{Subscription, SubscriptionId, api};
use serde::Deserialize;

use super::filter::MetadataFilter;
use super::{Line, Segments, is_json, read_body, tags};
use crate::error::Error;
use crate::headers;
use crate::surface::Shared;

/// A space, and an id as it stands in the path: it is not decoded.
pub(super) struct Named {
    space: String,
    id: SubscriptionId,
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct InSpace {
            space: String,
        }

        let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let id = SubscriptionId::from_url(id);
        // What can not be decoded names no subscription.
        let Segments(InSpace { space }) = Segments::from_request_parts(parts, state)
            .await
            .map_err(|_: Error| catalog::Error::SubscriptionNotFound(id.to_string()))?;
        Ok(Self { space, id })
    }
}

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
    Named { space, id }: Named,
) -> Result<Response, Error> {
    Ok(record(shared.node.subscription(&space, &id).await?))
}

/// `PUT /v1/spaces/{space}/subscriptions/{id}`
pub(super) async fn replace(
    State(shared): State<Arc<Shared>>,
    Named { space, id }: Named,
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
    Named { space, id }: Named,
    fields: HeaderMap,
) -> Result<Response, Error> {
    let at = expected_revision(&shared, &space, &id, &fields).await?;
    shared.node.delete_subscription(&space, &id, at).await?;
    let content_type = [(header::CONTENT_TYPE, headers::JSON)];
    Ok((StatusCode::NO_CONTENT, content_type).into_response())
}

fn parse(space: &str, body: &[u8]) -> Result<Subscription, Error> {
    Subscription::parse(space, body).map_err(|why| {
        let error = Error::invalid_subscription(&why);
        if is_json(body) {
            error
        } else {
            error.undecodable()
        }
    })
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
