//! What a scenario does to its cluster, round after round, while events come.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::scenario::{Backend, Fault};
use super::writers::Writers;
use super::{Cause, Ledger, Line, now_ms};
use crate::chaos::Rng;
use crate::disk::Disk;
use crate::namespace::Network;
use crate::nats::Nats;
use crate::node::Node;
use crate::sandbox::Sandbox;
use crate::wait::outage;

/// How long the queues of a scenario wait for a node that they do not hear.
pub(super) const SESSION: Duration = Duration::from_secs(2);

/// How soon a node is ready after it was started, on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(60);

/// How long what a node sent before it was killed may be on its way to a function of the record.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

/// The streams of a queue in NATS.
const STREAMS: usize = 3;

/// How soon NATS has elected another leader, and longer than an operation of a queue may take.
const LED_AGAIN: Duration = Duration::from_secs(8);

/// What the faults of a scenario are done to.
#[derive(Debug)]
pub(super) struct Scene {
    pub(super) sandbox: Sandbox,
    /// Where the events wait.
    pub(super) backend: Backend,
    /// Where the links are cut, if they are.
    pub(super) network: Option<Network>,
    /// What is filled, if it is.
    pub(super) disks: Vec<Disk>,
    pub(super) ledger: Arc<Ledger>,
}

impl Scene {
    /// Does it so often, each time in the middle of a share of the events that come for it, so that it meets traffic.
    ///
    /// # Panics
    /// When a node or a store that should be well again is not.
    pub(super) async fn hurt(
        &mut self,
        fault: Fault,
        rounds: usize,
        writers: &Writers,
        rng: &mut Rng,
    ) {
        for round in 0..rounds {
            writers.begin(round, rounds).await;
            self.round(fault, round, rng).await;
        }
    }

    /// Does it once. Where there are several ways to do it they take turns.
    async fn round(&mut self, fault: Fault, round: usize, rng: &mut Rng) {
        let is_even = round.is_multiple_of(2);
        let nodes = self.sandbox.nodes();
        let place = rng.below(nodes.len());
        match fault {
            Fault::Nothing => {}
            Fault::KillOne => self.kill(std::slice::from_ref(&nodes[place]), rng).await,
            Fault::KillAll => self.kill(&nodes, rng).await,
            Fault::Stop => self.stop(&nodes[place], rng).await,
            Fault::KillStore => self.kill_store(rng).await,
            Fault::Replicas => self.hurt_replicas(round, rng).await,
            Fault::Cut => self.cut(place, is_even, rng).await,
            Fault::FullDisk => self.fill(&nodes[place], is_even, rng).await,
        }
    }

    async fn kill(&self, nodes: &[Node], rng: &mut Rng) {
        let from_ms = now_ms();
        nodes.iter().for_each(Node::kill9);
        self.note(from_ms, now_ms(), ON_ITS_WAY, Cause::Killed);
        let least = Duration::from_millis(100);
        outage(rng.between(least, Duration::from_secs(2))).await;
        nodes.iter().for_each(Node::restart);
        join_all(nodes.iter().map(|node| node.wait_ready(READY))).await;
    }

    async fn stop(&self, node: &Node, rng: &mut Rng) {
        let from_ms = now_ms();
        node.stop();
        outage(rng.between(SESSION + Duration::from_secs(1), SESSION * 2)).await;
        node.cont();
        // What it had begun may come to an end that nobody takes from it any more.
        self.note(from_ms, now_ms(), SESSION, Cause::Stopped);
        node.wait_ready(READY).await;
    }

    /// Sometimes for less than a session, sometimes for longer.
    async fn kill_store(&mut self, rng: &mut Rng) {
        let from_ms = now_ms();
        let length = rng.between(Duration::from_millis(100), SESSION * 2);
        match self.backend {
            Backend::JetStream => {
                self.sandbox.nats_mut().kill9();
                outage(length).await;
                self.sandbox.nats_mut().restart().await;
            }
            Backend::Embedded | Backend::Etcd => {
                self.sandbox.etcd().kill9();
                outage(length).await;
                self.sandbox.etcd_mut().restart().await;
            }
        }
        self.note(from_ms, now_ms(), SESSION * 2, Cause::Store);
    }

    /// One NATS server of three, or all: whoever leads the stream of the queue is killed or stopped, or somebody else killed.
    async fn hurt_replicas(&mut self, round: usize, rng: &mut Rng) {
        let trio = self.sandbox.trio_mut();
        trio.wait_current(STREAMS).await;
        let leader = trio.leader("-held").await;
        let follower = (leader + 1 + rng.below(2)) % trio.servers().len();
        let length = rng.between(LED_AGAIN / 2, LED_AGAIN);
        let from_ms = now_ms();
        let servers = trio.servers_mut();
        let hurt = match round % 4 {
            0 => &mut servers[leader..=leader],
            1 => {
                servers[leader].stop();
                outage(length).await;
                servers[leader].cont();
                &mut []
            }
            2 => &mut servers[follower..=follower],
            _ => servers,
        };
        hurt.iter().for_each(Nats::kill9);
        outage(if hurt.is_empty() {
            Duration::ZERO
        } else {
            length
        })
        .await;
        join_all(hurt.iter_mut().map(Nats::restart)).await;
        trio.wait_current(STREAMS).await;
        self.note(from_ms, now_ms(), SESSION * 2, Cause::Store);
    }

    /// The link to one other node, or those to all others and the store.
    async fn cut(&self, place: usize, is_between: bool, rng: &mut Rng) {
        let network = self.network.as_ref().expect("this scene has a network");
        let count = self.sandbox.nodes().len();
        let place_of = |node: usize| u8::try_from(node).expect("there are few nodes");
        let (one, other) = (place_of(place), place_of((place + 1) % count));
        let from_ms = now_ms();
        if is_between {
            network.cut_between(one, other);
        } else {
            network.cut(one);
        }
        outage(rng.between(Duration::from_millis(500), SESSION * 2)).await;
        if is_between {
            network.heal_between(one, other);
        } else {
            network.heal(one);
        }
        self.note(from_ms, now_ms(), SESSION * 2, Cause::Cut);
    }

    /// Fills all disks, and may kill this node before they have room again.
    async fn fill(&self, node: &Node, is_killed: bool, rng: &mut Rng) {
        let from_ms = now_ms();
        self.disks.iter().for_each(Disk::fill);
        let least = Duration::from_millis(500);
        outage(rng.between(least, Duration::from_secs(3))).await;
        if is_killed {
            node.kill9();
        }
        self.disks.iter().for_each(Disk::free);
        if is_killed {
            node.restart();
        }
        self.note(from_ms, now_ms(), ON_ITS_WAY, Cause::Disk);
        node.wait_ready(READY).await;
    }

    fn note(&self, from_ms: u64, until_ms: u64, after: Duration, cause: Cause) {
        let after = u64::try_from(after.as_millis()).expect("it is seconds");
        self.ledger.note(&Line::Trouble {
            from_ms,
            until_ms: until_ms + after,
            cause,
        });
    }
}
