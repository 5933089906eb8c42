//! What waits and is leased, as far as a durable queue has it in memory: an entry for each delivery, whose turn it is, and who has a
//! lease. `K` is what a backend has to know besides: where it keeps the delivery.
//!
//! A plain struct without a clock: all moments are microseconds since 1970, given by the caller.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use protocol::Space;

use super::lanes::{Held, LaneKey, Lanes};
use super::{Bound, Delivery, DeliveryId, Error, Lease, Limits, Permits, Stats};

/// One delivery. There may be 100,000 of them, so it is small.
#[derive(Debug)]
pub(super) struct Entry<K> {
    pub(super) lane: LaneKey,
    /// Where it is kept.
    pub(super) kept: K,
    /// What it counts for among what waits.
    pub(super) room: u32,
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
pub(super) struct Taken<K> {
    pub(super) lease: Lease,
    pub(super) kept: K,
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
pub(super) struct Turns<K> {
    pub(super) limits: Limits,
    pub(super) entries: HashMap<DeliveryId, Entry<K>>,
    lanes: Lanes<DeliveryId>,
    held: Held,
    /// What waits for its time, the first one due on top. One that was cancelled meanwhile is passed over.
    paused: BinaryHeap<Reverse<(u64, DeliveryId)>>,
    leased: HashMap<DeliveryId, Out>,
    /// No lease is over before this.
    next_expiry: Option<u64>,
    epoch: u64,
    cached_bytes: usize,
    cached_bytes_max: usize,
}

impl<K> Entry<K> {
    /// Whether it will be needed in memory and is not there.
    pub(super) fn is_worth_reading(&self) -> bool {
        self.status == Status::Waiting && self.cached.is_none()
    }
}

impl<K: Clone> Turns<K> {
    /// Makes an empty one whose leases have greater epochs than those of any before it.
    pub(super) fn new(limits: Limits, cached_bytes_max: usize, now: u64) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            lanes: Lanes::default(),
            held: Held::default(),
            paused: BinaryHeap::new(),
            leased: HashMap::new(),
            next_expiry: None,
            epoch: now,
            cached_bytes: 0,
            cached_bytes_max,
        }
    }

    /// Makes all that was added without a turn wait, in an order that they are given by `rank`.
    pub(super) fn begin<R: Ord>(&mut self, now: u64, rank: impl Fn(&Entry<K>) -> R) {
        let waits = |(_, entry): &(_, &Entry<K>)| entry.status == Status::Waiting;
        let mut waiting: Vec<_> = self.entries.iter().filter(waits).collect();
        waiting.sort_unstable_by_key(|(_, entry)| rank(entry));
        let waiting: Vec<DeliveryId> = waiting.into_iter().map(|(id, _)| *id).collect();
        for id in waiting {
            if let Some(entry) = self.entries.get_mut(&id) {
                // One text for all of a function's.
                entry.lane = self.lanes.shared(&entry.lane);
            }
            self.hold(id);
            self.make_wait(id, now);
        }
    }

