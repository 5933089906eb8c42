//! What the cluster keeps sealed in the config store.
//!
//! Invariants: nothing sealed is ever logged or shown in `Debug`; a sealed value opens only under the key of the record that it was sealed
//! for; the data key is in the store wrapped only. It knows no HTTP, and not what it seals.

mod data_key;
mod plain;
mod vault;

pub use data_key::DataKey;
pub use plain::Plain;
pub use vault::{Error, RECORD, Vault};
