//! `[docker]`: functions of type `container`.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;

use super::error::{above_zero, is_name, require};
use super::field::{section, size};
use super::{Error, Secret};

section! {
    /// Functions of type `container`.
    pub struct DockerSettings {
        /// The engine: `unix:///path` or `tcp://HOST:PORT`.
        pub host: String = "unix:///var/run/docker.sock".into(),
        /// How long one call to the engine may take, pulls aside.
        #[serde(with = "humantime_serde")]
        pub call_timeout: Duration = Duration::from_secs(20),
        /// Calls to the engine at once.
        pub calls_max: usize = 16,
        /// How long a pull may take.
        #[serde(with = "humantime_serde")]
        pub pull_timeout: Duration = Duration::from_secs(300),
        /// How long a registry may take to resolve a tag.
        #[serde(with = "humantime_serde")]
        pub resolve_timeout: Duration = Duration::from_secs(10),
        /// The network of function containers, made when missing; its name gets the cluster's id appended.
        pub network: String = "hearth".into(),
        /// Whether function containers are kept from what listens on this machine, the node itself aside, by rules of `iptables`; a node that may set none says so.
        pub firewall: bool = true,
        /// TCP ports of this machine that they reach all the same, such as `["5432"]`.
        pub host_ports: Vec<String> = Vec::new(),
        /// Processes and threads an instance may have.
        pub pids_max: i64 = 256,
        /// Disk that images this node pulled may take before unused ones are removed.
        #[serde(with = "size")]
        pub image_disk_max: ByteSize = ByteSize::gib(20),
        /// How often the engine is asked again after it was missing or failed.
        #[serde(with = "humantime_serde")]
        pub retry_interval: Duration = Duration::from_secs(1),
        /// Credentials by registry host.
        pub registries: BTreeMap<String, RegistrySettings> = BTreeMap::new(),
    }
}

section! {
    /// Credentials for one registry.
    pub struct RegistrySettings {
        /// The user.
        pub user: String = String::new(),
        /// The password or token.
        pub password: Secret = Secret::default(),
    }
}

impl DockerSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("docker", self: call_timeout, calls_max, pull_timeout, resolve_timeout, pids_max, image_disk_max, retry_interval);
        for port in &self.host_ports {
            require(
                port.parse::<u16>().is_ok_and(|port| port > 0),
                "docker.host_ports",
                format!("{port:?}"),
                "a port from 1 to 65535",
            )?;
        }
        let host = ["unix:///", "tcp://", "http://"].iter().any(|scheme| {
            self.host
                .strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        });
        require(
            host,
            "docker.host",
            format!("{:?}", self.host),
            "unix:///PATH or tcp://HOST:PORT",
        )?;
        let name = "a name of letters, digits, '.', '-' and '_', 64 at most, that begins with a letter or digit";
        require(
            is_name(&self.network, 64),
            "docker.network",
            format!("{:?}", self.network),
            name,
        )
    }
}
