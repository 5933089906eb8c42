//! A machine that stops at any moment, again and again: whatever was acknowledged is there or has ended, what was refused is
//! not, and nothing ends twice.

use std::collections::BTreeMap;

use proptest::test_runner::{Config, TestRunner};
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};

use super::*;

/// What is known of a delivery by whoever asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// It was acknowledged, and has not ended.
    Open,
    /// It was settled as delivered or dead: after a crash it may be as it was before.
    Settled { delivered: bool },
    /// The machine stopped before it was acknowledged. Until the next start it is not there.
    Refused,
    /// The machine stopped before it was acknowledged that it ended, or waits again.
    Unknown,
    /// It was refused, cancelled or purged, and somebody was told so.
    Gone,
}

struct Run {
    random: StdRng,
    known: BTreeMap<DeliveryId, Known>,
    /// Those that must all be there or none.
    batches: Vec<Vec<DeliveryId>>,
    leases: BTreeMap<DeliveryId, (Lease, u32)>,
}

impl Run {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            known: BTreeMap::new(),
            batches: Vec::new(),
            leases: BTreeMap::new(),
        }
    }

    /// Does something, as clients and the loop do.
    async fn step(&mut self, queue: &EmbeddedQueue) {
        match self.random.random_range(0..20) {
            0..=6 => self.enqueue(queue).await,
            7..=10 => self.lease(queue).await,
            11..=16 => self.settle(queue).await,
            17 => self.cancel(queue).await,
            18 => self.redrive(queue).await,
            _ => self.purge(queue).await,
        }
    }

    /// Some callers at once, so that they share a write.
    async fn enqueue(&mut self, queue: &EmbeddedQueue) {
        let callers = self.random.random_range(1..5);
        let batches: Vec<_> = (0..callers).map(|_| self.batch()).collect();
        let enqueued = batches.iter().map(|batch| queue.enqueue(batch.clone()));
        let enqueued = futures_util::future::join_all(enqueued).await;
        for (batch, enqueued) in batches.iter().zip(enqueued) {
            let ids: Vec<_> = batch.iter().map(|delivery| delivery.id).collect();
            let known = match enqueued {
                Ok(()) => Known::Open,
                // The machine stopped, so nobody was told.
                Err(Error::Unavailable(_)) => Known::Refused,
                Err(other) => panic!("{other}"),
            };
            for id in &ids {
                self.known.insert(*id, known);
            }
            if known == Known::Refused {
                self.batches.push(ids);
            }
        }
    }

    fn batch(&mut self) -> Vec<Delivery> {
        let mut batch = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let function = ["a", "b", "c"][self.random.random_range(0..3)];
            let mut delivery = conformance::deliveries(function, 1).remove(0);
            delivery.event = vec![b'x'; self.random.random_range(0..1_200)].into();
            if self.random.random_range(0..8) == 0 {
                delivery.not_before = Some(SystemTime::now() + Duration::from_secs(3_600));
            }
            batch.push(delivery);
        }
        batch
    }

    async fn lease(&mut self, queue: &EmbeddedQueue) {
        let free = self.random.random_range(1..6);
        for leased in queue.lease(Permits { free, total: 6 }).await.unwrap() {
            let id = leased.lease.id;
            let known = self.known[&id];
            assert!(
                matches!(known, Known::Open | Known::Unknown),
                "{id} is {known:?}"
            );
            self.leases.insert(id, (leased.lease, leased.attempts));
        }
    }

    async fn settle(&mut self, queue: &EmbeddedQueue) {
        let Some((id, (lease, _))) = self.leases.iter().choose(&mut self.random) else {
            return;
        };
        let (id, lease) = (*id, *lease);
        let (outcome, known) = match self.random.random_range(0..10) {
            0..=4 => (Outcome::Delivered, Known::Settled { delivered: true }),
            5..=6 => (dead_letter(), Known::Settled { delivered: false }),
            7..=8 => (
                Outcome::Again {
                    after: Duration::ZERO,
                    counts: true,
                },
                Known::Open,
            ),
            _ => (
                Outcome::Again {
                    after: Duration::from_secs(3_600),
                    counts: true,
                },
                Known::Open,
            ),
        };
        self.leases.remove(&id);
        queue.settle(&lease, outcome).await.unwrap();
        assert!(queue.settle(&lease, Outcome::Delivered).await.is_err());
        if self.known[&id] == Known::Open {
            self.known.insert(id, known);
        }
    }

    async fn cancel(&mut self, queue: &EmbeddedQueue) {
        let open = |(_, known): &(_, &Known)| **known == Known::Open;
        if let Some((id, _)) = self.known.iter().filter(open).choose(&mut self.random) {
            let id = *id;
            let cancelled = queue.cancel(id).await;
            assert_ne!(cancelled, Ok(false), "{id} is open");
            self.ended(id, cancelled.is_ok());
            self.leases.remove(&id);
        }
    }

    fn dead(&mut self) -> Option<DeliveryId> {
        let dead = |(_, known): &(_, &Known)| **known == Known::Settled { delivered: false };
        let found = self.known.iter().filter(dead).choose(&mut self.random);
        found.map(|(id, _)| *id)
    }

    async fn redrive(&mut self, queue: &EmbeddedQueue) {
        if let Some(id) = self.dead() {
            match queue.redrive(id).await {
                Ok(is_dead) => {
                    assert!(is_dead, "{id} is dead");
                    self.known.insert(id, Known::Open);
                }
                Err(_) => self.ended(id, false),
            }
        }
    }

    async fn purge(&mut self, queue: &EmbeddedQueue) {
        if let Some(id) = self.dead() {
            let purged = queue.purge(id).await;
            assert_ne!(purged, Ok(false), "{id} is dead");
            self.ended(id, purged.is_ok());
        }
    }

    fn ended(&mut self, id: DeliveryId, for_sure: bool) {
        let known = match for_sure {
            true => Known::Gone,
            false => Known::Unknown,
        };
        self.known.insert(id, known);
    }

    /// Compares what the next process finds with what is known, and takes that as known from now on.
    async fn check(&mut self, queue: &EmbeddedQueue) {
        let (waiting, dead) = {
            let index = queue.shared.index();
            let mut waiting = BTreeMap::new();
            let mut dead = BTreeSet::new();
            for (id, entry) in &index.turns.entries {
                match entry.status {
                    Status::Waiting => {
                        waiting.insert(*id, entry.attempts);
                    }
                    Status::Dead(_) => {
                        dead.insert(*id);
                    }
                    Status::Leased => panic!("{id} is leased"),
                }
            }
            (waiting, dead)
        };
        for id in waiting.keys().chain(&dead) {
            let known = self
                .known
                .get(id)
                .unwrap_or_else(|| panic!("{id} is unknown"));
            assert_ne!(*known, Known::Gone, "{id} is back");
        }
        for (id, known) in &mut self.known {
            let (waits, died) = (waiting.contains_key(id), dead.contains(id));
            match *known {
                Known::Open => assert!(waits, "{id} is lost"),
                Known::Settled { delivered: false } => assert!(waits || died, "{id} is lost"),
                Known::Settled { delivered: true } => assert!(!died, "{id} died"),
                Known::Refused | Known::Unknown | Known::Gone => {}
            }
            *known = match (waits, died) {
                (true, _) => Known::Open,
                (_, true) => Known::Settled { delivered: false },
                _ => Known::Gone,
            };
        }
        for batch in self.batches.drain(..) {
            let there = batch.iter().filter(|id| waiting.contains_key(id)).count();
            assert!(there == 0 || there == batch.len(), "a part of a batch");
        }
        for dead in queue.dead_letters(0, usize::MAX).await.unwrap() {
            assert_eq!(dead.answer, Bytes::from_static(b"no"));
        }
        self.leases.clear();
    }
}

