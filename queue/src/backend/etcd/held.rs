//! What a node holds, in its memory: whose turn it is, and what of it is to be told to etcd.
//!
//! A plain struct without a clock and without etcd: it says which operations are due.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::keys::{Keys, SessionId};
use super::transaction::Op;
use crate::backend::lanes::LaneKey;
use crate::backend::limits::room_of;
use crate::backend::record::{Death, Put, micros as wall_micros};
use crate::backend::turns::{Entry, Status, Turns};
use crate::backend::{Delivery, DeliveryId, Lease, Limits};
use bytes::Bytes;
use protocol::Failure;

mod change;
#[cfg(test)]
mod tests;

use change::{Change, Letter, Place};
pub(super) use change::{Progress, Room, Told, left_of};

/// Where a delivery is kept: a place in a batch. Its event stays in memory, which is bounded by the bytes that may wait.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) batch: u64,
    pub(super) place: u32,
    pub(super) delivery: Arc<Delivery>,
}

/// Deliveries that are kept together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) number: u64,
    pub(super) entries: Vec<(DeliveryId, Entry<Spot>)>,
}

/// A delivery that is on its way to others, alone in its batch.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) id: DeliveryId,
    pub(super) entry: Entry<Spot>,
}

/// All that a node holds under one session.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) turns: Turns<Spot>,
    batches: HashMap<u64, Open>,
    /// The batches of which something is to be told, oldest first.
    untold: VecDeque<u64>,
    next_batch: u64,
    /// The numbers of what somebody waits for until it is told.
    awaited: BTreeSet<u64>,
    next_awaited: u64,
    last_position: u64,
    /// Dead letters that are not told yet.
    dying: usize,
    /// What is on its way to others.
    giving: HashSet<DeliveryId>,
}

/// A batch of which some deliveries have not ended.
#[derive(Debug)]
struct Open {
    left: usize,
    untold: Vec<(u32, Change)>,
}

impl Batch {
    /// Deliveries that are accepted now, with the lanes that have room for them.
    pub(super) fn accepted(
        number: u64,
        deliveries: Vec<Delivery>,
        lanes: Vec<(LaneKey, usize)>,
        since: impl Iterator<Item = u64>,
    ) -> Self {
        let all = (0..).zip(deliveries.into_iter().zip(lanes)).zip(since);
        let entries = all.map(|((place, (delivery, (lane, _))), since)| {
            let due = delivery.not_before.map_or(0, wall_micros);
            entry(number, place, delivery, lane, (since, due, 0))
        });
        Self {
            number,
            entries: entries.collect(),
        }
    }

    /// What another node held.
    pub(super) fn read(number: u64, put: &Put<'_>) -> Self {
        let all = (0..).zip(put.deliveries(|_| true).into_iter().zip(&put.deliveries));
        let entries = all.map(|(place, (delivery, row))| {
            let lane = LaneKey::of(&delivery);
            entry(
                number,
                place,
                delivery,
                lane,
                (row.since, row.due, row.attempts),
            )
        });
        Self {
            number,
            entries: entries.collect(),
        }
    }
}

