//! Dead letters: a stream of their own, one record each, that every node reads, redrives and purges.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::Failure;
use tokio::time::timeout_at;

use super::api::{Failed, Fenced, Stored};
use super::held::{Batch, Place};
use super::streams::BatchKey;
use super::tell::Lost;
use super::{Shared, unavailable};
use crate::backend::record::{Death, Put, Record, moment};
use crate::backend::{Change, DeadLetter, Delivery, DeliveryId, Error, Lease};

/// The longest pause between two attempts to write a dead letter.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The longest text of a reason, in bytes: there is room for it beside the largest event.
const REASON_BYTES_MAX: usize = 4_096;

/// A letter that is there.
#[derive(Debug, Clone, Copy)]
enum Letter {
    /// This node wrote it.
    Own(u64),
    /// Another node did, which has the delivery now.
    Others,
}

impl Shared {
    /// Ends a lease; the delivery is a dead letter.
    pub(super) async fn bury(
        self: &Arc<Self>,
        lease: &Lease,
        reason: Failure,
        answer: Bytes,
    ) -> Result<(), Error> {
        let begun = self.held().begin_to_die(lease);
        let (delivery, batch, attempts) = begun.ok_or(Error::LeaseLost(*lease))?;
        let death = Death {
            position: 0,
            at: self.clock.now(),
            reason,
            answer,
        };
        let body = self.letter(&delivery, attempts, death);
        let deadline = self.api.deadline();
        let (shared, id) = (Arc::clone(self), lease.id);
        let burying = self
            .tasks
            .spawn(async move { shared.bury_all(id, &batch, body).await });
        match timeout_at(deadline, burying).await {
            Ok(Ok(Err(Lost))) => Err(Error::LeaseLost(*lease)),
            // It goes on, or the node ends and what waits is taken over.
            _ => Ok(()),
        }
    }

    /// Writes the letter, then ends the delivery: between the two there are both, and whoever takes that over finds the letter.
    async fn bury_all(&self, id: DeliveryId, batch: &Arc<Batch>, body: Bytes) -> Result<(), Lost> {
        fault_point!("jetstream.death.before_letter");
        let Some(letter) = self.write_letter(id, body).await else {
            return Ok(());
        };
        fault_point!("jetstream.death.written");
        let is_ours = self.held().died(id, matches!(letter, Letter::Own(_)));
        let told = match is_ours {
            true => self.tell_all(batch).await,
            false => Err(Lost),
        };
        fault_point!("jetstream.death.told");
        if let (Err(Lost), Letter::Own(sequence)) = (told, letter) {
            self.take_back(id, sequence, is_ours).await;
        }
        self.meters.tell(&mut self.held());
        told
    }

