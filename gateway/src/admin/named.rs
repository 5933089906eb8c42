//! Records whose ids stand in paths as they are.

use actors::catalog;
use axum::extract::FromRequestParts;
use http::request::Parts;
use protocol::{CorsId, SubscriptionId};
use serde::Deserialize;

use super::Segments;
use crate::error::Error;

/// A space, and an id as it stands in the path: it is not decoded.
pub(super) struct Named<Id> {
    pub(super) space: String,
    pub(super) id: Id,
}

/// An id that is not decoded.
pub(super) trait UrlId: Send + Sized {
    fn from_url(segment: &str) -> Self;

    fn not_found(&self) -> catalog::Error;
}

impl<Id: UrlId, S: Send + Sync> FromRequestParts<S> for Named<Id> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct InSpace {
            space: String,
        }

        let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
        let id = Id::from_url(id);
        // What can not be decoded names no record.
        match Segments::from_request_parts(parts, state).await {
            Ok(Segments(InSpace { space })) => Ok(Self { space, id }),
            Err(_) => Err(id.not_found().into()),
        }
    }
}

impl UrlId for SubscriptionId {
    fn from_url(segment: &str) -> Self {
        Self::from_url(segment)
    }

    fn not_found(&self) -> catalog::Error {
        catalog::Error::SubscriptionNotFound(self.to_string())
    }
}

impl UrlId for CorsId {
    fn from_url(segment: &str) -> Self {
        Self::from_url(segment)
    }

    fn not_found(&self) -> catalog::Error {
        catalog::Error::CorsNotFound(self.to_string())
    }
}
