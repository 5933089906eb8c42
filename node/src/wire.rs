//! Chooses the backends: the only place that names them.

use std::net::IpAddr;
use std::sync::Arc;

use accounts::Accounts;
use actors::Quotas;
use actors::executor::{Journal, Launchers};
use actors::supervisor::Parts;
use async_trait::async_trait;
use bytesize::ByteSize;
use cluster::identity::Identity;
use cluster::{LocalState, Membership, PeerClient};
use config::settings::PluginsSettings;
use config::store::{embedded::EmbeddedStore, etcd::EtcdStore};
use config::{Settings, Store};
use gateway::Stranger;
use limits::Limits;
use plugins::Hooks;
use protocol::Space;
use protocol::peer::PROTOCOL_VERSION;
use providers::http::Outbound;
use providers::process::{self, Process};
use providers::{AnswerLimits, Callers, Lambda, Launch, Outputs, SecretDirs};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vault::Vault;

use crate::node::StartError;
use crate::telemetry::Metrics;

mod destinations;
mod outbound;
mod queue;
mod remotes;

pub(crate) use destinations::destinations;
pub(crate) use outbound::outbound;
pub(crate) use queue::{QueueParts, queue, queue_limits};

/// The share of the machine's memory that instances may have, where `executor.memory_max` does not say.
const MEMORY_SHARE: (u64, u64) = (3, 4);

/// What is chosen before the control plane starts.
pub(crate) struct Backends<'a> {
    pub(crate) settings: &'a Arc<Settings>,
    pub(crate) identity: &'a Identity,
    pub(crate) base: LocalState,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) vault: Vault,
    pub(crate) client: Arc<dyn PeerClient>,
    pub(crate) membership: &'a Arc<Membership>,
    pub(crate) callers: Callers,
    /// What may be asked for.
    pub(crate) quotas: Quotas,
    /// Where webhooks may lead.
    pub(crate) outbound: Option<Arc<Outbound>>,
}

/// The instances of this node, for the listener that they call it at.
#[derive(Debug)]
pub(crate) struct Instances(pub(crate) Callers);

#[async_trait]
impl gateway::Callers for Instances {
    async fn space_of(&self, token: &[u8], from: IpAddr) -> Result<Space, Stranger> {
        let instance = self.0.find(token).ok_or(Stranger::UnknownToken)?;
        match instance.is_at(from).await {
            true => Ok(instance.space.clone()),
            false => Err(Stranger::OtherAddress),
        }
    }
}

pub(crate) fn identity(settings: &Settings) -> Result<Identity, StartError> {
    let path = &settings.node.data_dir;
    let failed = |why: String| StartError::DataDir {
        path: path.clone(),
        why,
    };
    std::fs::create_dir_all(path).map_err(|error| failed(error.to_string()))?;
    Identity::load(path).map_err(|error| failed(chain(&error)))
}

pub(crate) async fn store(settings: &Settings) -> Result<Arc<dyn Store>, StartError> {
    if settings.store.etcd.endpoints.is_empty() {
        let path = settings.node.data_dir.join("store.redb");
        let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await;
        let store = opened.map_err(|error| StartError::Cluster(error.to_string()))??;
        tracing::info!("the config store is embedded: this node's records are its own");
        return Ok(Arc::new(store));
    }
    let store = EtcdStore::connect(&settings.store.etcd, &settings.cluster.id).await?;
    Ok(Arc::new(store))
}

/// The plugins of this node; nothing where there are none.
#[cfg(feature = "plugins")]
#[derive(Debug)]
pub(crate) struct Plugins(Option<Arc<plugins::wasm::Plugins>>);

#[cfg(feature = "plugins")]
impl Plugins {
    /// Loads those that the settings name.
    pub(crate) async fn start(settings: &PluginsSettings) -> Result<Self, StartError> {
        if settings.load.is_empty() {
            return Ok(Self(None));
        }
        let loaded = plugins::wasm::Plugins::start(settings).await;
        let loaded = loaded.map_err(|error| StartError::Plugin(error.to_string()))?;
        Ok(Self(Some(Arc::new(loaded))))
    }

