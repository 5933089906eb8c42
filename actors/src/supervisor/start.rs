//! Puts a node's control plane together and starts it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cluster::{LocalState, Members, PeerClient};
use config::{Settings, Store};
use protocol::NodeId;
use providers::Outputs;
use ractor::Actor;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::Vault;

use super::board::{Board, Depths, Name};
use super::{Args, Handle, Supervisor};
use crate::backup::Backup;
use crate::catalog::Catalog;
use crate::control::Control;
use crate::executions::Executions;
use crate::executor::attention::Attention;
use crate::executor::{self, Budget, Journal, Launchers, Pools};
use crate::images::Images;
use crate::invoker::{self, InFlight, Invoker, Propagate};
use crate::output::ClusterOutput;
use crate::quotas::Quotas;
use crate::registry_cache::{self, Registry};
use crate::remotes::Remotes;
use crate::router::announce::{Announce, Announcer};
use crate::router::{self, RouteTable};
use crate::secrets::Opener;
use crate::serving::Serving;
use crate::snapshot::Publisher;
use crate::view::{self, View};

/// How long after its start a node with seeds may not have heard of all its peers; gossip settles within 1.3 s.
const JOIN_PATIENCE: Duration = Duration::from_secs(3);

/// All that a node's control plane is made from; the backends are chosen by the caller.
#[derive(Debug)]
pub struct Parts {
    /// The node's settings.
    pub settings: Arc<Settings>,
    /// The node's lasting id.
    pub node_id: NodeId,
    /// The node's incarnation.
    pub generation: protocol::Generation,
    /// The address peers reach it at.
    pub peer_address: std::net::SocketAddr,
    /// What it says of itself and never changes.
    pub base: LocalState,
    /// The config store.
    pub store: Arc<dyn Store>,
    /// Seals and opens secrets.
    pub vault: Vault,
    /// The pooled providers.
    pub launchers: Launchers,
    /// The remote providers.
    pub remotes: Remotes,
    /// What functions write.
    pub outputs: Outputs,
    /// Who the other nodes are.
    pub members: watch::Receiver<Arc<Members>>,
    /// Where this node tells how it is.
    pub announce: Arc<dyn Announce>,
    /// Calls peers.
    pub client: Arc<dyn PeerClient>,
    /// Which instances hold a payload.
    pub journal: Journal,
    /// Memory that instances may have in all, in MiB.
    pub memory_max_mb: u64,
    /// Where the snapshot of the functions is kept.
    pub snapshot_path: PathBuf,
    /// What may be asked for; everything without.
    pub quotas: Option<Quotas>,
    /// Ties spans to trace context.
    pub propagate: Option<Arc<dyn Propagate>>,
    /// Tracks every task.
    pub tracker: TaskTracker,
}

/// A running control plane.
#[derive(Debug, Clone)]
pub struct Running {
    /// For the HTTP edge.
    pub control: Control,
    /// For peers.
    pub serving: Arc<Serving>,
    /// For drain.
    pub handle: Handle,
}

/// An actor did not start, so the node can not either.
#[derive(Debug, thiserror::Error)]
#[error("the node's actors can not start: {0}")]
pub struct StartError(String);

