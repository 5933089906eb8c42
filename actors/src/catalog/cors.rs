//! CORS configurations.

use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use protocol::{CorsId, CorsRecord, PathTree};

use super::{ATTEMPTS_MAX, Catalog, Error, StoredCors, pause, unmoved};
use crate::registry_cache::state::{cors_key, read_cors};
use crate::registry_cache::{CORS_PREFIX, RegisteredCors, Registry};

impl Catalog {
    /// Stores a CORS configuration, if its path can stand beside those of its space and method.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create_cors(&self, cors: CorsRecord) -> Result<StoredCors, Error> {
        let key = cors_key(cors.space.as_str(), cors.cors_id.as_str());
        let exists = || Error::CorsExists(cors.cors_id.to_string());
        let (space, method) = (&cors.space, cors.method);
        let guard_key = format!("paths/{space}/cors/{method}");
        for attempt in 0..ATTEMPTS_MAX {
            let guard = self.store.get(&guard_key).await?;
            // There are few of them, so the store is asked for all. The guard has not moved when this is stored, so these are all then.
            let all = self
                .store
                .list(&cors_key(space.as_str(), method.as_str()))
                .await?;
            let mut tree = PathTree::default();
            for entry in &all.entries {
                if entry.key == key {
                    return Err(exists());
                }
                // Two that conflict can not be there; should they be, one of them speaks for both.
                if let Some(other) = read_cors(entry).filter(|other| other.cors.method == method) {
                    let _ = tree.add(&other.cors.path, ());
                }
            }
            tree.check(&cors.path).map_err(Error::CorsPath)?;
            let transaction = Transaction {
                preconditions: vec![
                    (key.clone(), Precondition::Absent),
                    (guard_key.clone(), unmoved(guard.as_ref())),
                ],
                writes: vec![
                    Write::Put(key.clone(), written(&cors)),
                    Write::Put(guard_key.clone(), cors.cors_id.to_string().into()),
                ],
            };
            match self.store.commit(transaction).await {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(stored(cors, revision));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(&cors.cors_id))
    }

    /// Replaces what a CORS configuration allows. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update_cors(
        &self,
        id: &CorsId,
        cors: CorsRecord,
        at: Option<Revision>,
    ) -> Result<StoredCors, Error> {
        let key = cors_key(cors.space.as_str(), id.as_str());
        for attempt in 0..ATTEMPTS_MAX {
            let entry = self.store.get(&key).await?;
            let entry = entry.ok_or_else(|| Error::CorsNotFound(id.to_string()))?;
            let before = read(&entry)?;
            if before.cors.method != cors.method {
                return Err(Error::CorsIdentity("Method"));
            }
            if before.cors.path != cors.path {
                return Err(Error::CorsIdentity("Path"));
            }
            let precondition = Precondition::At(at.unwrap_or(entry.revision));
            match self
                .store
                .put(&key, written(&cors), Some(precondition))
                .await
            {
                Ok(revision) => {
                    self.applied(revision, known).await;
                    return Ok(stored(cors, revision));
                }
                Err(StoreError::Precondition { .. }) if at.is_some() => {
                    return Err(Error::CorsChanged(id.to_string()));
                }
                Err(StoreError::Precondition { .. }) => pause(attempt).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(contended(id))
    }

    /// Removes a CORS configuration. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete_cors(
        &self,
        space: &str,
        id: &CorsId,
        at: Option<Revision>,
    ) -> Result<(), Error> {
        let key = cors_key(space, id.as_str());
        let precondition = at.map_or(Precondition::Present, Precondition::At);
        let not_found = || Error::CorsNotFound(id.to_string());
        if self.store.get(&key).await?.is_none() {
            return Err(not_found());
        }
        let transaction = Transaction {
            preconditions: vec![(key.clone(), precondition)],
            writes: vec![Write::Delete(key)],
        };
        match self.store.commit(transaction).await {
            Ok(revision) => {
                self.applied(revision, known).await;
                Ok(())
            }
            Err(StoreError::Precondition { .. }) if at.is_some() => {
                Err(Error::CorsChanged(id.to_string()))
            }
            Err(StoreError::Precondition { .. }) => Err(not_found()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads one CORS configuration from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::CorsNotFound`].
    pub async fn cors(&self, space: &str, id: &CorsId) -> Result<StoredCors, Error> {
        let not_found = || Error::CorsNotFound(id.to_string());
        match self.store.get(&cors_key(space, id.as_str())).await {
            Ok(entry) => read(&entry.ok_or_else(not_found)?),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let mut all = registry.cors.of_space(space);
                let found = all.find(|registered| registered.cors.cors_id == *id);
                Ok(RegisteredCors::clone(found.ok_or_else(not_found)?).into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads the CORS configurations of a space, by id, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn all_cors(&self, space: &str) -> Result<Vec<StoredCors>, Error> {
        match self.store.list(&format!("{CORS_PREFIX}{space}/")).await {
            Ok(listing) => listing.entries.iter().map(read).collect(),
            Err(StoreError::Unavailable { .. }) if self.registry.load().is_loaded => {
                let registry = self.registry.load();
                let all = registry.cors.of_space(space);
                Ok(all
                    .map(|registered| RegisteredCors::clone(registered).into())
                    .collect())
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl From<RegisteredCors> for StoredCors {
    fn from(registered: RegisteredCors) -> Self {
        Self {
            cors: registered.cors,
            revision: registered.revision,
        }
    }
}

fn stored(cors: CorsRecord, revision: Revision) -> StoredCors {
    StoredCors {
        cors: Arc::new(cors),
        revision,
    }
}

/// The revision that the registry's CORS configurations are at.
fn known(registry: &Registry) -> Revision {
    registry.cors.revision
}

fn written(cors: &CorsRecord) -> bytes::Bytes {
    let value = serde_json::to_vec(cors).expect("a record has string keys only");
    value.into()
}

fn read(entry: &Entry) -> Result<StoredCors, Error> {
    let registered = read_cors(entry).ok_or_else(|| StoreError::Damaged {
        why: format!("record {}", entry.key),
    })?;
    Ok(registered.into())
}

fn contended(id: &CorsId) -> Error {
    Error::Contended(format!("CORS configuration {id}"))
}
