//! How the room of what ended comes back: what is still needed of the oldest segment is written again at the end, then its file
//! is removed.

use std::collections::{BTreeSet, VecDeque};
use std::io;

use super::{Job, Kind, Writer};
use crate::backend::embedded::index::{Index, Status};
use crate::backend::embedded::journal::{self, Unreadable};
use crate::backend::embedded::read::death;
use crate::backend::embedded::record::{Record, Row};
use crate::backend::embedded::segment::Place;

/// Bytes that are moved at once: what is enqueued meanwhile waits for them.
const SLICE_BYTES: u32 = 256 << 10;

/// A release that is going on.
#[derive(Debug)]
pub(super) struct Release {
    moving: Option<Moving>,
    /// Whether there may be more to do.
    is_due: bool,
    /// A segment that can not be read stays.
    stuck: Option<u32>,
}

#[derive(Debug)]
struct Moving {
    segment: u32,
    /// What is needed of it, in order.
    records: VecDeque<Place>,
}

impl Default for Release {
    fn default() -> Self {
        Self {
            moving: None,
            is_due: true,
            stuck: None,
        }
    }
}

impl Release {
    /// Whether there may be more to do, so that there is no time to wait.
    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    /// Forgets what was begun; it is begun again with the next write.
    pub(super) fn abandon(&mut self) {
        (self.moving, self.is_due) = (None, false);
    }
}

impl Writer {
    /// Goes on with a release, or begins one where it is worth it.
    pub(super) fn release(&mut self) -> io::Result<()> {
        if self.release.moving.is_none() {
            self.release.moving = self.worth_it();
        }
        let Some(mut moving) = self.release.moving.take() else {
            self.release.is_due = false;
            return Ok(());
        };
        self.release.is_due = true;
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while bytes < SLICE_BYTES
            && let Some(place) = moving.records.pop_front()
        {
            bytes = bytes.saturating_add(place.bytes);
            match self.moved(place) {
                Ok(job) => jobs.extend(job),
                Err(error) => {
                    self.release.stuck = Some(moving.segment);
                    tracing::error!(%error, "a segment of the queue's journal can not be read, so it is kept; the queue will not open again after a restart until that file is restored");
                    return Ok(());
                }
            }
        }
        let is_over = moving.records.is_empty();
        let segment = moving.segment;
        if is_over {
            jobs.push(Job::of(
                Record::Released(segment).write(),
                Kind::Moved(Vec::new()),
            ));
        } else {
            self.release.moving = Some(moving);
        }
        fault_point!("embedded.release.before");
        self.commit(jobs, true)?;
        if is_over {
            fault_point!("embedded.release.told");
            self.journal.remove(segment)?;
            fault_point!("embedded.release.removed");
        }
        Ok(())
    }

    /// The oldest segment, when nothing of it is needed, or so much of the journal is not that moving the rest pays.
    fn worth_it(&self) -> Option<Moving> {
        let segment = self.journal.oldest()?;
        if self.release.stuck == Some(segment) || !self.again.is_empty() {
            return None;
        }
        let index = self.shared.index();
        let needed: u64 = index.needed.values().sum();
        let is_empty = !index.needed.contains_key(&segment);
        let pays = self.journal.bytes() > 2 * needed + 2 * u64::from(self.journal.segment_bytes());
        (is_empty || pays).then(|| Moving {
            segment,
            records: needed_of(&index, segment),
        })
    }

    /// The record that keeps from now on what this one keeps, as that is now; nothing when all of it ended meanwhile.
    fn moved(&self, place: Place) -> Result<Option<Job>, Unreadable> {
        let gone = || Unreadable::Damaged(place);
        let file = self.shared.segments.file(place.segment).ok_or_else(gone)?;
        let body = journal::read(file.as_ref(), place)?;
        let Ok(Record::Put(put)) = Record::read(&body) else {
            return Err(gone());
        };
        let mut rows = Vec::new();
        let mut dead = Vec::new();
        let index = self.shared.index();
        for row in &put.deliveries {
            let entry = index.entry(row.id.0);
            let Some(entry) = entry.filter(|entry| entry.kept.place == place) else {
                continue;
            };
            if let Status::Dead(position) = entry.status
                && let Some(found) = index.dead.get(&position)
            {
                dead.push((rows.len(), found.text.clone()));
            }
            rows.push(Row {
                attempts: entry.attempts,
                since: entry.since,
                due: entry.due,
                death: None,
                ..row.clone()
            });
        }
        drop(index);
        for (row, text) in dead {
            rows[row].death = Some(death(&self.shared.segments, rows[row].id.0, text)?);
        }
        let moved = rows.iter().map(|row| {
            let position = row.death.as_ref().map(|death| death.position);
            (row.id.0, position)
        });
        let moved: Vec<_> = moved.collect();
        let body = Record::Put(put.only(rows)).write();
        Ok((!moved.is_empty()).then(|| Job::of(body, Kind::Moved(moved))))
    }
}

/// The records of a segment that are needed.
fn needed_of(index: &Index, segment: u32) -> VecDeque<Place> {
    let places = index.turns.entries.values().map(|entry| entry.kept.place);
    let needed: BTreeSet<Place> = places.filter(|place| place.segment == segment).collect();
    needed.into_iter().collect()
}
