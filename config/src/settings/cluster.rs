//! `[cluster]`: gossip and peers.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Gossip and peers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterSettings {
    /// The cluster's id: nodes of another one are not heard. Default: `hearth`.
    pub id: String,
    /// The file with the cluster's secret: any text of at least 32 bytes, surrounding white space ignored. Without one the node
    /// makes its own and stays alone.
    pub secret_file: Option<PathBuf>,
    /// Peer addresses, `HOST:PORT`, to find the cluster by. Default: none.
    pub seeds: Vec<String>,
    /// How often a node gossips. Default: 200 ms; use 500 ms from 20 nodes on.
    #[serde(with = "humantime_serde")]
    pub gossip_interval: Duration,
    /// How suspicious a silence must be before a node counts as dead. Default: 8.
    pub phi_threshold: f64,
    /// How long a dead node's state is kept. Default: 10 min.
    #[serde(with = "humantime_serde")]
    pub dead_node_grace: Duration,
    /// The most instance keys a node gossips hints of. Default: 300.
    pub hints_max: usize,
    /// The most images a node gossips. Default: 300.
    pub images_max: usize,
    /// How often a peer with calls in flight is probed, and how long a probe may take. Default: 250 ms.
    #[serde(with = "humantime_serde")]
    pub probe_interval: Duration,
    /// After how many missed probes a peer is routed around. Default: 2.
    pub probe_misses_max: u32,
    /// How long connecting to a peer may take. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Idle connections kept to one peer. Default: 64.
    pub idle_connections_max: usize,
    /// Connections that peers may hold open to this node. Default: 4096.
    pub peer_connections_max: usize,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            id: "hearth".into(),
            secret_file: None,
            seeds: Vec::new(),
            gossip_interval: Duration::from_millis(200),
            phi_threshold: 8.0,
            dead_node_grace: Duration::from_secs(600),
            hints_max: 300,
            images_max: 300,
            probe_interval: Duration::from_millis(250),
            probe_misses_max: 2,
            connect_timeout: Duration::from_secs(1),
            idle_connections_max: 64,
            peer_connections_max: 4096,
        }
    }
}
