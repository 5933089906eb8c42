//! Whatever happens to deliveries, what etcd is told of it adds up to what is left.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::backend::Permits;
use crate::backend::conformance;
use crate::backend::etcd::keys::Range;
use crate::backend::etcd::transaction::OPS_MAX;
use crate::backend::record::Record;
use config::settings::EtcdSettings;
use protocol::{Component, Effect, ErrorCode};

const SESSION: SessionId = SessionId(7);
const MANY: Permits = Permits {
    free: 10_000,
    total: 10_000,
};

/// A node and an etcd that takes what it is told.
struct Run {
    random: StdRng,
    keys: Keys,
    held: Held,
    etcd: BTreeMap<String, Vec<u8>>,
    /// How many dead letters there should be.
    dead: usize,
    now: u64,
}

impl Run {
    fn new(seed: u64) -> Self {
        let limits = Limits {
            function_share: 1.0,
            len_max: 100_000,
            ..conformance::limits()
        };
        let limits = Limits {
            bytes_max: 1 << 30,
            ..limits
        };
        Self {
            random: StdRng::seed_from_u64(seed),
            keys: Keys::new(&EtcdSettings::default(), "one"),
            held: Held::new(limits, 1),
            etcd: BTreeMap::new(),
            dead: 0,
            now: 1,
        }
    }

    fn accept(&mut self, deliveries: Vec<Delivery>) {
        let body = Record::Put(Put::accepted(&deliveries, self.now)).write();
        let lanes = self.held.turns.admit(&deliveries).unwrap();
        let number = self.held.number();
        let since = std::iter::repeat(self.now);
        let batch = Batch::accepted(number, deliveries, lanes, since);
        self.etcd.insert(self.keys.batch(SESSION, number), body);
        self.held.insert(batch, true, self.now);
    }

    fn step(&mut self) {
        self.now += 1;
        if self.random.random_ratio(1, 3) {
            let count = [1, 1, 2, 200][self.random.random_range(0..4)];
            self.accept(conformance::deliveries("f", count));
        }
        let permits = Permits {
            free: self.random.random_range(0..300),
            ..MANY
        };
        for taken in self.held.turns.take(permits, self.now) {
            let lease = taken.lease;
            let failure = || {
                let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
                Failure::new(code, component, Effect::Finished, "status 500")
            };
            match self.random.random_range(0..5) {
                0 => assert!(self.held.end(&lease)),
                1 => {
                    self.dead += 1;
                    assert!(self.held.bury(&lease, self.now, failure(), Bytes::new()));
                }
                2 => assert!(self.held.cancel(lease.id).is_some()),
                counts => assert!(self.held.again(&lease, self.now, counts == 3, self.now)),
            }
        }
        if self.random.random_ratio(1, 4) {
            self.hand_over();
        }
        if self.random.random_ratio(1, 2) {
            self.tell();
        }
    }

    /// Gives some of what waits to others, who get half of it.
    fn hand_over(&mut self) {
        for given in self.held.give(self.now, 20) {
            assert!(self.held.is_giving(given.id));
            assert_eq!(self.held.cancel(given.id), None, "it is not here");
            if self.random.random_ratio(1, 2) {
                self.held.take_back(given);
                continue;
            }
            let Range { from, end } = self.keys.whole_batch(SESSION, given.entry.kept.batch);
            self.etcd
                .retain(|key, _| *key < from || key.as_bytes() >= end.as_slice());
            self.held.gave(&given);
        }
    }

    /// One transaction, as etcd takes it.
    fn tell(&mut self) {
        let (mut told, mut room) = (Told::default(), Room::new());
        let before = room.leave(self.random.random_range(0..OPS_MAX));
        self.held.tell(&self.keys, SESSION, &mut told, &mut room);
        room.give_back(before);
        self.held.tell(&self.keys, SESSION, &mut told, &mut room);
        assert!(told.ops.len() <= OPS_MAX, "{}", told.ops.len());
        let mut puts = BTreeSet::new();
        for op in &told.ops {
            if let Op::Put(key, value) = op {
                assert!(puts.insert(key.clone()), "{key} twice");
                self.etcd.insert(key.clone(), value.clone());
            }
        }
        for op in &told.ops {
            if let Op::DeleteAll(range) = op {
                let is_in =
                    |key: &str| key >= range.from.as_str() && key.as_bytes() < range.end.as_slice();
                assert!(
                    !puts.iter().any(|key| is_in(key)),
                    "etcd refuses both at once"
                );
                self.etcd.retain(|key, _| !is_in(key));
            }
        }
        self.held.was_told(&told);
    }

