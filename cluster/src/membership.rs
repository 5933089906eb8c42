//! chitchat behind a watch of [`Members`]: who is there, what they say of themselves.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use chitchat::{
    ChitchatConfig, ChitchatId, FailureDetectorConfig, ProtocolVersion, spawn_chitchat,
};
use config::Keyring;
use config::settings::ClusterSettings;
use protocol::{Generation, NodeId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hint::Hint;
use crate::identity::Identity;
use crate::peer::Peer;

mod gossip;
mod keys;
mod sealed;

use gossip::Gossip;
use keys::Bounds;
use sealed::SealedTransport;

#[cfg(test)]
mod tests;

/// Heartbeats of a peer that the failure detector remembers: about a minute's at three nodes.
const HEARTBEATS_MAX: usize = 1000;
/// A gap between heartbeats that is longer says nothing about the usual one: the peer or this node was stopped.
const HEARTBEAT_GAP_MAX: Duration = Duration::from_secs(3);

/// The other nodes, as gossip sees them: one entry a node, of its highest generation. This node is not among them.
pub type Members = BTreeMap<NodeId, Arc<Member>>;

/// What a node says of itself, and whether it is heard.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// Its lasting id.
    pub id: NodeId,
    /// Its incarnation.
    pub generation: Generation,
    /// Whether gossip hears it; a dead one is kept for a while.
    pub is_alive: bool,
    /// What it says of itself.
    pub state: LocalState,
    /// How to reach it.
    pub peer: Peer,
}

/// What a node gossips of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalState {
    /// The `--name` of the node.
    pub name: String,
    /// Hearth's version.
    pub version: String,
    /// The peer protocol's version.
    pub protocol_version: u32,
    /// Where its functions API is reached.
    pub functions_address: SocketAddr,
    /// Where its config API is reached.
    pub config_address: SocketAddr,
    /// It admits nothing new.
    pub is_draining: bool,
    /// Whether `container` functions can run there: an engine answers.
    pub has_engine: bool,
    /// Whether `process` functions may run there.
    pub allows_processes: bool,
    /// What names the cluster's secrets that it opens with, the one it seals with first.
    pub secrets: Vec<String>,
    /// How busy it is.
    pub load: Load,
    /// Its most recent instance keys, most recent first: the first `hints_max` are gossiped. Of a peer: in no order.
    pub hints: Vec<Hint>,
    /// The digests of images its engine holds, most recent first: the first `images_max` are gossiped. Of a peer: in no order.
    pub images: Vec<String>,
}

/// How busy a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Invocations running or waiting there.
    pub in_flight: u32,
    /// Instances up or starting there.
    pub instances: u32,
    /// Instances it may have.
    pub instances_max: u32,
    /// Memory promised to instances, in MiB.
    pub memory_used_mb: u64,
    /// Memory instances may have in all, in MiB.
    pub memory_max_mb: u64,
}

/// What gossip needs to start.
#[derive(Debug)]
pub struct Args<'a> {
    /// The cluster's id, seeds, intervals and bounds.
    pub settings: &'a ClusterSettings,
    /// This node.
    pub identity: &'a Identity,
    /// The cluster's secrets.
    pub keyring: watch::Receiver<Keyring>,
    /// What this node says of itself at first.
    pub local: LocalState,
    /// The UDP socket to gossip on, bound already; its peer listener has the same port over TCP.
    pub socket: std::net::UdpSocket,
    /// The address peers reach this node at, UDP and TCP. Port 0 stands for the socket's.
    pub advertise: SocketAddr,
    /// Ends gossip when cancelled.
    pub shutdown: CancellationToken,
}

/// Why gossip did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Peers can not reach a node at "any address".
    #[error(
        "{address} can not be advertised to peers: it is no address of one host; set --advertise"
    )]
    Unspecified {
        /// The address.
        address: SocketAddr,
    },
    /// The advertised host has no address.
    #[error("could not resolve the advertised host \"{host}\"")]
    Resolve {
        /// The host.
        host: String,
        /// What came back.
        #[source]
        source: io::Error,
    },
    /// The socket is not usable.
    #[error("the gossip socket is not usable")]
    Socket(#[source] io::Error),
    /// A private loopback socket, or the socket itself, could not be set up.
    #[error("could not start gossip: {why}")]
    Start {
        /// What came back.
        why: String,
    },
}

/// A running gossip. Dropping it ends gossip.
#[derive(Debug)]
pub struct Membership {
    members: watch::Receiver<Arc<Members>>,
    local: watch::Sender<LocalState>,
    tasks: TaskTracker,
    stop: CancellationToken,
    failed: CancellationToken,
    advertise: SocketAddr,
    keyring: watch::Receiver<Keyring>,
    cluster_id: String,
}

