//! Versions of functions: published from the record as it is, numbered for good, and removed together with their function.

use std::collections::BTreeSet;
use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::{Alias, Function, PublishedVersion, Version};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::schedules::wall_ms;
use super::{ATTEMPTS_MAX, Catalog, Error, function_key, functions, pause, pins_key, unmoved};
use crate::registry_cache::versions::{read_alias, version_key};
use crate::registry_cache::{ALIASES_PREFIX, Registry, VERSIONS_PREFIX};

mod refused;

pub use refused::VersionError;

/// The prefix of the guards of versions and aliases, `numbers/<space>/<function>`.
pub(crate) const NUMBERS_PREFIX: &str = "numbers/";

/// Records that are removed at once; etcd takes 128 writes in a transaction.
const AT_ONCE: usize = 100;

/// What the guard of a function's versions and aliases says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Numbers {
    /// The number of the newest version there ever was.
    last: u32,
}

/// A version of a function as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredVersion {
    /// The version.
    pub published: Arc<PublishedVersion>,
    /// The revision at which it was published.
    pub revision: Revision,
    /// Whether it was published just now.
    pub is_new: bool,
}

/// An alias as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredAlias {
    /// The alias.
    pub alias: Arc<Alias>,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
    /// Whether it was made just now.
    pub is_new: bool,
}

