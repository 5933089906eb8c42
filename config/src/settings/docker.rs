//! `[docker]`: functions of type `container`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Secret;

/// Functions of type `container`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DockerSettings {
    /// The engine: `unix:///path` or `tcp://HOST:PORT`. Default: `unix:///var/run/docker.sock`.
    pub host: String,
    /// How long one call to the engine may take, pulls aside. Default: 20 s.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// Calls to the engine at once. Default: 16.
    pub calls_max: usize,
    /// How long a pull may take. Default: 5 min.
    #[serde(with = "humantime_serde")]
    pub pull_timeout: Duration,
    /// How long a registry may take to resolve a tag. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub resolve_timeout: Duration,
    /// The network of function containers, made when missing; its name gets the cluster's id appended. Default: `hearth`.
    pub network: String,
    /// Processes and threads an instance may have. Default: 256.
    pub pids_max: i64,
    /// Disk that images this node pulled may take before unused ones are removed. Default: 20 GiB.
    pub image_disk_max: ByteSize,
    /// How often the engine is asked again after it was missing or failed. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub retry_interval: Duration,
    /// Credentials by registry host.
    pub registries: BTreeMap<String, RegistrySettings>,
}

/// Credentials for one registry.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrySettings {
    /// The user.
    pub user: String,
    /// The password or token.
    pub password: Secret,
}

impl Default for DockerSettings {
    fn default() -> Self {
        Self {
            host: "unix:///var/run/docker.sock".into(),
            call_timeout: Duration::from_secs(20),
            calls_max: 16,
            pull_timeout: Duration::from_secs(300),
            resolve_timeout: Duration::from_secs(10),
            network: "hearth".into(),
            pids_max: 256,
            image_disk_max: ByteSize::gib(20),
            retry_interval: Duration::from_secs(1),
            registries: BTreeMap::new(),
        }
    }
}
