//! `sessions/<user>/<session>`: what a token's `sid` names. A token is good only while its session is there.

use serde::{Deserialize, Serialize};

use super::Millis;
use super::user::UserId;

/// The prefix of sessions.
pub const PREFIX: &str = "sessions/";

/// A session as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    /// The hash of the one refresh token that is good now.
    pub(crate) refresh_hash: String,
    pub(crate) expires_at_ms: Millis,
    pub(crate) created_at_ms: Millis,
}

/// The key of a session's record.
pub(crate) fn record_key(user: &UserId, id: &str) -> String {
    format!("{PREFIX}{user}/{id}")
}

/// The prefix of a user's sessions.
pub(crate) fn prefix_of(user: &UserId) -> String {
    format!("{PREFIX}{user}/")
}
