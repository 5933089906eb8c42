//! Secrets: sealed before they are stored, and kept as long as a function names them.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::{Function, FunctionId, SecretName, SecretRecord, Space};
use vault::Plain;

use super::schedules::wall_ms;
use super::{
    ATTEMPTS_MAX, CATCH_UP, Catalog, Error, StoredSecret, needs_key, pause, pins_key, unmoved,
};
use crate::registry_cache::state::{read_secret, secret_key};
use crate::registry_cache::versions::read_version;
use crate::registry_cache::{Registry, SECRETS_PREFIX, VERSIONS_PREFIX};

/// Functions that are named in a refusal.
const NAMED_MAX: usize = 5;

impl Catalog {
    /// Sets a secret: makes it, if its space may have one more, or gives it another value. Every function that has it gets new instances.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn set_secret(
        &self,
        space: &Space,
        name: &SecretName,
        value: &Plain,
    ) -> Result<StoredSecret, Error> {
        let (bytes, max) = (value.expose().len(), self.secrets.value_max.as_u64());
        if bytes == 0 || bytes as u64 > max {
            return Err(Error::SecretSize { bytes, max });
        }
        let key = secret_key(space.as_str(), name.as_str());
        let data_key = self.vault.key().await?;
        for attempt in 0..ATTEMPTS_MAX {
            let before = self.store.get(&key).await?;
            let now_ms = wall_ms();
            let made = before.as_ref().and_then(read_secret);
            let mut secret = SecretRecord {
                space: space.clone(),
                name: name.clone(),
                version: format!("{:032x}", rand::random::<u128>()),
                sealed: String::new(),
                created_at_ms: made.map_or(now_ms, |made| made.secret.created_at_ms),
                updated_at_ms: now_ms,
            };
            secret.set_sealed(&data_key.seal(&key, value.expose()));
            let mut transaction = Transaction {
                preconditions: vec![(key.clone(), unmoved(before.as_ref()))],
                writes: vec![put(&key, &secret)],
            };
            if before.is_none() {
                let (guard, moved) = self.count_one_more(space).await?;
                transaction.preconditions.push(guard);
                transaction.writes.push(moved);
            }
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(StoredSecret {
                        functions: self.functions_with(space, name),
                        secret: Arc::new(secret),
                        revision,
                        is_new: before.is_none(),
                    });
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(name.as_str()))
    }

    /// Removes a secret that no function and no version of one has.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_secret(&self, space: &str, name: &str) -> Result<(), Error> {
        let (key, needs_key) = (secret_key(space, name), needs_key(space, name));
        let pins_key = pins_key(space, name);
        for attempt in 0..ATTEMPTS_MAX {
            let (secret, needs, pins) = tokio::try_join!(
                self.store.get(&key),
                self.store.get(&needs_key),
                self.store.get(&pins_key),
            )?;
            if secret.is_none() {
                return Err(Error::SecretNotFound(name.to_owned()));
            }
            if let Some(needs) = &needs {
                let functions = self
                    .functions_that_name(space, name, needs.revision)
                    .await?;
                if !functions.is_empty() {
                    return Err(in_use(name, &functions));
                }
            }
            if let Some(pins) = &pins {
                let versions = self.versions_that_name(space, name, pins.revision).await?;
                if !versions.is_empty() {
                    return Err(in_use(name, &versions));
                }
            }
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), Precondition::Present),
                    (needs_key.clone(), unmoved(needs.as_ref())),
                    (pins_key.clone(), unmoved(pins.as_ref())),
                ],
                writes: [&key, &needs_key, &pins_key]
                    .map(|key| Write::Delete(key.clone()))
                    .into(),
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
        Err(contended(name))
    }

    /// The secrets of a space, by name, from the store, or from this node's registry while the store is away. Their values are sealed.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn secrets(&self, space: &str) -> Result<Vec<StoredSecret>, Error> {
        let Ok(space) = space.parse::<Space>() else {
            return Ok(Vec::new());
        };
        let stored = |secret: Arc<SecretRecord>, revision| StoredSecret {
            functions: self.functions_with(&space, &secret.name),
            secret,
            revision,
            is_new: false,
        };
        match self.store.list(&of_space(space.as_str())).await {
            Ok(listing) => listing
                .entries
                .iter()
                .map(|entry| {
                    let found = read(entry)?;
                    Ok(stored(found.secret, found.revision))
                })
                .collect(),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let secrets = registry.secrets.get(&space).into_iter();
                let secrets = secrets.flat_map(|secrets| secrets.values());
                Ok(secrets
                    .map(|found| stored(Arc::clone(&found.secret), found.revision))
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks that there be room for one more secret in a space when it is stored.
    async fn count_one_more(
        &self,
        space: &Space,
    ) -> Result<((String, Precondition), Write), Error> {
        let guard = format!("counts/{space}/secrets");
        let max = self.secrets.per_space_max;
        let all = of_space(space.as_str());
        let room = self.room_for_one(guard, &all, max);
        room.await?.ok_or_else(|| {
            let space = space.clone();
            Error::TooManySecrets { space, max }
        })
    }

    /// The functions that have a secret, as this node knows them.
    fn functions_with(&self, space: &Space, name: &SecretName) -> Vec<FunctionId> {
        let registry = self.registry.load();
        let functions = registry.functions.get(space).into_iter();
        let functions = functions.flat_map(|functions| functions.values());
        functions
            .filter(|registered| names(&registered.function, name.as_str()))
            .map(|registered| registered.function.function_id.clone())
            .collect()
    }

    /// The functions that name a secret, as of the revision of its guard or later.
    async fn functions_that_name(
        &self,
        space: &str,
        name: &str,
        guard: Revision,
    ) -> Result<Vec<FunctionId>, Error> {
        let is_reached = self.reaches(guard, |registry| registry.functions_revision, CATCH_UP);
        if is_reached.await
            && let (Ok(space), Ok(name)) = (space.parse(), name.parse())
        {
            return Ok(self.functions_with(&space, &name));
        }
        let all = self.list(space).await?;
        let naming = all.iter().filter(|stored| names(&stored.function, name));
        Ok(naming
            .map(|stored| stored.function.function_id.clone())
            .collect())
    }

    /// The versions that name a secret, as `function:version`, as of the revision of their guard or later.
    async fn versions_that_name(
        &self,
        space: &str,
        name: &str,
        guard: Revision,
    ) -> Result<Vec<String>, Error> {
        let shown = |function: &Function| {
            let version = function.version?;
            let is_naming = names(function, name);
            is_naming.then(|| format!("{}:{version}", function.function_id))
        };
        if self
            .reaches(guard, |registry| registry.versions_revision, CATCH_UP)
            .await
        {
            let registry = self.registry.load();
            let published = registry.published();
            let of_space = published.filter(|found| found.function.space.as_str() == space);
            return Ok(of_space
                .filter_map(|found| shown(&found.function))
                .collect());
        }
        let all = self
            .store
            .list(&format!("{VERSIONS_PREFIX}{space}/"))
            .await?;
        let read = all.entries.iter().filter_map(read_version);
        Ok(read.filter_map(|found| shown(&found.function)).collect())
    }
}

fn names(function: &Function, secret: &str) -> bool {
    let mut secrets = function.secrets().iter();
    secrets.any(|used| used.name.as_str() == secret)
}

/// The revision that the registry's secrets are at.
fn known(registry: &Registry) -> Revision {
    registry.secrets_revision
}

fn of_space(space: &str) -> String {
    format!("{SECRETS_PREFIX}{space}/")
}

fn put(key: &str, secret: &SecretRecord) -> Write {
    let value = serde_json::to_vec(secret).expect("a record has string keys only");
    Write::Put(key.to_owned(), value.into())
}

fn read(entry: &Entry) -> Result<crate::registry_cache::RegisteredSecret, Error> {
    let found = read_secret(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })?;
    Ok(found)
}

fn in_use(name: &str, functions: &[impl ToString]) -> Error {
    let named = functions.iter().take(NAMED_MAX).map(ToString::to_string);
    let mut functions_named = named.collect::<Vec<_>>().join(", ");
    if functions.len() > NAMED_MAX {
        let more = functions.len() - NAMED_MAX;
        functions_named.push_str(&format!(" and {more} more"));
    }
    Error::SecretInUse {
        name: name.to_owned(),
        functions: functions_named,
    }
}

fn contended(name: &str) -> Error {
    Error::Contended(format!("secret {name}"))
}
