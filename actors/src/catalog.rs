//! Reads and changes the cluster's function records.

use std::sync::Arc;
use std::time::Duration;

use config::store::{Entry, Error as StoreError, Precondition};
use config::{Revision, Store};
use protocol::function::Provider;
use protocol::{ErrorCode, Failure, Function};
use tokio::time::Instant;

use crate::images::Images;
use crate::registry_cache::{FUNCTIONS_PREFIX, Registry};
use crate::router::RouteTable;
use crate::snapshot::Reader;

/// A record as the store has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The function.
    pub function: Function,
    /// The revision of its last change; the `ETag` of the record.
    pub revision: Revision,
}

/// Why a record was not read or changed. Nothing was stored, unless `Store` says that it may have been.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A function of that id exists in the space.
    #[error("Function \"{0}\" already registered.")]
    Exists(String),
    /// No such function in the space.
    #[error("Function \"{0}\" not found.")]
    NotFound(String),
    /// The record is not at the revision the caller named.
    #[error("Function \"{0}\" changed meanwhile.")]
    Changed(String),
    /// Commands may be run on no node.
    #[error("type process is off: no node of the cluster was started with --allow-process")]
    ProcessesOff,
    /// The image is nowhere to be found, or nobody could look.
    #[error("provider.image: {}", .0.message)]
    Image(Failure),
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Exists(_) | Self::Changed(_) => ErrorCode::Conflict,
            Self::NotFound(_) => ErrorCode::FunctionNotFound,
            Self::ProcessesOff => ErrorCode::Forbidden,
            Self::Image(failure) => failure.code,
            Self::Store(error) => error.code(),
        }
    }
}

/// Reads and changes the cluster's function records; cheap to clone. A change answers when this node's registry has it.
#[derive(Debug, Clone)]
pub struct Catalog {
    store: Arc<dyn Store>,
    registry: Reader<Registry>,
    images: Images,
    routes: Reader<RouteTable>,
    allows_processes: bool,
    apply_timeout: Duration,
}

impl Catalog {
    /// Makes the catalog of a node.
    pub fn new(
        store: Arc<dyn Store>,
        registry: Reader<Registry>,
        images: Images,
        routes: Reader<RouteTable>,
        allows_processes: bool,
        apply_timeout: Duration,
    ) -> Self {
        Self {
            store,
            registry,
            images,
            routes,
            allows_processes,
            apply_timeout,
        }
    }

    /// Registers a function, resolving its image first.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create(&self, function: Function) -> Result<Stored, Error> {
        let id = function.function_id.to_string();
        // Asked first so that a name that is taken is told before a registry is asked for the image.
        if self
            .store
            .get(&key(function.space.as_str(), &id))
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
            .get(&key(function.space.as_str(), &id))
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
        let key = key(space, id);
        if self.store.get(&key).await?.is_none() {
            return Err(Error::NotFound(id.to_owned()));
        }
        let precondition = at.map_or(Precondition::Present, Precondition::At);
        let deleted = self.store.delete(&key, Some(precondition)).await;
        let revision = deleted.map_err(|error| match (error, at) {
            (StoreError::Precondition { .. }, Some(_)) => Error::Changed(id.to_owned()),
            (StoreError::Precondition { .. }, None) => Error::NotFound(id.to_owned()),
            (error, _) => Error::Store(error),
        })?;
        self.applied(revision).await;
        Ok(())
    }

    /// Reads one record from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, space: &str, id: &str) -> Result<Stored, Error> {
        let not_found = || Error::NotFound(id.to_owned());
        match self.store.get(&key(space, id)).await {
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
                let stored = |registered: &Arc<crate::registry_cache::Registered>| Stored {
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
        let key = key(function.space.as_str(), function.function_id.as_str());
        let revision = match self.store.put(&key, value.into(), Some(precondition)).await {
            Ok(revision) => revision,
            Err(StoreError::Precondition { .. }) => return Err(conflict()),
            Err(error) => return Err(error.into()),
        };
        self.applied(revision).await;
        Ok(Stored { function, revision })
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

    /// Waits until this node's registry has a revision, so that its own caller finds what it wrote.
    async fn applied(&self, revision: Revision) {
        let until = Instant::now() + self.apply_timeout;
        if !self
            .registry
            .wait_until(until, |registry| registry.functions_revision >= revision)
            .await
        {
            tracing::warn!(
                revision = revision.0,
                "a write is stored, but this node's registry has not reached it yet"
            );
        }
    }
}

fn key(space: &str, id: &str) -> String {
    format!("{FUNCTIONS_PREFIX}{space}/{id}")
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
