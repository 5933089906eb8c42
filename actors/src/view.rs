//! Status and diagnostics of a node, for people and balancers.

use protocol::{FunctionId, Space, api};

/// Whether a balancer should send requests here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// The registry is not loaded yet, neither from the store nor from the disk snapshot.
    Loading,
    /// The node admits nothing new.
    Draining,
}

/// Status and diagnostics of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct View {}

impl View {
    /// Whether a balancer should send requests here.
    pub fn readiness(&self) -> Readiness {
        todo!()
    }

    /// The cluster as this node sees it.
    pub fn cluster(&self) -> api::Cluster {
        todo!()
    }

    /// The node's actors.
    pub async fn actors(&self) -> api::Actors {
        todo!()
    }

    /// What `pick()` would choose now for a function, and why; `None` when it is not registered.
    pub fn route(&self, space: &Space, id: &FunctionId) -> Option<api::Route> {
        let _ = (space, id);
        todo!()
    }

    /// Kills an actor, for fault tests; false when there is none of that name.
    pub fn kill_actor(&self, name: &str) -> bool {
        let _ = name;
        todo!()
    }
}
