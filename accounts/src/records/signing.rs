//! `signing/<number>`: the keys that sign tokens, the private half sealed with the cluster's data key.

use serde::{Deserialize, Serialize};

use super::Millis;

/// The prefix of signing keys.
pub const PREFIX: &str = "signing/";

/// A signing key as the store has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The public half, Ed25519, base64url.
    pub(crate) public: String,
    /// The sealed seed, base64url.
    pub(crate) sealed: String,
    /// When it starts to sign; every node knows it by then.
    pub(crate) active_from_ms: Millis,
    /// When the last token that it signed has expired; none while it has no successor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retires_at_ms: Option<Millis>,
}

/// The key of a signing key's record.
pub(crate) fn record_key(number: u64) -> String {
    format!("{PREFIX}{number}")
}
