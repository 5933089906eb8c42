//! `[store]`: the config store.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Secret;

/// The config store: etcd when it has endpoints, else embedded in this node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreSettings {
    /// etcd, shared by the nodes of a cluster.
    pub etcd: EtcdSettings,
}

/// etcd, shared by the nodes of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EtcdSettings {
    /// Client URLs of its members; with none the node uses its embedded store. Default: none.
    pub endpoints: Vec<String>,
    /// What every key starts with, before the cluster's id. Default: `hearth`.
    pub prefix: String,
    /// The user, where etcd asks for one.
    pub user: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// The certificate authority of `https` endpoints, PEM.
    pub ca_file: Option<PathBuf>,
    /// The client certificate, PEM; goes with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// The key of the client certificate, PEM.
    pub key_file: Option<PathBuf>,
    /// How long one operation may take, retries over endpoints included. Default: 3 s.
    #[serde(with = "humantime_serde")]
    pub operation_timeout: Duration,
    /// How often the watch asks a quiet server for a sign of life. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub watch_progress_interval: Duration,
    /// After how long without one the watch is set up anew. Default: 6 s.
    #[serde(with = "humantime_serde")]
    pub watch_silence_max: Duration,
    /// The longest pause between attempts to set up the watch. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub backoff_max: Duration,
}

impl Default for EtcdSettings {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            prefix: "hearth".into(),
            user: None,
            password: None,
            ca_file: None,
            cert_file: None,
            key_file: None,
            operation_timeout: Duration::from_secs(3),
            watch_progress_interval: Duration::from_secs(2),
            watch_silence_max: Duration::from_secs(6),
            backoff_max: Duration::from_secs(2),
        }
    }
}