    pub(crate) fn hooks(&self) -> Option<Arc<dyn Hooks>> {
        let plugins = self.0.as_ref()?;
        Some(Arc::clone(plugins) as Arc<dyn Hooks>)
    }

    /// Tells async plugins what waits for them.
    pub(crate) async fn drain(&self, deadline: Instant) {
        if let Some(plugins) = &self.0 {
            plugins.drain(deadline).await;
        }
    }
}

/// A node that was built without plugins has none.
#[cfg(not(feature = "plugins"))]
#[derive(Debug)]
pub(crate) struct Plugins;

#[cfg(not(feature = "plugins"))]
impl Plugins {
    pub(crate) async fn start(settings: &PluginsSettings) -> Result<Self, StartError> {
        match settings.load.is_empty() {
            true => Ok(Self),
            false => Err(StartError::Plugin(
                "setting plugins.load is set, expected none: this hearth was built without the feature plugins".to_owned(),
            )),
        }
    }

    pub(crate) fn hooks(&self) -> Option<Arc<dyn Hooks>> {
        None
    }

    pub(crate) async fn drain(&self, _deadline: Instant) {}
}

/// What gossip says of this node until its actors do: it runs nothing yet, as it has told no room for that. Whoever knows no other node
/// that can run a function waits for what is told then, where a node that claims to be full would be passed over.
pub(crate) fn local_state(settings: &Settings, addresses: gateway::Addresses) -> LocalState {
    LocalState {
        name: settings.node.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        protocol_version: PROTOCOL_VERSION,
        functions_address: addresses.functions,
        config_address: addresses.config,
        is_draining: false,
        has_engine: false,
        allows_processes: false,
        secrets: Vec::new(),
        load: cluster::membership::Load::default(),
        hints: Vec::new(),
        images: Vec::new(),
    }
}

pub(crate) async fn advertise(
    settings: &Settings,
    port: u16,
) -> Result<std::net::SocketAddr, StartError> {
    let host = settings
        .node
        .advertise
        .clone()
        .unwrap_or_else(|| settings.listen.peer.ip().to_string());
    cluster::membership::resolve_advertise(&host, port)
        .await
        .map_err(cluster_error)
}

/// What may be asked for, counted over all nodes that gossip knows of.
pub(crate) fn quotas(
    settings: &Settings,
    store: &Arc<dyn Store>,
    accounts: &Accounts,
    membership: &Membership,
    (tracker, stop): (&TaskTracker, &CancellationToken),
) -> Quotas {
    let members = membership.members();
    let nodes = move || {
        let members = Arc::clone(&members.borrow());
        let others = members.values().filter(|member| member.is_alive).count();
        u32::try_from(others).unwrap_or(u32::MAX).saturating_add(1)
    };
    let limits = Limits::start(limits::Args {
        store: Arc::clone(store),
        settings: settings.quotas.clone(),
        nodes: Arc::new(nodes),
        tracker: tracker.clone(),
        stop: stop.clone(),
    });
    Quotas::new(limits, accounts.clone(), settings.quotas.clone())
}

pub(crate) fn bytes(size: ByteSize) -> usize {
    usize::try_from(size.as_u64()).unwrap_or(usize::MAX)
}