    /// Writes a letter where there is none, however long that takes; nothing when the node ends before.
    async fn write_letter(&self, id: DeliveryId, body: Bytes) -> Option<Letter> {
        let subject = self.names.letter(id);
        let mut pause = Duration::from_millis(20);
        loop {
            match self.try_to_write(&subject, body.clone()).await {
                Ok(Some(letter)) => return Some(letter),
                Ok(None) => {}
                Err(failed) => self.warnings.dead_letters.warn(|more| {
                    tracing::warn!(delivery = %id, error = %failed, more, "a dead letter can not be written, and is written later");
                }),
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    async fn try_to_write(&self, subject: &str, body: Bytes) -> Result<Option<Letter>, Failed> {
        let (headers, deadline) = (self.owned(), self.api.deadline());
        let put = self.api.put(subject, Some(0), headers, body, deadline);
        if let Fenced::Done(sequence) = put.await? {
            return Ok(Some(Letter::Own(sequence)));
        }
        let found = self.api.last(&self.names.dead, subject).await?;
        Ok(found.map(|found| match found.owner == self.session {
            // An attempt of ours that was not answered came through.
            true => Letter::Own(found.sequence),
            false => Letter::Others,
        }))
    }

    /// Deletes a letter of a delivery that another node has, which will say how it ended, unless that node found the letter first.
    async fn take_back(&self, id: DeliveryId, letter: u64, is_counted: bool) {
        match self.api.delete(&self.names.dead, letter).await {
            Ok(Fenced::Done(())) if is_counted => {
                let mut held = self.held();
                held.dead_changes();
                held.dead_changed(-1);
            }
            Ok(_) => {}
            Err(failed) => {
                tracing::warn!(delivery = %id, error = %failed, "there is a dead letter of a delivery that another node has");
            }
        }
    }

    /// A letter that NATS takes: what a function answered is cut where it would not.
    fn letter(&self, delivery: &Delivery, attempts: u32, mut death: Death) -> Bytes {
        let mut reason = death.reason.message.len().min(REASON_BYTES_MAX);
        while !death.reason.message.is_char_boundary(reason) {
            reason -= 1;
        }
        death.reason.message.truncate(reason);
        let write = |death: &Death| {
            let mut put = Put::accepted(std::slice::from_ref(delivery), 0);
            for row in &mut put.deliveries {
                row.attempts = attempts;
                row.death = Some(death.clone());
            }
            Record::Put(put).write()
        };
        let body = write(&death);
        let over = body.len().saturating_sub(self.record_bytes_max());
        if over == 0 {
            return body.into();
        }
        let kept = death.answer.len().saturating_sub(over);
        death.answer.truncate(kept);
        write(&death).into()
    }

    /// The dead letters after this position.
    pub(super) async fn letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let mut letters = Vec::new();
        let (stream, subjects) = (&self.names.dead, self.names.letters());
        let mut from = after.saturating_add(1);
        while letters.len() < max {
            let next = self.api.next(stream, &subjects, from);
            let Some(stored) = next.await.map_err(unavailable)? else {
                break;
            };
            from = stored.sequence + 1;
            letters.extend(read(&stored));
        }
        Ok(letters)
    }

    /// The dead letter of that name, and where it is.
    pub(super) async fn find_letter(&self, id: DeliveryId) -> Result<Option<Stored>, Error> {
        let subject = self.names.letter(id);
        let found = self.api.last(&self.names.dead, &subject).await;
        found.map_err(unavailable)
    }

    /// Makes a dead letter wait here: first there is a record of it, then the letter is deleted. Of two nodes that do so at once, the
    /// one that deletes it has it.
    pub(super) async fn redrive(self: &Arc<Self>, id: DeliveryId) -> Result<bool, Error> {
        let Some(stored) = self.find_letter(id).await? else {
            return Ok(false);
        };
        let Some(DeadLetter { delivery, .. }) = read(&stored) else {
            return Ok(false);
        };
        let delivery = Delivery {
            not_before: None,
            ..delivery
        };
        let deliveries = vec![delivery];
        let key = BatchKey { id, is_one: true };
        let batch = Arc::new(Batch::new(key, [id], Place::Nowhere));
        let lanes = {
            let mut held = self.held();
            if held.batches.contains_key(&key) {
                // It is being redriven, or was.
                return Ok(false);
            }
            let lanes = held.turns.admit(&deliveries)?;
            held.batches.insert(key, Arc::clone(&batch));
            held.dead_changes();
            lanes
        };
        let shared = Arc::clone(self);
        let redriving = self.tasks.spawn(async move {
            let now = shared.clock.now();
            let body = Record::Put(Put::accepted(&deliveries, now)).write();
            let mut kept = batch.kept.lock().await;
            let moved = shared.exchange(&batch, body.into(), stored.sequence).await;
            let mut held = shared.held();
            match moved {
                Ok(Some(sequence)) => {
                    kept.place = Place::At(sequence);
                    let redriven = (Change::Redriven, now);
                    held.insert(&batch, deliveries, lanes, now.., redriven);
                    held.dead_changed(-1);
                }
                Ok(None) | Err(_) => {
                    held.dead_changed(0);
                    held.forget(&batch);
                    for (lane, room) in &lanes {
                        held.turns.give_back(lane, *room);
                    }
                }
            }
            shared.meters.tell(&mut held);
            drop(held);
            shared.changed.notify_one();
            moved.map(|moved| moved.is_some())
        });
        redriving
            .await
            .unwrap_or_else(|_| Err(unavailable("the node ends")))
    }

    /// Puts a record and deletes the letter; where the record is now, or nothing when somebody else was faster.
    async fn exchange(
        &self,
        batch: &Batch,
        body: Bytes,
        letter: u64,
    ) -> Result<Option<u64>, Error> {
        let put = self.put(batch, 0, body).await;
        let sequence = match put {
            Ok(Fenced::Done(sequence)) => sequence,
            Ok(Fenced::Moved) => return Ok(None),
            Err(failed) => return Err(self.not_put(failed)),
        };
        fault_point!("jetstream.redrive.put");
        match self.api.delete(&self.names.dead, letter).await {
            Ok(Fenced::Done(())) => {
                fault_point!("jetstream.redrive.deleted");
                Ok(Some(sequence))
            }
            Ok(Fenced::Moved) => {
                let deleted = self.api.delete(&self.names.held, sequence).await;
                deleted.map_err(unavailable)?;
                Ok(None)
            }
            Err(failed) => {
                // Whichever of the two is there decides, when this is looked through next.
                self.sweep.notify_one();
                Err(unavailable(failed))
            }
        }
    }

    /// Forgets a dead letter.
    pub(super) async fn purge(&self, id: DeliveryId) -> Result<bool, Error> {
        let Some(stored) = self.find_letter(id).await? else {
            return Ok(false);
        };
        self.held().dead_changes();
        fault_point!("jetstream.purge.before");
        let deleted = self.api.delete(&self.names.dead, stored.sequence).await;
        fault_point!("jetstream.purge.done");
        let is_purged = deleted.map(|deleted| deleted == Fenced::Done(()));
        let mut held = self.held();
        held.dead_changed(if is_purged == Ok(true) { -1 } else { 0 });
        self.meters.tell(&mut held);
        is_purged.map_err(unavailable)
    }
}

/// Reads a letter; one that can not be read is told and left alone.
pub(super) fn read(stored: &Stored) -> Option<DeadLetter> {
    let letter = || {
        let Ok(Record::Put(put)) = Record::read(&stored.body) else {
            return None;
        };
        let delivery = put.deliveries(|_| true).pop()?;
        let row = put.deliveries.into_iter().next()?;
        let death = row.death?;
        Some(DeadLetter {
            position: stored.sequence,
            delivery,
            attempts: row.attempts,
            died_at: moment(death.at),
            reason: death.reason,
            answer: death.answer,
        })
    };
    let letter = letter();
    if letter.is_none() {
        tracing::error!(
            subject = stored.subject,
            sequence = stored.sequence,
            "a dead letter can not be read: another version wrote it, or something else"
        );
    }
    letter
}
