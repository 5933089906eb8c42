//! `logins/<subject>`: failed logins of an account or address.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::user::Email;
use super::{Millis, hash};

/// The prefix of failed logins.
pub const PREFIX: &str = "logins/";

/// Failed logins as the store has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) failures: u32,
    pub(crate) last_at_ms: Millis,
}

/// The subject of an account, also of one that does not exist: nobody can tell them apart by being slowed.
pub(crate) fn account(email: &Email) -> String {
    format!("a-{}", email.hash())
}

/// The subject of an address. Whoever has one IPv6 address has its /64.
pub(crate) fn address(address: IpAddr) -> String {
    let text = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}")
        }
    };
    format!("i-{}", hash(text))
}

/// Whether a subject is an address.
pub(crate) fn is_address(subject: &str) -> bool {
    subject.starts_with("i-")
}

/// The key of the record of a subject's failed logins.
pub(crate) fn record_key(subject: &str) -> String {
    format!("{PREFIX}{subject}")
}
