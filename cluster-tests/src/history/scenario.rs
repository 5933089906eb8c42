//! The scenarios: which queue, what is done to the cluster while events come, and how its functions take them.

use super::subscriber::Mood;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name, for people and flags.
    pub name: &'static str,
    /// Where events wait.
    pub backend: Backend,
    /// What is done over and over.
    pub fault: Fault,
    /// How the second of the two functions takes events; the first one takes all.
    pub mood: Mood,
}

/// Where events wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// On the disk of each node.
    Embedded,
    /// In etcd.
    Etcd,
    /// In NATS.
    JetStream,
}

/// What is done to a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: the functions are trouble enough.
    Nothing,
    /// One node after the other is killed with SIGKILL and started again.
    KillOne,
    /// All nodes are killed at once and started again.
    KillAll,
    /// A node is stopped for longer than its session and its leases, and goes on.
    Stop,
    /// The store, which may hold the queue, is killed and started again.
    KillStore,
    /// The NATS server that leads the queue's stream is killed, or stopped, or another one is killed, or all three are.
    Replicas,
    /// The link between two nodes is cut, or a node is cut off from all others and from the store.
    Cut,
    /// No byte can be written to the disks of the nodes; sometimes one is killed meanwhile.
    FullDisk,
}

/// All scenarios, in the order of the report.
pub const ALL: &[Scenario] = &[
    scenario(
        "embedded-functions",
        Backend::Embedded,
        Fault::Nothing,
        Mood::Moody,
    ),
    scenario(
        "embedded-kill-one",
        Backend::Embedded,
        Fault::KillOne,
        Mood::Moody,
    ),
    scenario(
        "embedded-kill-all",
        Backend::Embedded,
        Fault::KillAll,
        Mood::Picky,
    ),
    scenario("embedded-stop", Backend::Embedded, Fault::Stop, Mood::Picky),
    scenario("embedded-cut", Backend::Embedded, Fault::Cut, Mood::Picky),
    scenario(
        "embedded-full-disk",
        Backend::Embedded,
        Fault::FullDisk,
        Mood::Picky,
    ),
    scenario("etcd-functions", Backend::Etcd, Fault::Nothing, Mood::Moody),
    scenario("etcd-kill-one", Backend::Etcd, Fault::KillOne, Mood::Moody),
    scenario("etcd-kill-all", Backend::Etcd, Fault::KillAll, Mood::Picky),
    scenario("etcd-stop", Backend::Etcd, Fault::Stop, Mood::Picky),
    scenario("etcd-cut", Backend::Etcd, Fault::Cut, Mood::Picky),
    scenario(
        "etcd-kill-store",
        Backend::Etcd,
        Fault::KillStore,
        Mood::Picky,
    ),
    scenario(
        "jetstream-functions",
        Backend::JetStream,
        Fault::Nothing,
        Mood::Moody,
    ),
    scenario(
        "jetstream-kill-one",
        Backend::JetStream,
        Fault::KillOne,
        Mood::Moody,
    ),
    scenario(
        "jetstream-kill-all",
        Backend::JetStream,
        Fault::KillAll,
        Mood::Picky,
    ),
    scenario(
        "jetstream-stop",
        Backend::JetStream,
        Fault::Stop,
        Mood::Picky,
    ),
    scenario("jetstream-cut", Backend::JetStream, Fault::Cut, Mood::Picky),
    scenario(
        "jetstream-kill-store",
        Backend::JetStream,
        Fault::KillStore,
        Mood::Picky,
    ),
    scenario(
        "jetstream-replicas",
        Backend::JetStream,
        Fault::Replicas,
        Mood::Picky,
    ),
];

/// The scenario of that name.
pub fn named(name: &str) -> Option<Scenario> {
    ALL.iter().find(|scenario| scenario.name == name).copied()
}

const fn scenario(name: &'static str, backend: Backend, fault: Fault, mood: Mood) -> Scenario {
    Scenario {
        name,
        backend,
        fault,
        mood,
    }
}

impl Backend {
    /// As the setting says it.
    pub(super) fn setting(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
            Self::JetStream => "jetstream",
        }
    }
}
