//! Runs one scenario: a cluster, functions and writers of the record, faults, and the judgement once nothing waits.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::Instant;

use super::faults::{SESSION, Scene};
use super::scenario::{Backend, Fault, Scenario};
use super::subscriber::{DEADLINE, Mood, Subscriber};
use super::writers::Writers;
use super::{Broken, Findings, Ledger, Line, lost};
use crate::chaos::Rng;
use crate::disk::Disk;
use crate::namespace::Network;
use crate::node::{Node, NodeOptions};
use crate::ports::Ports;
use crate::record::Record;
use crate::sandbox::Sandbox;
use crate::wait::outage;

const NODES: u8 = 3;

/// How soon after all is settled each node has audited its books once more, and they balance.
const AUDITED: Duration = Duration::from_secs(30);

/// How large a disk is that is filled: the queue's reserve, two of its files and the node's other data have room.
const DISK_MEBIBYTES: u32 = 64;

/// How long sessions and leases last by default.
const PATIENT: Duration = Duration::from_secs(10);

/// How many events a run has, and how long they come.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Events that are accepted.
    pub events: usize,
    /// Clients that emit at once.
    pub writers: usize,
    /// How long it takes to emit them, if nothing holds them up.
    pub pace: Duration,
    /// How often the fault of the scenario is done meanwhile.
    pub rounds: usize,
    /// How soon after that nothing may wait any more.
    pub settled: Duration,
}

impl Size {
    /// For `make chaos`.
    pub const FULL: Self = Self {
        events: 10_000,
        writers: 32,
        pace: Duration::from_secs(20),
        rounds: 6,
        settled: Duration::from_secs(120),
    };
    /// For `make test`.
    pub const SHORT: Self = Self {
        events: 300,
        writers: 12,
        pace: Duration::from_secs(3),
        rounds: 2,
        settled: Duration::from_secs(60),
    };
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The scenario.
    pub name: &'static str,
    /// What decides it again.
    pub seed: u64,
    /// What the record says.
    pub findings: Findings,
    /// How long it took.
    pub took: Duration,
    /// Where the record, all logs and data are, if a promise was broken.
    pub kept: Option<PathBuf>,
}

/// Runs a scenario; the seed decides what functions do, what is done to whom and when, and the machine the rest.
///
/// # Panics
/// When the cluster does not come up, or does not come back.
pub async fn run(scenario: &Scenario, size: Size, seed: u64) -> Outcome {
    let begun = Instant::now();
    let mut run = Run::start(scenario, seed).await;
    let nodes = run.scene.sandbox.nodes();
    let ledger = Arc::clone(&run.scene.ledger);
    let writers = Writers::new(nodes, ledger, size.events, size.writers, size.pace);
    let mut rng = Rng::new(seed);
    let hurt = run
        .scene
        .hurt(scenario.fault, size.rounds, &writers, &mut rng);
    tokio::join!(writers.write(), hurt);
    let mut findings = run.settle(size.settled).await;
    let drifts = run.drifts().await;
    findings.broken.extend(drifts);
    if scenario.fault == Fault::FullDisk {
        run.assert_writes_failed();
    }
    let kept = (!findings.broken.is_empty()).then(|| run.keep());
    Outcome {
        name: scenario.name,
        seed,
        findings,
        took: begun.elapsed(),
        kept,
    }
}

/// A run on its way.
struct Run {
    scene: Scene,
    /// How long sessions and leases last.
    timeout: Duration,
    _subscribers: Vec<Subscriber>,
}

impl Run {
    async fn start(scenario: &Scenario, seed: u64) -> Self {
        let mut builder = Sandbox::builder()
            .env("HEARTH_QUEUE__BACKEND", scenario.backend.setting())
            .env("HEARTH_QUEUE__AUDIT_INTERVAL", "1s")
            // Nobody wants to wait for five minutes here.
            .env("HEARTH_QUEUE__RETRY_BACKOFF_MAX", "2s")
            .env("HEARTH_HTTP__EJECTION", "1s");
        // Elsewhere nothing but a slow machine would end a session, and repeat what nobody stopped.
        let mut timeout = PATIENT;
        if matches!(scenario.fault, Fault::Stop | Fault::Cut | Fault::KillStore) {
            timeout = SESSION;
            let session = format!("{}s", SESSION.as_secs());
            builder = builder
                .env("HEARTH_QUEUE__SESSION_TIMEOUT", &session)
                .env("HEARTH_QUEUE__JETSTREAM__SESSION_TIMEOUT", &session)
                .env("HEARTH_QUEUE__LEASE_TIMEOUT", &session);
        }
        if scenario.fault == Fault::Replicas {
            builder = builder.nats_trio();
        } else if scenario.backend == Backend::JetStream {
            builder = builder.nats();
        }
        let (mut network, mut host) = (None, Ipv4Addr::LOCALHOST);
        if scenario.fault == Fault::Cut {
            let ports = Ports::reserve();
            let made = Network::create(ports.number(), NODES);
            host = made.test_address();
            let etcd_host = made.root_address().to_string();
            builder = builder.auth_required().etcd_on(&etcd_host, ports);
            network = Some(made);
        }
        let mut disks = Vec::new();
        for place in 0..NODES {
            let mut options = NodeOptions {
                place: network.as_ref().map(|network| network.place(place)),
                ..NodeOptions::default()
            };
            if scenario.fault == Fault::FullDisk {
                let disk = Disk::mount(DISK_MEBIBYTES);
                options.data_dir = Some(disk.dir().join("data"));
                disks.push(disk);
            }
            builder = builder.node(options);
        }
        let sandbox = builder.start().await;
        let ledger = Arc::new(Ledger::open(&sandbox.dir().join("history")));
        let mut subscribers = Vec::new();
        for mood in [Mood::Steady, scenario.mood] {
            let subscriber = Subscriber::start(host.into(), mood, seed, Arc::clone(&ledger)).await;
            subscribe(&sandbox, &subscriber, mood).await;
            subscribers.push(subscriber);
        }
        let scene = Scene {
            sandbox,
            backend: scenario.backend,
            network,
            disks,
            ledger,
        };
        Self {
            scene,
            timeout,
            _subscribers: subscribers,
        }
    }

