//! The whole configuration of a cluster as one document, and back into an empty one.
//!
//! It has what people made: functions, subscriptions, event types, CORS configurations, schedules, users, keys and what is set for spaces,
//! each record as the store has it. It has nothing that a cluster makes by itself: no sessions and signing keys, so whoever was logged in logs in
//! again; no guards, which an import makes; no queued events, executions and progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Store;
use config::store::{self, Entry, Precondition, Transaction, Write};
use protocol::{Component, Effect, ErrorCode, Failure};
use serde_json::Value;
use vault::Vault;

use crate::registry_cache::SECRETS_PREFIX;

mod kinds;
mod seal;
#[cfg(test)]
mod tests;

use kinds::{KINDS, check, guards_of, is_of_user};

/// Records that are read or written at once; etcd takes 128 in a transaction.
const AT_ONCE: usize = 100;

/// Records that are named in a refusal.
const NAMED_MAX: usize = 5;

/// All records of a configuration, by their keys in the store.
pub type Records = BTreeMap<String, Value>;

/// Writes and reads configurations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Backup {
    store: Arc<dyn Store>,
    vault: Vault,
}

/// Why a configuration can not be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record of the document is none.
    #[error("record {key:?}: {why}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it, and what was expected.
        why: String,
    },
    /// A secret of the document can not be opened, or not be sealed for this cluster.
    #[error("record {key:?}: {source}")]
    Secret {
        /// Its key.
        key: String,
        /// Why.
        source: vault::Error,
    },
    /// The cluster has other records than the document.
    #[error(
        "the cluster is not empty: it has {count} records that the document does not have, or has otherwise, such as {}; import into a cluster without any", .named.join(", ")
    )]
    NotEmpty {
        /// How many there are.
        count: usize,
        /// Some of them.
        named: Vec<String>,
    },
    /// The store did not answer.
    #[error("{source}; {written} of {all} records were written: import the same document again")]
    Broken {
        /// What came back.
        source: store::Error,
        /// How many records were written before.
        written: usize,
        /// How many there are.
        all: usize,
    },
    /// The store did not answer, and nothing was written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, component, effect) = match &error {
            Error::Record { .. } => (
                ErrorCode::InvalidRequest,
                Component::Gateway,
                Effect::Refused,
            ),
            Error::Secret { source, .. } => (source.code(), Component::Store, source.effect()),
            Error::NotEmpty { .. } => (ErrorCode::Conflict, Component::Gateway, Effect::Refused),
            Error::Broken { source, .. } => (source.code(), Component::Store, Effect::Interrupted),
            Error::Store(error) => (error.code(), Component::Store, error.effect()),
        };
        Self::new(code, component, effect, message)
    }
}

impl Backup {
    /// A backup of what is in this store, whose secrets this vault seals.
    pub fn new(store: Arc<dyn Store>, vault: Vault) -> Self {
        Self { store, vault }
    }

    /// Reads the whole configuration. What changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// When the store does not answer, or has a record that is no JSON.
    pub async fn export(&self) -> Result<Records, Error> {
        let mut records = self.read().await?;
        if records.keys().any(|key| key.starts_with(SECRETS_PREFIX))
            && let Some(entry) = self.store.get(vault::RECORD).await?
        {
            // What opens the secrets, itself sealed with the cluster's secret.
            records.insert(entry.key.clone(), parsed(&entry)?);
        }
        Ok(records)
    }

    async fn read(&self) -> Result<Records, Error> {
        let mut records = Records::new();
        for kind in KINDS {
            let mut after: Option<String> = None;
            loop {
                let page = self
                    .store
                    .list_page(kind.prefix, after.as_deref(), AT_ONCE)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for entry in page {
                    let value = parsed(&entry)?;
                    records.insert(entry.key, value);
                }
            }
        }
        Ok(records)
    }

    /// Writes a whole configuration into a cluster that has none, or a part of this very one: so what was broken off is made again. `own` is
    /// the user who does it, whose account may be there. Secrets are opened with the data key of the cluster that the document is of, `from`, and
    /// sealed anew with this one's.
    ///
    /// # Errors
    /// When a record is none, a secret can not be opened, the cluster has others, or the store does not answer; only in the last case something may
    /// have been written.
    pub async fn import(
        &self,
        records: &Records,
        from: &str,
        own: Option<&str>,
    ) -> Result<usize, Error> {
        let mut records = records.clone();
        let theirs = records.remove(vault::RECORD);
        for (key, value) in &records {
            check(key, value)?;
        }
        let there = self.read().await?;
        self.seal_anew(&mut records, theirs.as_ref(), from, &there)
            .await?;
        let records = &records;
        let is_other = |(key, value): &(&String, &Value)| {
            let is_same = records.get(*key) == Some(*value);
            !is_same && !own.is_some_and(|own| is_of_user(key, value, own))
        };
        let others: Vec<_> = there.iter().filter(is_other).collect();
        if !others.is_empty() {
            let named = others.iter().take(NAMED_MAX).map(|(key, _)| (*key).clone());
            return Err(Error::NotEmpty {
                count: others.len(),
                named: named.collect(),
            });
        }
        let kept: BTreeSet<&String> = there.keys().collect();
        let mut written = 0;
        for kind in KINDS {
            let new = records
                .iter()
                .filter(|(key, _)| key.starts_with(kind.prefix) && !kept.contains(key));
            let new: Vec<_> = new.collect();
            for batch in new.chunks(AT_ONCE / 2) {
                let committed = self.store.commit(transaction(batch)).await;
                committed.map_err(|source| Error::Broken {
                    source,
                    written,
                    all: records.len(),
                })?;
                written += batch.len();
            }
        }
        // Last, so that whoever has seen a guard has seen what it guards; those of an import that was broken off, too.
        let guards: BTreeSet<String> = records.iter().flat_map(guards_of).collect();
        let guards: Vec<_> = guards.into_iter().collect();
        for batch in guards.chunks(AT_ONCE) {
            let moved = batch.iter().cloned();
            let transaction = Transaction {
                writes: moved.map(|key| Write::Put(key, "{}".into())).collect(),
                ..Transaction::default()
            };
            let committed = self.store.commit(transaction).await;
            committed.map_err(|source| Error::Broken {
                source,
                written,
                all: records.len(),
            })?;
        }
        Ok(written)
    }
}

fn parsed(entry: &Entry) -> Result<Value, Error> {
    serde_json::from_slice(&entry.value).map_err(|error| Error::Record {
        key: entry.key.clone(),
        why: format!("it is no JSON: {error}"),
    })
}

/// Writes records that are not there.
fn transaction(batch: &[(&String, &Value)]) -> Transaction {
    let absent = |(key, _): &(&String, &Value)| ((*key).clone(), Precondition::Absent);
    let put = |(key, value): &(&String, &Value)| {
        Write::Put((*key).clone(), value.to_string().into_bytes().into())
    };
    Transaction {
        preconditions: batch.iter().map(absent).collect(),
        writes: batch.iter().map(put).collect(),
    }
}