    /// What a node that takes over finds: what waits, with the attempts so far.
    fn left(&self) -> BTreeMap<DeliveryId, u32> {
        let mut batches: BTreeMap<u64, (&[u8], HashMap<u32, Progress>)> = BTreeMap::new();
        for (key, value) in &self.etcd {
            match self.keys.held_by(key.as_bytes()) {
                Some((number, None)) => {
                    batches.insert(number, (value, HashMap::new()));
                }
                Some((number, Some(place))) => {
                    let (_, progress) = batches.get_mut(&number).unwrap();
                    progress.insert(place, Progress::read(value).unwrap());
                }
                None => {}
            }
        }
        let mut left = BTreeMap::new();
        for (value, progress) in batches.values() {
            let Ok(Record::Put(put)) = Record::read(value) else {
                panic!("that is a batch");
            };
            let put = left_of(&put, progress, false).unwrap();
            left.extend(put.deliveries.iter().map(|row| (row.id.0, row.attempts)));
        }
        left
    }
}

#[test]
fn what_is_told_adds_up_to_what_is_left() {
    for seed in 0..60 {
        let mut run = Run::new(seed);
        for _ in 0..30 {
            run.step();
        }
        let until_now = run.held.until_now();
        while run.held.has_untold() {
            run.tell();
        }
        assert!(run.held.is_told_before(until_now), "seed {seed}");
        assert_eq!(run.held.dying(), 0);
        let entries = run.held.turns.entries.iter();
        let left: BTreeMap<_, _> = entries.map(|(id, entry)| (*id, entry.attempts)).collect();
        assert_eq!(run.left(), left, "seed {seed}");
        let dead = |key: &&String| run.keys.dead_of(key.as_bytes()).is_some();
        assert_eq!(
            run.etcd.keys().filter(dead).count(),
            run.dead,
            "seed {seed}"
        );
        assert!(
            run.held.batches.len() <= left.len(),
            "nothing is left of what ended"
        );
    }
}

/// More dead letters of one event than a transaction has room for.
#[test]
fn an_event_of_many_dead_letters_ends_in_several_transactions() {
    let mut run = Run::new(0);
    run.accept(conformance::deliveries("f", 1_000));
    for taken in run.held.turns.take(MANY, 2) {
        let reason = Failure::new(
            ErrorCode::FunctionFailed,
            Component::Function,
            Effect::Finished,
            "no",
        );
        assert!(run.held.bury(&taken.lease, 2, reason, Bytes::new()));
    }
    let mut transactions = 0;
    while run.held.has_untold() {
        run.tell();
        transactions += 1;
        let dead = run.etcd.keys().filter(|key| key.contains("/dead/")).count();
        assert_eq!(
            run.left_or_none(),
            1_000 - dead,
            "no dead letter waits as well"
        );
    }
    assert!((20..100).contains(&transactions), "{transactions}");
    assert!(run.etcd.keys().all(|key| key.contains("/dead")));
}

impl Run {
    fn left_or_none(&self) -> usize {
        let has_batch = self.etcd.keys().any(|key| key.contains("/held/"));
        if has_batch { self.left_len() } else { 0 }
    }

    fn left_len(&self) -> usize {
        let batch = self.etcd.get(&self.keys.batch(SESSION, 1)).unwrap();
        let Ok(Record::Put(put)) = Record::read(batch) else {
            panic!("that is a batch");
        };
        let progress = self.etcd.iter().filter_map(|(key, value)| {
            let (_, place) = self.keys.held_by(key.as_bytes())?;
            Some((place?, Progress::read(value)?))
        });
        left_of(&put, &progress.collect(), false).map_or(0, |put| put.deliveries.len())
    }
}
