//! What function containers reach of their own machine: the node's inner listener, names, the Runtime API of their own instance
//! where they have the `lambda` contract, and nothing else.
//!
//! The rules stand in a chain of each network's own, which `INPUT` leads to, and in `DOCKER-USER`. They outlive the node, as its
//! containers do, and nodes that share a machine share them. Where the node may set none, it says so and goes on.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::settings::DockerSettings;
use tokio::process::Command;
use tokio_util::task::TaskTracker;

/// How long one change may take; others may hold the table's lock meanwhile.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(10);
const LOCK_SECONDS: &str = "5";

/// What may follow the name of a chain.
const CHAIN_PREFIX: &str = "HEARTH-";

/// Keeps containers from what listens on their machine. Clones share everything.
#[derive(Debug, Clone)]
pub(super) struct Firewall(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    is_wanted: bool,
    /// The port at which containers call this node.
    inner_port: u16,
    host_ports: Vec<u16>,
    has_warned: AtomicBool,
    /// What the rules for Runtime APIs of this node are marked with.
    mark: String,
    /// The bridges that have rules.
    closed: Mutex<HashSet<String>>,
    /// The ports of Runtime APIs that are open.
    gaps: Mutex<HashSet<u16>>,
    tasks: TaskTracker,
}

/// A way to one port for containers of one network. It closes when this is dropped.
#[derive(Debug)]
pub(super) struct Gap {
    firewall: Firewall,
    chain: String,
    port: u16,
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
    /// Containers reach the node at `inner_port`; `node` is its id.
    pub(super) fn new(
        settings: &DockerSettings,
        inner_port: u16,
        node: &str,
        tasks: &TaskTracker,
    ) -> Self {
        let host_ports = settings.host_ports.iter();
        Self(Arc::new(Shared {
            is_wanted: settings.firewall,
            inner_port,
            host_ports: host_ports.filter_map(|port| port.parse().ok()).collect(),
            has_warned: AtomicBool::new(false),
            mark: format!("hearth-lambda-{node}"),
            closed: Mutex::default(),
            gaps: Mutex::default(),
            tasks: tasks.clone(),
        }))
    }

    /// Puts the rules of a network's bridge where they are missing.
    pub(super) async fn close(&self, bridge: &str, gateway: Option<IpAddr>) {
        let Some(gateway @ IpAddr::V4(_)) = gateway.filter(|_| self.0.is_wanted) else {
            return;
        };
        match self.try_close(bridge, gateway).await {
            Ok(()) => {
                self.closed().insert(bridge.to_owned());
                tracing::info!(
                    bridge,
                    "function containers of this network reach nothing of this machine but the node"
                );
            }
            Err(error) if self.0.has_warned.swap(true, Ordering::Relaxed) => {
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
        let chain = chain(bridge);
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
        let open = [self.0.inner_port]
            .into_iter()
            .chain(self.0.host_ports.iter().copied());
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
        .await?;
        self.sweep(&chain).await
    }

    /// Lets containers of a network reach one port of this machine, where rules keep them from all others.
    ///
    /// # Errors
    /// What the firewall said. Nothing is open then.
    pub(super) async fn open(&self, bridge: &str, port: u16) -> Result<Option<Gap>, String> {
        if !self.closed().contains(bridge) {
            return Ok(None);
        }
        self.gaps().insert(port);
        // From here on, so that a start that is given up closes it.
        let gap = Gap {
            firewall: self.clone(),
            chain: chain(bridge),
            port,
        };
        let opened = self.change("-I", &gap.chain, port).await;
        opened
            .map(|()| Some(gap))
            .map_err(|error| error.to_string())
    }

    /// Closes what an earlier incarnation of this node left open.
    async fn sweep(&self, chain: &str) -> Result<(), Error> {
        let rules = iptables(&["-S", chain]).await?;
        for port in rules.lines().filter_map(|rule| marked(rule, &self.0.mark)) {
            if !self.gaps().contains(&port) {
                self.change("-D", chain, port).await?;
            }
        }
        Ok(())
    }

    async fn change(&self, how: &str, chain: &str, port: u16) -> Result<(), Error> {
        let (port, mark) = (port.to_string(), self.0.mark.as_str());
        let rule = [
            "-p",
            "tcp",
            "--dport",
            &port,
            "-m",
            "comment",
            "--comment",
            mark,
        ];
        iptables(&[&[how, chain][..], &rule, &["-j", "RETURN"]].concat())
            .await
            .map(drop)
    }

    fn closed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gaps(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.0.gaps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        // A process that ends leaves it to its successor.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let (firewall, port) = (self.firewall.clone(), self.port);
        let chain = std::mem::take(&mut self.chain);
        self.firewall.0.tasks.spawn(async move {
            if let Err(error) = firewall.change("-D", &chain, port).await {
                tracing::debug!(chain, port, %error, "a way to a Runtime API is not closed yet");
            }
            // Where that failed the next look at the chain does it.
            firewall.gaps().remove(&port);
        });
    }
}

fn chain(bridge: &str) -> String {
    format!("{CHAIN_PREFIX}{bridge}")
}

/// The port of a rule that has this mark, as `iptables -S` writes it.
fn marked(rule: &str, mark: &str) -> Option<u16> {
    let after = |name: &str| {
        let mut words = rule.split_whitespace();
        words.find(|word| *word == name)?;
        words.next()
    };
    let is_ours = after("--comment")?.trim_matches('"') == mark;
    is_ours.then(|| after("--dport")?.parse().ok()).flatten()
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
    iptables(&[&[how, chain][..], rule].concat())
        .await
        .map(drop)
}

async fn iptables(arguments: &[&str]) -> Result<String, Error> {
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
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(Error::Refused {
            arguments: arguments.join(" "),
            said: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: &str, expected: Option<u16>) {
        assert_eq!(marked(rule, "hearth-lambda-n1"), expected, "{rule}");
    }

    #[test]
    fn rules_of_this_node_are_told_from_others() {
        let rule = |mark: &str| {
            format!(
                "-A HEARTH-hth1 -p tcp -m tcp --dport 41001 -m comment --comment {mark} -j RETURN"
            )
        };
        check(&rule("hearth-lambda-n1"), Some(41_001));
        check(&rule("\"hearth-lambda-n1\""), Some(41_001));
        check(&rule("hearth-lambda-n10"), None);
        check("-A HEARTH-hth1 -p tcp -m tcp --dport 53 -j RETURN", None);
        check("-N HEARTH-hth1", None);
        check("-A HEARTH-hth1 --comment hearth-lambda-n1 -j RETURN", None);
    }
}
