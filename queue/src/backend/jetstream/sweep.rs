//! Looks through all that waits in NATS: what no living node has is taken over, and what another one took is forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use rand::seq::SliceRandom;
use tokio::time::timeout_at;

use super::Shared;
use super::api::{Failed, Fenced, Head};
use super::held::{Batch, Place};
use super::session::Standing;
use super::streams::BatchKey;
use super::tell::Whose;
use crate::backend::DeliveryId;
use crate::backend::record::{Put, Record, Row};

/// Records that are taken over at once.
const AT_ONCE: usize = 16;
/// Records that are taken over by one look; there is another one then.
const CLAIMS_MAX: usize = 10_000;

/// A record that is to be taken over.
#[derive(Debug)]
struct Claim {
    key: BatchKey,
    head: Head,
    /// What is to become of it.
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    /// It ended here, and a server that was killed brought it back.
    Ended,
    /// It waits here from now on. `counts`: it may have run.
    Waits { counts: bool },
}

impl Shared {
    /// Looks through all of it once. False when there is more to take over than there is room for.
    pub(super) async fn sweep(&self) -> Result<bool, Failed> {
        let _one = self.sweeping.lock().await;
        let own = self.held().batches.clone();
        let mut claims = Vec::new();
        let mut found = HashMap::with_capacity(own.len());
        let mut is_all = true;
        let mark = self.mark().await?;
        let mut is_behind = mark.is_some();
        let look = |head: Head| {
            is_behind &= Some(head.sequence) != mark;
            let Some(key) = self.names.batch_key(&head.subject) else {
                return;
            };
            let standing = self.sessions.standing(&head.owner);
            let (is_here, has_ended) = {
                let held = self.held();
                let has_ended = held.ended.covers(key, head.sequence);
                (held.batches.contains_key(&key), has_ended)
            };
            let what = match standing {
                Standing::Own if is_here => {
                    found.insert(key, head.sequence);
                    return;
                }
                _ if has_ended => What::Ended,
                Standing::Alive => return,
                // The answer to what put it there was lost, or nobody knows any more that it ended.
                Standing::Own | Standing::Ended => What::Waits { counts: false },
                Standing::Dead => What::Waits { counts: true },
            };
            match claims.len() < CLAIMS_MAX {
                true => claims.push(Claim { key, head, what }),
                false => is_all = false,
            }
        };
        let (stream, subjects) = (&self.names.held, self.names.batches());
        self.api.heads(stream, &subjects, look).await?;
        if let Some(mark) = mark {
            self.api.delete(stream, mark).await?;
        }
        if is_behind {
            let why = "the server that was read has not caught up".to_owned();
            return Err(Failed::Away(why));
        }
        self.check(own, &found).await;
        Ok(self.take_over(claims).await? && is_all)
    }

    /// Any of several servers may be the one whose records are read: one that has caught up has a mark that was put just now. There is
    /// none where one server has all, and where there is no room for it.
    async fn mark(&self) -> Result<Option<u64>, Failed> {
        if self.options.settings.replicas == 1 {
            return Ok(None);
        }
        let (subject, deadline) = (self.names.mark(&self.options.node), self.api.deadline());
        let put = self
            .api
            .put(&subject, None, self.owned(), Bytes::new(), deadline);
        match put.await {
            Ok(Fenced::Done(sequence)) => Ok(Some(sequence)),
            Ok(Fenced::Moved) => Ok(None),
            Err(failed) if failed.is_full() => Ok(None),
            Err(failed) => Err(failed),
        }
    }

    /// Forgets what is not where this node had it.
    async fn check(&self, own: HashMap<BatchKey, Arc<Batch>>, found: &HashMap<BatchKey, u64>) {
        for (key, batch) in own {
            // Whoever writes it now learns by that what became of it.
            let Ok(mut kept) = batch.kept.try_lock() else {
                continue;
            };
            let Place::At(sequence) = kept.place else {
                continue;
            };
            if found.get(&key) == Some(&sequence) {
                continue;
            }
            let (stream, subject) = (&self.names.held, self.names.batch(key));
            match self.api.last_since(stream, &subject, sequence).await {
                Ok(Some(stored)) if stored.owner == self.session => {
                    kept.place = Place::At(stored.sequence);
                }
                Ok(stored) => {
                    kept.place = Place::Lost;
                    drop(kept);
                    let others = stored.map(|_| Whose::Others);
                    self.lose(&batch, others.unwrap_or(Whose::Nobodys));
                }
                Err(failed) => {
                    tracing::debug!(error = %failed, "a record is looked at again later");
                }
            }
        }
    }

