//! Dead letters, as far as they are in memory.

use std::sync::Arc;

use bytes::Bytes;
use protocol::Failure;

use super::{Index, Kept, Status, release};
use crate::backend::embedded::record::Death;
use crate::backend::embedded::segment::Place;
use crate::backend::{Bound, DeliveryId, Lease};

/// A dead letter.
#[derive(Debug)]
pub(in super::super) struct Dead {
    pub(in super::super) id: DeliveryId,
    pub(in super::super) at: u64,
    /// The bytes it takes on disk.
    pub(in super::super) bytes: u64,
    pub(in super::super) text: Text,
}

/// Where the reason of a dead letter is.
#[derive(Debug, Clone)]
pub(in super::super) enum Text {
    /// On its way to the disk.
    Memory(Arc<Death>),
    Disk(Place),
}

/// What dead letters may take until the oldest are dropped.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Retention {
    pub(in super::super) len_max: usize,
    pub(in super::super) bytes_max: u64,
    /// In microseconds.
    pub(in super::super) age_max: u64,
}

impl Index {
    /// Ends a lease; the delivery is a dead letter from now on. Nothing when the lease was lost.
    pub(in super::super) fn bury(
        &mut self,
        lease: &Lease,
        now: u64,
        reason: Failure,
        answer: Bytes,
    ) -> Option<Arc<Death>> {
        if !self.turns.end_lease(lease) {
            return None;
        }
        let last = self.dead.last_key_value();
        let last = last.map_or(0, |(last, _)| *last);
        let death = Arc::new(Death {
            // Greater than that of one that is purged already, too, as the epoch has grown since then.
            position: self.turns.next_epoch(last),
            at: now,
            reason,
            answer,
        });
        let text = Text::Memory(Arc::clone(&death));
        self.add_dead(lease.id, &death, text);
        Some(death)
    }

    /// Knows of a dead letter.
    pub(in super::super) fn add_dead(&mut self, id: DeliveryId, death: &Death, text: Text) {
        let Some(entry) = self.turns.entries.get_mut(&id) else {
            return;
        };
        entry.status = Status::Dead(death.position);
        entry.due = 0;
        let bytes =
            u64::from(entry.room) + (death.answer.len() + death.reason.message.len()) as u64;
        let dead = Dead {
            id,
            at: death.at,
            bytes,
            text,
        };
        self.dead_bytes += bytes;
        self.need_text(&dead.text);
        self.dead.insert(death.position, dead);
    }

    /// The reason of a dead letter is on disk.
    pub(in super::super) fn place_text(&mut self, position: u64, place: Place) {
        if let Some(dead) = self.dead.get_mut(&position) {
            let old = std::mem::replace(&mut dead.text, Text::Disk(place));
            self.need_text(&Text::Disk(place));
            self.release_text(&old);
        }
    }

    /// Makes a dead letter wait; false when there is none.
    pub(in super::super) fn redrive(&mut self, id: DeliveryId, now: u64) -> Result<bool, Bound> {
        let Some(entry) = self.turns.entries.get(&id) else {
            return Ok(false);
        };
        let Status::Dead(position) = entry.status else {
            return Ok(false);
        };
        let (lane, room) = (entry.lane.clone(), entry.room as usize);
        if let Some(bound) = self.turns.admit_one(&lane, room) {
            return Err(bound);
        }
        self.forget_dead(position);
        self.revive(id, now);
        self.turns.make_wait(id, now);
        Ok(true)
    }

    /// As a redrive leaves an entry.
    pub(in super::super) fn revive(&mut self, id: DeliveryId, now: u64) {
        if let Some(entry) = self.turns.entries.get_mut(&id) {
            entry.status = Status::Waiting;
            (entry.attempts, entry.since, entry.due) = (0, now, 0);
        }
    }

    /// Makes no dead letter of one that is.
    pub(in super::super) fn disinter(&mut self, id: DeliveryId) {
        if let Some(entry) = self.turns.entries.get_mut(&id)
            && let Status::Dead(position) = entry.status
        {
            entry.status = Status::Waiting;
            self.forget_dead(position);
        }
    }

    /// Forgets a dead letter; false when there is none.
    pub(in super::super) fn purge(&mut self, id: DeliveryId) -> bool {
        match self.turns.entries.get(&id).map(|entry| entry.status) {
            Some(Status::Dead(_)) => self.remove(id).is_some(),
            _ => false,
        }
    }

    /// Drops the oldest dead letters that are beyond what is kept.
    pub(in super::super) fn trim_dead(&mut self, now: u64) -> Vec<DeliveryId> {
        let mut dropped = Vec::new();
        while let Some((_, oldest)) = self.dead.first_key_value() {
            let is_kept = self.dead.len() <= self.retention.len_max
                && self.dead_bytes <= self.retention.bytes_max
                && now.saturating_sub(oldest.at) <= self.retention.age_max;
            let id = oldest.id;
            if is_kept || !self.purge(id) {
                break;
            }
            dropped.push(id);
        }
        dropped
    }

    pub(super) fn forget_dead(&mut self, position: u64) {
        if let Some(dead) = self.dead.remove(&position) {
            self.dead_bytes -= dead.bytes;
            self.release_text(&dead.text);
        }
    }

    fn need_text(&mut self, text: &Text) {
        if let Text::Disk(place) = text {
            self.need(text_of(*place));
        }
    }

    fn release_text(&mut self, text: &Text) {
        if let Text::Disk(place) = text {
            release(&mut self.needed, text_of(*place));
        }
    }
}

/// A reason needs its segment, however long it is.
fn text_of(place: Place) -> Kept {
    Kept { place, share: 1 }
}
