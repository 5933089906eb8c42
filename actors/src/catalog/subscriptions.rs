//! Subscription records.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::path::PathConflict;
use protocol::subscription::{Method, Mode};
use protocol::{PathTree, Space, Subscription, SubscriptionId};
use serde::Serialize;

use super::{
    ATTEMPTS_MAX, CATCH_UP, Catalog, Error, StoredSubscription, function_key, pause, types_key,
    unmoved, uses_key,
};
use crate::registry_cache::state::{event_type_key, read_subscription, subscription_key};
use crate::registry_cache::subscriptions::needs;
use crate::registry_cache::{Registry, SUBSCRIPTIONS_PREFIX, Subscribed};

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
    /// Subscribes a function to an event. The checks are made in Event Gateway's order: it exists, its path conflicts, its event type
    /// is unknown if it is typed, the function is unknown, and then the authorizer; and they hold in the transaction that stores it.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create_subscription(
        &self,
        subscription: Subscription,
    ) -> Result<StoredSubscription, Error> {
        let turn = match subscription.answers() {
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
        let id = &subscription.subscription_id;
        let space = subscription.space.as_str();
        let (name, function_id) = (
            subscription.event.as_str(),
            subscription.function_id.as_str(),
        );
        let key = subscription_key(subscription);
        let (function_key, authorizer_key) = function_keys(subscription);
        let type_key = subscription.is_typed().then(|| event_type_key(space, name));
        let (existing, function) =
            tokio::try_join!(self.store.get(&key), self.store.get(&function_key))?;
        if let Some(existing) = existing {
            return Err(taken(&existing, subscription));
        }
        let mut transaction = Transaction {
            preconditions: vec![
                (key.clone(), Precondition::Absent),
                (function_key.clone(), Precondition::Present),
            ],
            writes: vec![Write::Put(key.clone(), kept(subscription, None))],
        };
        let authorizer = authorizer_key.iter().cloned();
        let authorizer = authorizer.map(|key| (key, Precondition::Present));
        transaction.preconditions.extend(authorizer);
        let moved = guards(subscription).map(|guard| Write::Put(guard, id.to_string().into()));
        transaction.writes.extend(moved);
        if let Some(guard) = path_guard(subscription) {
            let paths = self.store.get(&guard).await?;
            if let Some(paths) = &paths {
                self.check_path(subscription, paths.revision).await?;
            } else {
                PathTree::<()>::default().check(&subscription.path)?;
            }
            let unmoved = unmoved(paths.as_ref());
            transaction.preconditions.push((guard, unmoved));
        }
        if let Some(type_key) = &type_key {
            if self.store.get(type_key).await?.is_none() {
                return Err(Error::UnknownEventType(name.to_owned()));
            }
            let present = (type_key.clone(), Precondition::Present);
            transaction.preconditions.push(present);
        }
        let unknown = || Error::UnknownFunction(function_id.to_owned());
        if function.is_none() {
            return Err(unknown());
        }
        if let Some(key) = &authorizer_key
            && self.store.get(key).await?.is_none()
        {
            return Err(unknown_authorizer(subscription));
        }
        match self.store.commit(transaction).await {
            Ok(revision) => Ok(Some(revision)),
            Err(StoreError::Precondition { key: refused }) if refused == function_key => {
                Err(unknown())
            }
            Err(StoreError::Precondition { key: refused })
                if Some(&refused) == authorizer_key.as_ref() =>
            {
                Err(unknown_authorizer(subscription))
            }
            Err(StoreError::Precondition { key: refused })
                if Some(&refused) == type_key.as_ref() =>
            {
                Err(Error::UnknownEventType(name.to_owned()))
            }
            // Another one of the same key, or a guard moved: what is there now says which.
            Err(StoreError::Precondition { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces what of a subscription can change: its CORS settings, authorizer, metadata, filter and delivery. With `at`, only if the record is at that
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
            let entry = self.found(&key, id).await?;
            let stored = read(&entry)?;
            check_identity(&stored.subscription, &subscription)?;
            let function_id = subscription.function_id.as_str();
            let (function_key, authorizer_key) = function_keys(&subscription);
            let mut preconditions = vec![
                (key.clone(), Precondition::At(at.unwrap_or(entry.revision))),
                (function_key.clone(), Precondition::Present),
            ];
            let authorizer = authorizer_key.iter().cloned();
            preconditions.extend(authorizer.map(|key| (key, Precondition::Present)));
            let record = kept(&subscription, Some(stored.created));
            let mut writes = vec![Write::Put(key.clone(), record)];
            let moved = authorizer_guards(&stored.subscription, &subscription);
            writes.extend(moved.map(|guard| Write::Put(guard, id.to_string().into())));
            let transaction = Transaction {
                preconditions,
                writes,
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
                Err(StoreError::Precondition { key: refused })
                    if Some(&refused) == authorizer_key.as_ref() =>
                {
                    return Err(unknown_authorizer(&subscription));
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
            let entry = self.found(&key, id).await?;
            let mut writes = vec![Write::Delete(key.clone())];
            // The guards move, so that a node whose registry is behind does not decide by what is gone. One that can not be read
            // was in no registry, and guards nothing.
            if let Some(subscribed) = read_subscription(&entry) {
                let moved = guards(&subscribed.subscription)
                    .map(|guard| Write::Put(guard, id.to_string().into()));
                writes.extend(moved);
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
        match self.found(&key(space, id), id).await {
            Ok(entry) => Ok(read(&entry)?.into()),
            Err(Error::Store(StoreError::Unavailable { .. })) if self.registry.load().is_loaded => {
                let space: Space = space.parse().map_err(|_| not_found())?;
                let registry = self.registry.load();
                let subscribed = registry.subscriptions.get(&space, id);
                Ok(Subscribed::clone(subscribed.ok_or_else(not_found)?).into())
            }
            Err(error) => Err(error),
        }
    }

    /// The entry of a subscription. The key may hold one of the other dialect, which has another id.
    async fn found(&self, key: &str, id: &SubscriptionId) -> Result<Entry, Error> {
        let entry = self.store.get(key).await?;
        entry
            .filter(|entry| match read_subscription(entry) {
                Some(subscribed) => subscribed.subscription.subscription_id == *id,
                None => true,
            })
            .ok_or_else(|| Error::SubscriptionNotFound(id.to_string()))
    }

    /// Reads the subscriptions of a space from the store, or from this node's registry while the store is away.
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

    /// A subscription that needs a function, as of the revision of its guard or later.
    pub(super) async fn subscribed(
        &self,
        space: &str,
        function_id: &str,
        guard: Revision,
    ) -> Result<Option<Arc<Subscription>>, Error> {
        let (Ok(in_space), Ok(function_id)) = (space.parse(), function_id.parse()) else {
            return Ok(None);
        };
        if self.reaches(guard, known, CATCH_UP).await {
            let registry = self.registry.load();
            let needs = registry.subscriptions.uses(&in_space, &function_id);
            return Ok(needs.cloned());
        }
        let all = self.subscriptions(space).await?;
        let all = all.iter().map(|stored| &stored.subscription);
        Ok(needs(all, &function_id).cloned())
    }

    /// Whether a path can stand beside those of its space and method, and event, as of the revision of their guard or later.
    async fn check_path(&self, subscription: &Subscription, guard: Revision) -> Result<(), Error> {
        let (space, path) = (&subscription.space, &subscription.path);
        let id = &subscription.subscription_id;
        if self.reaches(guard, known, CATCH_UP).await {
            let registry = self.registry.load();
            let subscriptions = &registry.subscriptions;
            if subscriptions.get(space, id).is_some() {
                return Err(Error::SubscriptionExists(id.clone()));
            }
            return match subscriptions.beside(subscription) {
                Some(tree) => Ok(tree.check(path)?),
                None => Ok(PathTree::<()>::default().check(path)?),
            };
        }
        let key = subscription_key(subscription);
        let all_paths = key.rfind(',').map_or("", |comma| &key[..=comma]);
        let listing = self.store.list(all_paths).await?;
        let mut tree = PathTree::default();
        for entry in &listing.entries {
            if entry.key == key {
                return Err(taken(entry, subscription));
            }
            // Two that conflict can not be there; should they be, one of them speaks for both.
            if let Some(subscribed) = read_subscription(entry) {
                let _ = tree.add(&subscribed.subscription.path, ());
            }
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
    format!("{SUBSCRIPTIONS_PREFIX}{space}/{}", id.key())
}

/// The guard of the paths of a space and method.
fn paths_key(space: &str, method: Method) -> String {
    format!("paths/{space}/{method}")
}

/// The guards that move with a subscription.
pub(crate) fn guards(subscription: &Subscription) -> impl Iterator<Item = String> + '_ {
    let space = subscription.space.as_str();
    let uses = subscription.functions();
    let uses = uses.map(move |function_id| uses_key(space, function_id.as_str()));
    let types = subscription
        .is_typed()
        .then(|| types_key(space, subscription.event.as_str()));
    let paths = subscription.method.filter(|_| subscription.is_http());
    let paths = paths.map(|method| paths_key(space, method));
    uses.chain([types, paths].into_iter().flatten())
}

/// The guards of the authorizers of before and of now that move when a subscription gets another one.
fn authorizer_guards<'a>(
    old: &'a Subscription,
    new: &'a Subscription,
) -> impl Iterator<Item = String> + 'a {
    let (before, now) = (&old.authorizer_id, &new.authorizer_id);
    let changed = [before, now].into_iter().flatten();
    let changed = changed.filter(move |_| before != now);
    changed.map(|function_id| uses_key(new.space.as_str(), function_id.as_str()))
}

/// The keys of its function and, if that is another one, of its authorizer.
fn function_keys(subscription: &Subscription) -> (String, Option<String>) {
    let space = subscription.space.as_str();
    let mut keys = subscription.functions();
    let mut key = || Some(function_key(space, keys.next()?.as_str()));
    let first = key().expect("a subscription has a function");
    (first, key())
}

fn unknown_authorizer(subscription: &Subscription) -> Error {
    let id = subscription.authorizer_id.as_ref();
    Error::UnknownSubscriptionAuthorizer(id.map(ToString::to_string).unwrap_or_default())
}

/// Of these guards the one of the paths that a subscription must stand beside.
fn path_guard(subscription: &Subscription) -> Option<String> {
    let space = subscription.space.as_str();
    match subscription.method {
        Some(method) if subscription.is_http() => Some(paths_key(space, method)),
        _ if subscription.mode == Some(Mode::Sync) => {
            Some(types_key(space, subscription.event.as_str()))
        }
        _ => None,
    }
}

/// Why a key that is taken can not be a subscription's: it is there, or one of the other dialect is.
fn taken(existing: &Entry, subscription: &Subscription) -> Error {
    let id = &subscription.subscription_id;
    let existing = read_subscription(existing);
    match existing {
        Some(other) if other.subscription.subscription_id != *id => {
            let route = subscription.path.clone();
            PathConflict::Exists { route }.into()
        }
        _ => Error::SubscriptionExists(id.clone()),
    }
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
    let event = if old.is_typed() { "EventType" } else { "Event" };
    let fields = [
        ("Type", old.mode == new.mode),
        (event, old.event == new.event),
        ("FunctionID", old.function_id == new.function_id),
        ("Path", old.path == new.path),
        ("Method", old.method == new.method),
    ];
    match fields.into_iter().find(|(_, is_same)| !is_same) {
        Some((field, _)) => Err(Error::Identity(field)),
        None => Ok(()),
    }
}