    /// Keeps room for these, or for none. It is taken by [`Turns::insert`] or given back by [`Turns::give_back`].
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
    pub(super) fn insert(&mut self, id: DeliveryId, mut entry: Entry<K>, now: u64) {
        let delivery = entry.cached.take();
        self.entries.insert(id, entry);
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

    /// Leases whatever has its turn.
    pub(super) fn take(&mut self, mut permits: Permits, now: u64) -> Vec<Taken<K>> {
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
                kept: entry.kept.clone(),
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
        self.hold(lease.id);
        self.make_wait(lease.id, now);
        true
    }

    /// Makes a delivery wait that has had room elsewhere: it is not refused now, even if others took that meanwhile.
    pub(super) fn insert_anyway(&mut self, id: DeliveryId, entry: Entry<K>, now: u64) {
        let (lane, room) = (entry.lane.clone(), entry.room as usize);
        self.held.add(room);
        self.lanes.hold(&lane, room);
        self.insert(id, entry, now);
    }

    /// Keeps room for one more of this lane; says which bound is passed by that, and keeps none then.
    pub(super) fn admit_one(&mut self, lane: &LaneKey, room: usize) -> Option<Bound> {
        let (held, lanes) = (&mut self.held, &mut self.lanes);
        let refused = self.limits.hold(held, lanes, lane, room)?;
        self.give_back(lane, room);
        Some(refused)
    }

    /// Does not count the last lease of a delivery as an attempt; says how many are left.
    pub(super) fn forget_attempt(&mut self, id: DeliveryId) -> Option<u32> {
        let entry = self.entries.get_mut(&id)?;
        entry.attempts = entry.attempts.saturating_sub(1);
        Some(entry.attempts)
    }

    /// Ends a lease; false when it was lost. The delivery has neither turn nor lease then.
    pub(super) fn end_lease(&mut self, lease: &Lease) -> bool {
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

    /// The leases that are out.
    pub(super) fn leases(&self) -> Vec<Lease> {
        let leases = self.leased.iter().map(|(id, out)| Lease {
            id: *id,
            epoch: out.epoch,
        });
        leases.collect()
    }

    /// Takes the turn or the lease from a delivery; false when it has neither.
    pub(super) fn interrupt(&mut self, id: DeliveryId) -> bool {
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
        true
    }

    /// Forgets a delivery that has no turn and no lease.
    pub(super) fn remove(&mut self, id: DeliveryId) -> Option<Entry<K>> {
        let entry = self.entries.remove(&id)?;
        self.cached_bytes -= entry.cached.as_ref().map_or(0, |cached| cached.event.len());
        // A backlog that is worked off gives its memory back.
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(2 * self.entries.len() + 1_000);
        }
        self.forget_pauses();
        Some(entry)
    }

    /// When a delivery may have its turn that has none now.
    pub(super) fn next_due(&self) -> Option<u64> {
        let paused = self.paused.peek().map(|Reverse((due, _))| *due);
        paused.into_iter().chain(self.next_expiry).min()
    }

    /// The epoch of another lease, or of what comes after all leases so far.
    pub(super) fn next_epoch(&mut self, after: u64) -> u64 {
        self.epoch = self.epoch.max(after) + 1;
        self.epoch
    }

    /// How much there is, but for dead letters.
    /// How many of a space wait.
    pub(super) fn waiting_of(&self, space: &Space) -> usize {
        self.lanes.waiting_of(space)
    }

    pub(super) fn stats(&self) -> Stats {
        Stats {
            waiting: self.held.len,
            waiting_bytes: self.held.bytes,
            leased: self.leased.len(),
            dead: 0,
        }
    }

    /// How many wait or are leased and will have their turn, each counted where it is.
    pub(super) fn count(&self) -> usize {
        let is_open = |entry: &&Entry<K>| !matches!(entry.status, Status::Dead(_));
        let known = self.entries.values().filter(is_open).count();
        let is_paused = |Reverse((due, id)): &&_| is_paused(&self.entries, *id, *due);
        let paused = self.paused.iter().filter(is_paused).count();
        known.min(self.lanes.len() + paused + self.leased.len())
    }

    /// The bytes of memory that it takes, but for events.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        // A byte of the table for each place in it.
        let entry = size_of::<(DeliveryId, Entry<K>)>() + 1;
        let paused = self.paused.capacity() * size_of::<Reverse<(u64, DeliveryId)>>();
        self.entries.capacity() * 8 / 7 * entry + self.lanes.memory_bytes() + paused
    }

    /// Gives a turn to what has its room, now or when its time has come.
    pub(super) fn make_wait(&mut self, id: DeliveryId, now: u64) {
        let Some(entry) = self.entries.get(&id) else {
            return;
        };
        if entry.due > now {
            self.paused.push(Reverse((entry.due, id)));
        } else {
            self.lanes.push(&entry.lane, id);
        }
    }

    fn hold(&mut self, id: DeliveryId) {
        if let Some(entry) = self.entries.get(&id) {
            self.held.add(entry.room as usize);
            self.lanes.hold(&entry.lane, entry.room as usize);
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

    /// Keeps pauses of what was cancelled from becoming many more than there are others.
    fn forget_pauses(&mut self) {
        if self.paused.len() > 2 * self.held.len + 1_000 {
            let entries = &self.entries;
            self.paused
                .retain(|Reverse((due, id))| is_paused(entries, *id, *due));
        }
    }
}

/// Whether that still waits for this moment: it may have been cancelled.
fn is_paused<K>(entries: &HashMap<DeliveryId, Entry<K>>, id: DeliveryId, due: u64) -> bool {
    let entry = entries.get(&id);
    entry.is_some_and(|entry| entry.status == Status::Waiting && entry.due == due)
}

/// A span of time in microseconds.
pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}
