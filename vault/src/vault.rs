//! The data key in the store: made once for the cluster, wrapped once for each secret of the keyring, and wrapped anew when that changes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use config::store::{self, Entry, Precondition};
use config::{Keyring, Store};
use protocol::{Component, Effect, ErrorCode, Failure};
use serde::{Deserialize, Serialize};
use tokio::sync::{OnceCell, watch};
use tokio::time;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use crate::data_key::DataKey;
use crate::plain::Plain;
use copy::Copy;

mod copy;
#[cfg(test)]
mod tests;

/// The key of the record that has the data key, wrapped.
pub const RECORD: &str = "vault/key";

/// How often it is tried to change the record while others change it as well.
const ATTEMPTS_MAX: usize = 8;

/// How long a failed change of the wraps waits.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// The key that seals the cluster's records, as soon as it can be had; cheap to clone.
#[derive(Debug, Clone)]
pub struct Vault(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Arc<dyn Store>,
    cluster_id: String,
    keyring: watch::Receiver<Keyring>,
    key: OnceCell<DataKey>,
    copy: Option<Copy>,
}

/// The data key, wrapped for each secret that may open it, by the secret's id.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Wrapped {
    wraps: BTreeMap<String, String>,
}

/// Why something can not be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The data key is wrapped for secrets that this node does not have.
    #[error(
        "the cluster's data key is sealed with a secret that this node does not have: its cluster.secret_file has other secrets than the nodes that made it"
    )]
    OtherSecret,
    /// What the store has is not what was put there.
    #[error("{record} can not be opened: it was altered, or sealed by another cluster")]
    Altered {
        /// The key of the record.
        record: String,
    },
    /// The data key of a backup is wrapped for secrets that this node does not have.
    #[error(
        "the backup's {RECORD} is sealed with a secret that this cluster does not have: put the secret of the cluster that it is of as a further line into cluster.secret_file of each node, import, and take the line out again"
    )]
    OfAnother,
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Store(error) => error.code(),
            Self::OtherSecret | Self::Altered { .. } => ErrorCode::Internal,
            Self::OfAnother => ErrorCode::InvalidRequest,
        }
    }

    /// Whether a write may have happened.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Store(error) => error.effect(),
            Self::OtherSecret | Self::Altered { .. } | Self::OfAnother => Effect::Refused,
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

impl Vault {
    /// A vault in this store. Nothing is read until something is sealed or opened.
    pub fn new(store: Arc<dyn Store>, cluster_id: &str, keyring: watch::Receiver<Keyring>) -> Self {
        Self(Arc::new(Inner {
            store,
            cluster_id: cluster_id.to_owned(),
            keyring,
            key: OnceCell::new(),
            copy: None,
        }))
    }

