//! `[cluster]`: gossip and peers.

use std::path::PathBuf;
use std::time::Duration;

use super::error::{above_zero, is_host_and_port, is_name, require};
use super::field::section;
use super::{Error, Secret, secret};

/// The fewest bytes a cluster secret has.
const SECRET_BYTES_MIN: usize = 32;

/// The most secrets a cluster has at once. A change needs two.
pub const SECRETS_MAX: usize = 4;

section! {
    /// Gossip and peers.
    pub struct ClusterSettings {
        /// The cluster's id: nodes of another one are not heard.
        pub id: String = "hearth".into(),
        /// The file with the cluster's secrets, one a line, each of at least 32 bytes, surrounding white space ignored: the first
        /// seals, all open (see `hearth cluster rotate-secret`). Without a file the node makes its own and stays alone.
        pub secret_file: Option<PathBuf> = None,
        /// How often that file is looked at: what was changed is used without a restart.
        #[serde(with = "humantime_serde")]
        pub secret_reload_interval: Duration = Duration::from_secs(2),
        /// Peer addresses, `HOST:PORT`, to find the cluster by.
        pub seeds: Vec<String> = Vec::new(),
        /// How often a node gossips; use 500 ms from 20 nodes on.
        #[serde(with = "humantime_serde")]
        pub gossip_interval: Duration = Duration::from_millis(200),
        /// How suspicious a silence must be before a node counts as dead.
        pub phi_threshold: f64 = 8.0,
        /// How long a dead node's state is kept.
        #[serde(with = "humantime_serde")]
        pub dead_node_grace: Duration = Duration::from_secs(600),
        /// The most instance keys a node gossips hints of.
        pub hints_max: usize = 300,
        /// The most images a node gossips.
        pub images_max: usize = 300,
        /// How often a peer with calls in flight is probed, and how long a probe may take.
        #[serde(with = "humantime_serde")]
        pub probe_interval: Duration = Duration::from_millis(250),
        /// After how many missed probes a peer is routed around.
        pub probe_misses_max: u32 = 2,
        /// How long connecting to a peer may take.
        #[serde(with = "humantime_serde")]
        pub connect_timeout: Duration = Duration::from_secs(1),
        /// Idle connections kept to one peer.
        pub idle_connections_max: usize = 64,
        /// Connections that peers may hold open to this node.
        pub peer_connections_max: usize = 4096,
    }
}

impl ClusterSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("cluster", self: secret_reload_interval, gossip_interval, dead_node_grace, hints_max, images_max, probe_interval, probe_misses_max,
            connect_timeout, idle_connections_max, peer_connections_max);
        let name = "a name of letters, digits, '.', '-' and '_', 64 at most, that begins with a letter or digit";
        require(
            is_name(&self.id, 64),
            "cluster.id",
            format!("{:?}", self.id),
            name,
        )?;
        let phi = "a number from 1 to 20";
        require(
            (1.0..=20.0).contains(&self.phi_threshold),
            "cluster.phi_threshold",
            self.phi_threshold,
            phi,
        )?;
        for seed in &self.seeds {
            require(
                is_host_and_port(seed),
                "cluster.seeds",
                format!("{seed:?}"),
                "HOST:PORT of a peer, such as 10.0.0.2:7400",
            )?;
        }
        Ok(())
    }

    /// Reads the cluster's secrets from their file, the one that seals first; none when no file is set.
    ///
    /// # Errors
    /// When the file can not be read, is no UTF-8 text, or holds no secret, more than [`SECRETS_MAX`], one twice, or one of fewer than
    /// 32 bytes besides surrounding white space.
    pub fn read_secrets(&self) -> Result<Vec<Secret>, Error> {
        secret::read_lines(
            self.secret_file.as_deref(),
            "cluster.secret_file",
            SECRET_BYTES_MIN,
            SECRETS_MAX,
        )
    }
}
