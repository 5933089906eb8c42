//! What of the journal is in memory: an entry for each delivery that has not ended, whose turn it is, and who has a lease.
//!
//! A plain struct without a clock: all moments are microseconds since 1970, given by the caller.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use super::record::micros as wall_micros;
use super::segment::Place;
use crate::backend::lanes::{Held, LaneKey, Lanes};
use crate::backend::limits::room_of;
use crate::backend::{Delivery, DeliveryId, Error, Lease, Limits, Permits, Stats};

mod dead;

pub(super) use dead::{Dead, Retention, Text};

/// What the journal has of one delivery. There may be 100,000 of them, so it is small.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) lane: LaneKey,
    pub(super) place: Place,
    /// What it counts for among what waits.
    pub(super) room: u32,
    /// Its share of its record's bytes.
    pub(super) share: u32,
    pub(super) attempts: u32,
    pub(super) status: Status,
    /// Since when it counts as waiting.
    pub(super) since: u64,
    /// It is not leased sooner.
    pub(super) due: u64,
    /// So that what is delivered at once need not be read.
    pub(super) cached: Option<Arc<Delivery>>,
}

/// How far a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Waiting,
    Leased,
    /// A dead letter, with its position among them.
    Dead(u64),
}

/// A delivery that is leased now.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) lease: Lease,
    pub(super) place: Place,
    pub(super) cached: Option<Arc<Delivery>>,
    pub(super) attempts: u32,
    pub(super) since: u64,
}

/// A lease that is out.
#[derive(Debug, Clone, Copy)]
struct Out {
    epoch: u64,
    until: u64,
}

/// All that is not over.
#[derive(Debug)]
pub(super) struct Index {
    pub(super) limits: Limits,
    pub(super) retention: Retention,
    pub(super) entries: HashMap<DeliveryId, Entry>,
    pub(super) dead: BTreeMap<u64, Dead>,
    /// Bytes that are needed of each segment.
    pub(super) needed: BTreeMap<u32, u64>,
    lanes: Lanes<DeliveryId>,
    held: Held,
    /// What waits for its time, the first one due on top. One that was cancelled meanwhile is passed over.
    paused: BinaryHeap<Reverse<(u64, DeliveryId)>>,
    leased: HashMap<DeliveryId, Out>,
    /// No lease is over before this.
    next_expiry: Option<u64>,
    epoch: u64,
    dead_bytes: u64,
    cached_bytes: usize,
    cached_bytes_max: usize,
    /// Bytes of records that are not on disk yet.
    pub(super) arriving_bytes: u64,
    /// What was told of it last.
    pub(super) told: Stats,
}

impl Entry {
    /// A delivery that is accepted now. Its place is known when it is on disk.
    pub(super) fn accepted(lane: LaneKey, delivery: Delivery, since: u64) -> (DeliveryId, Self) {
        let entry = Self {
            lane,
            place: Place::default(),
            room: room_of(&delivery.event),
            share: 0,
            attempts: 0,
            status: Status::Waiting,
            since,
            due: delivery.not_before.map_or(0, wall_micros),
            cached: None,
        };
        let id = delivery.id;
        let cached = Some(Arc::new(delivery));
        (id, Self { cached, ..entry })
    }

