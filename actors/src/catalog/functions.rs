//! Function records.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::function::{DeliverySpec, Provider};
use protocol::{Destination, Function, Space, Subscription};
use tokio::time::Instant;

use super::versions::numbers_key;
use super::{
    ATTEMPTS_MAX, Catalog, Error, Stored, authorizes_key, fires_key, function_key, needs_key,
    pause, unmoved, uses_key,
};
use crate::registry_cache::state::secret_key;
use crate::registry_cache::{FUNCTIONS_PREFIX, Registered, Registry};

/// What a write does about the image of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    /// It is what its tag stands for now.
    Anew,
    /// It stays what the record that was read has.
    AsItWas,
}

impl Catalog {
    /// Registers a function, resolving its image first.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create(&self, function: Function) -> Result<Stored, Error> {
        let id = function.function_id.to_string();
        // Asked first so that a name that is taken is told before a registry is asked for the image.
        if self
            .store
            .get(&function_key(function.space.as_str(), &id))
            .await?
            .is_some()
        {
            return Err(Error::Exists(id));
        }
        let conflict = || Error::Exists(id);
        self.write(function, Image::Anew, None, Precondition::Absent, conflict)
            .await
    }

    /// Replaces a function, resolving its image anew. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update(&self, function: Function, at: Option<Revision>) -> Result<Stored, Error> {
        self.replace(function, Image::Anew, at).await
    }

    /// Replaces a function that was read at this revision, without resolving its image: it runs what it ran.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn adjust(&self, function: Function, at: Revision) -> Result<Stored, Error> {
        self.replace(function, Image::AsItWas, Some(at)).await
    }

    async fn replace(
        &self,
        function: Function,
        image: Image,
        at: Option<Revision>,
    ) -> Result<Stored, Error> {
        let id = function.function_id.to_string();
        let before = self
            .store
            .get(&function_key(function.space.as_str(), &id))
            .await?;
        let Some(before) = before else {
            return Err(Error::NotFound(id));
        };
        let precondition = at.map_or(Precondition::Present, Precondition::At);
        let conflict = || match at {
            Some(_) => Error::Changed(id),
            None => Error::NotFound(id),
        };
        self.write(function, image, Some(&before), precondition, conflict)
            .await
    }

    /// Removes a function with its versions and aliases; its instances drain. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete(&self, space: &str, id: &str, at: Option<Revision>) -> Result<(), Error> {
        let (key, uses_key) = (function_key(space, id), uses_key(space, id));
        let (authorizes_key, fires_key) = (authorizes_key(space, id), fires_key(space, id));
        for attempt in 0..ATTEMPTS_MAX {
            let (function, uses, authorizes, fires) = tokio::try_join!(
                self.store.get(&key),
                self.store.get(&uses_key),
                self.store.get(&authorizes_key),
                self.store.get(&fires_key),
            )?;
            if let Some(uses) = &uses
                && let Some(subscription) = self.subscribed(space, id, uses.revision).await?
            {
                return Err(in_use(id, &subscription));
            }
            if let Some(authorizes) = &authorizes
                && let Some(event_type) =
                    self.authorized_type(space, id, authorizes.revision).await?
            {
                let function = id.to_owned();
                return Err(Error::IsAuthorizer {
                    function,
                    event_type,
                });
            }
            if let Some(fires) = &fires
                && let Some(schedule) = self.schedule_for(space, id, fires.revision).await?
            {
                return Err(Error::IsScheduled(schedule));
            }
            if function.is_none() {
                return Err(Error::NotFound(id.to_owned()));
            }
            let precondition = at.map_or(Precondition::Present, Precondition::At);
            let mut transaction = Transaction {
                preconditions: vec![
                    (key.clone(), precondition),
                    (uses_key.clone(), unmoved(uses.as_ref())),
                    (authorizes_key.clone(), unmoved(authorizes.as_ref())),
                    (fires_key.clone(), unmoved(fires.as_ref())),
                ],
                writes: [&key, &uses_key, &authorizes_key, &fires_key]
                    .into_iter()
                    .map(|key| Write::Delete(key.clone()))
                    .chain(moved_needs(function.as_ref(), None))
                    .collect(),
            };
            let is_all = self.remove_with(space, id, &mut transaction).await?;
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, |registry| registry.functions_revision)
                        .await;
                    if !is_all && let Err(error) = self.remove_left(space, id).await {
                        tracing::warn!(%space, function = %id, %error, "versions of a function that was removed are left in the store; they are removed before another function gets its id");
                    }
                    return Ok(());
                }
                Err(StoreError::Precondition { key: refused }) if refused == key => {
                    let id = id.to_owned();
                    return Err(match at {
                        Some(_) => Error::Changed(id),
                        None => Error::NotFound(id),
                    });
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended(format!(
            "the subscriptions of function {id}"
        )))
    }

    /// Reads one record from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, space: &str, id: &str) -> Result<Stored, Error> {
        let not_found = || Error::NotFound(id.to_owned());
        match self.store.get(&function_key(space, id)).await {
            Ok(entry) => read(&entry.ok_or_else(not_found)?),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let (Ok(space), Ok(id)) = (space.parse(), id.parse()) else {
                    return Err(not_found());
                };
                let registry = self.registry.load();
                let registered = registry.function(&space, &id).ok_or_else(not_found)?;
                Ok(Stored {
                    function: Function::clone(&registered.function),
                    revision: registered.revision,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads one record, and waits until this node's registry has it: what another node registered a moment ago can be called here then.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn known(&self, space: &str, id: &str) -> Result<Stored, Error> {
        let stored = self.get(space, id).await?;
        self.applied(stored.revision, |registry| registry.functions_revision)
            .await;
        Ok(stored)
    }

    /// Reads the records of a space, by id, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn list(&self, space: &str) -> Result<Vec<Stored>, Error> {
        match self
            .store
            .list(&format!("{FUNCTIONS_PREFIX}{space}/"))
            .await
        {
            Ok(listing) => listing.entries.iter().map(read).collect(),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let functions = space
                    .parse()
                    .ok()
                    .and_then(|space| registry.functions.get(&space));
                let stored = |registered: &Arc<Registered>| Stored {
                    function: Function::clone(&registered.function),
                    revision: registered.revision,
                };
                Ok(functions
                    .into_iter()
                    .flat_map(|functions| functions.values())
                    .map(stored)
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn write(
        &self,
        mut function: Function,
        image: Image,
        before: Option<&Entry>,
        precondition: Precondition,
        conflict: impl FnOnce() -> Error,
    ) -> Result<Stored, Error> {
        self.check_destinations(&function).await?;
        match &mut function.provider {
            Provider::Process(_) if !self.may_run_processes() => return Err(Error::ProcessesOff),
            Provider::Container(container) if image == Image::Anew => {
                container.digest = Some(
                    self.images
                        .resolve(&container.image)
                        .await
                        .map_err(Error::Image)?,
                );
            }
            _ => {}
        }
        let value = serde_json::to_vec(&function).expect("a record has string keys only");
        let key = function_key(function.space.as_str(), function.function_id.as_str());
        let numbers_key = numbers_key(function.space.as_str(), function.function_id.as_str());
        // Its secrets are there when it is stored, and stay as long as it names them.
        let needed = function.secrets().iter().map(|secret| {
            let key = secret_key(function.space.as_str(), secret.name.as_str());
            (key, Precondition::Present)
        });
        let needed: BTreeMap<_, _> = needed.collect();
        for attempt in 0..ATTEMPTS_MAX {
            let needed = needed.iter().map(|(key, there)| (key.clone(), *there));
            let mut transaction = Transaction {
                preconditions: std::iter::once((key.clone(), precondition))
                    .chain(needed)
                    .collect(),
                writes: std::iter::once(Write::Put(key.clone(), value.clone().into()))
                    .chain(moved_needs(before, Some(&function)))
                    .collect(),
            };
            if precondition == Precondition::Absent {
                // Versions are numbered anew, so there are none of one that had the id before.
                let none = (numbers_key.clone(), Precondition::Absent);
                transaction.preconditions.push(none);
                self.count_function(&function.space, &mut transaction)
                    .await?;
            }
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, |registry| registry.functions_revision)
                        .await;
                    self.knows_secrets(&function).await;
                    return Ok(Stored { function, revision });
                }
                Err(StoreError::Precondition { key: refused }) if refused == key => {
                    return Err(conflict());
                }
                Err(StoreError::Precondition { key: refused }) if refused == numbers_key => {
                    let (space, id) = (function.space.as_str(), function.function_id.as_str());
                    self.remove_left(space, id).await?;
                    pause(attempt).await;
                }
                Err(StoreError::Precondition { key: refused })
                    if refused == functions_count_key(&function.space) =>
                {
                    pause(attempt).await;
                }
                Err(StoreError::Precondition { key: refused }) => {
                    return Err(unknown_secret(&function, &refused));
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended(format!(
            "the functions of space {}",
            function.space
        )))
    }

    /// Has a function stored only if its space may have one more. Where there is no limit, nothing is counted.
    async fn count_function(
        &self,
        space: &Space,
        transaction: &mut Transaction,
    ) -> Result<(), Error> {
        let max = match &self.quotas {
            Some(quotas) => quotas.functions_max(space).await?,
            None => None,
        };
        let Some(max) = max else {
            return Ok(());
        };
        let len_max = usize::try_from(max).unwrap_or(usize::MAX);
        let prefix = format!("{FUNCTIONS_PREFIX}{space}/");
        let room = self.room_for_one(functions_count_key(space), &prefix, len_max);
        let (unmoved, moved) = room.await?.ok_or_else(|| {
            let space = space.clone();
            Error::TooManyFunctions { space, max }
        })?;
        transaction.preconditions.push(unmoved);
        transaction.writes.push(moved);
        Ok(())
    }

    /// Waits until this node's registry has the secrets of a function: they may have been set on another node a moment ago.
    async fn knows_secrets(&self, function: &Function) {
        if function.secrets().is_empty() {
            return;
        }
        let is_known = |registry: &Registry| {
            let secrets = registry.secrets.get(&function.space);
            let mut named = function.secrets().iter();
            secrets.is_some_and(|secrets| named.all(|one| secrets.contains_key(&one.name)))
        };
        let until = Instant::now() + self.apply_timeout;
        self.registry.wait_until(until, is_known).await;
    }

    /// A function may be its own destination. One that is deleted later is no reason to keep it: what would be told it is a dead letter.
    async fn check_destinations(&self, function: &Function) -> Result<(), Error> {
        let set = function.delivery.as_ref();
        let destinations = set.into_iter().flat_map(DeliverySpec::destinations);
        for (field, destination) in destinations {
            let Destination::Function(id) = destination else {
                continue;
            };
            let key = function_key(function.space.as_str(), id.as_str());
            if *id != function.function_id && self.store.get(&key).await?.is_none() {
                let id = id.to_string();
                return Err(Error::UnknownDestination { field, id });
            }
        }
        Ok(())
    }

    /// Whether a command may run anywhere: any node answers for a function that only some can run.
    fn may_run_processes(&self) -> bool {
        self.allows_processes
            || self
                .routes
                .load()
                .peers
                .values()
                .any(|route| route.state.allows_processes)
    }
}

fn functions_count_key(space: &Space) -> String {
    format!("counts/{space}/functions")
}

/// Why a function stays that a subscription names.
fn in_use(id: &str, subscription: &Subscription) -> Error {
    match subscription.function_id.as_str() == id {
        true => Error::InUse,
        false => Error::IsSubscriptionAuthorizer {
            function: id.to_owned(),
            subscription: subscription.subscription_id.clone(),
        },
    }
}

/// Moves the guards of the secrets that a function named before, or names from now on, so that a node whose registry is behind does not
/// decide by it.
fn moved_needs(before: Option<&Entry>, after: Option<&Function>) -> Vec<Write> {
    let before = before.and_then(|entry| read(entry).ok());
    let before = before.as_ref().map(|stored| &stored.function);
    let named = before.into_iter().chain(after).flat_map(|function| {
        let space = function.space.as_str();
        let secrets = function.secrets().iter();
        secrets.map(move |secret| needs_key(space, secret.name.as_str()))
    });
    let named: BTreeSet<String> = named.collect();
    let moved = named.into_iter().map(|key| Write::Put(key, "{}".into()));
    moved.collect()
}

/// Names the field that names a secret that is not there.
fn unknown_secret(function: &Function, key: &str) -> Error {
    let space = function.space.as_str();
    let mut secrets = function.secrets().iter().enumerate();
    let found = secrets.find(|(_, secret)| secret_key(space, secret.name.as_str()) == key);
    match found {
        Some((at, secret)) => Error::UnknownSecret {
            field: format!("provider.secrets[{at}].name"),
            name: secret.name.to_string(),
        },
        None => Error::Contended(key.to_owned()),
    }
}

pub(super) fn read(entry: &Entry) -> Result<Stored, Error> {
    let function = serde_json::from_slice(&entry.value).map_err(|error| StoreError::Damaged {
        why: format!("record {}: {error}", entry.key),
    })?;
    Ok(Stored {
        function,
        revision: entry.revision,
    })
}