    /// Takes these over, as far as there is room; false when there is not, or one was not where it was found: somebody was faster, or
    /// the server that was asked is behind.
    async fn take_over(&self, mut claims: Vec<Claim>) -> Result<bool, Failed> {
        if claims.is_empty() {
            return Ok(true);
        }
        // Nodes that do this at the same time begin at different ends.
        claims.shuffle(&mut rand::rng());
        let claimed = stream::iter(0..claims.len()).map(|index| {
            let claim = &claims[index];
            async move {
                let has_room = self.held().has_room();
                match has_room {
                    true => self.claim(claim).await,
                    false => Ok(None),
                }
            }
        });
        let claimed: Vec<_> = claimed.buffered(AT_ONCE).collect().await;
        let mut from = HashMap::<&str, usize>::new();
        let mut is_all = true;
        let mut failed = None;
        for (claim, outcome) in claims.iter().zip(&claimed) {
            match outcome {
                Ok(Some(_)) => *from.entry(claim.head.owner.as_str()).or_default() += 1,
                Ok(None) => is_all = false,
                Err(error) => failed = Some(error.clone()),
            }
        }
        let deliveries: usize = claimed.iter().flatten().flatten().sum();
        if deliveries > 0 {
            self.meters.taken_over.increment(deliveries as u64);
            tracing::info!(
                deliveries,
                nodes = from.len(),
                "deliveries of nodes that are gone were taken over"
            );
        }
        failed.map_or(Ok(is_all), Err)
    }

    /// Puts a record in the name of this node in place of that of another one; says how many deliveries wait here by that, or nothing
    /// when it is not there.
    async fn claim(&self, claim: &Claim) -> Result<Option<usize>, Failed> {
        let Claim { key, head, what } = claim;
        let held = &self.names.held;
        let What::Waits { counts } = what else {
            self.api.delete(held, head.sequence).await?;
            return Ok(Some(0));
        };
        let Some(stored) = self.api.get(held, head.sequence).await? else {
            return Ok(None);
        };
        let Ok(Record::Put(put)) = Record::read(&stored.body) else {
            tracing::error!(
                subject = head.subject,
                sequence = head.sequence,
                "a record of the queue can not be read: another version wrote it, or something else. It waits until it is deleted by hand"
            );
            return Ok(Some(0));
        };
        let rows = self.rows_left(&put, u32::from(*counts)).await?;
        if rows.is_empty() {
            self.api.delete(held, head.sequence).await?;
            return Ok(Some(0));
        }
        self.give_up(*key).await;
        let put = put.only(rows);
        let ids = put.deliveries.iter().map(|row| row.id.0);
        let batch = Arc::new(Batch::new(*key, ids, Place::Nowhere));
        let mut kept = batch.kept.lock().await;
        let body = Record::Put(put).write();
        fault_point!("jetstream.takeover.before_put");
        let done = self.put(&batch, head.sequence, body.clone().into()).await?;
        let (Fenced::Done(sequence), Ok(Record::Put(put))) = (done, Record::read(&body)) else {
            return Ok(None);
        };
        kept.place = Place::At(sequence);
        fault_point!("jetstream.takeover.put");
        let is_doubled = {
            let mut held = self.held();
            held.batches.insert(*key, Arc::clone(&batch));
            let is_doubled = held.insert_read(&batch, &put, self.clock.now());
            self.meters.tell(&mut held);
            is_doubled
        };
        drop(kept);
        self.changed.notify_one();
        if is_doubled {
            // What is not told by then is found when this node has ended, and made once more.
            let _ = timeout_at(self.api.deadline(), self.tell_all(&batch)).await;
        }
        Ok(Some(put.deliveries.len()))
    }

    /// Forgets what this node had in the place of a record that is another node's. Whoever tells of it comes to an end first: the
    /// record that is put now must not be taken for the one that it means.
    async fn give_up(&self, key: BatchKey) {
        let stale = self.held().batches.get(&key).cloned();
        if let Some(stale) = stale {
            stale.kept.lock().await.place = Place::Lost;
            self.lose(&stale, Whose::Others);
        }
    }

    /// The deliveries of a record that are not dead letters already: whoever had it may have died before it could say so.
    async fn rows_left(&self, put: &Put<'_>, begun: u32) -> Result<Vec<Row>, Failed> {
        let mut rows = Vec::with_capacity(put.deliveries.len());
        for row in &put.deliveries {
            if self.keeps_letter(row.id.0).await? {
                continue;
            }
            rows.push(Row {
                attempts: row.attempts.saturating_add(begun),
                ..row.clone()
            });
        }
        Ok(rows)
    }

    /// Whether there is a letter of a delivery. It is put anew then: whoever wrote it may live, learn that it lost the delivery, and
    /// take back the one that it wrote.
    async fn keeps_letter(&self, id: DeliveryId) -> Result<bool, Failed> {
        let subject = self.names.letter(id);
        while let Some(letter) = self.api.last(&self.names.dead, &subject).await? {
            let (expected, deadline) = (Some(letter.sequence), self.api.deadline());
            let put = self
                .api
                .put(&subject, expected, self.owned(), letter.body, deadline);
            if let Fenced::Done(_) = put.await? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
