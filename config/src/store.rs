//! The config store: the cluster's records, with preconditions and an ordered watch.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
pub mod embedded;
pub mod etcd;
pub mod memory;
pub mod patience;
mod records;

pub use embedded::EmbeddedStore;
pub use etcd::EtcdStore;
pub use memory::MemoryStore;

/// The store's version: grows with every commit, and orders all changes.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A record as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, without the cluster's prefix.
    pub key: String,
    /// Its value.
    pub value: Bytes,
    /// The revision of its last change.
    pub revision: Revision,
}

/// All records under a prefix at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The records, by key.
    pub entries: Vec<Entry>,
    /// The store's revision as of which they are complete.
    pub revision: Revision,
}

/// What must hold of a key for a transaction to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precondition {
    /// No record.
    Absent,
    /// A record, whatever its revision.
    Present,
    /// A record last changed at this revision.
    At(Revision),
}

/// A change a transaction makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Stores a value.
    Put(String, Bytes),
    /// Removes the record; nothing when there is none.
    Delete(String),
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Writes that happen together, or not at all when one precondition does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transaction {
    /// What must hold.
    pub preconditions: Vec<(String, Precondition)>,
    /// What is then written; no key twice.
    pub writes: Vec<Write>,
}

/// One record's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Stored or replaced.
    Put(Entry),
    /// Removed.
    Deleted(String),
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Deleted(key) => key,
        }
    }
}

/// What a watch says. Revisions never go back; a change is neither lost nor repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchEvent {
    /// The changes of one commit under the prefix, in the order of the keys.
    Changes {
        /// The commit's revision.
        revision: Revision,
        /// The changes.
        changes: Vec<Change>,
    },
    /// Everything under the prefix, after changes could not be told one by one (compaction): replaces all that was known.
    Reset(Listing),
}

/// A running watch; dropping it ends it.
pub type Watch = mpsc::Receiver<WatchEvent>;

/// How many events a watch buffers before its source waits.
pub const WATCH_BUFFER: usize = 256;

/// The cluster's records. One conformance suite holds for every backend.
#[async_trait]
pub trait Store: Send + Sync + std::fmt::Debug + 'static {
    /// Reads one record, the newest.
    ///
    /// # Errors
    /// When the store does not answer in time.
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error>;

    /// Reads all records under a prefix, at one revision.
    ///
    /// # Errors
    /// When the store does not answer in time.
    async fn list(&self, prefix: &str) -> Result<Listing, Error>;

    /// Reads up to `max` records under a prefix, in the order of their keys, with `after` only those whose keys are greater. So
    /// records are read that are too many for [`Store::list`]; pages are of the moment they are read at.
    ///
    /// # Errors
    /// When the store does not answer in time.
    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, Error>;

    /// Writes if every precondition holds, and returns the revision of the write.
    ///
    /// # Errors
    /// [`Error::Precondition`] when one does not hold; nothing is written then. [`Error::Unavailable`] when the store does not
    /// answer in time: its `effect` says whether the write may have happened.
    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error>;

    /// Watches the records under a prefix for changes after a revision. It outlives outages, and ends
    /// only with its receiver or the store.
    ///
    /// # Panics
    /// Outside of a tokio runtime, which its task runs on.
    fn watch(&self, prefix: &str, after: Revision) -> Watch;

    /// How long ago the watch last heard the store; zero for a store within the process.
    fn staleness(&self) -> Duration;

    /// Stores one record under a precondition.
    ///
    /// # Errors
    /// As [`Store::commit`].
    async fn put(
        &self,
        key: &str,
        value: Bytes,
        precondition: Option<Precondition>,
    ) -> Result<Revision, Error> {
        self.commit(Transaction {
            preconditions: precondition
                .map(|precondition| (key.to_owned(), precondition))
                .into_iter()
                .collect(),
            writes: vec![Write::Put(key.to_owned(), value)],
        })
        .await
    }

    /// Removes one record under a precondition.
    ///
    /// # Errors
    /// As [`Store::commit`].
    async fn delete(
        &self,
        key: &str,
        precondition: Option<Precondition>,
    ) -> Result<Revision, Error> {
        self.commit(Transaction {
            preconditions: precondition
                .map(|precondition| (key.to_owned(), precondition))
                .into_iter()
                .collect(),
            writes: vec![Write::Delete(key.to_owned())],
        })
        .await
    }
}

/// Why an operation on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A precondition did not hold; nothing was written.
    #[error("the record {key} changed, exists or is gone")]
    Precondition {
        /// The key whose precondition did not hold.
        key: String,
    },
    /// The store did not answer in time, or refused.
    #[error("the config store can not be reached: {why}")]
    Unavailable {
        /// What was tried, and what came back.
        why: String,
        /// [`Effect::Interrupted`] when a write may have happened.
        effect: Effect,
    },
    /// What the store holds can not be read.
    #[error("the config store is damaged: {why}")]
    Damaged {
        /// What was found where.
        why: String,
    },
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Precondition { .. } => ErrorCode::Conflict,
            Self::Unavailable { .. } => ErrorCode::StoreUnavailable,
            Self::Damaged { .. } => ErrorCode::Internal,
        }
    }

    /// Whether the write may have happened.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Unavailable { effect, .. } => *effect,
            Self::Precondition { .. } | Self::Damaged { .. } => Effect::Refused,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(
            error.code(),
            Component::Store,
            error.effect(),
            error.to_string(),
        )
    }
}
