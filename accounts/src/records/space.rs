//! `spaces/<space>`: what is set for a space; most have no record.

use protocol::{Space, SpaceLimits};
use serde::{Deserialize, Serialize};

/// The prefix of spaces' settings.
pub const PREFIX: &str = "spaces/";

/// Who may emit events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Events {
    /// Everybody.
    Open,
    /// Members of the space.
    #[default]
    Authenticated,
}

/// What is set for a space.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SpaceSettings {
    /// Who may emit events.
    #[serde(default)]
    pub events: Events,
    /// What it may have.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: SpaceLimits,
    /// What later versions add.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

fn is_default(limits: &SpaceLimits) -> bool {
    *limits == SpaceLimits::default()
}

/// The key of the record of a space's settings.
pub(crate) fn record_key(space: &Space) -> String {
    format!("{PREFIX}{space}")
}