/// Starts the actors: registry cache, executor, router.
///
/// # Errors
/// When an actor can not start; the node can not either.
pub async fn start(parts: Parts) -> Result<Running, StartError> {
    let settings = &parts.settings;
    let (registry, pools) = (
        Publisher::new(Registry::default()),
        Publisher::new(Pools::default()),
    );
    let routes = Publisher::new(RouteTable::default());
    let instances_max = u32::try_from(settings.executor.instances_max).unwrap_or(u32::MAX);
    let budget = Budget::new(parts.memory_max_mb, instances_max);
    let (board, depths, in_flight) = (Board::default(), Depths::default(), InFlight::default());
    let broken = CancellationToken::new();
    let announcer = Announcer {
        base: parts.base.clone(),
        hints_max: settings.cluster.hints_max,
        images_max: settings.cluster.images_max,
        pools: pools.reader(),
        budget: budget.clone(),
        launchers: parts.launchers.clone(),
        in_flight: in_flight.clone(),
        is_draining: Arc::clone(board.draining()),
        announce: Arc::clone(&parts.announce),
    };
    let secrets = Opener::new(parts.vault.clone(), Arc::clone(&parts.store));
    let args = Args {
        registry_cache: registry_cache::Args {
            store: Arc::clone(&parts.store),
            snapshot_path: parts.snapshot_path.clone(),
            cluster_id: settings.cluster.id.clone(),
            publisher: registry.clone(),
            tracker: parts.tracker.clone(),
            depth: depths.registry_cache.clone(),
        },
        executor: executor::Args {
            node_id: parts.node_id.clone(),
            generation: parts.generation,
            settings: settings.executor.clone(),
            start_timeout: settings.node.start_timeout,
            launchers: parts.launchers.clone(),
            budget: budget.clone(),
            attention: Attention::default(),
            journal: parts.journal.clone(),
            outputs: parts.outputs.clone(),
            remotes: parts.remotes.clone(),
            secrets: secrets.clone(),
            registry: registry.reader(),
            routes: routes.reader(),
            publisher: pools.clone(),
            tracker: parts.tracker.clone(),
            depth: depths.executor.clone(),
        },
        router: router::Args {
            probe_interval: settings.cluster.probe_interval,
            gossip_interval: settings.cluster.gossip_interval,
            misses_max: settings.cluster.probe_misses_max,
            members: parts.members.clone(),
            client: Arc::clone(&parts.client),
            announcer: announcer.clone(),
            publisher: routes.clone(),
            tracker: parts.tracker.clone(),
            depth: depths.router.clone(),
        },
        board: board.clone(),
        broken: broken.clone(),
    };
    let (supervisor, supervised) = Actor::spawn(None, Supervisor, args)
        .await
        .map_err(|error| StartError(error.to_string()))?;
    board.set(Name::Supervisor, supervisor.get_cell());
    // Nobody supervises the supervisor: a node without it must not go on as if nothing were.
    let (watched, ended) = (board.clone(), broken.clone());
    parts.tracker.spawn(async move {
        if let Err(error) = supervised.await {
            tracing::error!(%error, "the supervisor's task broke");
        }
        if !watched.is_draining() {
            tracing::error!("the supervisor ended, so the node ends");
            ended.cancel();
        }
    });
    let handle = Handle::new(supervisor, board.clone(), broken);
    let node_name: Arc<str> = settings.node.name.as_str().into();
    let invoker = Invoker::new(invoker::Parts {
        node_id: parts.node_id.clone(),
        node_name: Arc::clone(&node_name),
        registry: registry.reader(),
        pools: pools.reader(),
        routes: routes.reader(),
        launchers: parts.launchers.clone(),
        secrets,
        budget,
        remotes: parts.remotes,
        client: Arc::clone(&parts.client),
        start_timeout: settings.node.start_timeout,
        refusals_max: settings.limits.refusals_max,
        pack_until: settings.executor.pack_until,
        quotas: parts.quotas.clone(),
        in_flight,
        is_draining: Arc::clone(board.draining()),
        joined_by: (!settings.cluster.seeds.is_empty()).then(|| Instant::now() + JOIN_PATIENCE),
        propagate: parts.propagate,
    });
    let images = Images::new(
        parts.launchers,
        routes.reader(),
        Arc::clone(&parts.client),
        settings.docker.resolve_timeout,
    );
    let output = ClusterOutput::new(parts.outputs, routes.reader(), Arc::clone(&parts.client));
    let catalog = Catalog::new(
        (Arc::clone(&parts.store), parts.vault.clone()),
        registry.reader(),
        images.clone(),
        routes.reader(),
        settings.process.allow,
        settings.limits.apply_timeout,
        (settings.schedules.clone(), settings.secrets.clone()),
    )
    .with_versions(settings.versions.clone())
    .with_quotas(parts.quotas.clone());
    let executions = Executions::new(
        Arc::clone(&parts.store),
        settings.executions.clone(),
        Arc::clone(&node_name),
    );
    let backup = Backup::new(Arc::clone(&parts.store), parts.vault);
    let view = View::new(view::Parts {
        cluster_id: settings.cluster.id.clone(),
        node_name: Arc::clone(&node_name),
        node_id: parts.node_id,
        generation: parts.generation,
        peer_address: parts.peer_address,
        invoker: invoker.clone(),
        store: parts.store,
        members: parts.members,
        registry: registry.reader(),
        pools: pools.reader(),
        routes: routes.reader(),
        announcer,
        depths,
        handle: handle.clone(),
    });
    let serving = Arc::new(Serving::new(invoker.clone(), images, output.clone()));
    let control = Control {
        node_name,
        invoker,
        registry: registry.reader(),
        catalog,
        backup,
        executions,
        output,
        quotas: parts.quotas,
        view,
    };
    Ok(Running {
        control,
        serving,
        handle,
    })
}
