//! What function containers reach of their own machine: the node's inner listener, names, and nothing else.
//!
//! The rules stand in a chain of each network's own, which `INPUT` leads to, and in `DOCKER-USER`. They outlive the node, as its
//! containers do, and nodes that share a machine share them. Where the node may set none, it says so and goes on.

use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::settings::DockerSettings;
use tokio::process::Command;

/// How long one change may take; others may hold the table's lock meanwhile.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_SECONDS: &str = "5";

/// What may follow the name of a chain.
const CHAIN_PREFIX: &str = "HEARTH-";

/// Keeps containers from what listens on their machine.
#[derive(Debug)]
pub(super) struct Firewall {
    is_wanted: bool,
    /// The port at which containers call this node.
    inner_port: u16,
    host_ports: Vec<u16>,
    has_warned: AtomicBool,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the network's gateway {0} is no address of this machine")]
    Elsewhere(IpAddr),
    #[error("running iptables: {0}")]
    Io(#[from] io::Error),
    #[error("iptables took longer than {CHANGE_TIMEOUT:?}")]
    Slow,
    #[error("iptables {arguments}: {said}")]
    Refused { arguments: String, said: String },
}

/// Where a rule is put.
#[derive(Debug, Clone, Copy)]
enum Place {
    First,
    Last,
}

impl Firewall {
    /// Containers reach the node at `inner_port`.
    pub(super) fn new(settings: &DockerSettings, inner_port: u16) -> Self {
        let host_ports = settings.host_ports.iter();
        Self {
            is_wanted: settings.firewall,
            inner_port,
            host_ports: host_ports.filter_map(|port| port.parse().ok()).collect(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Puts the rules of a network's bridge where they are missing.
    pub(super) async fn close(&self, bridge: &str, gateway: Option<IpAddr>) {
        let Some(gateway @ IpAddr::V4(_)) = gateway.filter(|_| self.is_wanted) else {
            return;
        };
        match self.try_close(bridge, gateway).await {
            Ok(()) => tracing::info!(
                bridge,
                "function containers of this network reach nothing of this machine but the node"
            ),
            Err(error) if self.has_warned.swap(true, Ordering::Relaxed) => {
                tracing::debug!(bridge, %error, "the firewall has no rules for function containers");
            }
            Err(error) => tracing::warn!(
                bridge, %error,
                "function containers reach what listens on this machine's addresses: its firewall has no rules for them; \
                 a node needs iptables and CAP_NET_ADMIN to set some, docker.firewall = false wants none"
            ),
        }
    }

    async fn try_close(&self, bridge: &str, gateway: IpAddr) -> Result<(), Error> {
        // An engine on another machine has its networks there.
        UdpSocket::bind((gateway, 0)).map_err(|_| Error::Elsewhere(gateway))?;
        let chain = format!("{CHAIN_PREFIX}{bridge}");
        if iptables(&["-n", "-L", &chain]).await.is_err() {
            // Another node of this machine may make it at the same time.
            let made = iptables(&["-N", &chain]).await;
            if let (Err(error), Err(_)) = (made, iptables(&["-n", "-L", &chain]).await) {
                return Err(error);
            }
        }
        // Nothing leads to the chain before it is whole, so that nothing is dropped that may pass.
        ensure(Place::Last, &chain, &["-j", "DROP"]).await?;
        let answers = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED"];
        ensure(
            Place::First,
            &chain,
            &[&answers[..], &["-j", "RETURN"]].concat(),
        )
        .await?;
        let names = [("udp", 53), ("tcp", 53)];
        let open = [self.inner_port]
            .into_iter()
            .chain(self.host_ports.iter().copied());
        for (protocol, port) in names.into_iter().chain(open.map(|port| ("tcp", port))) {
            let port = port.to_string();
            let rule = ["-p", protocol, "--dport", &port, "-j", "RETURN"];
            ensure(Place::First, &chain, &rule).await?;
        }
        ensure(Place::First, "INPUT", &["-i", bridge, "-j", &chain]).await?;
        // Ports that the engine publishes are forwarded to containers and never come by INPUT.
        let published = ["-m", "conntrack", "--ctstate", "DNAT", "-j", "DROP"];
        ensure(
            Place::First,
            "DOCKER-USER",
            &[&["-i", bridge][..], &published].concat(),
        )
        .await
    }
}

/// Adds a rule to a chain that has it not.
async fn ensure(place: Place, chain: &str, rule: &[&str]) -> Result<(), Error> {
    if iptables(&[&["-C", chain][..], rule].concat()).await.is_ok() {
        return Ok(());
    }
    let how = match place {
        Place::First => "-I",
        Place::Last => "-A",
    };
    iptables(&[&[how, chain][..], rule].concat()).await
}

async fn iptables(arguments: &[&str]) -> Result<(), Error> {
    let run = async |program| {
        let output = Command::new(program)
            .args(["-w", LOCK_SECONDS])
            .args(arguments)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(CHANGE_TIMEOUT, output).await;
        Ok::<_, Error>(output.map_err(|_| Error::Slow)??)
    };
    let output = match run("iptables").await {
        // A service's PATH may lack the directory of daemons.
        Err(Error::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            run("/usr/sbin/iptables").await?
        }
        output => output?,
    };
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::Refused {
            arguments: arguments.join(" "),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}
