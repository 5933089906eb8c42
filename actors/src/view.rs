//! Status and diagnostics of a node, for people and balancers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use cluster::{Member, Members};
use config::Store;
use protocol::{FunctionId, Generation, InstanceKey, NodeId, Space, api};
use tokio::sync::watch;

use crate::executor::Pools;
use crate::invoker::Invoker;
use crate::registry_cache::Registry;
use crate::router::{Announcer, RouteTable};
use crate::snapshot::Reader;
use crate::supervisor::board::{Depths, Name};
use crate::supervisor::{Handle, status_of};

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

/// All that the view is made from.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) cluster_id: String,
    pub(crate) node_name: Arc<str>,
    pub(crate) node_id: NodeId,
    pub(crate) generation: Generation,
    pub(crate) peer_address: SocketAddr,
    pub(crate) invoker: Invoker,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) members: watch::Receiver<Arc<Members>>,
    pub(crate) registry: Reader<Registry>,
    pub(crate) pools: Reader<Pools>,
    pub(crate) routes: Reader<RouteTable>,
    pub(crate) announcer: Announcer,
    pub(crate) depths: Depths,
    pub(crate) handle: Handle,
}

/// Status and diagnostics of a node; cheap to clone.
#[derive(Debug, Clone)]
pub struct View {
    parts: Arc<Parts>,
}

impl View {
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            parts: Arc::new(parts),
        }
    }

    /// Whether a balancer should send requests here.
    pub fn readiness(&self) -> Readiness {
        match (
            self.parts.announcer.is_draining.load(Ordering::Acquire),
            self.parts.registry.load().is_loaded,
        ) {
            (true, _) => Readiness::Draining,
            (false, true) => Readiness::Ready,
            (false, false) => Readiness::Loading,
        }
    }

    /// The cluster as this node sees it.
    pub fn cluster(&self) -> api::Cluster {
        let names = self.function_names();
        let members = Arc::clone(&self.parts.members.borrow());
        let routes = self.parts.routes.load();
        let peers = members.values().map(|member| {
            let is_silent = routes
                .peers
                .get(&member.id)
                .is_some_and(|route| route.health.is_silent());
            let state = match (member.is_alive, member.state.is_draining, is_silent) {
                (false, ..) => "dead",
                (true, _, true) => "silent",
                (true, true, false) => "draining",
                (true, false, false) => "alive",
            };
            node(member, state, &names)
        });
        let mut nodes: Vec<_> = std::iter::once(self.own_node(&names))
            .chain(peers)
            .collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        api::Cluster {
            cluster: self.parts.cluster_id.clone(),
            node: self.parts.node_name.to_string(),
            revision: self.parts.registry.load().revision.0,
            store_staleness_seconds: self.parts.store.staleness().as_secs_f64(),
            nodes,
        }
    }

    /// The node's actors.
    pub async fn actors(&self) -> api::Actors {
        let entries = self.parts.handle.board().entries();
        let actors = entries.into_iter().map(|(name, entry)| {
            let snapshot = self.snapshot(name);
            api::ActorStatus {
                name: name.as_str().into(),
                status: status_of(&entry.cell).into(),
                restarts: entry.restarts,
                mailbox_depth: self.parts.depths.of(name),
                snapshot_revision: snapshot.map(|(revision, _)| revision),
                snapshot_age_seconds: snapshot.map(|(_, age)| age),
            }
        });
        api::Actors {
            actors: actors.collect(),
        }
    }

    /// What `pick()` would choose now for a function, and why; `None` when it is not registered.
    pub fn route(&self, space: &Space, id: &FunctionId) -> Option<api::Route> {
        let registry = self.parts.registry.load();
        let registered = registry.function(space, id)?;
        Some(self.parts.invoker.explain(registered))
    }

    /// Kills an actor, for fault tests; false when there is none of that name.
    pub fn kill_actor(&self, name: &str) -> bool {
        let named = Name::CHILDREN
            .into_iter()
            .find(|child| child.as_str() == name);
        let cell = named.and_then(|name| self.parts.handle.board().cell(name));
        cell.map(|cell| cell.kill()).is_some()
    }

    fn snapshot(&self, name: Name) -> Option<(u64, f64)> {
        let parts = &self.parts;
        match name {
            Name::Supervisor => None,
            Name::RegistryCache => Some((
                parts.registry.load().revision.0,
                parts.registry.age_seconds(),
            )),
            // Pools follow the registry: their revision is the registry's they were opened from.
            Name::Executor => Some((parts.registry.load().revision.0, parts.pools.age_seconds())),
            Name::Router => Some((parts.routes.load().version, parts.routes.age_seconds())),
        }
    }

    fn function_names(&self) -> BTreeMap<InstanceKey, String> {
        let name =
            |function: &protocol::Function| format!("{}/{}", function.space, function.function_id);
        self.parts
            .registry
            .load()
            .iter()
            .map(|registered| (registered.key, name(&registered.function)))
            .collect()
    }

    fn own_node(&self, names: &BTreeMap<InstanceKey, String>) -> api::ClusterNode {
        let state = self.parts.announcer.state();
        let pools = self.parts.pools.load();
        let hints = state.hints.iter().map(|hint| {
            let pool = pools.get(hint.key).and_then(|pool| pool.pool());
            let ids = pool.map(|pool| pool.instance_ids()).unwrap_or_default();
            api::ClusterHint {
                instance_ids: ids.iter().map(ToString::to_string).collect(),
                ..told(hint, names)
            }
        });
        api::ClusterNode {
            name: self.parts.node_name.to_string(),
            id: self.parts.node_id.to_string(),
            generation: self.parts.generation.0,
            peer_address: self.parts.peer_address.to_string(),
            state: if state.is_draining {
                "draining"
            } else {
                "alive"
            }
            .into(),
            hints: hints.collect(),
            ..loaded(&state)
        }
    }
}

fn node(member: &Member, state: &str, names: &BTreeMap<InstanceKey, String>) -> api::ClusterNode {
    api::ClusterNode {
        name: member.state.name.clone(),
        id: member.id.to_string(),
        generation: member.generation.0,
        peer_address: member.peer.address.to_string(),
        state: state.into(),
        hints: member
            .state
            .hints
            .iter()
            .map(|hint| told(hint, names))
            .collect(),
        ..loaded(&member.state)
    }
}

/// The part of a node's entry that comes from what it says of its load.
fn loaded(state: &cluster::LocalState) -> api::ClusterNode {
    api::ClusterNode {
        name: String::new(),
        id: String::new(),
        generation: 0,
        peer_address: String::new(),
        state: String::new(),
        version: state.version.clone(),
        in_flight: state.load.in_flight,
        instances: state.load.instances,
        memory_used_mb: state.load.memory_used_mb,
        memory_max_mb: state.load.memory_max_mb,
        secrets: state.secrets.clone(),
        hints: Vec::new(),
    }
}

fn told(hint: &cluster::Hint, names: &BTreeMap<InstanceKey, String>) -> api::ClusterHint {
    api::ClusterHint {
        instance_key: hint.key.to_string(),
        function: names.get(&hint.key).cloned(),
        free_slots: hint.free_slots,
        instances: hint.instances,
        instance_ids: Vec::new(),
    }
}
