//! One attempt: claims a slot in the store, has it queued, and notes that in the store.
//!
//! A node that dies in between leaves its claim, and another one does the same again: what is queued has the same names then. So no slot
//! is lost, and only one whose node died after it was queued is queued once more.

use std::sync::Arc;
use std::time::Duration;

use config::Store;
use config::recurring::{Due, Recurring};
use config::store::{Error as StoreError, Precondition, Transaction, Write};
use metrics::{Counter, Histogram};
use protocol::{Effect, Generation, NodeId};
use tokio::time::Instant;

use super::progress::{Claim, Fired, PROGRESS_PREFIX, Progress};
use super::state::{Attempt, Ended, Known, What, slots_between};
use super::{Fire, Slot};
use crate::registry_cache::SCHEDULES_PREFIX;

/// A claim that took longer than this is made anew before anything is queued: others may count this node as dead meanwhile. Once is
/// enough, lest a store that is slow keeps all from being fired.
const CLAIM_FRESH: Duration = Duration::from_secs(1);

/// Makes attempts.
#[derive(Debug)]
pub(super) struct Firing {
    pub(super) store: Arc<dyn Store>,
    pub(super) fire: Arc<dyn Fire>,
    pub(super) node: NodeId,
    pub(super) node_name: Arc<str>,
    pub(super) generation: Generation,
    /// How long the queue may take.
    pub(super) queue_timeout: Duration,
    pub(super) counted_max: usize,
    pub(super) meters: Meters,
    pub(super) trouble: std::sync::Mutex<Trouble>,
}

/// What goes wrong, perhaps again and again.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    store: Recurring,
    queue: Recurring,
}

/// What is counted.
pub(super) struct Meters {
    fired: Counter,
    missed: Counter,
    store: Counter,
    queue: Counter,
    late: Histogram,
}

impl Meters {
    /// Looks the handles up: the recorder must be installed by then.
    pub(super) fn new() -> Self {
        let slots = |outcome: &'static str| metrics::counter!("hearth_schedule_slots_total", "outcome" => outcome);
        let failures = |reason: &'static str| metrics::counter!("hearth_schedule_failures_total", "reason" => reason);
        Self {
            fired: slots("fired"),
            missed: slots("missed"),
            store: failures("store"),
            queue: failures("queue"),
            late: metrics::histogram!("hearth_schedule_late_seconds"),
        }
    }
}

impl Firing {
    /// Makes one attempt.
    pub(super) async fn attempt(&self, attempt: &Attempt) -> Ended {
        let ended = match attempt.what {
            What::Begin(until_ms) => self.begin(attempt, until_ms).await,
            What::Fire { slot_ms } => self.fire(attempt, slot_ms).await,
            What::Settle { slot_ms } => match &attempt.before {
                Some(claimed) => {
                    self.settle(attempt, claimed.clone(), slot_ms, Duration::ZERO)
                        .await
                }
                None => Ended::Lost,
            },
        };
        if !matches!(ended, Ended::Away | Ended::Queued { .. }) {
            self.store_answers();
        }
        ended
    }

    async fn begin(&self, attempt: &Attempt, until_ms: u64) -> Ended {
        let progress = Progress {
            until_ms,
            claim: None,
            fired: None,
        };
        match self
            .commit(attempt, attempt.before.as_ref(), progress)
            .await
        {
            Ok(known) => Ended::Stored(known),
            Err(ended) => ended,
        }
    }

    async fn fire(&self, attempt: &Attempt, slot_ms: u64) -> Ended {
        let Some(before) = &attempt.before else {
            return Ended::Lost;
        };
        let begun = Instant::now();
        let claimed = Progress {
            until_ms: slot_ms,
            claim: Some(Claim {
                node: self.node.clone(),
                generation: self.generation,
                at_ms: attempt.now_ms,
            }),
            fired: before.progress.fired.clone(),
        };
        let claimed = match self.commit(attempt, Some(before), claimed).await {
            Ok(claimed) => claimed,
            Err(ended) => return ended,
        };
        let is_first =
            !before.progress.claim.as_ref().is_some_and(|claim| {
                claim.node == self.node && claim.generation == self.generation
            });
        if is_first && begun.elapsed() > CLAIM_FRESH {
            return Ended::Stored(claimed);
        }
        if before.progress.claim.is_none() {
            self.count_missed(attempt, before.progress.until_ms, slot_ms);
        }
        let slot = Slot {
            schedule: Arc::clone(&attempt.registered.schedule),
            slot_ms,
        };
        match tokio::time::timeout(self.queue_timeout, self.fire.fire(&slot)).await {
            Ok(Ok(())) => {
                self.settle(attempt, claimed, slot_ms, begun.elapsed())
                    .await
            }
            // It may be queued all the same: this node knows best, and enqueues it once more.
            Ok(Err(failure)) if failure.effect != Effect::Refused => {
                self.warn_queue(attempt, &failure.message);
                Ended::Refused(Some(claimed))
            }
            Ok(Err(failure)) => {
                self.warn_queue(attempt, &failure.message);
                // As it was before, so that another node may have it.
                let before = before.progress.clone();
                let undone = self.end_claim(attempt, &claimed, before).await;
                Ended::Refused(Some(undone.unwrap_or(claimed)))
            }
            Err(_) => {
                self.warn_queue(attempt, "the queue did not answer in time");
                Ended::Refused(Some(claimed))
            }
        }
    }