impl Catalog {
    /// Publishes a function as it is: the next version, or the newest one when nothing has changed since. With `at`, only if the
    /// function's record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn publish(
        &self,
        space: &str,
        id: &str,
        description: Option<String>,
        at: Option<Revision>,
    ) -> Result<StoredVersion, Error> {
        protocol::version::check_description(description.as_deref())
            .map_err(VersionError::Invalid)?;
        let (key, numbers_key) = (function_key(space, id), numbers_key(space, id));
        for attempt in 0..ATTEMPTS_MAX {
            let (function, numbers) =
                tokio::try_join!(self.store.get(&key), self.store.get(&numbers_key))?;
            let function = function.ok_or_else(|| Error::NotFound(id.to_owned()))?;
            if at.is_some_and(|at| at != function.revision) {
                return Err(Error::Changed(id.to_owned()));
            }
            let (revision, function) = (function.revision, functions::read(&function)?.function);
            let last = numbers.as_ref().map_or(Ok(0), last_number)?;
            let there = self
                .store
                .list(&of_function(VERSIONS_PREFIX, space, id))
                .await?;
            if let Some(newest) = there.entries.last().map(read_published).transpose()?
                && newest.published.version.number() == last
                && is_same(&newest.published.function, &function)
            {
                self.knows_version(&newest).await;
                return Ok(newest);
            }
            let max = self.versions.per_function_max;
            let next = last.checked_add(1).and_then(Version::new);
            let Some(next) = next.filter(|_| there.entries.len() < max) else {
                let function = id.to_owned();
                return Err(VersionError::TooMany { function, max }.into());
            };
            let published = published(function, next, description.clone());
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), Precondition::At(revision)),
                    (numbers_key.clone(), unmoved(numbers.as_ref())),
                    (version_key(space, id, next), Precondition::Absent),
                ],
                writes: [
                    put(&version_key(space, id, next), &published),
                    put(
                        &numbers_key,
                        &Numbers {
                            last: next.number(),
                        },
                    ),
                ]
                .into_iter()
                .chain(moved_pins(&published.function))
                .collect(),
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    let stored = StoredVersion {
                        published: Arc::new(published),
                        revision,
                        is_new: true,
                    };
                    self.knows_version(&stored).await;
                    return Ok(stored);
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Reads a version from the store.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the function, [`VersionError::NotFound`] for the version.
    pub async fn version(
        &self,
        space: &str,
        id: &str,
        version: Version,
    ) -> Result<StoredVersion, Error> {
        let keys = (function_key(space, id), version_key(space, id, version));
        let (function, found) = tokio::try_join!(self.store.get(&keys.0), self.store.get(&keys.1))?;
        if function.is_none() {
            return Err(Error::NotFound(id.to_owned()));
        }
        match found {
            Some(entry) => read_published(&entry),
            None => Err(not_found(id, version)),
        }
    }

    /// Reads the versions of a function from the store, the first first.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the function.
    pub async fn versions(&self, space: &str, id: &str) -> Result<Vec<StoredVersion>, Error> {
        let (key, prefix) = (
            function_key(space, id),
            of_function(VERSIONS_PREFIX, space, id),
        );
        let (function, listing) = tokio::try_join!(self.store.get(&key), self.store.list(&prefix))?;
        if function.is_none() {
            return Err(Error::NotFound(id.to_owned()));
        }
        listing.entries.iter().map(read_published).collect()
    }

    /// Removes a version that no alias sends calls to; its instances drain.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_version(
        &self,
        space: &str,
        id: &str,
        version: Version,
    ) -> Result<(), Error> {
        let (key, numbers_key) = (version_key(space, id, version), numbers_key(space, id));
        for attempt in 0..ATTEMPTS_MAX {
            let numbers = self.store.get(&numbers_key).await?;
            let published = self.version(space, id, version).await?.published;
            let prefix = of_function(ALIASES_PREFIX, space, id);
            let there = self.store.list(&prefix).await?;
            let aliases = there.entries.iter().filter_map(read_alias);
            let named =
                aliases.filter(|found| found.alias.target.versions().any(|one| one == version));
            let named: Vec<String> = named.map(|found| found.alias.name.to_string()).collect();
            if !named.is_empty() {
                let (function, aliases) = (id.to_owned(), named.join(", "));
                return Err(VersionError::InUse {
                    function,
                    version,
                    aliases,
                }
                .into());
            }
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), Precondition::Present),
                    (numbers_key.clone(), unmoved(numbers.as_ref())),
                ],
                writes: std::iter::once(Write::Delete(key.clone()))
                    .chain(numbers.as_ref().map(moved))
                    .chain(moved_pins(&published.function))
                    .collect(),
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(());
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Adds to the transaction that removes a function as much of what was published of it as there is room for. Whether that is all.
    pub(super) async fn remove_with(
        &self,
        space: &str,
        id: &str,
        transaction: &mut Transaction,
    ) -> Result<bool, Error> {
        let key = numbers_key(space, id);
        let numbers = self.store.get(&key).await?;
        transaction
            .preconditions
            .push((key, unmoved(numbers.as_ref())));
        let Some(numbers) = numbers else {
            return Ok(true);
        };
        let room = AT_ONCE.saturating_sub(transaction.writes.len() + 1);
        let is_all = self
            .removals(space, id, room, &mut transaction.writes)
            .await?;
        transaction.writes.push(match is_all {
            true => Write::Delete(numbers.key),
            false => moved(&numbers),
        });
        Ok(is_all)
    }

    /// Removes what is left of what was published of a function that is gone.
    ///
    /// # Errors
    /// When the store does not answer. What is left then is in nobody's way: it is removed before another function gets the id.
    pub(super) async fn remove_left(&self, space: &str, id: &str) -> Result<(), Error> {
        let gone = (function_key(space, id), Precondition::Absent);
        loop {
            let mut transaction = Transaction {
                preconditions: vec![gone.clone()],
                ..Transaction::default()
            };
            let is_all = self.remove_with(space, id, &mut transaction).await?;
            match self.store.commit(transaction).await {
                Ok(_) if is_all => return Ok(()),
                Ok(_) => {}
                // Another one removes it as well, or has registered the function anew since.
                Err(StoreError::Precondition { .. }) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes that remove up to `max` aliases and versions of a function. Whether those are all.
    async fn removals(
        &self,
        space: &str,
        id: &str,
        max: usize,
        writes: &mut Vec<Write>,
    ) -> Result<bool, Error> {
        let mut room = max;
        for prefix in [ALIASES_PREFIX, VERSIONS_PREFIX] {
            let prefix = of_function(prefix, space, id);
            let page = self.store.list_page(&prefix, None, room + 1).await?;
            let count = page.len();
            let removed = page.into_iter().take(room);
            writes.extend(removed.map(|entry| Write::Delete(entry.key)));
            if count > room {
                return Ok(false);
            }
            room -= count;
        }
        Ok(true)
    }

    /// Waits until this node can run a version that may have been published on another one a moment ago.
    async fn knows_version(&self, stored: &StoredVersion) {
        let function = &stored.published.function;
        let is_known = |registry: &Registry| {
            let (space, id) = (&function.space, &function.function_id);
            let found = registry.version(space, id, stored.published.version);
            found.is_some_and(|found| found.revision >= stored.revision)
        };
        self.applied_as(stored.revision, is_known).await;
    }

    /// Waits until this node's registry has what was stored at a revision.
    pub(super) async fn applied_as(
        &self,
        revision: Revision,
        is_known: impl Fn(&Registry) -> bool,
    ) {
        let until = Instant::now() + self.apply_timeout;
        if !self.registry.wait_until(until, is_known).await {
            tracing::warn!(
                revision = revision.0,
                "a version or an alias is stored, but this node's registry has not reached it yet"
            );
        }
    }
}

/// A version of a function as it is now.
fn published(
    mut function: Function,
    version: Version,
    description: Option<String>,
) -> PublishedVersion {
    function.version = Some(version);
    PublishedVersion {
        version,
        description,
        digest: function.code_digest(),
        function,
        published_at_ms: wall_ms(),
    }
}

/// Whether a version is what its function is now.
fn is_same(published: &Function, now: &Function) -> bool {
    let published = Function {
        version: None,
        ..published.clone()
    };
    published == *now
}

/// Moves the guards of the secrets that a version names.
fn moved_pins(function: &Function) -> impl Iterator<Item = Write> {
    let space = function.space.as_str();
    let secrets = function.secrets().iter();
    let keys: BTreeSet<String> = secrets
        .map(|secret| pins_key(space, secret.name.as_str()))
        .collect();
    keys.into_iter().map(|key| Write::Put(key, "{}".into()))
}

/// The guard of the versions and aliases of a function.
pub(super) fn numbers_key(space: &str, function_id: &str) -> String {
    format!("{NUMBERS_PREFIX}{space}/{function_id}")
}

/// The keys of the versions, or of the aliases, of a function.
pub(super) fn of_function(prefix: &str, space: &str, function_id: &str) -> String {
    format!("{prefix}{space}/{function_id}/")
}

/// Moves a guard that says what it said before.
pub(super) fn moved(guard: &Entry) -> Write {
    Write::Put(guard.key.clone(), guard.value.clone())
}

pub(super) fn contended(id: &str) -> Error {
    Error::Contended(format!("the versions and aliases of function {id}"))
}

fn not_found(id: &str, version: Version) -> Error {
    let function = id.to_owned();
    VersionError::NotFound { function, version }.into()
}

/// The revision that the registry's versions are at.
fn known(registry: &Registry) -> Revision {
    registry.versions_revision
}

fn put(key: &str, record: &impl Serialize) -> Write {
    let value = serde_json::to_vec(record).expect("a record has string keys only");
    Write::Put(key.to_owned(), value.into())
}

fn last_number(entry: &Entry) -> Result<u32, Error> {
    let numbers: Numbers = parsed(entry)?;
    Ok(numbers.last)
}

fn read_published(entry: &Entry) -> Result<StoredVersion, Error> {
    Ok(StoredVersion {
        published: Arc::new(parsed(entry)?),
        revision: entry.revision,
        is_new: false,
    })
}

fn parsed<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Result<T, Error> {
    let read = serde_json::from_slice(&entry.value);
    let read = read.map_err(|error| StoreError::Damaged {
        why: format!("record {}: {error}", entry.key),
    });
    Ok(read?)
}
