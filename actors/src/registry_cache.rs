//! Store watch -> [`Registry`].

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use config::Revision;
use protocol::{Function, FunctionId, InstanceKey, Space};

/// The functions this node knows, as of a revision of the store.
#[derive(Debug, Default)]
pub struct Registry {
    /// The store's revision it was built from.
    pub revision: Revision,
    /// The functions.
    pub functions: HashMap<Space, BTreeMap<FunctionId, Arc<Registered>>>,
}

/// A function as the warm path needs it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The record.
    pub function: Arc<Function>,
    /// Its instance key.
    pub key: InstanceKey,
    /// The revision of its last change.
    pub revision: Revision,
}

impl Registry {
    /// Finds a function.
    pub fn function(&self, space: &Space, id: &FunctionId) -> Option<&Arc<Registered>> {
        self.functions.get(space)?.get(id)
    }
}
