//! The records of accounts in the config store, a file a kind, and their keys.

pub mod key;
pub mod login;
pub mod session;
pub mod signing;
pub mod space;
pub mod user;

use sha2::{Digest, Sha256};

/// The record with the hash of the one-time token that makes the first admin.
pub const ADMIN_INIT: &str = "admin/init";

/// The SHA-256 of something, in hexadecimal.
pub(crate) fn hash(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Milliseconds since 1970, in records.
pub(crate) type Millis = u64;