    /// Whether it will be needed in memory and is not there.
    pub(super) fn is_worth_reading(&self) -> bool {
        self.status == Status::Waiting && self.cached.is_none()
    }
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
            limits,
            retention,
            entries: HashMap::new(),
            dead: BTreeMap::new(),
            needed: BTreeMap::new(),
            lanes: Lanes::default(),
            held: Held::default(),
            paused: BinaryHeap::new(),
            leased: HashMap::new(),
            next_expiry: None,
            epoch: now,
            dead_bytes: 0,
            cached_bytes: 0,
            cached_bytes_max,
            arriving_bytes: 0,
            told: Stats::default(),
        }
    }

    /// Takes over what a replay found: all of it waits again, oldest first.
    pub(super) fn begin(&mut self, now: u64) {
        let waits = |(_, entry): &(_, &Entry)| entry.status == Status::Waiting;
        let mut waiting: Vec<_> = self.entries.iter().filter(waits).collect();
        waiting.sort_unstable_by_key(|(_, entry)| (entry.since, entry.place));
        let waiting: Vec<DeliveryId> = waiting.into_iter().map(|(id, _)| *id).collect();
        for id in waiting {
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            let room = entry.room as usize;
            self.held.add(room);
            self.lanes.hold(&entry.lane, room);
            // One text for all of a function's.
            entry.lane = self.lanes.shared(&entry.lane);
            self.make_wait(id, now);
        }
    }

    /// Keeps room for these, or for none. It is taken by [`Index::insert`] or given back by [`Index::give_back`].
    pub(super) fn admit(
        &mut self,
        deliveries: &[Delivery],
    ) -> Result<Vec<(LaneKey, usize)>, Error> {
        let added = self
            .limits
            .admit(&mut self.held, &mut self.lanes, deliveries)?;
        let shared = added.into_iter();
        Ok(shared
            .map(|(key, room)| (self.lanes.shared(&key), room))
            .collect())
    }

    /// Gives room back that nothing came for.
    pub(super) fn give_back(&mut self, lane: &LaneKey, room: usize) {
        self.held.remove(room);
        self.lanes.release(lane, room);
    }

    /// Makes a delivery wait that there is room for.
    pub(super) fn insert(&mut self, id: DeliveryId, mut entry: Entry, now: u64) {
        let delivery = entry.cached.take();
        self.add(id, entry);
        if let Some(delivery) = delivery {
            self.cache(&delivery);
        }
        self.make_wait(id, now);
    }

    /// Keeps what waits in memory, if there is room for it.
    pub(super) fn cache(&mut self, delivery: &Arc<Delivery>) {
        let bytes = delivery.event.len();
        if self.has_cache_for(bytes)
            && let Some(entry) = self.entries.get_mut(&delivery.id)
            && entry.is_worth_reading()
        {
            entry.cached = Some(Arc::clone(delivery));
            self.cached_bytes += bytes;
        }
    }

    /// Whether so much more may be kept in memory.
    pub(super) fn has_cache_for(&self, bytes: usize) -> bool {
        self.cached_bytes + bytes <= self.cached_bytes_max
    }

    /// Knows of a delivery, without a turn.
    pub(super) fn add(&mut self, id: DeliveryId, entry: Entry) {
        *self.needed.entry(entry.place.segment).or_default() += u64::from(entry.share);
        self.entries.insert(id, entry);
    }

    /// Leases whatever has its turn.
    pub(super) fn take(&mut self, mut permits: Permits, now: u64) -> Vec<Taken> {
        self.end_pauses(now);
        let mut taken = Vec::with_capacity(permits.free.min(self.held.len));
        let until = now + micros(self.limits.lease_timeout);
        loop {
            let (lanes, entries) = (&mut self.lanes, &self.entries);
            let room = |id: &DeliveryId| entries.get(id).map_or(0, |entry| entry.room as usize);
            let Some(id) = lanes.take(permits, room) else {
                break;
            };
            let Some(entry) = self.entries.get_mut(&id) else {
                debug_assert!(false, "what has a turn has an entry");
                continue;
            };
            permits.free -= 1;
            self.held.remove(entry.room as usize);
            self.epoch += 1;
            entry.status = Status::Leased;
            let epoch = self.epoch;
            self.leased.insert(id, Out { epoch, until });
            taken.push(Taken {
                lease: Lease { id, epoch },
                place: entry.place,
                cached: entry.cached.take(),
                attempts: entry.attempts,
                since: entry.since,
            });
            entry.attempts += 1;
        }
        for Taken { cached, .. } in &taken {
            self.cached_bytes -= cached.as_ref().map_or(0, |delivery| delivery.event.len());
        }
        if !taken.is_empty() {
            self.next_expiry = Some(self.next_expiry.map_or(until, |next| next.min(until)));
        }
        taken
    }

    /// Makes wait again what has not been extended in time; says how many these are.
    pub(super) fn expire(&mut self, now: u64) -> usize {
        if self.next_expiry.is_none_or(|next| now < next) {
            return 0;
        }
        let is_over = |(_, out): &(_, &Out)| out.until <= now;
        let mut over: Vec<(u64, DeliveryId)> = self
            .leased
            .iter()
            .filter(is_over)
            .map(|(id, out)| (out.epoch, *id))
            .collect();
        over.sort_unstable();
        for (epoch, id) in &over {
            let lease = Lease {
                id: *id,
                epoch: *epoch,
            };
            self.wait_again(&lease, now, now);
        }
        self.next_expiry = self.leased.values().map(|out| out.until).min();
        over.len()
    }

    /// Keeps a lease; false when it was lost.
    pub(super) fn extend(&mut self, lease: &Lease, now: u64) -> bool {
        let until = now + micros(self.limits.lease_timeout);
        match self.leased.get_mut(&lease.id) {
            Some(out) if out.epoch == lease.epoch => {
                out.until = until;
                true
            }
            _ => false,
        }
    }

    /// Ends a lease; the delivery waits until `due`. False when the lease was lost.
    pub(super) fn wait_again(&mut self, lease: &Lease, due: u64, now: u64) -> bool {
        if !self.end_lease(lease) {
            return false;
        }
        let Some(entry) = self.entries.get_mut(&lease.id) else {
            return false;
        };
        entry.due = due;
        entry.status = Status::Waiting;
        // It had its room before, so it is not refused now, even if others took that meanwhile.
        self.held.add(entry.room as usize);
        self.lanes.hold(&entry.lane, entry.room as usize);
        self.make_wait(lease.id, now);
        true
    }

    /// Does not count the last lease of a delivery as an attempt; says how many are left.
    pub(super) fn forget_attempt(&mut self, id: DeliveryId) -> Option<u32> {
        let entry = self.entries.get_mut(&id)?;
        entry.attempts = entry.attempts.saturating_sub(1);
        Some(entry.attempts)
    }

    /// Ends a lease and the delivery with it; false when the lease was lost.
    pub(super) fn end(&mut self, lease: &Lease) -> bool {
        self.end_lease(lease) && self.remove(lease.id).is_some()
    }

    /// Ends a delivery that waits or is leased; false when there is none.
    pub(super) fn cancel(&mut self, id: DeliveryId) -> bool {
        let Some(entry) = self.entries.get(&id) else {
            return false;
        };
        let (lane, room) = (entry.lane.clone(), entry.room as usize);
        match entry.status {
            Status::Dead(_) => return false,
            Status::Leased => {
                self.leased.remove(&id);
                self.lanes.end_lease(&lane);
            }
            Status::Waiting => {
                self.lanes.remove(|item| *item == id);
                self.give_back(&lane, room);
            }
        }
        let is_removed = self.remove(id).is_some();
        self.forget_pauses();
        is_removed
    }

    /// Keeps pauses of what was cancelled from becoming many more than there are others.
    fn forget_pauses(&mut self) {
        if self.paused.len() > 2 * self.held.len + 1_000 {
            let entries = &self.entries;
            self.paused
                .retain(|Reverse((due, id))| is_paused(entries, *id, *due));
        }
    }

    /// Forgets a delivery that has no turn and no lease.
    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        release(&mut self.needed, entry.place.segment, entry.share);
        if let Status::Dead(position) = entry.status {
            self.forget_dead(position);
        }
        self.cached_bytes -= entry.cached.as_ref().map_or(0, |cached| cached.event.len());
        // A backlog that is worked off gives its memory back.
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(2 * self.entries.len() + 1_000);
        }
        Some(entry)
    }

    /// The delivery is kept elsewhere from now on.
    pub(super) fn relocate(&mut self, id: DeliveryId, place: Place, share: u32) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        release(&mut self.needed, entry.place.segment, entry.share);
        (entry.place, entry.share) = (place, share);
        *self.needed.entry(place.segment).or_default() += u64::from(share);
    }

    /// When something is to be done: a delivery may have its turn that has none now, or a dead letter is too old.
    pub(super) fn next_due(&self) -> Option<u64> {
        let paused = self.paused.peek().map(|Reverse((due, _))| *due);
        let oldest = self.dead.first_key_value();
        let too_old = oldest.map(|(_, dead)| dead.at.saturating_add(self.retention.age_max + 1));
        let all = [paused, self.next_expiry, too_old];
        all.into_iter().flatten().min()
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            waiting: self.held.len,
            waiting_bytes: self.held.bytes,
            leased: self.leased.len(),
            dead: self.dead.len(),
        }
    }

    /// The bytes of memory that it takes, but for events.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        // A byte of the table for each place in it.
        let entry = size_of::<(DeliveryId, Entry)>() + 1;
        let paused = self.paused.capacity() * size_of::<Reverse<(u64, DeliveryId)>>();
        self.entries.capacity() * 8 / 7 * entry + self.lanes.memory_bytes() + paused
    }

    fn make_wait(&mut self, id: DeliveryId, now: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.due > now {
            self.paused.push(Reverse((entry.due, id)));
        } else {
            self.lanes.push(&entry.lane, id);
        }
    }

    fn end_pauses(&mut self, now: u64) {
        while let Some(Reverse((due, id))) = self.paused.peek().copied() {
            if due > now {
                return;
            }
            self.paused.pop();
            if is_paused(&self.entries, id, due)
                && let Some(entry) = self.entries.get(&id)
            {
                self.lanes.push(&entry.lane, id);
            }
        }
    }

    fn end_lease(&mut self, lease: &Lease) -> bool {
        let is_held = |out: &&Out| out.epoch == lease.epoch;
        if self.leased.get(&lease.id).filter(is_held).is_none() {
            return false;
        }
        self.leased.remove(&lease.id);
        if let Some(entry) = self.entries.get(&lease.id) {
            self.lanes.end_lease(&entry.lane);
        }
        true
    }
}

/// Whether that still waits for this moment: it may have been cancelled.
fn is_paused(entries: &HashMap<DeliveryId, Entry>, id: DeliveryId, due: u64) -> bool {
    let entry = entries.get(&id);
    entry.is_some_and(|entry| entry.status == Status::Waiting && entry.due == due)
}

fn release(needed: &mut BTreeMap<u32, u64>, segment: u32, bytes: u32) {
    if let Some(left) = needed.get_mut(&segment) {
        *left = left.saturating_sub(u64::from(bytes));
        if *left == 0 {
            needed.remove(&segment);
        }
    }
}

pub(super) fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}
