//! Function records.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::function::{DeliverySpec, Provider};
use protocol::{Destination, Function, Subscription};

use super::{
    ATTEMPTS_MAX, Catalog, Error, Stored, authorizes_key, fires_key, function_key, pause, unmoved,
    uses_key,
};
use crate::registry_cache::{FUNCTIONS_PREFIX, Registered};

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
        self.write(function, Precondition::Absent, || Error::Exists(id))
            .await
    }

    /// Replaces a function, resolving its image anew. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update(&self, function: Function, at: Option<Revision>) -> Result<Stored, Error> {
        let id = function.function_id.to_string();
        if self
            .store
            .get(&function_key(function.space.as_str(), &id))
            .await?
            .is_none()
        {
            return Err(Error::NotFound(id));
        }
        match at {
            Some(at) => {
                self.write(function, Precondition::At(at), || Error::Changed(id))
                    .await
            }
            None => {
                self.write(function, Precondition::Present, || Error::NotFound(id))
                    .await
            }
        }
    }

    /// Removes a function; its instances drain. With `at`, only if the record is at that revision.
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
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), precondition),
                    (uses_key.clone(), unmoved(uses.as_ref())),
                    (authorizes_key.clone(), unmoved(authorizes.as_ref())),
                    (fires_key.clone(), unmoved(fires.as_ref())),
                ],
                writes: [&key, &uses_key, &authorizes_key, &fires_key]
                    .map(|key| Write::Delete(key.clone()))
                    .into(),
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, |registry| registry.functions_revision)
                        .await;
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
        precondition: Precondition,
        conflict: impl FnOnce() -> Error,
    ) -> Result<Stored, Error> {
        self.check_destinations(&function).await?;
        match &mut function.provider {
            Provider::Process(_) if !self.may_run_processes() => return Err(Error::ProcessesOff),
            Provider::Container(container) => {
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
        for attempt in 0..ATTEMPTS_MAX {
            let mut transaction = Transaction {
                preconditions: vec![(key.clone(), precondition)],
                writes: vec![Write::Put(key.clone(), value.clone().into())],
            };
            if precondition == Precondition::Absent {
                self.count_one_more(&function, &mut transaction).await?;
            }
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, |registry| registry.functions_revision)
                        .await;
                    return Ok(Stored { function, revision });
                }
                Err(StoreError::Precondition { key: refused }) if refused == key => {
                    return Err(conflict());
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended(format!(
            "the functions of space {}",
            function.space
        )))
    }

    /// Has a function stored only if its space may have one more. Where there is no limit, nothing is counted.
    async fn count_one_more(
        &self,
        function: &Function,
        transaction: &mut Transaction,
    ) -> Result<(), Error> {
        let space = &function.space;
        let max = match &self.quotas {
            Some(quotas) => quotas.functions_max(space).await?,
            None => None,
        };
        let Some(max) = max else {
            return Ok(());
        };
        let count_key = format!("counts/{space}/functions");
        let count = self.store.get(&count_key).await?;
        // The guard has not moved when this is stored, so no other was added meanwhile.
        let len_max = usize::try_from(max).unwrap_or(usize::MAX);
        let prefix = format!("{FUNCTIONS_PREFIX}{space}/");
        if self.store.list_page(&prefix, None, len_max).await?.len() >= len_max {
            return Err(Error::TooManyFunctions {
                space: space.clone(),
                max,
            });
        }
        let unmoved = unmoved(count.as_ref());
        transaction.preconditions.push((count_key.clone(), unmoved));
        let last = function.function_id.as_str().to_owned();
        transaction.writes.push(Write::Put(count_key, last.into()));
        Ok(())
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

fn read(entry: &Entry) -> Result<Stored, Error> {
    let function = serde_json::from_slice(&entry.value).map_err(|error| StoreError::Damaged {
        why: format!("record {}: {error}", entry.key),
    })?;
    Ok(Stored {
        function,
        revision: entry.revision,
    })
}