    /// One that keeps a copy of the wrapped key in a node's data directory, and opens with it while the store has not told the key yet.
    #[must_use]
    pub fn with_copy(
        store: Arc<dyn Store>,
        cluster_id: &str,
        keyring: watch::Receiver<Keyring>,
        data_dir: &Path,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            cluster_id: cluster_id.to_owned(),
            keyring,
            key: OnceCell::new(),
            copy: Some(Copy::new(data_dir)),
        }))
    }

    /// The data key; read, or made by the first node that needs it, at the first call.
    ///
    /// # Errors
    /// When the store does not answer, or the key is wrapped for other secrets.
    ///
    /// # Cancel safety
    /// The next call begins anew.
    pub async fn key(&self) -> Result<&DataKey, Error> {
        let opened = self.0.key.get_or_try_init(|| self.open());
        opened.await
    }

    /// Opens what a record has; says which one when that does not open.
    ///
    /// # Errors
    /// As [`Vault::key`], and [`Error::Altered`].
    pub async fn open_record(&self, record: &str, sealed: &[u8]) -> Result<Plain, Error> {
        // What the copy opens was sealed with its key, whatever the store would say.
        if !self.0.key.initialized()
            && let Some(key) = self.copied().await
            && let Some(opened) = key.open(record, sealed)
        {
            return Ok(opened.into());
        }
        let opened = self.key().await?.open(record, sealed);
        let opened = opened.ok_or_else(|| Error::Altered {
            record: record.to_owned(),
        });
        opened.map(Plain::from)
    }

    /// Derives a key for one purpose from the data key; from the copy of it while the store has not told it yet, so that what was made before a
    /// start is known at once after it.
    ///
    /// # Errors
    /// As [`Vault::key`], where there is no copy.
    pub async fn derive(&self, purpose: &str) -> Result<Zeroizing<[u8; 32]>, Error> {
        if !self.0.key.initialized()
            && let Some(key) = self.copied().await
        {
            return Ok(Zeroizing::new(key.derive(purpose)));
        }
        let key = self.key().await?;
        Ok(Zeroizing::new(key.derive(purpose)))
    }

    /// Opens the data key of another cluster, or of this one at another time, by the record that a backup has of it.
    ///
    /// # Errors
    /// [`Error::OfAnother`] when no secret of this node opens it.
    pub fn open_key_of(&self, cluster_id: &str, record: &[u8]) -> Result<DataKey, Error> {
        let wrapped: Wrapped = serde_json::from_slice(record).map_err(|_| Error::Altered {
            record: RECORD.to_owned(),
        })?;
        let key = unwrap(&wrapped, self.wrapping_of(cluster_id));
        key.ok_or(Error::OfAnother)
    }

    /// Wraps the key for the secrets that the node has, at first and each time that they change, until `stop`. So a node that has only
    /// the new one of two secrets opens it, and one that has only the old one no longer does when the new one is alone.
    pub async fn keep_wrapped(self, stop: CancellationToken) {
        let mut keyring = self.0.keyring.clone();
        loop {
            keyring.borrow_and_update();
            if let Err(error) = self.wrap_anew().await {
                tracing::warn!(%error, "the cluster's data key was not wrapped for the secrets of this node; it is tried again");
                if stop
                    .run_until_cancelled(time::sleep(RETRY_DELAY))
                    .await
                    .is_none()
                {
                    return;
                }
                continue;
            }
            match stop.run_until_cancelled(keyring.changed()).await {
                Some(Ok(())) => {}
                Some(Err(_)) | None => return,
            }
        }
    }

    async fn open(&self) -> Result<DataKey, Error> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(entry) = self.0.store.get(RECORD).await? {
                let key = self.unwrap(&read(&entry)?).ok_or(Error::OtherSecret)?;
                return Ok(key);
            }
            let key = DataKey::random();
            let value = serde_json::to_vec(&self.wrap(&key)).expect("texts have a JSON form");
            let put = self
                .0
                .store
                .put(RECORD, value.into(), Some(Precondition::Absent));
            match put.await {
                Ok(_) => return Ok(key),
                // Another node was first, or this one was and did not hear of it.
                Err(store::Error::Precondition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let key = RECORD.to_owned();
        Err(store::Error::Precondition { key }.into())
    }

    async fn wrap_anew(&self) -> Result<(), Error> {
        let key = self.key().await?;
        for _ in 0..ATTEMPTS_MAX {
            let Some(entry) = self.0.store.get(RECORD).await? else {
                return Err(Error::Altered {
                    record: RECORD.to_owned(),
                });
            };
            let wrapped = self.wrap(key);
            let found = read(&entry)?;
            if found.wraps.keys().eq(wrapped.wraps.keys()) {
                self.copy(&found).await;
                return Ok(());
            }
            let value = serde_json::to_vec(&wrapped).expect("texts have a JSON form");
            let at = Some(Precondition::At(entry.revision));
            match self.0.store.put(RECORD, value.into(), at).await {
                Ok(_) => {
                    self.copy(&wrapped).await;
                    return Ok(());
                }
                Err(store::Error::Precondition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let key = RECORD.to_owned();
        Err(store::Error::Precondition { key }.into())
    }

    async fn copy(&self, wrapped: &Wrapped) {
        if let Some(copy) = &self.0.copy {
            copy.write(wrapped).await;
        }
    }

    /// The key of the copy.
    async fn copied(&self) -> Option<DataKey> {
        let wrapped = self.0.copy.as_ref()?.read().await?;
        self.unwrap(&wrapped)
    }

    fn wrap(&self, key: &DataKey) -> Wrapped {
        let wraps = self.wrapping().into_iter();
        Wrapped {
            wraps: wraps
                .map(|(id, with)| (id, STANDARD.encode(key.wrap(RECORD, &with))))
                .collect(),
        }
    }

    fn unwrap(&self, wrapped: &Wrapped) -> Option<DataKey> {
        unwrap(wrapped, self.wrapping())
    }

    /// The keys that the data key is wrapped with, by the ids of the secrets that they follow from.
    fn wrapping(&self) -> Vec<(String, DataKey)> {
        self.wrapping_of(&self.0.cluster_id)
    }

    fn wrapping_of(&self, cluster_id: &str) -> Vec<(String, DataKey)> {
        let keyring = self.0.keyring.borrow();
        let secrets = keyring.secrets().iter();
        secrets
            .map(|secret| {
                let key = DataKey::new(secret.derive("vault", cluster_id));
                (secret.id(cluster_id), key)
            })
            .collect()
    }
}

fn unwrap(wrapped: &Wrapped, wrapping: Vec<(String, DataKey)>) -> Option<DataKey> {
    wrapping.into_iter().find_map(|(id, with)| {
        let wrap = STANDARD.decode(wrapped.wraps.get(&id)?).ok()?;
        with.unwrap(RECORD, &wrap)
    })
}

fn read(entry: &Entry) -> Result<Wrapped, Error> {
    serde_json::from_slice(&entry.value).map_err(|_| Error::Altered {
        record: entry.key.clone(),
    })
}
