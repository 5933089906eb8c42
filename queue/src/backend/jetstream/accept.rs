//! Takes deliveries into their stream: what was accepted is in NATS when its caller hears of it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use super::api::{Failed, Fenced};
use super::held::{Batch, Place};
use super::streams::BatchKey;
use super::{Shared, unavailable};
use crate::backend::lanes::LaneKey;
use crate::backend::record::{self, Put, Record};
use crate::backend::{Bound, Change, Delivery, Error};

/// What a delivery takes in the header of its record.
const NAME_BYTES: usize = 37;

impl Shared {
    /// Takes all of these or none, but for those that this node holds already.
    pub(super) async fn enqueue(
        self: &Arc<Self>,
        mut deliveries: Vec<Delivery>,
    ) -> Result<(), Error> {
        {
            let held = self.held();
            deliveries.retain(|delivery| !held.holds(delivery.id));
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let shared = Arc::clone(self);
        let now = shared.clock.now();
        let body = Bytes::from(Record::Put(Put::accepted(&deliveries, now)).write());
        let lanes = shared.held().turns.admit(&deliveries)?;
        let in_flight = Arc::clone(&self.in_flight);
        // A caller that goes away leaves nothing half done.
        let accepting = self.tasks.spawn(async move {
            let deadline = shared.api.deadline();
            let permit = timeout_at(deadline, in_flight.acquire_owned()).await;
            let accepted = match permit {
                Ok(Ok(_permit)) => shared.accept(&deliveries, body, deadline).await,
                _ => Err(shared.busy()),
            };
            shared.conclude(accepted, deliveries, lanes, now).await
        });
        accepting
            .await
            .unwrap_or_else(|_| Err(unavailable("the node ends")))
    }

    /// Puts what was accepted into its stream; nothing where the same is on its way there already, and came there.
    async fn accept(
        &self,
        deliveries: &[Delivery],
        body: Bytes,
        deadline: Instant,
    ) -> Result<Option<Arc<Batch>>, Error> {
        self.api.connected(deadline).await.map_err(unavailable)?;
        // Beside the events there are the names of the deliveries.
        let (bytes, max) = (
            body.len() + NAME_BYTES * deliveries.len(),
            self.record_bytes_max(),
        );
        if bytes > max {
            return Err(Error::TooLarge { bytes, max });
        }
        if self.sessions.is_ended() {
            return Err(unavailable("the node ends"));
        }
        let Some(first) = deliveries.first() else {
            return Err(unavailable("there is nothing to enqueue"));
        };
        let key = BatchKey {
            id: first.id,
            is_one: deliveries.len() == 1,
        };
        let ids = deliveries.iter().map(|delivery| delivery.id);
        let batch = Arc::new(Batch::new(key, ids, Place::Nowhere));
        let mut kept = batch.kept.lock().await;
        let other = {
            let mut held = self.held();
            let other = held.batches.get(&key).cloned();
            if other.is_none() {
                held.batches.insert(key, Arc::clone(&batch));
            }
            other
        };
        if let Some(other) = other {
            return self.is_there(&other, deliveries, deadline).await;
        }
        fault_point!("jetstream.accept.before_put");
        match self.put_new(&batch, body, deadline).await {
            Ok(sequence) => kept.place = Place::At(sequence),
            Err(failed) => {
                self.held().forget(&batch);
                // It may come through all the same: then it is found, and delivered.
                self.sweep.notify_one();
                return Err(self.not_put(failed));
            }
        }
        fault_point!("jetstream.accept.put");
        drop(kept);
        Ok(Some(batch))
    }

    /// Waits until the record of the same name is in its stream, with all of these.
    async fn is_there(
        &self,
        other: &Batch,
        deliveries: &[Delivery],
        deadline: Instant,
    ) -> Result<Option<Arc<Batch>>, Error> {
        let id = other.key.id;
        let waits = || unavailable(format!("delivery {id} is on its way already"));
        let kept = timeout_at(deadline, other.kept.lock()).await;
        let is_there = kept.is_ok_and(|kept| matches!(kept.place, Place::At(_) | Place::Ended));
        match is_there && deliveries.iter().all(|delivery| other.has(delivery.id)) {
            true => Ok(None),
            false => Err(waits()),
        }
    }

    /// Puts a record that is new. One whose answer is lost is put again, which does nothing if it was there.
    async fn put_new(&self, batch: &Batch, body: Bytes, deadline: Instant) -> Result<u64, Failed> {
        let subject = self.names.batch(batch.key);
        let half = Instant::now() + deadline.saturating_duration_since(Instant::now()) / 2;
        let mut failed = Failed::Away(format!("{} refused a record twice", self.api.servers()));
        for until in [half, deadline] {
            let headers = self.headers(batch);
            let put = self
                .api
                .put(&subject, Some(0), headers, body.clone(), until);
            match put.await {
                Ok(Fenced::Done(sequence)) => return Ok(sequence),
                Ok(Fenced::Moved) => {
                    let Ok(found) = self.api.last(&self.names.held, &subject).await else {
                        return Err(failed);
                    };
                    let own = found.filter(|stored| stored.owner == self.session);
                    return own.map(|stored| stored.sequence).ok_or(failed);
                }
                Err(unknown @ Failed::Unknown(_)) => failed = unknown,
                // What became of the first attempt is not known any better.
                Err(_) if matches!(failed, Failed::Unknown(_)) => return Err(failed),
                Err(failed) => return Err(failed),
            }
        }
        Err(failed)
    }

    /// Makes what was accepted wait, or gives its room back.
    async fn conclude(
        self: &Arc<Self>,
        accepted: Result<Option<Arc<Batch>>, Error>,
        deliveries: Vec<Delivery>,
        lanes: Vec<(LaneKey, usize)>,
        now: u64,
    ) -> Result<(), Error> {
        let mut doubled = None;
        {
            let mut held = self.held();
            if let Ok(Some(batch)) = &accepted {
                let since = record::since(now);
                let accepted = (Change::Accepted, self.clock.now());
                if held.insert(batch, deliveries, lanes, since, accepted) {
                    doubled = Some(Arc::clone(batch));
                }
            } else {
                for (lane, room) in &lanes {
                    held.turns.give_back(lane, *room);
                }
            }
            self.meters.tell(&mut held);
        }
        self.changed.notify_one();
        fault_point!("jetstream.accept.held");
        if let Some(batch) = doubled {
            // Whether it is another node's by now makes no difference to whoever enqueued.
            let _ = self.tell(batch).await;
        }
        accepted.map(|_| ())
    }

    /// Why a record could not be put, for whoever wanted it.
    pub(super) fn not_put(&self, failed: Failed) -> Error {
        match failed {
            failed if failed.is_full() => Error::Full(Bound::Storage(format!(
                "stream {} of {} holds what all nodes accepted (queue.jetstream.len_max, queue.jetstream.bytes_max): {failed}",
                self.names.held,
                self.api.servers()
            ))),
            Failed::Unknown(why) => Error::MayBeTaken(why),
            failed => unavailable(failed),
        }
    }

    fn busy(&self) -> Error {
        unavailable(format!(
            "{} events are on their way to {} already (queue.jetstream.in_flight_max)",
            self.options.settings.in_flight_max,
            self.api.servers()
        ))
    }
}
