//! The whole configuration of the cluster as one document, and back into an empty one.

use std::collections::BTreeMap;
use std::sync::Arc;

use accounts::{Caller, UserId};
use axum::Extension;
use axum::extract::{Request, State};
use protocol::Failure;
use protocol::api::Errors;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::{Line, read_json};
use crate::error::Error;
use crate::surface::Shared;

/// The format of the document. A later one that this version can not read has another number.
const FORMAT: u32 = 1;

/// The whole configuration of a cluster.
#[derive(Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Export {
    /// The format of this document: 1.
    format: u32,
    /// The id of the cluster that it is of.
    #[serde(default)]
    cluster: String,
    /// The version of Hearth that wrote it.
    #[serde(default)]
    version: String,
    /// All records, by their keys: passwords and API keys as hashes, secrets sealed.
    records: BTreeMap<String, Value>,
}

/// What was imported.
#[derive(Serialize, ToSchema)]
pub(super) struct Imported {
    /// How many records were written; those that were there already are not counted.
    imported: usize,
}

/// Export the whole configuration: functions, subscriptions, event types, CORS, schedules, secrets, users, keys and what is set for spaces.
#[utoipa::path(
    get,
    path = "/v1/export",
    operation_id = "export_configuration",
    tag = "config",
    responses((status = 200, description = "The configuration", body = Export)),
)]
pub(super) async fn export(State(shared): State<Arc<Shared>>) -> Result<Line<Export>, Error> {
    let records = shared.node.backup().export().await.map_err(Failure::from)?;
    Ok(Line(Export {
        format: FORMAT,
        cluster: shared.node.cluster().cluster,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        records,
    }))
}

/// Import a whole configuration into a cluster that has none.
///
/// The account of the caller may be there. An import that was broken off is made again with the same document.
#[utoipa::path(
    post,
    path = "/v1/import",
    operation_id = "import_configuration",
    tag = "config",
    request_body = Export,
    responses(
        (status = 200, description = "It is there, on every node within moments", body = Imported),
        (status = 409, description = "The cluster is not empty", body = Errors),
    ),
)]
pub(super) async fn import(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Line<Imported>, Error> {
    let expected = r#"{"format": 1, "records": {..}} as GET /v1/export answers"#;
    let sent: Export = read_json(&shared, request, expected).await?;
    if sent.format != FORMAT {
        let found = sent.format;
        let message =
            format!("format is {found}, expected {FORMAT}: another version of hearth wrote it");
        return Err(Error::invalid(message));
    }
    let own = caller.user_id().map(UserId::as_str);
    // A document that does not say so is of a cluster of the same name.
    let own_id = shared.node.cluster().cluster;
    let from = match sent.cluster.is_empty() {
        true => &own_id,
        false => &sent.cluster,
    };
    let imported = shared.node.backup().import(&sent.records, from, own).await;
    let imported = imported.map_err(Failure::from)?;
    tracing::info!(records = imported, "a configuration was imported");
    Ok(Line(Imported { imported }))
}
