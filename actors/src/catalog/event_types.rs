//! Event type records.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::EventTypeRecord;

use super::{
    ATTEMPTS_MAX, CATCH_UP, Catalog, Error, StoredEventType, authorizes_key, function_key, pause,
    types_key, unmoved,
};
use crate::registry_cache::state::{event_type_key, read_event_type};
use crate::registry_cache::{EVENT_TYPES_PREFIX, RegisteredType, Registry};

impl Catalog {
    /// Registers an event type.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create_event_type(
        &self,
        event_type: EventTypeRecord,
    ) -> Result<StoredEventType, Error> {
        let (space, name) = (event_type.space.as_str(), event_type.name.as_str());
        let key = event_type_key(space, name);
        let exists = || Error::EventTypeExists(name.to_owned());
        if self.store.get(&key).await?.is_some() {
            return Err(exists());
        }
        let absent = (key.clone(), Precondition::Absent);
        match self.write_event_type(&event_type, absent, None).await {
            Ok(revision) => Ok(StoredEventType {
                event_type: Arc::new(event_type),
                revision,
            }),
            Err(Error::Store(StoreError::Precondition { key: refused })) if refused == key => {
                Err(exists())
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces an event type. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update_event_type(
        &self,
        event_type: EventTypeRecord,
        at: Option<Revision>,
    ) -> Result<StoredEventType, Error> {
        let (space, name) = (event_type.space.as_str(), event_type.name.as_str());
        let key = event_type_key(space, name);
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::EventTypeNotFound(name.to_owned()))?;
            let before = read_event_type(&entry);
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            let precondition = (key.clone(), precondition);
            let written = self.write_event_type(&event_type, precondition, before.as_ref());
            match written.await {
                Ok(revision) => {
                    return Ok(StoredEventType {
                        event_type: Arc::new(event_type),
                        revision,
                    });
                }
                Err(Error::Store(StoreError::Precondition { .. })) if at.is_some() => {
                    return Err(Error::EventTypeChanged(name.to_owned()));
                }
                Err(Error::Store(StoreError::Precondition { .. })) => pause(attempt).await,
                Err(error) => return Err(error),
            }
        }
        Err(contended(name))
    }

    /// Removes an event type that no typed subscription is for. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_event_type(
        &self,
        space: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<(), Error> {
        let (key, types_key) = (event_type_key(space, name), types_key(space, name));
        for attempt in 0..ATTEMPTS_MAX {
            let (entry, guard) =
                tokio::try_join!(self.store.get(&key), self.store.get(&types_key))?;
            if let Some(guard) = &guard
                && self.is_type_used(space, name, guard.revision).await?
            {
                return Err(Error::EventTypeInUse);
            }
            let entry = entry.ok_or_else(|| Error::EventTypeNotFound(name.to_owned()))?;
            let mut writes = vec![Write::Delete(key.clone())];
            if guard.is_some() {
                writes.push(Write::Delete(types_key.clone()));
            }
            let before = read_event_type(&entry);
            writes.extend(before.iter().filter_map(moved_guard));
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), precondition),
                    (types_key.clone(), unmoved(guard.as_ref())),
                ],
                writes,
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(());
                }
                Err(StoreError::Precondition { key: refused })
                    if refused == key && at.is_some() =>
                {
                    return Err(Error::EventTypeChanged(name.to_owned()));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(name))
    }

    /// Reads one event type from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::EventTypeNotFound`].
    pub async fn event_type(&self, space: &str, name: &str) -> Result<StoredEventType, Error> {
        let not_found = || Error::EventTypeNotFound(name.to_owned());
        match self.store.get(&event_type_key(space, name)).await {
            Ok(entry) => read(&entry.ok_or_else(not_found)?),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let (Ok(space), Ok(name)) = (space.parse(), name.parse()) else {
                    return Err(not_found());
                };
                let registry = self.registry.load();
                let registered = registry.event_type(&space, &name).ok_or_else(not_found)?;
                Ok(RegisteredType::clone(registered).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the event types of a space, by name, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn event_types(&self, space: &str) -> Result<Vec<StoredEventType>, Error> {
        match self
            .store
            .list(&format!("{EVENT_TYPES_PREFIX}{space}/"))
            .await
        {
            Ok(listing) => listing.entries.iter().map(read).collect(),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let space = space.parse().ok();
                let event_types = space.and_then(|space| registry.event_types.get(&space));
                let event_types = event_types.into_iter().flat_map(|all| all.values());
                Ok(event_types
                    .map(|registered| RegisteredType::clone(registered).into())
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Stores an event type in the place of `before`. Its authorizer must be a function of the space then, and the guards of both
    /// authorizers move.
    async fn write_event_type(
        &self,
        event_type: &EventTypeRecord,
        precondition: (String, Precondition),
        before: Option<&RegisteredType>,
    ) -> Result<Revision, Error> {
        let space = event_type.space.as_str();
        let value = serde_json::to_vec(event_type).expect("a record has string keys only");
        let mut transaction = Transaction {
            writes: vec![Write::Put(precondition.0.clone(), value.into())],
            preconditions: vec![precondition],
        };
        let before =
            before.filter(|before| before.event_type.authorizer_id != event_type.authorizer_id);
        transaction.writes.extend(before.and_then(moved_guard));
        let mut authorizer_key = None;
        if let Some(authorizer) = &event_type.authorizer_id {
            let key = function_key(space, authorizer.as_str());
            let present = (key.clone(), Precondition::Present);
            transaction.preconditions.push(present);
            let guard = authorizes_key(space, authorizer.as_str());
            let name = event_type.name.to_string();
            transaction.writes.push(Write::Put(guard, name.into()));
            authorizer_key = Some(key);
        }
        match self.store.commit(transaction).await {
            Ok(revision) => {
                self.applied(revision, known).await;
                Ok(revision)
            }
            Err(StoreError::Precondition { key }) if Some(&key) == authorizer_key.as_ref() => {
                Err(Error::UnknownAuthorizer)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a typed subscription is for an event type, as of the revision of its guard or later.
    async fn is_type_used(&self, space: &str, name: &str, guard: Revision) -> Result<bool, Error> {
        let at = |registry: &Registry| registry.subscriptions.revision;
        if self.reaches(guard, at, CATCH_UP).await {
            let (Ok(space), Ok(name)) = (space.parse(), name.parse()) else {
                return Ok(false);
            };
            let registry = self.registry.load();
            return Ok(registry.subscriptions.uses_event_type(&space, &name));
        }
        let all = self.subscriptions(space).await?;
        let mut all = all.iter().map(|stored| &stored.subscription);
        Ok(all.any(|subscription| subscription.is_typed() && subscription.event.as_str() == name))
    }

    /// The event type that a function authorizes, as of the revision of its guard or later.
    pub(super) async fn authorized_type(
        &self,
        space: &str,
        function_id: &str,
        guard: Revision,
    ) -> Result<Option<String>, Error> {
        if self.reaches(guard, known, CATCH_UP).await {
            let (Ok(space), Ok(function_id)) = (space.parse(), function_id.parse()) else {
                return Ok(None);
            };
            let registry = self.registry.load();
            let name = registry.authorized_by(&space, &function_id);
            return Ok(name.map(ToString::to_string));
        }
        let all = self.event_types(space).await?;
        let mut all = all.iter().map(|stored| &stored.event_type);
        let found = all.find(|event_type| {
            let authorizer = event_type.authorizer_id.as_ref();
            authorizer.is_some_and(|authorizer| authorizer.as_str() == function_id)
        });
        Ok(found.map(|event_type| event_type.name.to_string()))
    }
}

impl From<RegisteredType> for StoredEventType {
    fn from(registered: RegisteredType) -> Self {
        Self {
            event_type: registered.event_type,
            revision: registered.revision,
        }
    }
}

/// The revision that the registry's event types are at.
fn known(registry: &Registry) -> Revision {
    registry.event_types_revision
}

/// Moves the guard of the authorizer that an event type had, so that a node whose registry is behind does not decide by it.
fn moved_guard(before: &RegisteredType) -> Option<Write> {
    let event_type = &before.event_type;
    let authorizer = event_type.authorizer_id.as_ref()?;
    let key = authorizes_key(event_type.space.as_str(), authorizer.as_str());
    Some(Write::Put(key, event_type.name.to_string().into()))
}

fn read(entry: &Entry) -> Result<StoredEventType, Error> {
    let registered = read_event_type(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })?;
    Ok(registered.into())
}

fn contended(name: &str) -> Error {
    Error::Contended(format!("event type {name}"))
}
