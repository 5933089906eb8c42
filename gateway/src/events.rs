//! The events API on port 4000. Nothing can be subscribed in this version, so no path leads anywhere, and an event that can
//! be neither delivered nor kept is not accepted.

use std::sync::Arc;

use axum::Router;
use http::HeaderMap;

use crate::error::Error;
use crate::surface::Shared;

/// Every method and path.
pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new().fallback(async |headers: HeaderMap| {
        let is_emit = headers.get("event").is_some_and(|name| !name.is_empty());
        if is_emit {
            Error::events_not_accepted()
        } else {
            Error::not_found("resource not found")
        }
    })
}