/// Runs until the machine stops at this operation, then goes on with what is left of the disk; says how long the first run was.
async fn crashes(seed: u64, at: u64, rounds: u64, steps: u32) -> u64 {
    let mut run = Run::new(seed);
    let mut disk = SimDisk::default();
    let mut operations = 0;
    for round in 0..rounds {
        disk.set_fault(Some(Fault::CrashAt(at)));
        if let Ok(queue) = try_open(&disk) {
            run.check(&queue).await;
            for _ in 0..steps {
                run.step(&queue).await;
            }
        }
        if round == 0 {
            operations = disk.operations();
        }
        disk = disk.after_crash(seed ^ (round << 32) ^ at);
        let queue = open(&disk);
        run.check(&queue).await;
        drop(queue);
        disk = disk.after_kill();
    }
    // What is left can all be delivered.
    let queue = open(&disk);
    run.check(&queue).await;
    operations
}

/// At each write, sync, creation and removal of a run.
#[tokio::test]
async fn every_point_of_a_run_is_a_point_to_crash_at() {
    let mut at = 1;
    loop {
        let operations = crashes(1, at, 1, 60).await;
        if operations < at {
            break;
        }
        at += 1;
    }
    assert!(at > 100, "{at} points");
}

/// Runs of random operations that are cut short at random points, several times each.
#[test]
fn random_crashes_lose_nothing() {
    random_crashes(60);
}

#[test]
fn long_random_crashes_lose_nothing() {
    random_crashes(300);
}

fn random_crashes(cases: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    // What fails is printed with its seed. Another run of the same input is about the same run, so nothing is made smaller.
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..Config::default()
    });
    let inputs = (proptest::num::u64::ANY, 1..400_u64, 1..5_u64);
    runner
        .run(&inputs, |(seed, at, rounds)| {
            runtime.block_on(crashes(seed, at, rounds, 150));
            Ok(())
        })
        .unwrap();
}