impl Membership {
    /// Starts to gossip.
    ///
    /// # Errors
    /// When the advertised address is none, or a socket is not usable. Seeds that do not answer are no error: they are tried again.
    pub async fn start(args: Args<'_>) -> Result<Self, Error> {
        let Args {
            settings,
            identity,
            keyring,
            mut local,
            socket,
            advertise,
            shutdown,
        } = args;
        let listen_address = socket.local_addr().map_err(Error::Socket)?;
        let advertise = advertised(advertise, listen_address)?;
        let transport = SealedTransport::new(socket, keyring.clone(), &settings.id);
        let bounds = Bounds {
            hints_max: settings.hints_max,
            images_max: settings.images_max,
        };
        let mut said_keyring = keyring.clone();
        local.secrets = said_keyring.borrow_and_update().ids(&settings.id);
        let entries = keys::write(&local, identity.fingerprint(), bounds);
        let handle = spawn_chitchat(
            chitchat_config(settings, identity, listen_address, advertise),
            entries.clone().into_iter().collect(),
            &transport,
        )
        .await
        .map_err(|error| Error::Start {
            why: format!("{error:#}"),
        })?;
        let (members_sender, members) = watch::channel(Arc::default());
        let (local_sender, local) = watch::channel(local);
        let (stop, failed, tasks) = (
            shutdown.child_token(),
            CancellationToken::new(),
            TaskTracker::new(),
        );
        let gossip = Gossip {
            handle,
            identity: identity.clone(),
            bounds,
            interval: settings.gossip_interval,
            entries,
            local,
            keyring: said_keyring,
            cluster_id: settings.id.clone(),
            members: members_sender,
            stop: stop.clone(),
            failed: failed.clone(),
        };
        tasks.spawn(gossip.run());
        tasks.close();
        Ok(Self {
            members,
            local: local_sender,
            tasks,
            stop,
            failed,
            advertise,
            keyring,
            cluster_id: settings.id.clone(),
        })
    }

    /// What names the cluster's secrets as this node has them, the one that seals first.
    pub fn secrets(&self) -> Vec<String> {
        self.keyring.borrow().ids(&self.cluster_id)
    }

    /// The other nodes, as they come, change, die and go.
    pub fn members(&self) -> watch::Receiver<Arc<Members>> {
        self.members.clone()
    }

    /// The address peers reach this node at.
    pub fn advertised(&self) -> SocketAddr {
        self.advertise
    }

    /// Says something new of this node. Cheap at any rate: what was said last is gossiped, at most once an interval, and only what changed.
    pub fn publish(&self, local: LocalState) {
        self.local.send_if_modified(|said| {
            let is_new = *said != local;
            *said = local;
            is_new
        });
    }

    /// Resolves when gossip ended by itself, which only a broken socket or a bug does: the node should end then.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Stops to gossip. Peers notice as if the node had died; say that it drains before.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Finds the address to advertise for a host name or address, IPv4 first.
///
/// # Errors
/// When the host has no address.
pub async fn resolve_advertise(host: &str, port: u16) -> Result<SocketAddr, Error> {
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let found = tokio::net::lookup_host((bare, port)).await;
    let source = match found {
        Ok(addresses) => match addresses.min_by_key(SocketAddr::is_ipv6) {
            Some(address) => return Ok(address),
            None => io::Error::from(io::ErrorKind::NotFound),
        },
        Err(error) => error,
    };
    Err(Error::Resolve {
        host: host.to_owned(),
        source,
    })
}

fn advertised(mut advertise: SocketAddr, listen_address: SocketAddr) -> Result<SocketAddr, Error> {
    if advertise.ip().is_unspecified() {
        return Err(Error::Unspecified { address: advertise });
    }
    if advertise.port() == 0 {
        advertise.set_port(listen_address.port());
    }
    Ok(advertise)
}

fn chitchat_config(
    settings: &ClusterSettings,
    identity: &Identity,
    listen_addr: SocketAddr,
    advertise: SocketAddr,
) -> ChitchatConfig {
    ChitchatConfig {
        chitchat_id: ChitchatId::new(
            identity.node_id().as_str(),
            identity.generation().0,
            advertise,
        ),
        cluster_id: settings.id.clone(),
        gossip_interval: settings.gossip_interval,
        listen_addr,
        seed_nodes: settings.seeds.clone(),
        failure_detector_config: FailureDetectorConfig {
            phi_threshold: settings.phi_threshold,
            sampling_window_size: HEARTBEATS_MAX,
            max_interval: HEARTBEAT_GAP_MAX.max(settings.gossip_interval * 4),
            // The detector starts from a few made-up gaps of this length: any longer, and a young cluster is slow to see a death.
            initial_interval: settings.gossip_interval,
            dead_node_grace_period: settings.dead_node_grace,
        },
        marked_for_deletion_grace_period: settings.dead_node_grace,
        catchup_callback: None,
        extra_liveness_predicate: None,
        protocol_version: ProtocolVersion::V1,
    }
}
