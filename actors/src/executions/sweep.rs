//! Removes what is kept no longer: executions by age and number, those that no client was told of, keys past their window.

use std::time::Duration;

use bytes::Bytes;
use config::Revision;
use config::store::{Error as StoreError, Precondition, Transaction, Write};
use protocol::execution::{Status, Trouble};
use protocol::{Component, ErrorCode, ExecutionId, Space};

use super::accept::KeyRecord;
use super::{
    CANCELLED, EXECUTIONS, Executions, KEYS, PAGE, Tell, Untold, count, end, execution_key, now_ms,
    parse, result_key,
};

/// Says when one of the nodes swept last.
const SWEPT: &str = "swept/executions";

/// How long an execution may be on its way into a queue before it is taken for one that its node left behind.
const ACCEPTED_MAX: Duration = Duration::from_secs(60);

/// How long after it should have been begun an execution counts as lost: longer than any run may take.
const LOST_AFTER: Duration = Duration::from_secs(25 * 3600);

/// How long after its end an execution may be untold before another node tells it. Who is at it then as well tells it twice.
const UNTOLD_MAX: Duration = Duration::from_secs(60);

/// Untold ends that one sweep tells.
const UNTOLD_AT_ONCE: usize = 1_000;

/// How long a node may take to hear that an execution is cancelled.
const CANCELLED_KEPT: Duration = Duration::from_secs(600);

/// Records that are removed together. etcd takes 128 operations by default, and a record may have three.
const TOGETHER: usize = 40;

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Swept {
    /// Executions removed after their end.
    pub(super) removed: usize,
    /// Executions removed that no client was told of.
    pub(super) unheard: usize,
    /// Executions of which nothing was heard for too long, and that were ended.
    pub(super) lost: usize,
    /// Ends that nobody told, and that were told.
    pub(super) told: usize,
    /// Keys whose window was over.
    pub(super) keys: usize,
    /// Keys beyond `executions.keys_max`, whose window was not over.
    pub(super) keys_dropped: usize,
}

/// An execution, as far as it matters here.
struct Seen {
    id: ExecutionId,
    space: Space,
    revision: Revision,
    /// When it ended, or should have been begun at the latest.
    at_ms: u64,
    key: Option<String>,
}

/// All executions, by what may become of them.
#[derive(Default)]
struct All {
    ended: Vec<Seen>,
    unheard: Vec<Seen>,
    lost: Vec<Seen>,
    untold: Vec<Untold>,
}

