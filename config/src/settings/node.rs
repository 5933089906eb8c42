//! `[node]`: the node itself.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The node itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeSettings {
    /// The name people know it by, in headers and logs; letters, digits, '.', '-' and '_'. Default: `node`.
    pub name: String,
    /// Where it keeps its id, generation, snapshot and embedded store; created when missing. Default: `hearth-data`.
    pub data_dir: PathBuf,
    /// The host peers reach it at. Default: the host of `listen.peer`.
    pub advertise: Option<String>,
    /// How long an instance may take until it is ready; part of every request's deadline. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// How long a draining node waits for what is in flight. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// How long a draining node keeps accepting, so that peers and balancers see it drain first. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub drain_delay: Duration,
    /// Serves `POST /debug/actors/{name}/kill`, for fault tests. Default: false.
    pub debug_kill: bool,
}

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            name: "node".into(),
            data_dir: "hearth-data".into(),
            advertise: None,
            start_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::from_secs(1),
            debug_kill: false,
        }
    }
}
