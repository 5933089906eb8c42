//! Aliases: each change one record, so that every node has the whole of it or nothing.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::version::Target;
use protocol::{Alias, Version};

use super::versions::{StoredAlias, VersionError, contended, moved, numbers_key, of_function};
use super::{ATTEMPTS_MAX, Catalog, Error, function_key, pause, unmoved};
use crate::registry_cache::versions::{alias_key, read_alias, version_key};
use crate::registry_cache::{ALIASES_PREFIX, RegisteredAlias, Registry};

/// What must hold of an alias for it to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Nothing: it is made, or replaced.
    Any,
    /// There is none.
    Absent,
    /// It was last changed at this revision.
    At(Revision),
}

/// An alias before a change, and all that the change must find as it was.
struct Before {
    alias: Option<(Alias, Revision)>,
    numbers: Option<Entry>,
    preconditions: Vec<(String, Precondition)>,
}

impl Catalog {
    /// Has an alias send its calls elsewhere, or makes it. What of the record is `previous` is passed over: it follows from what was before.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn set_alias(&self, alias: Alias, expected: Expected) -> Result<StoredAlias, Error> {
        alias.target.check().map_err(VersionError::Invalid)?;
        protocol::version::check_description(alias.description.as_deref())
            .map_err(VersionError::Invalid)?;
        let (space, id) = (alias.space.as_str(), alias.function_id.as_str());
        for attempt in 0..ATTEMPTS_MAX {
            let before = self.before(space, id, alias.name.as_str()).await?;
            match (&before.alias, expected) {
                (Some(_), Expected::Absent) => {
                    let (function, name) = (id.to_owned(), alias.name.clone());
                    return Err(VersionError::AliasExists { function, name }.into());
                }
                (None, Expected::At(_)) => return Err(not_found(id, alias.name.as_str())),
                (Some((_, revision)), Expected::At(at)) if at != *revision => {
                    return Err(changed(id, alias.name.as_str()));
                }
                (None, _) => self.has_room(space, id).await?,
                _ => {}
            }
            let next = match &before.alias {
                Some((before, _)) => {
                    let mut next = before.clone();
                    next.description.clone_from(&alias.description);
                    next.set_target(alias.target.clone());
                    next
                }
                None => Alias {
                    previous: None,
                    ..alias.clone()
                },
            };
            match self.commit_alias(next, before).await {
                Ok(stored) => return Ok(stored),
                Err(Refused::Unknown(version)) => {
                    let (field, function) = (field(&alias.target, version), id.to_owned());
                    let unknown = VersionError::Unknown {
                        field,
                        version,
                        function,
                    };
                    return Err(unknown.into());
                }
                Err(Refused::Moved) => pause(attempt).await,
                Err(Refused::Store(error)) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Has an alias send all its calls where they all went before; a second time undoes the first. With `at`, only if the record is at that
    /// revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn roll_back(
        &self,
        space: &str,
        id: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<StoredAlias, Error> {
        for attempt in 0..ATTEMPTS_MAX {
            let before = self.before(space, id, name).await?;
            let (mut next, revision) = before.alias.clone().ok_or_else(|| not_found(id, name))?;
            if at.is_some_and(|at| at != revision) {
                return Err(changed(id, name));
            }
            let (function, name) = (id.to_owned(), next.name.clone());
            if !next.roll_back() {
                return Err(VersionError::NothingBefore { function, name }.into());
            }
            match self.commit_alias(next, before).await {
                Ok(stored) => return Ok(stored),
                Err(Refused::Unknown(version)) => {
                    let gone = VersionError::BeforeIsGone {
                        function,
                        name,
                        version,
                    };
                    return Err(gone.into());
                }
                Err(Refused::Moved) => pause(attempt).await,
                Err(Refused::Store(error)) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Removes an alias. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_alias(
        &self,
        space: &str,
        id: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<(), Error> {
        for attempt in 0..ATTEMPTS_MAX {
            let before = self.before(space, id, name).await?;
            let (_, revision) = before.alias.ok_or_else(|| not_found(id, name))?;
            if at.is_some_and(|at| at != revision) {
                return Err(changed(id, name));
            }
            let transaction = Transaction {
                preconditions: before.preconditions,
                writes: std::iter::once(Write::Delete(alias_key(space, id, name)))
                    .chain(before.numbers.as_ref().map(moved))
                    .collect(),
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, |registry| registry.aliases_revision)
                        .await;
                    return Ok(());
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Reads an alias from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the function, [`VersionError::AliasNotFound`] for the alias.
    pub async fn alias(&self, space: &str, id: &str, name: &str) -> Result<StoredAlias, Error> {
        let keys = (function_key(space, id), alias_key(space, id, name));
        match tokio::try_join!(self.store.get(&keys.0), self.store.get(&keys.1)) {
            Ok((None, _)) => Err(Error::NotFound(id.to_owned())),
            Ok((Some(_), None)) => Err(not_found(id, name)),
            Ok((Some(_), Some(entry))) => Ok(stored(&read(&entry)?)),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let all = self.known_aliases(space, id)?.into_iter();
                let mut found = all.filter(|found| found.alias.name.as_str() == name);
                found.next().ok_or_else(|| not_found(id, name))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the aliases of a function, by name, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the function.
    pub async fn aliases(&self, space: &str, id: &str) -> Result<Vec<StoredAlias>, Error> {
        let (key, prefix) = (
            function_key(space, id),
            of_function(ALIASES_PREFIX, space, id),
        );
        match tokio::try_join!(self.store.get(&key), self.store.list(&prefix)) {
            Ok((None, _)) => Err(Error::NotFound(id.to_owned())),
            Ok((Some(_), listing)) => {
                let all = listing.entries.iter();
                all.map(|entry| Ok(stored(&read(entry)?))).collect()
            }
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                self.known_aliases(space, id)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn known_aliases(&self, space: &str, id: &str) -> Result<Vec<StoredAlias>, Error> {
        let registry = self.registry.load();
        let not_found = || Error::NotFound(id.to_owned());
        let (Ok(space), Ok(function_id)) = (space.parse(), id.parse()) else {
            return Err(not_found());
        };
        registry
            .function(&space, &function_id)
            .ok_or_else(not_found)?;
        let published = registry.versions_of(&space, &function_id).into_iter();
        let aliases = published.flat_map(|published| published.aliases.values());
        Ok(aliases.map(|found| stored(found)).collect())
    }

    /// Reads an alias that is about to be changed. Its function must be there when that is stored, and nobody have changed it, or removed or
    /// added a version or another alias, meanwhile.
    async fn before(&self, space: &str, id: &str, name: &str) -> Result<Before, Error> {
        let key = alias_key(space, id, name);
        let (function_key, numbers_key) = (function_key(space, id), numbers_key(space, id));
        let (function, entry, numbers) = tokio::try_join!(
            self.store.get(&function_key),
            self.store.get(&key),
            self.store.get(&numbers_key),
        )?;
        if function.is_none() {
            return Err(Error::NotFound(id.to_owned()));
        }
        let found = entry.as_ref().map(read).transpose()?;
        Ok(Before {
            alias: found.map(|found| (Alias::clone(&found.alias), found.revision)),
            preconditions: vec![
                (function_key, Precondition::Present),
                (key, unmoved(entry.as_ref())),
                (numbers_key, unmoved(numbers.as_ref())),
            ],
            numbers,
        })
    }

    async fn has_room(&self, space: &str, id: &str) -> Result<(), Error> {
        let max = self.versions.aliases_per_function_max;
        let prefix = of_function(ALIASES_PREFIX, space, id);
        if self.store.list_page(&prefix, None, max).await?.len() < max {
            return Ok(());
        }
        let function = id.to_owned();
        Err(VersionError::TooManyAliases { function, max }.into())
    }

    async fn commit_alias(&self, alias: Alias, before: Before) -> Result<StoredAlias, Refused> {
        let (space, id) = (alias.space.as_str(), alias.function_id.as_str());
        let value = serde_json::to_vec(&alias).expect("a record has string keys only");
        let key = alias_key(space, id, alias.name.as_str());
        let version_key = |version| version_key(space, id, version);
        let mut transaction = Transaction {
            preconditions: before.preconditions,
            writes: vec![Write::Put(key, value.into())],
        };
        let versions = alias.target.versions();
        let present = versions.map(|version| (version_key(version), Precondition::Present));
        transaction.preconditions.extend(present);
        transaction
            .writes
            .extend(before.numbers.as_ref().map(moved));
        match self.store.commit(transaction).await {
            Ok(revision) => {
                let is_known = |registry: &Registry| {
                    let found = registry.alias(&alias.space, &alias.function_id, &alias.name);
                    found.is_some_and(|found| found.revision >= revision)
                };
                self.applied_as(revision, is_known).await;
                Ok(StoredAlias {
                    alias: Arc::new(alias),
                    revision,
                    is_new: before.alias.is_none(),
                })
            }
            Err(StoreError::Precondition { key }) => {
                let mut versions = alias.target.versions();
                let gone = versions.find(|version| version_key(*version) == key);
                Err(gone.map_or(Refused::Moved, Refused::Unknown))
            }
            Err(error) => Err(Refused::Store(error)),
        }
    }
}

/// Why an alias was not stored.
enum Refused {
    /// Others changed the same at the same time.
    Moved,
    /// There is no such version.
    Unknown(Version),
    Store(StoreError),
}

/// The field that names a version.
fn field(target: &Target, version: Version) -> String {
    let is_canary = |canary: &protocol::version::Canary| canary.version == version;
    if target.version == version {
        "version".to_owned()
    } else if target.canary.as_ref().is_some_and(is_canary) {
        "canary.version".to_owned()
    } else {
        "a key of weights".to_owned()
    }
}

fn stored(found: &RegisteredAlias) -> StoredAlias {
    StoredAlias {
        alias: Arc::clone(&found.alias),
        revision: found.revision,
        is_new: false,
    }
}

fn read(entry: &Entry) -> Result<RegisteredAlias, Error> {
    let found = read_alias(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })?;
    Ok(found)
}

fn not_found(id: &str, name: &str) -> Error {
    let (function, name) = (id.to_owned(), name.to_owned());
    VersionError::AliasNotFound { function, name }.into()
}

fn changed(id: &str, name: &str) -> Error {
    let (function, name) = (id.to_owned(), name.to_owned());
    VersionError::AliasChanged { function, name }.into()
}