impl Executions {
    /// Sweeps, unless another node did within `executions.sweep_interval`.
    pub(super) async fn sweep_in_turn(&self, tell: &dyn Tell) -> Result<Option<Swept>, StoreError> {
        let now = now_ms();
        let last = self.store.get(SWEPT).await?;
        let precondition = match &last {
            None => Precondition::Absent,
            Some(last) => {
                let text = std::str::from_utf8(&last.value).ok();
                let swept_at = text.and_then(|text| text.parse::<u64>().ok());
                // A clock that was set back must not end the sweeping.
                let age = now.abs_diff(swept_at.unwrap_or_default());
                if Duration::from_millis(age) < self.settings.sweep_interval {
                    return Ok(None);
                }
                Precondition::At(last.revision)
            }
        };
        let mark = Bytes::from(now.to_string());
        match self.store.put(SWEPT, mark, Some(precondition)).await {
            Ok(_) => self.sweep(now, tell).await.map(Some),
            Err(StoreError::Precondition { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sweeps. Two nodes that do so at once do no harm.
    pub(super) async fn sweep(&self, now: u64, tell: &dyn Tell) -> Result<Swept, StoreError> {
        let mut all = self.survey(now).await?;
        let keep = self.settings.keep_len_max;
        let oldest_ms = now.saturating_sub(as_ms(self.settings.keep_age_max));
        all.ended.sort_by_key(|seen| std::cmp::Reverse(seen.at_ms));
        let young = all.ended.partition_point(|seen| seen.at_ms >= oldest_ms);
        let over = all.ended.split_off(young.min(keep));
        let mut swept = Swept {
            removed: over.len(),
            ..Swept::default()
        };
        for some in over.chunks(TOGETHER) {
            let writes = some.iter().flat_map(|seen| {
                let key = execution_key(&seen.space, seen.id);
                [key, result_key(&seen.space, seen.id)].map(Write::Delete)
            });
            // What has ended is not changed any more.
            self.store.commit(deletion(writes.collect())).await?;
        }
        for untold in all.untold {
            swept.told += usize::from(tell.tell(untold).await);
        }
        for seen in all.unheard {
            swept.unheard += usize::from(self.remove_unheard(seen).await?);
        }
        for seen in all.lost {
            swept.lost += usize::from(self.end_lost(&seen, now).await?);
        }
        self.sweep_keys(now, &mut swept).await?;
        self.sweep_cancellations(now).await?;
        if swept != Swept::default() {
            tracing::debug!(?swept, "executions that are kept no longer were removed");
        }
        Ok(swept)
    }

    /// Reads all executions, page by page.
    async fn survey(&self, now: u64) -> Result<All, StoreError> {
        let (mut all, mut after) = (All::default(), None::<String>);
        loop {
            let entries = self
                .store
                .list_page(EXECUTIONS, after.as_deref(), PAGE)
                .await?;
            for entry in &entries {
                let Some(record) = parse(entry) else { continue };
                let untold = record.untold();
                let execution = record.execution;
                let seen = |at_ms| Seen {
                    id: execution.id,
                    space: execution.space.clone(),
                    revision: entry.revision,
                    at_ms,
                    key: record.key.clone(),
                };
                let is_older = |at_ms, than| now.saturating_sub(at_ms) > as_ms(than);
                match (execution.status, execution.ended_at_ms) {
                    // What is not told yet is kept until it is.
                    (_, Some(ended_at_ms)) if untold.is_some() => {
                        if is_older(ended_at_ms, UNTOLD_MAX) && all.untold.len() < UNTOLD_AT_ONCE {
                            all.untold.extend(untold);
                        }
                    }
                    (_, Some(ended_at_ms)) => all.ended.push(seen(ended_at_ms)),
                    (Status::Accepted, None) => {
                        if is_older(execution.accepted_at_ms, ACCEPTED_MAX) {
                            all.unheard.push(seen(execution.accepted_at_ms));
                        }
                    }
                    (_, None) => {
                        let patience = match record.is_waited_for {
                            // Its end may take that long to be written down.
                            true => self.settings.record_timeout + ACCEPTED_MAX,
                            false => LOST_AFTER,
                        };
                        if is_older(record.expires_at_ms, patience) {
                            all.lost.push(seen(record.expires_at_ms));
                        }
                    }
                }
            }
            match entries.last() {
                Some(last) if entries.len() == PAGE => after = Some(last.key.clone()),
                _ => return Ok(all),
            }
        }
    }

    /// Removes an execution that no client was told of, with its key, so that the next call with it is a new one.
    async fn remove_unheard(&self, seen: Seen) -> Result<bool, StoreError> {
        let key = execution_key(&seen.space, seen.id);
        let writes = [Some(key.clone()), seen.key].into_iter().flatten();
        let transaction = Transaction {
            preconditions: vec![(key, Precondition::At(seen.revision))],
            writes: writes.map(Write::Delete).collect(),
        };
        is_done(self.store.commit(transaction).await)
    }

    /// Ends an execution whose queue does not know it any more: one in memory whose node died, or one that was restored from an old backup.
    async fn end_lost(&self, seen: &Seen, now: u64) -> Result<bool, StoreError> {
        let key = execution_key(&seen.space, seen.id);
        let Some(entry) = self.store.get(&key).await? else {
            return Ok(false);
        };
        let Some(mut record) = parse(&entry).filter(|_| entry.revision == seen.revision) else {
            return Ok(false);
        };
        let (status, code, component, message) = match record.is_waited_for {
            true => (
                Status::Failed,
                ErrorCode::Interrupted,
                Component::Gateway,
                "the node that ran it was lost",
            ),
            false => (
                Status::Expired,
                ErrorCode::Expired,
                Component::Queue,
                "nothing was heard of it for too long: the queue that had it is lost",
            ),
        };
        end(&mut record.execution, status, now);
        // Whether anybody is to hear of it the next sweep finds out; who waited for it knows.
        record.is_untold = !record.is_waited_for;
        record.execution.error = Some(Trouble {
            code: code.to_string(),
            component: component.to_string(),
            message: message.to_owned(),
            status: None,
            answer: String::new(),
        });
        let at = Some(Precondition::At(seen.revision));
        let is_ended = is_done(self.store.put(&key, record.write(), at).await)?;
        if is_ended {
            count(status);
            tracing::warn!(execution = %seen.id, space = %seen.space, %status, "an execution is ended of which nothing is heard any more: {message}");
        }
        Ok(is_ended)
    }

    async fn sweep_keys(&self, now: u64, swept: &mut Swept) -> Result<(), StoreError> {
        let (mut kept, mut over) = (Vec::new(), Vec::new());
        let mut after = None::<String>;
        loop {
            let entries = self.store.list_page(KEYS, after.as_deref(), PAGE).await?;
            let count = entries.len();
            after = entries.last().map(|last| last.key.clone());
            for entry in entries {
                let record = serde_json::from_slice::<KeyRecord>(&entry.value).ok();
                let record = record.filter(|record| self.is_in_window(record, now));
                match record {
                    Some(record) => kept.push((record.created_at_ms, entry.key, entry.revision)),
                    None => over.push((entry.key, entry.revision)),
                }
            }
            if count < PAGE {
                break;
            }
        }
        swept.keys = over.len();
        if let Some(surplus) = kept
            .len()
            .checked_sub(self.settings.keys_max)
            .filter(|n| *n > 0)
        {
            kept.sort_unstable();
            swept.keys_dropped = surplus;
            metrics::counter!("hearth_idempotency_keys_dropped_total").increment(surplus as u64);
            tracing::warn!(
                surplus,
                "idempotency keys were forgotten before their window was over: executions.keys_max is reached"
            );
            let surplus = kept.drain(..surplus);
            over.extend(surplus.map(|(_, key, revision)| (key, revision)));
        }
        for some in over.chunks(TOGETHER) {
            let preconditions = some.iter().map(|(key, revision)| {
                let at = Precondition::At(*revision);
                (key.clone(), at)
            });
            let writes = some.iter().map(|(key, _)| Write::Delete(key.clone()));
            let transaction = Transaction {
                preconditions: preconditions.collect(),
                writes: writes.collect(),
            };
            // One of them is used again meanwhile: the next sweep finds the others.
            is_done(self.store.commit(transaction).await)?;
        }
        Ok(())
    }

    async fn sweep_cancellations(&self, now: u64) -> Result<(), StoreError> {
        let listing = self.store.list(CANCELLED).await?;
        let oldest_ms = now.saturating_sub(as_ms(CANCELLED_KEPT));
        let old = listing.entries.into_iter().filter(|entry| {
            let text = std::str::from_utf8(&entry.value).ok();
            let at_ms = text.and_then(|text| text.parse::<u64>().ok());
            at_ms.unwrap_or_default() < oldest_ms
        });
        let old: Vec<_> = old.map(|entry| Write::Delete(entry.key)).collect();
        for some in old.chunks(TOGETHER) {
            self.store.commit(deletion(some.to_vec())).await?;
        }
        Ok(())
    }
}

fn deletion(writes: Vec<Write>) -> Transaction {
    Transaction {
        preconditions: Vec::new(),
        writes,
    }
}

/// Whether a write took place; nothing when somebody else changed the same meanwhile.
fn is_done(written: Result<Revision, StoreError>) -> Result<bool, StoreError> {
    match written {
        Ok(_) => Ok(true),
        Err(StoreError::Precondition { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
