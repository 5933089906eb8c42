//! Who the node's actors are at this moment, for diagnostics and drain.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ractor::{ActorCell, ActorRef};

use super::SharedFlag;
use crate::executor;
use crate::tasks::Depth;

/// The node's actors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    Supervisor,
    RegistryCache,
    Executor,
    Router,
}

/// Who the node's actors are; cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    draining: SharedFlag,
    is_stopping: AtomicBool,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    actors: BTreeMap<Name, Entry>,
    executor: Option<ActorRef<executor::Message>>,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) cell: ActorCell,
    pub(crate) restarts: u32,
}

impl Name {
    /// The supervisor's children, in the order they start.
    pub(crate) const CHILDREN: [Self; 3] = [Self::RegistryCache, Self::Executor, Self::Router];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Supervisor => "supervisor",
            Self::RegistryCache => "registry_cache",
            Self::Executor => "executor",
            Self::Router => "router",
        }
    }
}

impl Board {
    /// Notes an actor's newest incarnation.
    pub(crate) fn set(&self, name: Name, cell: ActorCell) {
        let mut entries = self.lock();
        let restarts = entries
            .actors
            .get(&name)
            .map_or(0, |entry| entry.restarts + 1);
        entries.actors.insert(name, Entry { cell, restarts });
    }

    pub(crate) fn set_executor(&self, executor: ActorRef<executor::Message>) {
        self.lock().executor = Some(executor);
    }

    pub(crate) fn executor(&self) -> Option<ActorRef<executor::Message>> {
        self.lock().executor.clone()
    }

    pub(crate) fn cell(&self, name: Name) -> Option<ActorCell> {
        self.lock()
            .actors
            .get(&name)
            .map(|entry| entry.cell.clone())
    }

    pub(crate) fn entries(&self) -> BTreeMap<Name, Entry> {
        self.lock().actors.clone()
    }

    /// Whose newest incarnation this is.
    pub(crate) fn name_of(&self, cell: &ActorCell) -> Option<Name> {
        let entries = self.lock();
        let found = entries
            .actors
            .iter()
            .find(|(_, entry)| entry.cell.get_id() == cell.get_id());
        found.map(|(name, _)| *name)
    }

    /// Whether the node admits nothing new.
    pub(crate) fn draining(&self) -> &SharedFlag {
        &self.shared.draining
    }

    /// Notes that actors end because the node does.
    pub(crate) fn stop(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.is_stopping.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.shared
            .entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mailboxes' depths, by actor.
#[derive(Debug, Clone, Default)]
pub(crate) struct Depths {
    pub(crate) registry_cache: Depth,
    pub(crate) executor: Depth,
    pub(crate) router: Depth,
}

impl Depths {
    pub(crate) fn of(&self, name: Name) -> u64 {
        match name {
            Name::Supervisor => 0,
            Name::RegistryCache => self.registry_cache.get(),
            Name::Executor => self.executor.get(),
            Name::Router => self.router.get(),
        }
    }
}
