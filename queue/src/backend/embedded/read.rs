//! What comes back from the journal: the deliveries that are leased, and dead letters.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::EmbeddedQueue;
use super::index::{Dead, Index, Taken, Text, micros};
use super::journal::{Segments, Unreadable};
use super::record::{self, Death, Record, Row, moment};
use super::segment::Place;
use super::writer::Shared;
use crate::backend::{DeadLetter, Delivery, DeliveryId, Error, Lease, Leased};

/// A delivery that can not be read from disk is left alone for so long.
const UNREADABLE_PAUSE: Duration = Duration::from_secs(30);

impl EmbeddedQueue {
    /// Reads what is leased and not in memory. What can not be read waits again, for longer.
    pub(super) async fn read(&self, taken: Vec<Taken>) -> Vec<Leased> {
        let wanted = taken.iter().filter(|taken| taken.cached.is_none());
        let wanted: Vec<_> = wanted
            .map(|taken| (taken.kept.place, taken.lease.id))
            .collect();
        let mut read = HashMap::new();
        if !wanted.is_empty() {
            let shared = Arc::clone(&self.shared);
            match tokio::task::spawn_blocking(move || read_all(&shared, wanted)).await {
                Ok(found) => read = found,
                // The runtime ends. The leases do as well, after their time.
                Err(_) => return Vec::new(),
            }
        }
        let now = self.shared.clock.now();
        let leased = taken.into_iter().filter_map(|taken| {
            let delivery = match taken.cached {
                Some(cached) => Ok(cached),
                None => read.remove(&taken.lease.id)?,
            };
            match delivery {
                Ok(delivery) => Some(Leased {
                    lease: taken.lease,
                    delivery,
                    attempts: taken.attempts,
                    age: Duration::from_micros(now.saturating_sub(taken.since)),
                }),
                Err(error) => {
                    self.leave_alone(&taken.lease, &error, now);
                    None
                }
            }
        });
        leased.collect()
    }

    fn leave_alone(&self, lease: &Lease, error: &Unreadable, now: u64) {
        tracing::error!(
            delivery = %lease.id, %error, again_after = ?UNREADABLE_PAUSE,
            "a delivery can not be read from the queue's journal: if it is not the disk, that file is damaged and has to be restored"
        );
        let mut index = self.shared.index();
        index
            .turns
            .wait_again(lease, now + micros(UNREADABLE_PAUSE), now);
        self.shared.meters.tell(&mut index);
    }

    /// Reads these dead letters; those that are gone meanwhile, or can not be read, are left out.
    pub(super) async fn read_dead(&self, found: Vec<Found>) -> Result<Vec<DeadLetter>, Error> {
        let shared = Arc::clone(&self.shared);
        let read = tokio::task::spawn_blocking(move || {
            let read = found
                .into_iter()
                .filter_map(|found| found.read_or_log(&shared));
            read.collect()
        });
        read.await
            .map_err(|_| Error::Unavailable("the node ends".into()))
    }
}

/// What the index has of a dead letter.
#[derive(Debug)]
pub(super) struct Found {
    position: u64,
    id: DeliveryId,
    place: Place,
    attempts: u32,
    text: Text,
}

impl Found {
    pub(super) fn of(index: &Index, position: u64, dead: &Dead) -> Option<Self> {
        let entry = index.entry(dead.id)?;
        Some(Self {
            position,
            id: dead.id,
            place: entry.kept.place,
            attempts: entry.attempts,
            text: dead.text.clone(),
        })
    }

    fn read_or_log(self, shared: &Shared) -> Option<DeadLetter> {
        let read = self.read(shared).or_else(|error| {
            // It may have been moved, and its segment removed, since it was looked up.
            let index = shared.index();
            let dead = index.dead.get(&self.position);
            let Some(found) = dead.and_then(|dead| Self::of(&index, self.position, dead)) else {
                return Ok(None);
            };
            drop(index);
            match found.place == self.place {
                true => Err(error),
                false => found.read(shared),
            }
        });
        read.unwrap_or_else(|error| {
            tracing::error!(delivery = %self.id, %error, "a dead letter can not be read from the queue's journal");
            None
        })
    }

    fn read(&self, shared: &Shared) -> Result<Option<DeadLetter>, Unreadable> {
        let Death {
            at, reason, answer, ..
        } = death(&shared.segments, self.id, self.text.clone())?;
        Ok(Some(DeadLetter {
            position: self.position,
            delivery: delivery(shared, self.id, self.place)?,
            attempts: self.attempts,
            died_at: moment(at),
            reason,
            answer,
        }))
    }
}

/// Reads these deliveries, each record once. What else waits in these records is most often next: it is kept in memory, as far as
/// there is room.
fn read_all(
    shared: &Shared,
    mut wanted: Vec<(Place, DeliveryId)>,
) -> HashMap<DeliveryId, Result<Arc<Delivery>, Unreadable>> {
    wanted.sort_unstable();
    let mut all = HashMap::with_capacity(wanted.len());
    for of_record in wanted.chunk_by(|one, next| one.0 == next.0) {
        let place = of_record[0].0;
        let ids: HashSet<DeliveryId> = of_record.iter().map(|(_, id)| *id).collect();
        for delivery in read_record(shared, place, &ids).unwrap_or_default() {
            let delivery = Arc::new(delivery);
            if ids.contains(&delivery.id) {
                all.insert(delivery.id, Ok(delivery));
            } else {
                shared.index().turns.cache(&delivery);
            }
        }
    }
    for (place, id) in wanted {
        let read = || delivery(shared, id, place).map(Arc::new);
        all.entry(id).or_insert_with(read);
    }
    all
}

fn read_record(
    shared: &Shared,
    place: Place,
    ids: &HashSet<DeliveryId>,
) -> Result<Vec<Delivery>, Unreadable> {
    let body = shared.segments.read(place)?;
    let Ok(Record::Put(put)) = Record::read(&body) else {
        return Err(Unreadable::Damaged(place));
    };
    let index = shared.index();
    let mut ahead = 0;
    let is_wanted = |row: &Row| {
        let entry = index.entry(row.id.0);
        let waits =
            entry.is_some_and(|entry| entry.kept.place == place && entry.is_worth_reading());
        if waits {
            ahead += put.event(row).map_or(0, <[u8]>::len);
        }
        ids.contains(&row.id.0) || waits && index.turns.has_cache_for(ahead)
    };
    Ok(put.deliveries(is_wanted))
}

/// Reads a delivery from the journal.
fn delivery(shared: &Shared, id: DeliveryId, place: Place) -> Result<Delivery, Unreadable> {
    // It may have been moved, and its segment removed, since the place was looked up.
    let body = shared.segments.read(place).or_else(|error| {
        let moved = shared.index().entry(id).map(|entry| entry.kept.place);
        match moved {
            Some(moved) if moved != place => shared.segments.read(moved),
            _ => Err(error),
        }
    })?;
    let found = match Record::read(&body) {
        Ok(Record::Put(put)) => put.deliveries(|row| row.id.0 == id).pop(),
        _ => None,
    };
    found.ok_or(Unreadable::Damaged(place))
}

/// How a delivery died.
pub(super) fn death(segments: &Segments, id: DeliveryId, text: Text) -> Result<Death, Unreadable> {
    match text {
        Text::Memory(death) => Ok(Death::clone(&death)),
        Text::Disk(place) => {
            let body = segments.read(place)?;
            record::death(&body, id).ok_or(Unreadable::Damaged(place))
        }
    }
}
