//! `[node]`: the node itself.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Error;
use super::error::{above_zero, is_host, is_name, require};
use super::field::section;

section! {
    /// The node itself.
    pub struct NodeSettings {
        /// The name people know it by, in headers and logs; letters, digits, '.', '-' and '_'.
        pub name: String = "node".into(),
        /// Where it keeps its id, generation, snapshot and embedded store; created when missing.
        pub data_dir: PathBuf = "hearth-data".into(),
        /// The host peers reach it at; without one, the host of `listen.peer`.
        pub advertise: Option<String> = None,
        /// How long an instance may take until it is ready; part of every request's deadline.
        #[serde(with = "humantime_serde")]
        pub start_timeout: Duration = Duration::from_secs(30),
        /// How long a draining node waits for what is in flight.
        #[serde(with = "humantime_serde")]
        pub drain_timeout: Duration = Duration::from_secs(30),
        /// How long a draining node keeps accepting, so that peers and balancers see it drain first.
        #[serde(with = "humantime_serde")]
        pub drain_delay: Duration = Duration::from_secs(1),
        /// Serves `POST /debug/actors/{name}/kill`, for fault tests.
        pub debug_kill: bool = false,
    }
}

impl NodeSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("node", self: start_timeout, drain_timeout);
        let name = "a name of letters, digits, '.', '-' and '_', 64 at most, that begins with a letter or digit";
        require(
            is_name(&self.name, 64),
            "node.name",
            format!("{:?}", self.name),
            name,
        )?;
        require(
            !self.data_dir.as_os_str().is_empty(),
            "node.data_dir",
            "\"\"",
            "a path",
        )?;
        let Some(host) = &self.advertise else {
            return Ok(());
        };
        let unspecified = host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_unspecified());
        let expected = "the host name or address that peers reach this node at, without a port";
        require(
            is_host(host) && !unspecified,
            "node.advertise",
            format!("{host:?}"),
            expected,
        )
    }
}
