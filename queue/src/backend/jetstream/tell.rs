//! Tells JetStream what became of the deliveries of a record: what is left of it takes its place, and when all ended it is deleted.
//!
//! Both name the sequence of the record. A node that lost it, because another one took it over and so put another record in its
//! place, changes nothing by that, however late it comes.

use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use bytes::Bytes;
use tokio::time::timeout_at;

use super::Shared;
use super::api::{DELIVERIES, Failed, Fenced, OWNER};
use super::held::{Batch, Kept, Place, record};
use crate::backend::Change;

/// The longest pause between two attempts to tell something.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A record is another node's now, or was deleted by somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost;

/// Who has what this node lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Another session.
    Others,
    /// No record is there.
    Nobodys,
}

/// How far one attempt came.
enum Step {
    Told,
    Lost(Whose),
    /// Nothing was changed, or nobody knows.
    Later(Failed),
}

impl Shared {
    /// Tells what became of a batch; returns when it is told, or lost, or nobody could be told within the time of an operation. It
    /// is told later then.
    pub(super) async fn tell(self: &Arc<Self>, batch: Arc<Batch>) -> Result<(), Lost> {
        let deadline = self.api.deadline();
        let shared = Arc::clone(self);
        let telling = self
            .tasks
            .spawn(async move { shared.tell_all(&batch).await });
        match timeout_at(deadline, telling).await {
            Ok(Ok(told)) => told,
            // It goes on, or the node ends and what waits is taken over.
            Ok(Err(_)) | Err(_) => Ok(()),
        }
    }

    /// As [`Shared::tell`], for as long as it takes.
    pub(super) async fn tell_all(&self, batch: &Arc<Batch>) -> Result<(), Lost> {
        let asked = batch.version();
        // The one that has this tells for all that wait for it.
        let mut kept = batch.kept.lock().await;
        let mut is_in_doubt = false;
        let mut pause = Duration::from_millis(20);
        loop {
            match kept.place {
                Place::Lost => return Err(Lost),
                Place::Ended => return Ok(()),
                _ if kept.version >= asked => return Ok(()),
                Place::Nowhere => return Ok(()),
                Place::At(sequence) => {
                    match self.step(batch, &mut kept, sequence, is_in_doubt).await {
                        Step::Told => return Ok(()),
                        Step::Lost(whose) => {
                            kept.place = Place::Lost;
                            drop(kept);
                            self.lose(batch, whose);
                            return Err(Lost);
                        }
                        Step::Later(failed) => {
                            is_in_doubt |= matches!(failed, Failed::Unknown(_));
                            self.warnings.ends.warn(|more| {
                                tracing::warn!(error = %failed, more, "the end of a delivery can not be told, and is told later");
                            });
                        }
                    }
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(PAUSE_MAX),
            }
        }
    }

    async fn step(
        &self,
        batch: &Arc<Batch>,
        kept: &mut Kept,
        sequence: u64,
        is_in_doubt: bool,
    ) -> Step {
        let version = batch.version();
        let left = self.held().left(batch);
        fault_point!("jetstream.tell.before");
        let done = if left.is_empty() {
            let deleted = self.api.delete(&self.names.held, sequence).await;
            deleted.map(|fenced| match fenced {
                Fenced::Done(()) => Fenced::Done(Place::Ended),
                Fenced::Moved => Fenced::Moved,
            })
        } else {
            let put = self.put(batch, sequence, record(&left).into()).await;
            match put {
                // There is no room to tell it, so it is in memory only, until there is.
                Err(failed) if failed.is_full() => Ok(Fenced::Done(Place::At(sequence))),
                put => put.map(|fenced| match fenced {
                    Fenced::Done(sequence) => Fenced::Done(Place::At(sequence)),
                    Fenced::Moved => Fenced::Moved,
                }),
            }
        };
        match done {
            Ok(Fenced::Done(place)) => {
                fault_point!("jetstream.tell.done");
                (kept.place, kept.version) = (place, version);
                if place == Place::Ended {
                    self.ended(batch, sequence);
                }
                Step::Told
            }
            Ok(Fenced::Moved) => {
                let may_be_ended = left.is_empty() && is_in_doubt;
                self.find(batch, kept, sequence, may_be_ended).await
            }
            Err(failed) => Step::Later(failed),
        }
    }

    /// What became of a record that is not where it was. `may_be_ended`: an attempt to delete it has not been answered.
    async fn find(
        &self,
        batch: &Arc<Batch>,
        kept: &mut Kept,
        sequence: u64,
        may_be_ended: bool,
    ) -> Step {
        let (stream, subject) = (&self.names.held, self.names.batch(batch.key));
        match self.api.last_since(stream, &subject, sequence).await {
            Ok(Some(stored)) if stored.owner == self.session => {
                // An attempt of ours that was not answered came through.
                kept.place = Place::At(stored.sequence);
                let again = "the record was written by an attempt that was not answered";
                Step::Later(Failed::Away(again.to_owned()))
            }
            Ok(None) if may_be_ended => {
                kept.place = Place::Ended;
                self.ended(batch, sequence);
                Step::Told
            }
            Ok(Some(_)) => Step::Lost(Whose::Others),
            Ok(None) => Step::Lost(Whose::Nobodys),
            Err(failed) => Step::Later(failed),
        }
    }

    fn ended(&self, batch: &Arc<Batch>, sequence: u64) {
        let mut held = self.held();
        held.forget(batch);
        held.ended.note(batch.key, sequence);
    }

    /// Puts the record of a batch, in our name, in the place of the one that is expected.
    pub(super) async fn put(
        &self,
        batch: &Batch,
        expected: u64,
        body: Bytes,
    ) -> Result<Fenced<u64>, Failed> {
        let subject = self.names.batch(batch.key);
        let deadline = self.api.deadline();
        let headers = self.headers(batch);
        let put = self
            .api
            .put(&subject, Some(expected), headers, body, deadline);
        put.await
    }

    pub(super) fn headers(&self, batch: &Batch) -> HeaderMap {
        let mut headers = self.owned();
        if !batch.key.is_one {
            headers.insert(DELIVERIES, batch.names());
        }
        headers
    }

    /// The headers of what this session puts.
    pub(super) fn owned(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(OWNER, self.session.as_str());
        headers
    }

    /// Forgets what another node has now. Whoever has a lease of it loses that.
    ///
    /// What is nobody's was taken over and ended, if this node may have been taken for dead. Else nobody could take it over, so
    /// it is not in the books as given up: the next audit tells that it is missing.
    pub(super) fn lose(&self, batch: &Arc<Batch>, whose: Whose) {
        let is_explained = whose == Whose::Others || !self.sessions.is_held();
        let began = {
            let mut held = self.held();
            let (all, began) = held.forget(batch);
            if is_explained {
                held.ledger.note(Change::GivenUp, all);
            }
            self.meters.tell(&mut held);
            began
        };
        if began > 0 {
            self.meters.lost.increment(began as u64);
            self.warnings.taken_over.warn(|more| {
                tracing::warn!(
                    began, more,
                    "another node took deliveries over that run here, as this one gave no sign of life: they are made twice"
                );
            });
        }
        self.changed.notify_one();
    }
}
