//! Reads and changes the cluster's function records.

use config::Revision;
use protocol::{ErrorCode, Failure, Function};

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
    /// Commands may not be run on this node.
    #[error("type process is off: start the node with --allow-process")]
    ProcessesOff,
    /// The image is nowhere to be found, or nobody could look.
    #[error("provider.image: {}", .0.message)]
    Image(Failure),
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] config::store::Error),
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
pub struct Catalog {}

impl Catalog {
    /// Registers a function, resolving its image first.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn create(&self, function: Function) -> Result<Stored, Error> {
        let _ = function;
        todo!()
    }

    /// Replaces a function, resolving its image anew. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is stored then.
    pub async fn update(&self, function: Function, at: Option<Revision>) -> Result<Stored, Error> {
        let _ = (function, at);
        todo!()
    }

    /// Removes a function; its instances drain. With `at`, only if the record is at that revision.
    ///
    /// # Errors
    /// [`Error`]; nothing is removed then.
    pub async fn delete(&self, space: &str, id: &str, at: Option<Revision>) -> Result<(), Error> {
        let _ = (space, id, at);
        todo!()
    }

    /// Reads one record from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn get(&self, space: &str, id: &str) -> Result<Stored, Error> {
        let _ = (space, id);
        todo!()
    }

    /// Reads the records of a space, by id, from the store, or from this node's registry while the store is away.
    ///
    /// # Errors
    /// When what the store holds can not be read.
    pub async fn list(&self, space: &str) -> Result<Vec<Stored>, Error> {
        let _ = space;
        todo!()
    }
}
