//! What this node holds, in its memory: whose turn it is, and which record each delivery is in.
//!
//! A plain struct without a clock and without NATS.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use super::streams::BatchKey;
use crate::backend::books::{Change, Ledger};
use crate::backend::lanes::LaneKey;
use crate::backend::limits::room_of;
use crate::backend::record::{Put, Record, micros as wall_micros};
use crate::backend::turns::{Entry, Status, Turns};
use crate::backend::{Counters, Delivery, DeliveryId, Lease, Limits, Stats};

/// Records of which it is remembered that they ended.
const ENDED_MAX: usize = 100_000;

/// Where a delivery is kept. Its event stays in memory, which is bounded by the bytes that may wait.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) batch: Arc<Batch>,
    pub(super) delivery: Arc<Delivery>,
}

/// Deliveries that are kept in one record.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) key: BatchKey,
    ids: Box<[DeliveryId]>,
    /// Raised by every change that the record has to tell.
    version: AtomicU64,
    /// Held by whoever writes the record, so that one writes at a time, and the last one writes for all that wait.
    pub(super) kept: Mutex<Kept>,
}

/// The record as it was written last.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) place: Place,
    pub(super) version: u64,
}

/// Where the record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere yet.
    Nowhere,
    /// At this sequence of the stream: whoever changes it has to name that.
    At(u64),
    /// All its deliveries ended, and it was deleted.
    Ended,
    /// Another node has it, or it was deleted by somebody else.
    Lost,
}

/// A delivery that has not ended.
#[derive(Debug)]
pub(super) struct Left {
    delivery: Delivery,
    attempts: u32,
    since: u64,
    due: u64,
}

/// All that a node holds.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) turns: Turns<Spot>,
    pub(super) ledger: Ledger,
    pub(super) batches: HashMap<BatchKey, Arc<Batch>>,
    /// Deliveries whose dead letters are on their way.
    dying: HashMap<DeliveryId, Entry<Spot>>,
    /// Records that ended here.
    pub(super) ended: Ended,
    /// Dead letters of all nodes, as far as this one knows.
    pub(super) dead: usize,
    /// How often this node changed that number by itself, and how often it is about to.
    dead_version: (u64, usize),
    /// What was told of it last.
    pub(super) told: Stats,
}

/// The latest records that ended, and where each was then. A NATS server that is killed brings back some that were deleted, or what
/// stood in their places before; nobody needs those any more.
#[derive(Debug, Default)]
pub(super) struct Ended {
    places: HashMap<BatchKey, u64>,
    order: VecDeque<BatchKey>,
}

impl Ended {
    pub(super) fn note(&mut self, key: BatchKey, sequence: u64) {
        if self.places.insert(key, sequence).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > ENDED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.places.remove(&oldest);
        }
    }

    /// Whether what stands at that place had ended. What was put later, by a redrive, has not.
    pub(super) fn covers(&self, key: BatchKey, sequence: u64) -> bool {
        self.places.get(&key).is_some_and(|last| sequence <= *last)
    }
}

impl Batch {
    pub(super) fn new(
        key: BatchKey,
        ids: impl IntoIterator<Item = DeliveryId>,
        place: Place,
    ) -> Self {
        Self {
            key,
            ids: ids.into_iter().collect(),
            version: AtomicU64::new(0),
            kept: Mutex::new(Kept { place, version: 0 }),
        }
    }