fn entry(
    batch: u64,
    place: u32,
    delivery: Delivery,
    lane: LaneKey,
    (since, due, attempts): (u64, u64, u32),
) -> (DeliveryId, Entry<Spot>) {
    let id = delivery.id;
    let entry = Entry {
        lane,
        room: room_of(&delivery.event),
        kept: Spot {
            batch,
            place,
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

impl Held {
    pub(super) fn new(limits: Limits, now: u64) -> Self {
        Self {
            turns: Turns::new(limits, 0, now),
            batches: HashMap::new(),
            untold: VecDeque::new(),
            next_batch: 0,
            awaited: BTreeSet::new(),
            next_awaited: 0,
            last_position: 0,
            dying: 0,
            giving: HashSet::new(),
        }
    }

    /// The number of the next batch.
    pub(super) fn number(&mut self) -> u64 {
        self.next_batch += 1;
        self.next_batch
    }

    /// Makes the deliveries of a batch wait; says how many are new. Those that have no room yet get it, whatever the bounds are.
    pub(super) fn insert(&mut self, batch: Batch, has_room: bool, now: u64) -> usize {
        let mut new = 0;
        let open = Open {
            left: batch.entries.len(),
            untold: Vec::new(),
        };
        self.batches.insert(batch.number, open);
        for (id, entry) in batch.entries {
            if self.turns.entries.contains_key(&id) {
                // Enqueued twice, here or on another node, by whoever did not know whether it was; one of them is enough.
                if has_room {
                    self.turns.give_back(&entry.lane, entry.room as usize);
                }
                self.close(&entry.kept, Change::Ended { awaited: None });
                continue;
            }
            new += 1;
            match has_room {
                true => self.turns.insert(id, entry, now),
                false => self.turns.insert_anyway(id, entry, now),
            }
        }
        new
    }

    /// How many deliveries it holds, each of which will have its turn or is on its way to others.
    pub(super) fn len(&self) -> usize {
        self.turns.count() + self.giving.len()
    }

    /// How many of them are in each batch, but for those that are on their way to others.
    pub(super) fn by_batch(&self) -> HashMap<u64, usize> {
        let mut batches = HashMap::new();
        for entry in self.turns.entries.values() {
            *batches.entry(entry.kept.batch).or_default() += 1;
        }
        batches
    }

    /// Ends a lease and the delivery with it; false when the lease was lost.
    pub(super) fn end(&mut self, lease: &Lease) -> bool {
        self.turns.end_lease(lease) && self.forget(lease.id, None).is_some()
    }

    /// Ends a lease; the delivery waits until `due`. False when the lease was lost.
    pub(super) fn again(&mut self, lease: &Lease, due: u64, counts: bool, now: u64) -> bool {
        if !self.turns.wait_again(lease, due, now) {
            return false;
        }
        if !counts {
            self.turns.forget_attempt(lease.id);
        }
        if let Some(entry) = self.turns.entries.get(&lease.id) {
            let progress = Progress {
                attempts: entry.attempts,
                due,
                is_ended: false,
            };
            let (batch, place) = (entry.kept.batch, entry.kept.place);
            self.note(batch, place, Change::Progress(progress));
        }
        true
    }

    /// Ends a lease; the delivery is a dead letter from now on. False when the lease was lost.
    pub(super) fn bury(&mut self, lease: &Lease, now: u64, reason: Failure, answer: Bytes) -> bool {
        if !self.turns.end_lease(lease) {
            return false;
        }
        let Some(entry) = self.turns.remove(lease.id) else {
            return false;
        };
        self.last_position = now.max(self.last_position + 1);
        let death = Death {
            position: self.last_position,
            at: now,
            reason,
            answer,
        };
        let letter = Letter::write(&entry, death);
        let awaited = self.await_next();
        self.dying += 1;
        self.close(&entry.kept, Change::Died { letter, awaited });
        true
    }

    /// Ends a delivery that waits or is leased; nothing when there is none, else the number to wait for.
    pub(super) fn cancel(&mut self, id: DeliveryId) -> Option<u64> {
        if !self.turns.interrupt(id) {
            return None;
        }
        let awaited = self.await_next();
        self.forget(id, Some(awaited)).map(|()| awaited)
    }

    /// Whether a delivery is on its way to others.
    pub(super) fn is_giving(&self, id: DeliveryId) -> bool {
        self.giving.contains(&id)
    }

    /// Takes out some of what might be leased since this moment, oldest first. It is back with [`Held::take_back`], or gone with
    /// [`Held::gave`].
    pub(super) fn give(&mut self, waits_since: u64, max: usize) -> Vec<Given> {
        let is_alone = |spot: &Spot| {
            let open = self.batches.get(&spot.batch);
            open.is_some_and(|open| open.left == 1 && open.untold.is_empty())
        };
        let waits = |entry: &Entry<Spot>| {
            entry.status == Status::Waiting && entry.since.max(entry.due) <= waits_since
        };
        let entries = self.turns.entries.iter();
        let given = entries.filter(|(_, entry)| waits(entry) && is_alone(&entry.kept));
        let mut given: Vec<_> = given.map(|(id, entry)| (entry.since, *id)).collect();
        given.sort_unstable();
        given.truncate(max);
        let given = given.into_iter().filter_map(|(_, id)| {
            let entry = self.turns.interrupt(id).then(|| self.turns.remove(id))??;
            self.giving.insert(id);
            Some(Given { id, entry })
        });
        given.collect()
    }

    /// Others did not get it: it waits again.
    pub(super) fn take_back(&mut self, given: Given) {
        self.giving.remove(&given.id);
        let now = given.entry.due;
        self.turns.insert_anyway(given.id, given.entry, now);
    }

    /// It is not held here any more.
    pub(super) fn gave(&mut self, given: &Given) {
        self.giving.remove(&given.id);
        self.batches.remove(&given.entry.kept.batch);
    }

    /// Makes all that is leased wait, as its attempts ended by themselves.
    pub(super) fn end_leases(&mut self, now: u64) {
        for lease in self.turns.leases() {
            self.again(&lease, now, true, now);
        }
    }

    /// The number of what comes next: all that is before it has been changed by now.
    pub(super) fn until_now(&self) -> u64 {
        self.next_awaited
    }

    /// Whether all is told that somebody waits for and that comes before this number.
    pub(super) fn is_told_before(&self, number: u64) -> bool {
        self.awaited.first().is_none_or(|first| *first >= number)
    }

    /// Dead letters that are not told yet.
    pub(super) fn dying(&self) -> usize {
        self.dying
    }

    /// Whether something is to be told.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Takes out what is to be told next, as much as there is room for.
    pub(super) fn tell(
        &mut self,
        keys: &Keys,
        session: SessionId,
        told: &mut Told,
        room: &mut Room,
    ) {
        while !told.is_split
            && let Some(number) = self.untold.front().copied()
        {
            let Some(open) = self.batches.get_mut(&number) else {
                self.untold.pop_front();
                continue;
            };
            let place = |is_over| Place {
                keys,
                session,
                number,
                is_over,
            };
            if open.left == 0 {
                let mut ops = open.ops(&place(true));
                ops.push(Op::DeleteAll(keys.whole_batch(session, number)));
                if room.take(&ops) {
                    told.add(ops, open.untold.drain(..));
                    self.batches.remove(&number);
                    self.untold.pop_front();
                    continue;
                }
                if !room.is_empty {
                    return;
                }
                // Too much for any transaction: first what became of each, and in a later one the end of the batch.
                told.is_split = true;
            }
            while let Some((at, change)) = open.untold.last() {
                let ops = change.ops(&place(false), *at);
                if !room.take(&ops) {
                    return;
                }
                told.add(ops, open.untold.pop());
            }
            if open.left == 0 {
                return;
            }
            self.untold.pop_front();
        }
    }

    /// That has been told.
    pub(super) fn was_told(&mut self, told: &Told) {
        for number in &told.awaited {
            self.awaited.remove(number);
        }
        self.dying -= told.dead;
    }

    fn forget(&mut self, id: DeliveryId, awaited: Option<u64>) -> Option<()> {
        let entry = self.turns.remove(id)?;
        self.close(&entry.kept, Change::Ended { awaited });
        Some(())
    }

    fn close(&mut self, spot: &Spot, change: Change) {
        if let Some(open) = self.batches.get_mut(&spot.batch) {
            open.left -= 1;
        }
        self.note(spot.batch, spot.place, change);
    }

    fn note(&mut self, number: u64, place: u32, change: Change) {
        let Some(open) = self.batches.get_mut(&number) else {
            return;
        };
        let is_new = open.untold.is_empty();
        // Of two changes of one delivery the later one counts.
        open.untold.retain(|(other, _)| *other != place);
        open.untold.push((place, change));
        if is_new {
            self.untold.push_back(number);
        }
    }

    fn await_next(&mut self) -> u64 {
        let number = self.next_awaited;
        self.awaited.insert(number);
        self.next_awaited += 1;
        number
    }
}

impl Open {
    fn ops(&self, place: &Place<'_>) -> Vec<Op> {
        let changes = self.untold.iter();
        changes
            .flat_map(|(at, change)| change.ops(place, *at))
            .collect()
    }
}
