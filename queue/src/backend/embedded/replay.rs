//! What the records of a journal amount to.

use std::collections::HashSet;

use super::index::{Entry, Index, Kept, Status, Text};
use super::record::{Death, Put, Record, Row};
use super::segment::{Place, RECORD_HEAD_BYTES};
use crate::backend::DeliveryId;
use crate::backend::lanes::LaneKey;
use crate::backend::limits::room_of;

/// An index that is made from records, oldest first.
///
/// A record may tell again what an earlier one told, as what is moved to the end of the journal is told as it was at that moment.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) index: Index,
    /// The names of functions, so that those of 100,000 deliveries are not as many texts.
    lanes: HashSet<LaneKey>,
}

impl Replay {
    pub(super) fn new(index: Index) -> Self {
        Self {
            index,
            lanes: HashSet::new(),
        }
    }

    /// Adds a record; says what is wrong with one that makes no sense.
    pub(super) fn add(&mut self, place: Place, record: Record<'_>) -> Result<(), &'static str> {
        match record {
            Record::Put(put) => return self.put(place, &put),
            Record::Leased(leased) => {
                for (id, attempts) in leased {
                    self.change(id.0, |entry| entry.attempts = attempts);
                }
            }
            Record::Again(id, due) => self.change(id.0, |entry| entry.due = due),
            Record::Ended(id) => {
                self.index.remove(id.0);
            }
            Record::Died(id, death) => self.bury(id.0, place, &death),
            Record::Redriven(id, since) => {
                self.index.disinter(id.0);
                self.index.revive(id.0, since);
            }
            Record::Released(_) | Record::Mark => {}
        }
        Ok(())
    }

    fn put(&mut self, place: Place, put: &Put<'_>) -> Result<(), &'static str> {
        let share = share(place, put.deliveries.len());
        for row in &put.deliveries {
            let event = put.event(row);
            let event = event.ok_or("a delivery has no event")?;
            let lane = self.lane(row);
            let id = row.id.0;
            self.index.remove(id);
            let entry = Entry {
                lane,
                kept: Kept { place, share },
                room: room_of(event),
                attempts: row.attempts,
                status: Status::Waiting,
                since: row.since,
                due: row.due,
                cached: None,
            };
            self.index.add(id, entry);
            if let Some(death) = &row.death {
                self.bury(id, place, death);
            }
        }
        Ok(())
    }

    fn bury(&mut self, id: DeliveryId, place: Place, death: &Death) {
        self.index.disinter(id);
        self.index.add_dead(id, death, Text::Disk(place));
    }

    fn change(&mut self, id: DeliveryId, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.index.turns.entries.get_mut(&id) {
            change(entry);
        }
    }

    fn lane(&mut self, row: &Row) -> LaneKey {
        let key = LaneKey {
            space: row.space.clone(),
            function_id: row.function_id.clone(),
        };
        match self.lanes.get(&key) {
            Some(lane) => lane.clone(),
            None => {
                self.lanes.insert(key.clone());
                key
            }
        }
    }
}

/// What each of so many deliveries has of the bytes of its record.
pub(super) fn share(place: Place, deliveries: usize) -> u32 {
    let deliveries = u32::try_from(deliveries).unwrap_or(u32::MAX).max(1);
    (place.bytes - RECORD_HEAD_BYTES)
        .div_ceil(deliveries)
        .max(1)
}
