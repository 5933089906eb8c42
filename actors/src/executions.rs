//! Asynchronous invocations: their records in the config store, which every node reads and changes alike.
//!
//! Whatever two nodes could decide differently is decided by the store: a record is changed at the revision that was read, so an
//! execution ends once, and a key names one execution. No registry hears of these records. Their keys:
//! `executions/<space>/<name>`, where a later execution has a smaller name, so that the newest are read first; `results/<space>/<id>`, what the
//! function answered; `idempotency/<space>/<function>/<hash>`, which execution a key names; `cancelled/<id>`, which every node
//! watches, and cancels what it runs. See docs/adr/0023.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use config::settings::ExecutionsSettings;
use config::store::{Entry, Error as StoreError, Precondition, Transaction, Write};
use config::{Revision, Store};
use protocol::execution::Status;
use protocol::{
    Component, Effect, ErrorCode, Execution, ExecutionId, Failure, FunctionId, Space, api,
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::catalog::pause;

mod accept;
mod follow;
mod run;
mod sweep;
mod tell;
#[cfg(test)]
mod tests;
mod waited;

pub use accept::{Accepted, Claim, Key, New};
pub use run::{Begun, Run};
pub use tell::{Tell, Untold};
pub use waited::WaitedEnd;

const EXECUTIONS: &str = "executions/";
const RESULTS: &str = "results/";
const KEYS: &str = "idempotency/";
const CANCELLED: &str = "cancelled/";

/// How often a change is tried when others change the same record at the same time.
const ATTEMPTS_MAX: u32 = 24;

/// Records read from the store at once.
const PAGE: usize = 200;

/// Records that one request for a list looks at, whether the filter takes them or not.
const LOOKED_AT_MAX: usize = 5_000;

/// The longest pause between two attempts to reach a store that is away.
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// Asynchronous invocations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Executions {
    store: Arc<dyn Store>,
    settings: ExecutionsSettings,
    node_name: Arc<str>,
    running: Arc<Mutex<RunningHere>>,
}

/// What runs on this node, to be cancelled.
#[derive(Debug, Default)]
struct RunningHere {
    next: u64,
    runs: HashMap<u64, (ExecutionId, CancellationToken)>,
}

/// An execution as the store has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    execution: Execution,
    /// Grows each time that it is put into a queue; what an earlier one left in a queue is void.
    claim: u32,
    /// It is not begun later, or, where it is waited for, ends no later; in milliseconds since 1970.
    expires_at_ms: u64,
    /// Whether its caller waits for it, and no queue has it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_waited_for: bool,
    /// The store's key of the idempotency key that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// Whether it has ended, and that may have to be told somewhere still.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_untold: bool,
}

/// A record and the revision it was read at.
#[derive(Debug)]
struct Kept {
    record: Record,
    revision: Revision,
}

/// Which executions a list has.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Of this function only.
    pub function_id: Option<FunctionId>,
    /// With this status only.
    pub status: Option<Status>,
    /// Accepted at this moment or later, in milliseconds since 1970.
    pub since_ms: Option<u64>,
}

/// Why an execution was not accepted, read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name in the space, or it is kept no longer.
    #[error("execution {id} is not known in space {space}")]
    NotFound {
        /// The space.
        space: Space,
        /// The name.
        id: ExecutionId,
    },
    /// It has another end already.
    #[error("execution {id} is {status} already")]
    Ended {
        /// The execution.
        id: ExecutionId,
        /// Its end.
        status: Status,
    },
    /// The key came with another payload before.
    #[error(
        "Idempotency-Key: it was sent with another payload before, for execution {0}; another payload needs another key"
    )]
    KeyReused(ExecutionId),
    /// Others changed the same at the same time, again and again.
    #[error("too many others change the same execution at the same time")]
    Contended,
    /// It was put into a queue, but another node has taken it for lost meanwhile.
    #[error("execution {0} took too long to be accepted, and was given up")]
    GivenUp(ExecutionId),
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NotFound { .. } => ErrorCode::NotFound,
            Self::Ended { .. } => ErrorCode::Conflict,
            Self::KeyReused(_) => ErrorCode::InvalidRequest,
            Self::Contended | Self::GivenUp(_) => ErrorCode::Overloaded,
            Self::Store(error) => error.code(),
        }
    }

    /// Whether something may have been changed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Store(error) => error.effect(),
            Self::NotFound { .. }
            | Self::Ended { .. }
            | Self::KeyReused(_)
            | Self::Contended
            | Self::GivenUp(_) => Effect::Refused,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let component = match error {
            Error::Store(_) | Error::Contended | Error::GivenUp(_) => Component::Store,
            _ => Component::Gateway,
        };
        Self::new(error.code(), component, error.effect(), error.to_string())
    }
}

