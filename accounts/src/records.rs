//! The records of accounts in the config store, a file a kind, and their keys.

pub mod key;
pub mod login;
pub mod session;
pub mod signing;
pub mod space;
pub mod user;

use ring::digest::{SHA256, digest as ring_digest};

/// The record with the hash of the one-time token that makes the first admin.
pub const ADMIN_INIT: &str = "admin/init";

/// The SHA-256 of something.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring_digest(&SHA256, bytes).as_ref());
    digest
}

/// The SHA-256 of something, in hexadecimal.
pub(crate) fn hash(bytes: impl AsRef<[u8]>) -> String {
    hex::encode(digest(bytes.as_ref()))
}

/// Milliseconds since 1970, in records.
pub(crate) type Millis = u64;
