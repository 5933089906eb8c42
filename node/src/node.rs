//! Starts one node from its settings, and stops it in order.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use accounts::Accounts;
use actors::Scheduler;
use actors::scheduler;
use cluster::listen::PeerSockets;
use cluster::peer::client::{self, HttpPeerClient};
use cluster::peer::server::{self, PeerServer};
use cluster::{Membership, PeerClient, PeerHandler};
use config::{Keyring, Settings, Store};
use gateway::{Access, Edge, InnerListener, LeftUntold, Listeners, Scheduled};
use providers::Callers;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::Vault;

use crate::events::{Events, Queues};
use crate::telemetry::Metrics;
use crate::wire;

/// Room in a peer's message for what is not the payload.
const HEAD_BYTES: usize = 128 * 1024;

/// What is left of the time to drain when events that are still queued are given up, so that instances can be stopped.
const EVENTS_MARGIN: Duration = Duration::from_secs(5);

/// Why a node did not start. The text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting is wrong.
    #[error(transparent)]
    Settings(#[from] config::settings::Error),
    /// The data directory can not be used.
    #[error("node.data_dir {path}: {why}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What was tried, and what came back.
        why: String,
    },
    /// A plugin can not be loaded.
    #[error("{0}")]
    Plugin(String),
    /// A client listener can not be bound, or its certificate not be used.
    #[error(transparent)]
    Listen(#[from] gateway::ListenError),
    /// The peer listener can not be bound.
    #[error("listen.peer {address}: {source}")]
    BindPeer {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Identity, gossip or peers can not start.
    #[error("{0}")]
    Cluster(String),
    /// The config store can not be opened.
    #[error(transparent)]
    Store(#[from] config::store::Error),
    /// The queue of events can not be opened.
    #[error("{0}")]
    Queue(String),
    /// An actor can not start.
    #[error(transparent)]
    Actors(#[from] actors::supervisor::StartError),
}

impl StartError {
    /// Whether the node was told something wrong, rather than that something is not to be had.
    pub fn is_of_settings(&self) -> bool {
        matches!(
            self,
            Self::Settings(_)
                | Self::Plugin(_)
                | Self::Listen(gateway::ListenError::Certificate(_))
        )
    }
}

/// Starts nodes.
#[derive(Debug)]
pub struct Node {
    settings: Arc<Settings>,
    store: Option<Arc<dyn Store>>,
}

/// A running node. Dropping it leaves its tasks to the runtime: use [`NodeHandle::stop`].
#[derive(Debug)]
pub struct NodeHandle {
    settings: Arc<Settings>,
    addresses: gateway::Addresses,
    peer_address: SocketAddr,
    running: actors::supervisor::Running,
    scheduler: Scheduler,
    events: Events,
    plugins: wire::Plugins,
    edge: gateway::Serving,
    edge_shutdown: CancellationToken,
    peer_server: PeerServer,
    membership: Arc<Membership>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

impl Node {
    /// A node with these settings; its store follows from them.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            store: None,
        }
    }

    /// Uses a store that is open already, shared with other nodes of this process.
    #[must_use]
    pub fn with_store(mut self, store: Arc<dyn Store>) -> Self {
        self.store = Some(store);
        self
    }

    /// Starts the node. It listens when this returns; whether it is ready, `/v1/ready` says.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(self, metrics: &Metrics) -> Result<NodeHandle, StartError> {
        let Self { settings, store } = self;
        let admin_token = settings.auth.read_admin_token()?;
        let identity = wire::identity(&settings)?;
        let keyring =
            watch::Sender::new(Keyring::read(&settings.cluster, &settings.node.data_dir)?);
        let plugins = wire::Plugins::start(&settings.plugins).await?;
        let readable = settings.readable_listeners();
        if !readable.is_empty() {
            tracing::warn!(
                listeners = readable.join(", "),
                "others can reach these listeners, and what they are sent can be read on the way, tokens included: \
                 set tls.cert_file and tls.key_file, unless a proxy with TLS is in front"
            );
        }
        // Every port is bound before anything starts: a port that is taken leaves nothing behind.
        let listeners = Listeners::bind(&settings)?;
        let inner = InnerListener::bind(settings.listen.inner_port, identity.node_id())
            .map_err(gateway::ListenError::from)?;
        let sockets =
            PeerSockets::bind(settings.listen.peer).map_err(|source| StartError::BindPeer {
                address: settings.listen.peer,
                source,
            })?;
        let store = match store {
            Some(store) => store,
            None => wire::store(&settings).await?,
        };
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let vault = Vault::with_copy(
            Arc::clone(&store),
            &settings.cluster.id,
            keyring.subscribe(),
            &settings.node.data_dir,
        );
        tracker.spawn(vault.clone().keep_wrapped(stop.clone()));
        let base = wire::local_state(&settings, listeners.addresses());
        let advertise = wire::advertise(&settings, sockets.address.port()).await?;
        let membership = Membership::start(cluster::membership::Args {
            settings: &settings.cluster,
            identity: &identity,
            keyring: keyring.subscribe(),
            local: base.clone(),
            socket: sockets.gossip,
            advertise,
            shutdown: stop.clone(),
        })
        .await
        .map_err(wire::cluster_error)?;
        let membership = Arc::new(membership);
        tracker.spawn(Keyring::keep_fresh(
            settings.cluster.clone(),
            keyring,
            stop.clone(),
        ));
        let queues = Queues::open(&settings, &identity, &membership).await?;
        let outbound = wire::outbound(&settings, &membership);
        let destinations = wire::destinations(&settings, outbound.clone())?;
        let body_bytes_max = wire::bytes(settings.limits.body_max) + HEAD_BYTES;
        let client: Arc<dyn PeerClient> = Arc::new(HttpPeerClient::new(client::Args {
            identity: &identity,
            settings: &settings.cluster,
            members: membership.members(),
            body_bytes_max: wire::bytes(settings.limits.answer_max) + HEAD_BYTES,
        }));
        let callers = Callers::new(inner.address(), inner.more());
        let inner_address = inner.address();
        let accounts = Accounts::start(accounts::Args {
            store: Arc::clone(&store),
            vault: vault.clone(),
            settings: settings.auth.clone(),
            cluster_id: settings.cluster.id.as_str().into(),
            node: settings.node.name.as_str().into(),
            data_dir: settings.node.data_dir.clone(),
            tracker: tracker.clone(),
            stop: stop.clone(),
        })
        .await;
        let quotas = wire::quotas(&settings, &store, &accounts, &membership, (&tracker, &stop));
        let parts = wire::Backends {
            settings: &settings,
            identity: &identity,
            base,
            store: Arc::clone(&store),
            vault,
            client,
            membership: &membership,
            callers: callers.clone(),
            quotas,
            outbound,
        };
        let parts = parts.parts(metrics, &tracker, &stop)?;
        let running = actors::supervisor::start(parts).await?;
        let handler: Arc<dyn PeerHandler> = Arc::clone(&running.serving) as Arc<dyn PeerHandler>;
        let peer_server = PeerServer::start(server::Args {
            listener: sockets.calls,
            identity: &identity,
            settings: &settings.cluster,
            members: membership.members(),
            handler,
            body_bytes_max,
            shutdown: stop.clone(),
        })
        .map_err(wire::cluster_error)?;
        let addresses = listeners.addresses();
        let audit = queues.audit(&settings);
        tracker.spawn(stop.clone().run_until_cancelled_owned(audit));
        let events = queues.start(&settings, &running.control, &plugins, destinations);
        let left_untold = Arc::new(LeftUntold::new(Arc::clone(&events.emitter)));
        let keep_house = running.control.executions.clone().keep_house(left_untold);
        tracker.spawn(stop.clone().run_until_cancelled_owned(keep_house));
        let scheduler = Scheduler::start(scheduler::Args {
            settings: settings.schedules.clone(),
            node_id: identity.node_id().clone(),
            node_name: settings.node.name.as_str().into(),
            generation: identity.generation(),
            store: Arc::clone(&store),
            registry: running.control.registry.clone(),
            members: membership.members(),
            fire: Arc::new(Scheduled::new(Arc::clone(&events.emitter))),
            clock: scheduler::wall_ms,
        });
        let edge = Edge::new(
            listeners,
            &settings,
            running.control.clone(),
            Arc::clone(&events.emitter),
            Access {
                admin_token,
                accounts: Some(accounts),
            },
            metrics.render(),
            metrics.request_context(),
        )
        .with_inner(inner, Arc::new(wire::Instances(callers)));
        let edge_shutdown = CancellationToken::new();
        let edge = edge.serve(edge_shutdown.clone(), &tracker);
        tracing::info!(
            node = %settings.node.name, id = %identity.node_id(), generation = %identity.generation(),
            functions = %addresses.functions, events = %addresses.events, config = %addresses.config, peer = %sockets.address,
            inner = %inner_address,
            "node started"
        );
        let peer_address = sockets.address;
        Ok(NodeHandle {
            settings,
            addresses,
            peer_address,
            running,
            scheduler,
            events,
            plugins,
            edge,
            edge_shutdown,
            peer_server,
            membership,
            stop,
            tracker,
        })
    }
}

impl NodeHandle {
    /// Where clients reach it.
    pub fn addresses(&self) -> gateway::Addresses {
        self.addresses
    }

    /// Where peers reach it.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Resolves when the node can not go on: an actor broke for good, or gossip ended.
    pub async fn failed(&self) {
        tokio::select! {
            () = self.running.handle.broken() => {}
            () = self.membership.failed() => tracing::error!("gossip ended, so the node ends"),
        }
    }

    /// Drains and stops the node: readiness off and peers told, schedules fire elsewhere, then accept stops, what is in flight finishes, what is queued
    /// is delivered, instances may call no more and stop, actors stop. What is not done by `node.drain_timeout` is cut off.
    pub async fn stop(self) {
        let deadline = Instant::now() + self.settings.node.drain_timeout;
        tracing::info!(node = %self.settings.node.name, "draining");
        self.running.handle.begin_drain();
        // The other nodes fire from now on.
        let delayed = Instant::now() + self.settings.node.drain_delay;
        tokio::join!(
            self.scheduler.stop(deadline),
            tokio::time::sleep_until(deadline.min(delayed)),
        );
        self.edge_shutdown.cancel();
        // What waits in the queue goes on meanwhile, and comes to an end when nothing more can be emitted.
        let events_until = deadline - EVENTS_MARGIN.min(self.settings.node.drain_timeout / 4);
        let own = async {
            let is_drained = self.edge.finish(deadline).await;
            self.events.drain(events_until).await;
            self.plugins.drain(events_until).await;
            is_drained
        };
        let (is_drained, ()) = tokio::join!(own, self.peer_server.drain(deadline));
        if !is_drained {
            tracing::warn!(
                "some requests were cut off at the end of the drain; node.drain_timeout bounds it"
            );
        }
        // Functions that were in flight until now may have called others.
        self.edge.end(deadline).await;
        self.running.handle.stop(deadline).await;
        self.membership.shutdown().await;
        self.stop.cancel();
        self.tracker.close();
        let _ = tokio::time::timeout_at(deadline, self.tracker.wait()).await;
        tracing::info!(node = %self.settings.node.name, "stopped");
    }
}