    /// Waits until nothing waits and nothing is missed, or for as long as is given, and judges.
    async fn settle(&self, bound: Duration) -> Findings {
        let nodes = self.scene.sandbox.nodes();
        let give_up = Instant::now() + bound;
        loop {
            let waiting = nodes
                .iter()
                .map(|node| node.metric("gateway_events_backlog", ""));
            let waits = join_all(waiting).await.iter().sum::<f64>() > 0.0;
            let is_late = Instant::now() > give_up;
            if !waits || is_late {
                let mut end = dead_letters(&nodes, self.scene.backend).await;
                let logs = nodes.iter().map(Node::log);
                end.extend(logs.flat_map(|log| lost::troubles(&log, self.timeout)));
                let mut history = self.scene.ledger.read();
                end.iter().cloned().for_each(|line| history.add(line));
                let findings = history.judge();
                if is_late || findings.count(Broken::Lost) == 0 {
                    end.iter().for_each(|line| self.scene.ledger.note(line));
                    return findings;
                }
            }
            outage(Duration::from_millis(200)).await;
        }
    }

    /// The nodes whose books do not balance when all is settled.
    async fn drifts(&self) -> Vec<(Broken, String)> {
        let nodes = self.scene.sandbox.nodes();
        let drifts = nodes.iter().map(async |node| {
            let done = || node.metric("hearth_queue_audits_total", "done");
            let (before, give_up) = (done().await, Instant::now() + AUDITED);
            loop {
                let is_late = Instant::now() > give_up;
                // The one that was on its way may have begun before all was settled.
                if done().await >= before + 2.0 || is_late {
                    let drift = node.metric("hearth_queue_drift", "").await;
                    if drift == 0.0 && !is_late {
                        return None;
                    }
                    if is_late {
                        let found = format!("{drift} deliveries of node {}", node.name());
                        return Some((Broken::Drift, found));
                    }
                }
                outage(Duration::from_millis(200)).await;
            }
        });
        join_all(drifts).await.into_iter().flatten().collect()
    }

    /// The disks were full, and not just nearly so.
    fn assert_writes_failed(&self) {
        let nodes = self.scene.sandbox.nodes();
        let has_failed = |node: &Node| node.log().contains("No space left on device");
        assert!(nodes.iter().any(has_failed), "no node had a write fail");
    }

    /// Keeps the record and all logs.
    fn keep(&mut self) -> PathBuf {
        self.scene.sandbox.keep();
        self.scene.sandbox.dir().to_owned()
    }
}

/// Makes the webhook a function that gets all events of the run.
async fn subscribe(sandbox: &Sandbox, subscriber: &Subscriber, mood: Mood) {
    let url = format!("http://{}/", subscriber.address);
    let record = Record::http(mood.name(), &url);
    let record = match mood {
        Mood::Moody => record.timeout_ms(DEADLINE.as_millis().try_into().expect("it is seconds")),
        Mood::Steady | Mood::Picky => record,
    };
    sandbox.register(&record).await;
    let subscription = json!({ "event": "tick", "functionId": mood.name() });
    sandbox.subscribe(&subscription).await;
}

/// All dead letters as lines of the record: of the cluster, or of each node where they are the nodes' own.
async fn dead_letters(nodes: &[Node], backend: Backend) -> Vec<Line> {
    let asked = match backend {
        Backend::Embedded => nodes,
        Backend::Etcd | Backend::JetStream => &nodes[..1],
    };
    let text = |letter: &serde_json::Value, field: &str| {
        let text = letter[field].as_str();
        text.expect("a dead letter names what died").to_owned()
    };
    let letters = join_all(asked.iter().map(Node::dead_letters)).await;
    let lines = letters.iter().flatten().map(|letter| Line::Dead {
        subscriber: text(letter, "functionId"),
        id: text(letter, "eventId"),
        delivery: text(letter, "id"),
    });
    lines.collect()
}
