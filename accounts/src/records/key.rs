//! `keys/<user>/<key>`: API keys.

use std::collections::BTreeSet;

use protocol::Space;
use serde::{Deserialize, Serialize};

use super::Millis;
use super::user::UserId;
use crate::Scope;
use crate::secrets::AccessKeyId;

/// The prefix of keys.
pub const PREFIX: &str = "keys/";

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// What people call it: 1 to 100 characters.
    pub name: String,
    /// What it may; at least one.
    pub scopes: BTreeSet<Scope>,
    /// The only spaces that it may it in; all of its user's without.
    #[serde(default)]
    pub spaces: Option<BTreeSet<Space>>,
    /// After how many seconds it ends by itself; never without.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// Whether it is an access key, for AWS's clients: an id and a secret access key that sign requests to AWS Lambda's API. Of at most one
    /// space, where it calls; its user's own without.
    #[serde(default)]
    pub aws: bool,
}

/// A key as its user may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it may.
    pub scopes: BTreeSet<Scope>,
    /// The only spaces that it may it in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spaces: Option<BTreeSet<Space>>,
    /// When it was made.
    pub created_at_ms: Millis,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<Millis>,
    /// The id that AWS's clients name it by, of an access key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
}

/// A key as the store has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) name: String,
    /// The hash of what was shown once; of an access key nothing, which is the hash of no text.
    pub(crate) hash: String,
    pub(crate) scopes: BTreeSet<Scope>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) spaces: Option<BTreeSet<Space>>,
    pub(crate) created_at_ms: Millis,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expires_at_ms: Option<Millis>,
    /// Whether it is an access key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) aws: bool,
}

impl Record {
    /// What its user may see of it.
    pub(crate) fn public(self, user: &UserId, id: &str) -> Key {
        Key {
            access_key_id: self.aws.then(|| AccessKeyId::text(user, id)),
            id: id.to_owned(),
            name: self.name,
            scopes: self.scopes,
            spaces: self.spaces,
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

/// The key of a key's record.
pub(crate) fn record_key(user: &UserId, id: &str) -> String {
    format!("{PREFIX}{user}/{id}")
}

/// The prefix of a user's keys.
pub(crate) fn prefix_of(user: &UserId) -> String {
    format!("{PREFIX}{user}/")
}
