//! What of the journal is in memory: what waits and is leased, where it is on disk, and the dead letters.
//!
//! A plain struct without a clock: all moments are microseconds since 1970, given by the caller.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::micros as wall_micros;
use super::segment::Place;
use crate::backend::books::{Change, Ledger};
use crate::backend::lanes::LaneKey;
use crate::backend::limits::room_of;
use crate::backend::turns::{self, Turns};
use crate::backend::{Counters, Delivery, DeliveryId, Lease, Limits, Stats};

mod dead;

pub(super) use crate::backend::turns::{Status, micros};
pub(super) use dead::{Dead, Retention, Text};

/// Where a delivery is in the journal.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    pub(super) place: Place,
    /// Its share of its record's bytes.
    pub(super) share: u32,
}

pub(super) type Entry = turns::Entry<Kept>;
pub(super) type Taken = turns::Taken<Kept>;

/// All that is not over.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) turns: Turns<Kept>,
    pub(super) ledger: Ledger,
    pub(super) retention: Retention,
    pub(super) dead: BTreeMap<u64, Dead>,
    /// Bytes that are needed of each segment.
    pub(super) needed: BTreeMap<u32, u64>,
    dead_bytes: u64,
    /// Bytes of records that are not on disk yet.
    pub(super) arriving_bytes: u64,
    /// What was told of it last.
    pub(super) told: Stats,
}

/// A delivery that is accepted now. Its place is known when it is on disk.
pub(super) fn accepted(lane: LaneKey, delivery: Delivery, since: u64) -> (DeliveryId, Entry) {
    let entry = Entry {
        lane,
        kept: Kept::default(),
        room: room_of(&delivery.event),
        attempts: 0,
        status: Status::Waiting,
        since,
        due: delivery.not_before.map_or(0, wall_micros),
        cached: None,
    };
    let id = delivery.id;
    let cached = Some(Arc::new(delivery));
    (id, Entry { cached, ..entry })
}

impl Index {
    /// Makes an empty one whose leases have greater epochs than those of any before it.
    pub(super) fn new(
        limits: Limits,
        retention: Retention,
        cached_bytes_max: usize,
        now: u64,
    ) -> Self {
        Self {
            ledger: Ledger::default(),
            turns: Turns::new(limits, cached_bytes_max, now),
            retention,
            dead: BTreeMap::new(),
            needed: BTreeMap::new(),
            dead_bytes: 0,
            arriving_bytes: 0,
            told: Stats::default(),
        }
    }

    /// Takes over what a replay found: all of it waits again, oldest first.
    pub(super) fn begin(&mut self, changes: Counters, now: u64) {
        self.turns
            .begin(now, |entry| (entry.since, entry.kept.place));
        self.ledger = Ledger::new(changes);
        self.ledger.note(Change::Found, self.turns.stats().waiting);
    }

    /// Makes a delivery wait that there is room for.
    pub(super) fn insert(&mut self, id: DeliveryId, entry: Entry, now: u64) {
        self.need(entry.kept);
        self.turns.insert(id, entry, now);
    }

    /// Knows of a delivery, without a turn.
    pub(super) fn add(&mut self, id: DeliveryId, entry: Entry) {
        self.need(entry.kept);
        self.turns.entries.insert(id, entry);
    }

    /// What it has of one delivery.
    pub(super) fn entry(&self, id: DeliveryId) -> Option<&Entry> {
        self.turns.entries.get(&id)
    }

    /// Ends a lease and the delivery with it; false when the lease was lost.
    pub(super) fn end(&mut self, lease: &Lease) -> bool {
        self.turns.end_lease(lease) && self.remove(lease.id).is_some()
    }

    /// Ends a delivery that waits or is leased; false when there is none.
    pub(super) fn cancel(&mut self, id: DeliveryId) -> bool {
        self.turns.interrupt(id) && self.remove(id).is_some()
    }

    /// Forgets a delivery that has no turn and no lease.
    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<Entry> {
        let entry = self.turns.remove(id)?;
        release(&mut self.needed, entry.kept);
        if let Status::Dead(position) = entry.status {
            self.forget_dead(position);
        }
        Some(entry)
    }

    /// The delivery is kept elsewhere from now on.
    pub(super) fn relocate(&mut self, id: DeliveryId, kept: Kept) {
        let Some(entry) = self.turns.entries.get_mut(&id) else {
            return;
        };
        release(&mut self.needed, std::mem::replace(&mut entry.kept, kept));
        self.need(kept);
    }

    /// When something is to be done: a delivery may have its turn that has none now, or a dead letter is too old.
    pub(super) fn next_due(&self) -> Option<u64> {
        let oldest = self.dead.first_key_value();
        let too_old = oldest.map(|(_, dead)| dead.at.saturating_add(self.retention.age_max + 1));
        self.turns.next_due().into_iter().chain(too_old).min()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            dead: self.dead.len(),
            ..self.turns.stats()
        }
    }

    fn need(&mut self, kept: Kept) {
        *self.needed.entry(kept.place.segment).or_default() += u64::from(kept.share);
    }
}

fn release(needed: &mut BTreeMap<u32, u64>, kept: Kept) {
    let segment = kept.place.segment;
    if let Some(left) = needed.get_mut(&segment) {
        *left = left.saturating_sub(u64::from(kept.share));
        if *left == 0 {
            needed.remove(&segment);
        }
    }
}
