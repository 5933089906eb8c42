//! Why a limit could not be settled with the store.

use config::store;

/// Why a limit could not be settled. What a node may give then, it may give all the same.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Others changed the record at each try.
    #[error(
        "the limit {key} could not be settled in {tries} tries: other nodes changed it meanwhile"
    )]
    Contended {
        /// The record's key.
        key: String,
        /// How often it was tried.
        tries: usize,
    },
    /// The record is not what a limit writes.
    #[error("the record {key} is not a limit's")]
    Damaged {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}