pub(crate) fn cluster_error(error: impl std::error::Error) -> StartError {
    StartError::Cluster(chain(&error))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl Backends<'_> {
    /// All that the control plane is made from.
    pub(crate) fn parts(
        self,
        metrics: &Metrics,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Parts, StartError> {
        let settings = self.settings;
        let data_dir = settings.node.data_dir.clone();
        let journal_path = data_dir.join("busy");
        let journal = Journal::open_file(&journal_path).map_err(|error| StartError::DataDir {
            path: journal_path,
            why: error.to_string(),
        })?;
        let outputs = Outputs::new(&settings.logs, &settings.node.name);
        let secrets = SecretDirs::open(&settings.secrets.dir, self.identity.node_id());
        let answer_limits = AnswerLimits::new(&settings.limits);
        let container: Arc<dyn Launch> = Arc::new(providers::docker::Docker::connect(
            providers::docker::Setup {
                settings: settings.docker.clone(),
                stop_grace: settings.executor.stop_grace,
                answer_limits,
                cluster: settings.cluster.id.clone(),
                node: self.identity.node_id().clone(),
                generation: self.identity.generation(),
                data_dir: data_dir.clone(),
                outputs: outputs.clone(),
                callers: self.callers.clone(),
                secrets: secrets.clone(),
                lambda: Lambda::new(&settings.lambda),
                tasks: tracker.clone(),
                stop: stop.clone(),
            },
        ));
        let launchers = Launchers {
            container: Some(container),
            process: self.processes(&outputs, secrets, tracker, stop)?,
        };
        let remotes = self.remotes(answer_limits, tracker, stop)?;
        Ok(Parts {
            settings: Arc::clone(settings),
            node_id: self.identity.node_id().clone(),
            generation: self.identity.generation(),
            peer_address: self.membership.advertised(),
            base: self.base,
            store: self.store,
            vault: self.vault,
            launchers,
            remotes,
            outputs,
            members: self.membership.members(),
            announce: Arc::clone(self.membership) as Arc<dyn actors::router::announce::Announce>,
            client: self.client,
            journal,
            memory_max_mb: settings
                .executor
                .memory_max
                .map_or_else(machine_share_mb, |size| size.as_u64() / (1024 * 1024)),
            snapshot_path: data_dir.join("functions.snapshot"),
            quotas: Some(self.quotas),
            propagate: metrics.propagate(),
            tracker: tracker.clone(),
        })
    }

    fn processes(
        &self,
        outputs: &Outputs,
        secrets: SecretDirs,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Option<Arc<dyn Launch>>, StartError> {
        if !self.settings.process.allow {
            return Ok(None);
        }
        let program = std::env::current_exe().map_err(|error| {
            StartError::Cluster(format!(
                "the path of this program, which guards processes, is not known: {error}"
            ))
        })?;
        Ok(Some(Arc::new(Process::new(process::Setup {
            guard: vec![program.into(), crate::dev::GUARD.into()],
            stop_grace: self.settings.executor.stop_grace,
            answer_limits: AnswerLimits::new(&self.settings.limits),
            generation: self.identity.generation(),
            outputs: outputs.clone(),
            callers: self.callers.clone(),
            secrets,
            lambda: Lambda::new(&self.settings.lambda),
            tasks: tracker.clone(),
            stop: stop.clone(),
        }))))
    }
}

/// Three quarters of what the machine, or the control group this process is in, has.
fn machine_share_mb() -> u64 {
    let line_kb = |line: &str| {
        line.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine_mb = read("/proc/meminfo")
        .lines()
        .find_map(line_kb)
        .map_or(1024, |kb| kb / 1024);
    let group_bytes = [
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
    ]
    .into_iter()
    .filter_map(|path| read(path).trim().parse::<u64>().ok())
    .min();
    let limit_mb = group_bytes.map_or(machine_mb, |bytes| machine_mb.min(bytes / (1024 * 1024)));
    limit_mb * MEMORY_SHARE.0 / MEMORY_SHARE.1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A caller that knows no other node passes one over that has no room, and waits for one that runs nothing yet.
    #[test]
    fn until_it_has_told_its_room_a_node_runs_nothing() {
        let mut settings = Settings::default();
        settings.process.allow = true;
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let addresses = gateway::Addresses {
            functions: nowhere,
            events: nowhere,
            config: nowhere,
        };
        let state = local_state(&settings, addresses);
        assert_eq!(state.load.memory_max_mb, 0);
        assert!(!state.allows_processes && !state.has_engine);
    }
}