    async fn settle(
        &self,
        attempt: &Attempt,
        claimed: Known,
        slot_ms: u64,
        took: Duration,
    ) -> Ended {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let at_ms = attempt.now_ms.saturating_add(took_ms);
        let settled = Progress {
            until_ms: slot_ms,
            claim: None,
            fired: Some(Fired {
                slot_ms,
                at_ms,
                node: self.node_name.to_string(),
            }),
        };
        if attempt.what != (What::Settle { slot_ms }) {
            self.meters.fired.increment(1);
            let late = Duration::from_millis(at_ms.saturating_sub(slot_ms));
            self.meters.late.record(late);
        }
        match self.end_claim(attempt, &claimed, settled).await {
            Ok(known) => Ended::Stored(known),
            Err(Ended::Away) => Ended::Queued {
                known: claimed,
                slot_ms,
            },
            Err(ended) => ended,
        }
    }

    /// Stores progress in the place of `before`, if the schedule is what this node knows.
    async fn commit(
        &self,
        attempt: &Attempt,
        before: Option<&Known>,
        progress: Progress,
    ) -> Result<Known, Ended> {
        let Attempt {
            key, registered, ..
        } = attempt;
        let unmoved = before.map_or(Precondition::Absent, |before| {
            Precondition::At(before.revision)
        });
        let preconditions = vec![
            (
                format!("{SCHEDULES_PREFIX}{key}"),
                Precondition::At(registered.revision),
            ),
            (format!("{PROGRESS_PREFIX}{key}"), unmoved),
        ];
        self.write(attempt, preconditions, progress).await
    }

    /// Ends a claim of this node, also when the schedule says something else meanwhile: one that begins anew or is gone took the claim along.
    async fn end_claim(
        &self,
        attempt: &Attempt,
        claimed: &Known,
        progress: Progress,
    ) -> Result<Known, Ended> {
        let key = format!("{PROGRESS_PREFIX}{}", attempt.key);
        let preconditions = vec![(key, Precondition::At(claimed.revision))];
        self.write(attempt, preconditions, progress).await
    }

    async fn write(
        &self,
        attempt: &Attempt,
        preconditions: Vec<(String, Precondition)>,
        progress: Progress,
    ) -> Result<Known, Ended> {
        let key = format!("{PROGRESS_PREFIX}{}", attempt.key);
        let transaction = Transaction {
            preconditions,
            writes: vec![Write::Put(key, progress.write())],
        };
        match self.store.commit(transaction).await {
            Ok(revision) => Ok(Known { progress, revision }),
            Err(StoreError::Precondition { .. }) => Err(Ended::Lost),
            Err(error) => {
                self.warn_store(&error);
                Err(Ended::Away)
            }
        }
    }

    fn count_missed(&self, attempt: &Attempt, until_ms: u64, slot_ms: u64) {
        let plan = &attempt.registered.plan;
        let missed = slots_between(plan, until_ms, slot_ms, self.counted_max);
        if missed > 0 {
            self.meters.missed.increment(missed as u64);
            let at_most = if missed == self.counted_max {
                " or more"
            } else {
                ""
            };
            tracing::warn!(
                schedule = %attempt.key,
                "{missed}{at_most} slots were missed: no node could fire them in time"
            );
        }
    }

    /// Notes that the store failed.
    pub(super) fn warn_store(&self, error: &StoreError) {
        self.meters.store.increment(1);
        let due = self.trouble().store.note(Instant::now());
        if let Some(Due { times, seconds }) = due {
            tracing::warn!(%error, times, seconds, "schedules do not fire here: the config store can not be written");
        }
    }

    fn store_answers(&self) {
        let ended = self.trouble().store.end(Instant::now());
        if let Some(seconds) = ended {
            tracing::info!(
                seconds,
                "schedules fire again: the config store can be written"
            );
        }
    }

    fn warn_queue(&self, attempt: &Attempt, why: &str) {
        self.meters.queue.increment(1);
        let due = self.trouble().queue.note(Instant::now());
        if let Some(Due { times, seconds }) = due {
            tracing::warn!(schedule = %attempt.key, why, times, seconds, "a slot can not be queued here; this node and others try again");
        }
    }

    fn trouble(&self) -> std::sync::MutexGuard<'_, Trouble> {
        // Nothing panics between its changes.
        self.trouble
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Meters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meters")
    }
}
