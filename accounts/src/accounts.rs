//! The accounts of a cluster, as one node has them.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use bytes::Bytes;
use config::settings::{AuthSettings, Secret};
use config::store::{self, Entry, Transaction, Write};
use config::{Revision, Store};
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::Vault;

use crate::cache::Cache;
use crate::follow::{self, Reached};
use crate::known::{Kind, Known};
use crate::password::Passwords;
use crate::signing::Opened;
use crate::sweep;
use crate::{Caller, Denied, Error, UserId};

/// How often a change is tried whose record others change as well.
pub(crate) const TRIES: usize = 10;

/// How long a write waits until this node knows of it; it is stored by then.
const REACH_TIMEOUT: Duration = Duration::from_secs(2);

/// What accounts are made from.
#[derive(Debug)]
pub struct Args {
    /// The config store.
    pub store: Arc<dyn Store>,
    /// What seals the keys that sign tokens.
    pub vault: Vault,
    /// `[auth]`.
    pub settings: AuthSettings,
    /// The cluster, whose tokens these are.
    pub cluster_id: Arc<str>,
    /// The node's name.
    pub node: Arc<str>,
    /// Where the node keeps what it knows, for a start without the store.
    pub data_dir: PathBuf,
    /// What its tasks are spawned on.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

/// The accounts of a cluster, as one node has them; cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) settings: AuthSettings,
    pub(crate) cluster_id: Arc<str>,
    pub(crate) node: Arc<str>,
    pub(crate) known: RwLock<Known>,
    pub(crate) reached: watch::Sender<Reached>,
    pub(crate) cache: Cache,
    pub(crate) passwords: Passwords,
    pub(crate) opened: Opened,
    /// Credentials that the store is being asked about.
    pub(crate) asks: Semaphore,
    pub(crate) vault: Vault,
}

/// What a look at a credential says.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// It is good.
    Known(Caller),
    /// It may be so new that only the store knows: [`Accounts::ask`].
    Unknown,
    /// It is not good.
    Denied(Denied),
}

/// What a login or a refresh gives.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The token to call with.
    pub token: Secret,
    /// How long it is good.
    pub expires_in: Duration,
    /// What the next one is got with, once.
    pub refresh_token: Secret,
    /// Whose they are.
    pub user: UserId,
}

impl Accounts {
    /// Reads what the store, or the disk, has, and follows it from then on.
    pub async fn start(args: Args) -> Self {
        let Args {
            store,
            vault,
            settings,
            cluster_id,
            node,
            data_dir,
            tracker,
            stop,
        } = args;
        let accounts = Self {
            inner: Arc::new(Inner {
                known: RwLock::default(),
                reached: watch::Sender::default(),
                cache: Cache::new(settings.tokens_cached_max),
                opened: Opened::default(),
                asks: Semaphore::new(settings.asks_max.min(Semaphore::MAX_PERMITS)),
                passwords: Passwords::new(settings.hashes_max, settings.hashes_waiting_max),
                store,
                settings,
                cluster_id,
                node,
                vault,
            }),
        };
        follow::start(&accounts, data_dir, &tracker, &stop).await;
        let sweep = sweep::keep_house(accounts.clone());
        tracker.spawn(stop.run_until_cancelled_owned(sweep));
        accounts
    }

    /// How long ago this node last heard of revocations.
    pub fn staleness(&self) -> Duration {
        self.inner.store.staleness()
    }

    pub(crate) fn known(&self) -> RwLockReadGuard<'_, Known> {
        let known = self.inner.known.read();
        known.unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known.
    pub(crate) fn learn<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let known = self.inner.known.write();
        change(&mut known.unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the node knows as much as the store or the disk told.
    pub(crate) fn is_loaded(&self) -> bool {
        self.inner.reached.borrow().is_loaded()
    }

    pub(crate) async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.inner.store.get(key).await?)
    }

    /// Commits, and waits until this node knows of it. False when a precondition did not hold.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<bool, Error> {
        let writes = transaction.writes.clone();
        match self.inner.store.commit(transaction).await {
            Ok(revision) => {
                self.reach(revision, &writes).await;
                Ok(true)
            }
            Err(store::Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn reach(&self, revision: Revision, writes: &[Write]) {
        let mut reached = self.inner.reached.subscribe();
        let is_known = |reached: &Reached| {
            let known = self.known();
            writes
                .iter()
                .all(|write| match (Kind::of(write.key()), write) {
                    (None, _) => true,
                    (Some((kind, _)), Write::Put(..)) => reached.of(kind) >= revision,
                    // What was gone before is no change that the watch would tell of.
                    (Some((kind, name)), Write::Delete(_)) => !known.has(kind, name),
                })
        };
        let waited = tokio::time::timeout(REACH_TIMEOUT, reached.wait_for(is_known)).await;
        if waited.is_err() {
            tracing::warn!(
                revision = revision.0,
                "a change of accounts is stored, but this node does not know of it yet"
            );
        }
    }
}

/// A record as the store takes it.
pub(crate) fn value(record: &impl Serialize) -> Result<Bytes, Error> {
    let value = serde_json::to_vec(record);
    let value =
        value.map_err(|error| Error::Internal(format!("a record can not be written: {error}")))?;
    Ok(value.into())
}

/// A record that the store had.
pub(crate) fn parse<T: for<'de> serde::Deserialize<'de>>(entry: &Entry) -> Result<T, Error> {
    serde_json::from_slice(&entry.value).map_err(|error| {
        Error::Internal(format!("the record {} can not be read: {error}", entry.key))
    })
}