impl Executions {
    /// Makes the way of a node to the executions. The recorder of metrics must be installed by then.
    pub fn new(store: Arc<dyn Store>, settings: ExecutionsSettings, node_name: Arc<str>) -> Self {
        Self {
            store,
            settings,
            node_name,
            running: Arc::default(),
        }
    }

    /// The settings that hold for them.
    pub fn settings(&self) -> &ExecutionsSettings {
        &self.settings
    }

    /// Reads an execution, and what its function answered.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the store's.
    pub async fn get(
        &self,
        space: &Space,
        id: ExecutionId,
    ) -> Result<(Execution, Option<api::ExecutionResult>), Error> {
        let kept = self.read(space, id).await?;
        let execution = kept.ok_or_else(|| not_found(space, id))?.record.execution;
        if !matches!(execution.status, Status::Succeeded | Status::Failed) {
            return Ok((execution, None));
        }
        let result = self.store.get(&result_key(space, id)).await?;
        let result = result.and_then(|entry| serde_json::from_slice(&entry.value).ok());
        Ok((execution, result))
    }

    /// Reads up to `max` executions of a space, newest first, those before `after`; and what `after` is for the next page. A page may have
    /// fewer and not be the last, when the filter takes few.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        space: &Space,
        filter: &Filter,
        after: Option<ExecutionId>,
        max: usize,
    ) -> Result<api::Executions, Error> {
        let prefix = format!("{EXECUTIONS}{space}/");
        let mut after = after.map(|id| execution_key(space, id));
        let (mut executions, mut looked_at) = (Vec::new(), 0);
        loop {
            let entries = self
                .store
                .list_page(&prefix, after.as_deref(), PAGE)
                .await?;
            let is_last = entries.len() < PAGE;
            looked_at += entries.len();
            after = entries.last().map(|entry| entry.key.clone());
            let mut last = None;
            for entry in &entries {
                let Some(Record { execution, .. }) = parse(entry) else {
                    continue;
                };
                if filter
                    .since_ms
                    .is_some_and(|since| execution.accepted_at_ms < since)
                {
                    return Ok(page(executions, None));
                }
                last = Some(execution.id);
                if filter.accepts(&execution) {
                    executions.push(execution);
                }
                if executions.len() == max {
                    return Ok(page(executions, last));
                }
            }
            if is_last {
                return Ok(page(executions, None));
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok(page(executions, last));
            }
        }
    }

    /// Ends an execution that has not ended, whatever node runs it. One that is cancelled already is told as it is. Besides, its end if
    /// that is to be told somewhere.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Ended`] with another end, or the store's.
    pub async fn cancel(
        &self,
        space: &Space,
        id: ExecutionId,
    ) -> Result<(Execution, Option<Untold>), Error> {
        let now = now_ms();
        let changed = self.change(space, id, Duration::ZERO, |record| {
            let execution = &mut record.execution;
            if execution.status.is_end() {
                return None;
            }
            end(execution, Status::Cancelled, now);
            record.is_untold = execution.callback.is_some();
            let mark = Write::Put(cancelled_key(id), Bytes::from(now.to_string()));
            Some(vec![mark])
        });
        let (record, is_written) = changed.await?.ok_or_else(|| not_found(space, id))?;
        let untold = record.untold();
        let execution = record.execution;
        if execution.status != Status::Cancelled {
            let status = execution.status;
            return Err(Error::Ended { id, status });
        }
        if is_written {
            count(Status::Cancelled);
            // What runs here need not wait for the watch.
            self.running().cancel(id);
        }
        Ok((execution, untold))
    }

    async fn read(&self, space: &Space, id: ExecutionId) -> Result<Option<Kept>, StoreError> {
        let entry = self.store.get(&execution_key(space, id)).await?;
        let kept = entry.and_then(|entry| {
            let record = parse(&entry)?;
            let revision = entry.revision;
            Some(Kept { record, revision })
        });
        Ok(kept)
    }

    /// Changes a record as `decide` says, with what is to be written besides, anew when somebody else changed it meanwhile. Nothing when
    /// there is none; else how it is now, and whether it was changed. While the store is away it tries as long as `patience`.
    async fn change(
        &self,
        space: &Space,
        id: ExecutionId,
        patience: Duration,
        mut decide: impl FnMut(&mut Record) -> Option<Vec<Write>>,
    ) -> Result<Option<(Record, bool)>, Error> {
        let until = Instant::now() + patience;
        let (mut attempt, mut away) = (0, Duration::from_millis(50));
        loop {
            match self.change_once(space, id, &mut decide).await {
                Ok(changed) => return Ok(changed),
                Err(StoreError::Precondition { .. }) if attempt < ATTEMPTS_MAX => {
                    pause(attempt).await;
                    attempt += 1;
                }
                Err(StoreError::Precondition { .. }) => return Err(Error::Contended),
                Err(StoreError::Unavailable { .. }) if Instant::now() + away < until => {
                    tokio::time::sleep(away).await;
                    away = (away * 2).min(AWAY_PAUSE_MAX);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn change_once(
        &self,
        space: &Space,
        id: ExecutionId,
        decide: &mut impl FnMut(&mut Record) -> Option<Vec<Write>>,
    ) -> Result<Option<(Record, bool)>, StoreError> {
        let Some(Kept {
            mut record,
            revision,
        }) = self.read(space, id).await?
        else {
            return Ok(None);
        };
        let Some(more) = decide(&mut record) else {
            return Ok(Some((record, false)));
        };
        let key = execution_key(space, id);
        let mut writes = vec![Write::Put(key.clone(), record.write())];
        writes.extend(more);
        let preconditions = vec![(key, Precondition::At(revision))];
        let transaction = Transaction {
            preconditions,
            writes,
        };
        self.store.commit(transaction).await?;
        Ok(Some((record, true)))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, RunningHere> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Filter {
    fn accepts(&self, execution: &Execution) -> bool {
        let Self {
            function_id,
            status,
            ..
        } = self;
        function_id
            .as_ref()
            .is_none_or(|id| *id == execution.function_id)
            && status.is_none_or(|status| status == execution.status)
    }
}

impl Record {
    fn write(&self) -> Bytes {
        let json = serde_json::to_vec(self).expect("a record has texts for keys");
        json.into()
    }
}

impl RunningHere {
    fn cancel(&self, id: ExecutionId) {
        let runs = self.runs.values();
        for (_, token) in runs.filter(|(running, _)| *running == id) {
            token.cancel();
        }
    }
}

/// The record in an entry of the store; one that a later version wrote otherwise is passed over, and told.
fn parse(entry: &Entry) -> Option<Record> {
    match serde_json::from_slice(&entry.value) {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!(key = entry.key, %error, "a record of an execution can not be read");
            None
        }
    }
}

fn end(execution: &mut Execution, status: Status, now: u64) {
    execution.status = status;
    execution.ended_at_ms = Some(now);
    if let Some(last) = execution.attempts.last_mut() {
        last.ended_at_ms.get_or_insert(now);
    }
}

fn page(executions: Vec<Execution>, next: Option<ExecutionId>) -> api::Executions {
    api::Executions { executions, next }
}

fn not_found(space: &Space, id: ExecutionId) -> Error {
    let space = space.clone();
    Error::NotFound { space, id }
}

/// Counts executions that have this status from now on.
fn count(status: Status) {
    metrics::counter!("hearth_executions_total", "status" => status.as_str()).increment(1);
}

/// The smaller the key, the later the execution was accepted.
fn execution_key(space: &Space, id: ExecutionId) -> String {
    format!("{EXECUTIONS}{space}/{:032x}", !id.as_u128())
}

fn result_key(space: &Space, id: ExecutionId) -> String {
    format!("{RESULTS}{space}/{id}")
}

fn cancelled_key(id: ExecutionId) -> String {
    format!("{CANCELLED}{id}")
}

fn now_ms() -> u64 {
    millis(SystemTime::now())
}

fn millis(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