    /// Notes that the record has to tell something new.
    pub(super) fn change(&self) {
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a delivery is, or was, one of it.
    pub(super) fn has(&self, id: DeliveryId) -> bool {
        self.ids.contains(&id)
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The names of its deliveries, each followed by a comma.
    pub(super) fn names(&self) -> String {
        let mut names = String::with_capacity(self.ids.len() * 37);
        for id in &self.ids {
            let _ = write!(names, "{id},");
        }
        names
    }
}

impl Held {
    pub(super) fn new(limits: Limits, changes: Counters, now: u64) -> Self {
        Self {
            turns: Turns::new(limits, 0, now),
            ledger: Ledger::new(changes),
            batches: HashMap::new(),
            dying: HashMap::new(),
            ended: Ended::default(),
            dead: 0,
            dead_version: (0, 0),
            told: Stats::default(),
        }
    }

    /// Whether a delivery waits, runs, or is about to be a dead letter.
    pub(super) fn holds(&self, id: DeliveryId) -> bool {
        self.turns.entries.contains_key(&id) || self.dying.contains_key(&id)
    }

    /// Makes deliveries wait that were accepted or redriven now and have their room. True when some came by another record meanwhile, so that
    /// this one has to tell that they are not left in it.
    pub(super) fn insert(
        &mut self,
        batch: &Arc<Batch>,
        deliveries: Vec<Delivery>,
        lanes: Vec<(LaneKey, usize)>,
        since: impl Iterator<Item = u64>,
        (change, now): (Change, u64),
    ) -> bool {
        let mut is_doubled = false;
        for ((delivery, (lane, room)), since) in deliveries.into_iter().zip(lanes).zip(since) {
            if self.holds(delivery.id) {
                self.turns.give_back(&lane, room);
                batch.change();
                is_doubled = true;
                continue;
            }
            let due = delivery.not_before.map_or(0, wall_micros);
            let (id, entry) = entry(batch, delivery, lane, (since, due, 0));
            self.turns.insert(id, entry, now);
            self.ledger.note(change, 1);
        }
        is_doubled
    }

    /// Makes deliveries wait that another node held, or this one before. They had their room there. True as for [`Held::insert`].
    pub(super) fn insert_read(&mut self, batch: &Arc<Batch>, put: &Put<'_>, now: u64) -> bool {
        let mut is_doubled = false;
        let deliveries = put.deliveries(|_| true);
        for (delivery, row) in deliveries.into_iter().zip(&put.deliveries) {
            if self.holds(delivery.id) {
                batch.change();
                is_doubled = true;
                continue;
            }
            let lane = LaneKey::of(&delivery);
            let (id, entry) = entry(batch, delivery, lane, (row.since, row.due, row.attempts));
            self.turns.insert_anyway(id, entry, now);
            self.ledger.note(Change::TakenOver, 1);
        }
        is_doubled
    }

    /// Ends a lease and the delivery with it; its record, unless the lease was lost.
    pub(super) fn end(&mut self, lease: &Lease, change: Change) -> Option<Arc<Batch>> {
        if !self.turns.end_lease(lease) {
            return None;
        }
        let entry = self.turns.remove(lease.id)?;
        self.ledger.note(change, 1);
        entry.kept.batch.change();
        Some(entry.kept.batch)
    }

    /// Ends a lease; the delivery waits until `due`. Its record, unless the lease was lost.
    pub(super) fn again(
        &mut self,
        lease: &Lease,
        due: u64,
        counts: bool,
        now: u64,
    ) -> Option<Arc<Batch>> {
        if !self.turns.wait_again(lease, due, now) {
            return None;
        }
        self.ledger.note(Change::Retried, 1);
        if !counts {
            self.turns.forget_attempt(lease.id);
        }
        let entry = self.turns.entries.get(&lease.id)?;
        // A pause that was not an attempt is not worth a write: after a crash it is over sooner.
        if counts {
            entry.kept.batch.change();
        }
        Some(Arc::clone(&entry.kept.batch))
    }

    /// Ends a lease; the delivery is about to be a dead letter. What it was, unless the lease was lost.
    pub(super) fn begin_to_die(
        &mut self,
        lease: &Lease,
    ) -> Option<(Arc<Delivery>, Arc<Batch>, u32)> {
        if !self.turns.end_lease(lease) {
            return None;
        }
        let entry = self.turns.remove(lease.id)?;
        let Spot { batch, delivery } = entry.kept.clone();
        let attempts = entry.attempts;
        self.dead_changes();
        self.dying.insert(lease.id, entry);
        Some((delivery, batch, attempts))
    }

    /// The dead letter is there, and may be new; false when the delivery was lost meanwhile.
    pub(super) fn died(&mut self, id: DeliveryId, is_new: bool) -> bool {
        let Some(entry) = self.dying.remove(&id) else {
            return false;
        };
        self.ledger.note(Change::DeadLettered, 1);
        entry.kept.batch.change();
        self.dead_changed(isize::from(is_new));
        true
    }

    /// Ends a delivery that waits or is leased; its record, when there is one.
    pub(super) fn cancel(&mut self, id: DeliveryId) -> Option<Arc<Batch>> {
        if !self.turns.interrupt(id) {
            return None;
        }
        let entry = self.turns.remove(id)?;
        self.ledger.note(Change::Cancelled, 1);
        entry.kept.batch.change();
        Some(entry.kept.batch)
    }

    /// Forgets all deliveries of a record; says how many there were, and how many of them were leased or dying.
    pub(super) fn forget(&mut self, batch: &Arc<Batch>) -> (usize, usize) {
        let (mut all, mut began) = (0, 0);
        for id in &batch.ids {
            let is_its = |entry: &Entry<Spot>| Arc::ptr_eq(&entry.kept.batch, batch);
            let entry = self.turns.entries.get(id);
            if let Some(entry) = entry.filter(|entry| is_its(entry)) {
                began += usize::from(entry.status == Status::Leased);
                self.turns.interrupt(*id);
                self.turns.remove(*id);
                all += 1;
            }
            if self.dying.get(id).is_some_and(is_its) {
                self.dying.remove(id);
                self.dead_changed(0);
                (all, began) = (all + 1, began + 1);
            }
        }
        let is_it = |found: &Arc<Batch>| Arc::ptr_eq(found, batch);
        if self.batches.get(&batch.key).is_some_and(is_it) {
            self.batches.remove(&batch.key);
        }
        (all, began)
    }

    /// How many deliveries it holds, each of which will have its turn or is about to be a dead letter.
    pub(super) fn len(&self) -> usize {
        self.turns.count() + self.dying.len()
    }

    /// How many of them are in each record.
    pub(super) fn by_batch(&self) -> HashMap<BatchKey, (Arc<Batch>, usize)> {
        let mut batches = HashMap::<BatchKey, (Arc<Batch>, usize)>::new();
        for entry in self.turns.entries.values().chain(self.dying.values()) {
            let batch = &entry.kept.batch;
            let counted = batches.entry(batch.key);
            counted.or_insert_with(|| (Arc::clone(batch), 0)).1 += 1;
        }
        batches
    }

    /// The deliveries of a record that have not ended, as it has to tell of them now.
    pub(super) fn left(&self, batch: &Arc<Batch>) -> Vec<Left> {
        let left = batch.ids.iter().filter_map(|id| {
            let dying = || self.dying.get(id);
            let entry = self.turns.entries.get(id).or_else(dying)?;
            if !Arc::ptr_eq(&entry.kept.batch, batch) {
                return None;
            }
            // An attempt that has not ended is counted by whoever takes it over.
            let begun = u32::from(entry.status == Status::Leased);
            Some(Left {
                delivery: Delivery::clone(&entry.kept.delivery),
                attempts: entry.attempts.saturating_sub(begun),
                since: entry.since,
                due: entry.due,
            })
        });
        left.collect()
    }

    /// Whether there is room for what other nodes held.
    pub(super) fn has_room(&self) -> bool {
        let (stats, limits) = (self.turns.stats(), &self.turns.limits);
        stats.waiting < limits.len_max && stats.waiting_bytes < limits.bytes_max
    }

    /// The number of dead letters is about to change.
    pub(super) fn dead_changes(&mut self) {
        self.dead_version.1 += 1;
    }

    /// It changed by so many.
    pub(super) fn dead_changed(&mut self, by: isize) {
        self.dead = self.dead.saturating_add_signed(by);
        self.dead_version.0 += 1;
        self.dead_version.1 -= 1;
    }

    /// What is given back with a number that was counted from now on; nothing when the number is about to change.
    pub(super) fn dead_version(&self) -> Option<u64> {
        (self.dead_version.1 == 0).then_some(self.dead_version.0)
    }

    /// So many were counted. Says nothing when it changed meanwhile.
    pub(super) fn dead_counted(&mut self, dead: usize, version: u64) {
        if self.dead_version() == Some(version) {
            self.dead = dead;
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let stats = self.turns.stats();
        Stats {
            leased: stats.leased + self.dying.len(),
            dead: self.dead,
            ..stats
        }
    }
}

/// The body of the record that says so.
pub(super) fn record(left: &[Left]) -> Vec<u8> {
    let deliveries: Vec<_> = left.iter().map(|left| left.delivery.clone()).collect();
    let mut put = Put::accepted(&deliveries, 0);
    for (row, left) in put.deliveries.iter_mut().zip(left) {
        (row.attempts, row.since, row.due) = (left.attempts, left.since, left.due);
    }
    Record::Put(put).write()
}

fn entry(
    batch: &Arc<Batch>,
    delivery: Delivery,
    lane: LaneKey,
    (since, due, attempts): (u64, u64, u32),
) -> (DeliveryId, Entry<Spot>) {
    let id = delivery.id;
    let entry = Entry {
        lane,
        room: room_of(&delivery.event),
        kept: Spot {
            batch: Arc::clone(batch),
            delivery: Arc::new(delivery),
        },
        attempts,
        status: Status::Waiting,
        since,
        due,
        cached: None,
    };
    (id, entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_known_up_to_its_last_place() {
        let mut ended = Ended::default();
        let key = |is_one| BatchKey {
            id: DeliveryId::random(),
            is_one,
        };
        let (one, many) = (key(true), key(false));
        ended.note(one, 7);
        let check = |ended: &Ended, key, sequence, covers| {
            assert_eq!(ended.covers(key, sequence), covers, "{sequence}");
        };
        check(&ended, one, 6, true);
        check(&ended, one, 7, true);
        // It was redriven.
        check(&ended, one, 8, false);
        check(&ended, many, 7, false);
        ended.note(one, 9);
        check(&ended, one, 8, true);
        for _ in 0..ENDED_MAX {
            ended.note(key(true), 1);
        }
        check(&ended, one, 7, false);
        assert_eq!(ended.places.len(), ENDED_MAX);
        assert_eq!(ended.order.len(), ENDED_MAX);
    }
}
