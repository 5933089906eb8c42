//! `?metadata.<key>=<value>` on lists: records that have all of what is asked for.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::Query;
use crate::error::Error;

/// Keys and values that a record's metadata must have; other parameters of the query are passed over.
pub(super) struct MetadataFilter(Vec<(String, String)>);

impl MetadataFilter {
    /// Whether a record's metadata has them all.
    pub(super) fn accepts(&self, metadata: Option<&BTreeMap<String, String>>) -> bool {
        self.0
            .iter()
            .all(|(key, value)| metadata.and_then(|metadata| metadata.get(key)) == Some(value))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for MetadataFilter {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        let Query(query): Query<Vec<(String, String)>> =
            Query::from_request_parts(parts, state).await?;
        let wanted = query
            .into_iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("metadata.")?.to_owned(), value)));
        Ok(Self(wanted.collect()))
    }
}
