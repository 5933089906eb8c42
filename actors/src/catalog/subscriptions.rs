//! Subscription records.

use std::sync::Arc;
use std::time::Duration;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::subscription::Method;
use protocol::{PathTree, Space, Subscription, SubscriptionId};
use serde::Serialize;

use super::{
    ATTEMPTS_MAX, Catalog, Error, StoredSubscription, function_key, pause, unmoved, uses_key,
};
use crate::registry_cache::state::{read_subscription, subscription_key};
use crate::registry_cache::{Registry, SUBSCRIPTIONS_PREFIX, Subscribed};

/// How long this node's registry may take to reach a guard before the store is asked for all that is guarded.
const CATCH_UP: Duration = Duration::from_millis(500);

/// A subscription as it is stored: with what no API shows.
#[derive(Serialize)]
struct Kept<'a> {
    #[serde(flatten)]
    subscription: &'a Subscription,
    /// The revision at which it was created, once that is not its last change any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<Revision>,
}

impl Catalog {
    /// Subscribes a function to an event. The checks are made in Event Gateway's order: it exists, its path conflicts, the function
    /// is unknown; and they hold in the transaction that stores it.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create_subscription(
        &self,
        subscription: Subscription,
    ) -> Result<StoredSubscription, Error> {
        let turn = match subscription.is_http() {
            true => self.path_changes.acquire().await.ok(),
            false => None,
        };
        for attempt in 0..ATTEMPTS_MAX {
            if let Some(revision) = self.try_create(&subscription).await? {
                drop(turn);
                self.applied(revision, known).await;
                return Ok(StoredSubscription {
                    subscription: Arc::new(subscription),
                    revision,
                });
            }
            pause(attempt).await;
        }
        Err(contended(&subscription))
    }

    /// One attempt; `None` when a guard moved meanwhile.
    async fn try_create(&self, subscription: &Subscription) -> Result<Option<Revision>, Error> {
        let id = subscription.subscription_id.as_str();
        let (space, function_id) = (
            subscription.space.as_str(),
            subscription.function_id.as_str(),
        );
        let keys = [
            subscription_key(subscription),
            function_key(space, function_id),
        ];
        let (existing, function) =
            tokio::try_join!(self.store.get(&keys[0]), self.store.get(&keys[1]))?;
        if existing.is_some() {
            return Err(Error::SubscriptionExists(id.to_owned()));
        }
        let [key, function_key] = keys;
        let mut transaction = Transaction {
            preconditions: vec![(key.clone(), Precondition::Absent)],
            writes: vec![
                Write::Put(key.clone(), kept(subscription, None)),
                Write::Put(uses_key(space, function_id), id.to_owned().into()),
            ],
        };
        if let Some(method) = http_method(subscription) {
            let paths_key = paths_key(space, method);
            let paths = self.store.get(&paths_key).await?;
            if let Some(paths) = &paths {
                self.check_path(subscription, method, paths.revision)
                    .await?;
            } else {
                PathTree::<()>::default().check(&subscription.path)?;
            }
            let unmoved = unmoved(paths.as_ref());
            transaction.preconditions.push((paths_key.clone(), unmoved));
            let guard = Write::Put(paths_key, id.to_owned().into());
            transaction.writes.push(guard);
        }
        let unknown = || Error::UnknownFunction(function_id.to_owned());
        if function.is_none() {
            return Err(unknown());
        }
        let present = (function_key.clone(), Precondition::Present);
        transaction.preconditions.push(present);
        match self.store.commit(transaction).await {
            Ok(revision) => Ok(Some(revision)),
            Err(StoreError::Precondition { key: refused }) if refused == key => {
                Err(Error::SubscriptionExists(id.to_owned()))
            }
            Err(StoreError::Precondition { key: refused }) if refused == function_key => {
                Err(unknown())
            }
            Err(StoreError::Precondition { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces what of a subscription can change: its CORS settings, metadata and filter. With `at`, only if the record is at that
    /// revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update_subscription(
        &self,
        id: &SubscriptionId,
        subscription: Subscription,
        at: Option<Revision>,
    ) -> Result<StoredSubscription, Error> {
        let space = subscription.space.as_str();
        let key = key(space, id);
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::SubscriptionNotFound(id.to_string()))?;
            let stored = read(&entry)?;
            check_identity(&stored.subscription, &subscription)?;
            let function_id = subscription.function_id.as_str();
            let function_key = function_key(space, function_id);
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), Precondition::At(at.unwrap_or(entry.revision))),
                    (function_key.clone(), Precondition::Present),
                ],
                writes: vec![Write::Put(
                    key.clone(),
                    kept(&subscription, Some(stored.created)),
                )],
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(StoredSubscription {
                        subscription: Arc::new(subscription),
                        revision,
                    });
                }
                Err(StoreError::Precondition { key: refused }) if refused == function_key => {
                    return Err(Error::UnknownFunction(function_id.to_owned()));
                }
                Err(StoreError::Precondition { .. }) if at.is_some() => {
                    return Err(Error::SubscriptionChanged(id.to_string()));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(&subscription))
    }

    /// Removes a subscription. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
        at: Option<Revision>,
    ) -> Result<(), Error> {
        let key = key(space, id);
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::SubscriptionNotFound(id.to_string()))?;
            let mut writes = vec![Write::Delete(key.clone())];
            // The guards move, so that a node whose registry is behind does not decide by what is gone. One that can not be read
            // was in no registry, and guards nothing.
            if let Some(subscribed) = read_subscription(&entry) {
                let subscription = &subscribed.subscription;
                let function_id = subscription.function_id.as_str();
                let uses = Write::Put(uses_key(space, function_id), id.to_string().into());
                writes.push(uses);
                if let Some(method) = http_method(subscription) {
                    let paths = Write::Put(paths_key(space, method), id.to_string().into());
                    writes.push(paths);
                }
            }
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            let transaction = Transaction {
                preconditions: vec![(key.clone(), precondition)],
                writes,
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(());
                }
                Err(StoreError::Precondition { .. }) if at.is_some() => {
                    return Err(Error::SubscriptionChanged(id.to_string()));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended(format!("subscription {id}")))
    }

    /// Reads one subscription from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::SubscriptionNotFound`].
    pub async fn subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
    ) -> Result<StoredSubscription, Error> {
        let not_found = || Error::SubscriptionNotFound(id.to_string());
        match self.store.get(&key(space, id)).await {
            Ok(entry) => Ok(read(&entry.ok_or_else(not_found)?)?.into()),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let space: Space = space.parse().map_err(|_| not_found())?;
                let registry = self.registry.load();
                let subscribed = registry.subscriptions.get(&space, id);
                Ok(Subscribed::clone(subscribed.ok_or_else(not_found)?).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the subscriptions of a space, by id, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn subscriptions(&self, space: &str) -> Result<Vec<StoredSubscription>, Error> {
        let prefix = format!("{SUBSCRIPTIONS_PREFIX}{space}/");
        match self.store.list(&prefix).await {
            Ok(listing) => {
                let entries = listing.entries.iter();
                entries.map(|entry| Ok(read(entry)?.into())).collect()
            }
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let Ok(space) = space.parse() else {
                    return Ok(Vec::new());
                };
                let registry = self.registry.load();
                let subscribed = registry.subscriptions.of_space(&space);
                Ok(subscribed
                    .map(|subscribed| Subscribed::clone(subscribed).into())
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a function is subscribed, as of the revision of its guard or later.
    pub(super) async fn is_subscribed(
        &self,
        space: &str,
        function_id: &str,
        guard: Revision,
    ) -> Result<bool, Error> {
        if self.reaches(guard, known, CATCH_UP).await {
            let (Ok(space), Ok(function_id)) = (space.parse(), function_id.parse()) else {
                return Ok(false);
            };
            return Ok(self
                .registry
                .load()
                .subscriptions
                .uses(&space, &function_id));
        }
        let all = self.subscriptions(space).await?;
        let mut all = all.iter();
        Ok(all.any(|stored| stored.subscription.function_id.as_str() == function_id))
    }

    /// Whether a path can stand beside those of its space and method, as of the revision of their guard or later.
    async fn check_path(
        &self,
        subscription: &Subscription,
        method: Method,
        guard: Revision,
    ) -> Result<(), Error> {
        let (space, path) = (&subscription.space, &subscription.path);
        let exists = || Error::SubscriptionExists(subscription.subscription_id.to_string());
        if self.reaches(guard, known, CATCH_UP).await {
            let registry = self.registry.load();
            let subscriptions = &registry.subscriptions;
            if subscriptions
                .get(space, &subscription.subscription_id)
                .is_some()
            {
                return Err(exists());
            }
            return match subscriptions.tree(space, method) {
                Some(tree) => Ok(tree.check(path)?),
                None => Ok(PathTree::<()>::default().check(path)?),
            };
        }
        let listing = self
            .store
            .list(&format!("{SUBSCRIPTIONS_PREFIX}{space}/http,{method},"))
            .await?;
        let mut tree = PathTree::default();
        for subscribed in listing.entries.iter().filter_map(read_subscription) {
            if subscribed.subscription.path == *path {
                return Err(exists());
            }
            // Two that conflict can not be there; should they be, one of them speaks for both.
            let _ = tree.add(&subscribed.subscription.path, ());
        }
        Ok(tree.check(path)?)
    }
}

impl From<Subscribed> for StoredSubscription {
    fn from(subscribed: Subscribed) -> Self {
        Self {
            subscription: subscribed.subscription,
            revision: subscribed.revision,
        }
    }
}

/// The revision that the registry's subscriptions are at.
fn known(registry: &Registry) -> Revision {
    registry.subscriptions.revision
}

fn key(space: &str, id: &SubscriptionId) -> String {
    format!("{SUBSCRIPTIONS_PREFIX}{space}/{id}")
}

/// The guard of the paths of a space and method.
fn paths_key(space: &str, method: Method) -> String {
    format!("paths/{space}/{method}")
}

fn http_method(subscription: &Subscription) -> Option<Method> {
    subscription.method.filter(|_| subscription.is_http())
}

fn kept(subscription: &Subscription, created: Option<Revision>) -> bytes::Bytes {
    let kept = Kept {
        subscription,
        created,
    };
    serde_json::to_vec(&kept)
        .expect("a record has string keys only")
        .into()
}

fn read(entry: &Entry) -> Result<Subscribed, StoreError> {
    read_subscription(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })
}

fn contended(subscription: &Subscription) -> Error {
    let space = &subscription.space;
    Error::Contended(format!("the subscriptions of space {space}"))
}

/// What makes the id of a subscription stays what it is.
fn check_identity(old: &Subscription, new: &Subscription) -> Result<(), Error> {
    let fields = [
        ("Event", old.event == new.event),
        ("FunctionID", old.function_id == new.function_id),
        ("Path", old.path == new.path),
        ("Method", old.method == new.method),
    ];
    match fields.into_iter().find(|(_, is_same)| !is_same) {
        Some((field, _)) => Err(Error::Identity(field)),
        None => Ok(()),
    }
}
