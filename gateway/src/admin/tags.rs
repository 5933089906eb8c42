//! Revisions of records as `ETag`, and what `If-Match` asks for.

use std::future::Future;

use actors::catalog;
use axum::response::{IntoResponse, Response};
use config::Revision;
use http::{HeaderMap, header};
use serde::Serialize;

use super::Line;
use crate::error::Error;
use crate::headers;

/// A record with its revision as `ETag`.
pub(super) fn tagged(record: impl Serialize, revision: Revision) -> Response {
    let tag = headers::text(&format!("\"{}\"", revision.0));
    ([(header::ETAG, tag)], Line(record)).into_response()
}

/// The revision that `If-Match` asks for. A list of them is looked up with `current`; what is no revision of ours matches no
/// record, which is `changed` then.
pub(super) async fn expected(
    fields: &HeaderMap,
    current: impl Future<Output = Result<Revision, catalog::Error>>,
    changed: catalog::Error,
) -> Result<Option<Revision>, Error> {
    let mut tags = Vec::new();
    for value in fields.get_all(header::IF_MATCH) {
        tags.extend(value.to_str().unwrap_or("").split(',').map(str::trim));
    }
    if tags.is_empty() || tags == ["*"] {
        return Ok(None);
    }
    let revisions: Vec<Revision> = tags.into_iter().filter_map(revision).collect();
    if let [revision] = revisions[..] {
        return Ok(Some(revision));
    }
    let current = current.await?;
    match revisions.contains(&current) {
        true => Ok(Some(current)),
        false => Err(changed.into()),
    }
}

fn revision(tag: &str) -> Option<Revision> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    digits.parse().ok().map(Revision)
}
