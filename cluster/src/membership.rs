//! chitchat behind a watch of [`Members`]: who is there, what they say of themselves.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use protocol::{Generation, NodeId};

use crate::hint::Hint;
use crate::peer::Peer;

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
    /// How busy it is.
    pub load: Load,
    /// Its most recent instance keys.
    pub hints: Vec<Hint>,
    /// The digests of images its engine holds, most recent first.
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

/// A running gossip.
#[derive(Debug)]
pub struct Membership {}
