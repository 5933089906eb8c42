//! From a queue to an end: what the node that delivers writes down.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::store::Write;
use protocol::execution::{Attempt, Status, Trouble};
use protocol::invocation::StartKind;
use protocol::{ErrorCode, ExecutionId, Failure, Phases, Space, Version, api};
use tokio_util::sync::CancellationToken;

use super::{Error, Executions, Record, RunningHere, Untold, count, end, now_ms, result_key};

/// Attempts that are kept of an execution: the last ones.
const ATTEMPTS_KEPT: usize = 10;

/// An execution that was begun on this node, until it is dropped.
#[derive(Debug)]
pub struct Run {
    pub(super) id: ExecutionId,
    pub(super) space: Space,
    claim: u32,
    /// Which attempt it is, from 1.
    pub(super) attempt: u32,
    /// The version of the function that runs, where one was named.
    version: Option<Version>,
    cancelled: CancellationToken,
    place: u64,
    running: Arc<Mutex<RunningHere>>,
}

/// What becomes of a delivery of an execution.
#[derive(Debug)]
pub enum Begun {
    /// It runs.
    Run(Run),
    /// It has ended, and that is to be told.
    Ended(Box<Untold>),
    /// Nothing is to be done any more.
    Over,
}

impl Run {
    /// The execution's name.
    pub fn id(&self) -> ExecutionId {
        self.id
    }

    /// Has the record say, once this attempt has ended, which version of the function ran.
    pub fn set_version(&mut self, version: Option<Version>) {
        self.version = version;
    }

    /// Waits until somebody ends the execution.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.runs.remove(&self.place);
    }
}

impl Executions {
    /// Notes that an execution is begun on this node, unless it is not to be: it has ended, is not known, or another delivery
    /// is meant to begin it. One that runs already is taken over, as only one delivery of it is leased: its node was lost.
    ///
    /// # Errors
    /// The store's; nothing may be begun then.
    pub async fn begin(&self, space: &Space, id: ExecutionId, claim: u32) -> Result<Begun, Error> {
        // Before the record says so: who cancels it after that finds it here.
        let mut run = self.enter(space, id, claim);
        let now = now_ms();
        let changed = self.change(space, id, Duration::ZERO, |record| {
            if record.execution.status.is_end() || record.claim != claim {
                return None;
            }
            record.begin(&self.node_name, now);
            Some(Vec::new())
        });
        match changed.await? {
            Some((record, true)) => {
                run.attempt = record.execution.attempts_made;
                Ok(Begun::Run(run))
            }
            Some((record, false)) => {
                if let Some(untold) = record.untold() {
                    return Ok(Begun::Ended(Box::new(untold)));
                }
                let status = record.execution.status;
                tracing::debug!(execution = %id, %status, "a delivery is not begun: its execution has ended, or is another's");
                Ok(Begun::Over)
            }
            None => {
                tracing::info!(execution = %id, %space, "a delivery is not begun: its execution is kept no longer");
                Ok(Begun::Over)
            }
        }
    }

    /// Ends an execution with what its function answered; false when it has another end already, or another node has it. `is_heard` is
    /// whether the function's record wants it told. Besides, what is to be told now.
    ///
    /// # Errors
    /// The store's, when it was away for longer than `executions.record_timeout`.
    pub async fn succeed(
        &self,
        run: &Run,
        node: &str,
        (start, phases): (StartKind, Phases),
        result: &api::ExecutionResult,
        is_heard: bool,
    ) -> Result<(bool, Option<Untold>), Error> {
        let result = serde_json::to_vec(result).expect("a result has texts for keys");
        let result = Bytes::from(result);
        let patience = self.settings.record_timeout;
        let ended = self.close(run, patience, |record| {
            let execution = &mut record.execution;
            end(execution, Status::Succeeded, now_ms());
            record.is_untold = is_heard || execution.callback.is_some();
            if let Some(attempt) = execution.attempts.last_mut() {
                node.clone_into(&mut attempt.node);
                (attempt.start, attempt.phases) = (Some(start), phases);
                attempt.version = run.version;
            }
            vec![Write::Put(result_key(&run.space, run.id), result.clone())]
        });
        let Some((record, is_ended)) = ended.await? else {
            return Ok((false, None));
        };
        if is_ended {
            count(Status::Succeeded);
        }
        Ok((is_ended, record.untold()))
    }

    /// Notes that an attempt came to nothing; false when the execution has an end already, or another node has it.
    ///
    /// # Errors
    /// The store's, when it was away for longer than `executions.record_timeout`.
    pub async fn attempt_failed(
        &self,
        run: &Run,
        failure: &Failure,
        phases: Phases,
    ) -> Result<bool, Error> {
        let patience = self.settings.record_timeout;
        let closed = self.close(run, patience, |record| {
            let execution = &mut record.execution;
            execution.status = Status::Queued;
            if let Some(attempt) = execution.attempts.last_mut() {
                if let Some(node) = &failure.node {
                    attempt.node.clone_from(node);
                }
                attempt.ended_at_ms = Some(now_ms());
                (attempt.phases, attempt.version) = (phases, run.version);
                attempt.error = Some(Trouble::from(failure));
            }
            Vec::new()
        });
        Ok(matches!(closed.await?, Some((_, true))))
    }

    /// Ends an execution without success, unless it has an end already. `is_heard` is whether the function's record wants it told; what
    /// is given back is to be told.
    ///
    /// # Errors
    /// The store's, when it was away for longer than `executions.record_timeout`.
    pub async fn give_up(
        &self,
        space: &Space,
        id: ExecutionId,
        claim: u32,
        failure: &Failure,
        is_heard: bool,
    ) -> Result<Option<Untold>, Error> {
        let status = match failure.code {
            ErrorCode::Expired => Status::Expired,
            _ => Status::Failed,
        };
        let patience = self.settings.record_timeout;
        let changed = self.change(space, id, patience, |record| {
            if record.execution.status.is_end() || record.claim != claim {
                return None;
            }
            end(&mut record.execution, status, now_ms());
            record.execution.error = Some(Trouble::from(failure));
            record.is_untold = is_heard || record.execution.callback.is_some();
            Some(Vec::new())
        });
        let Some((record, is_ended)) = changed.await? else {
            return Ok(None);
        };
        if is_ended {
            count(status);
        }
        // One that ended so before, and whose node went down over the telling, is told by whoever has it now.
        Ok(record.untold())
    }

    /// Changes the record of what runs, if it is still this run's; says how it is then, and whether it was changed.
    pub(super) async fn close(
        &self,
        run: &Run,
        patience: Duration,
        change: impl Fn(&mut Record) -> Vec<Write>,
    ) -> Result<Option<(Record, bool)>, Error> {
        let changed = self.change(&run.space, run.id, patience, |record| {
            let is_own = record.execution.status == Status::Running
                && record.claim == run.claim
                && record.execution.attempts_made == run.attempt;
            is_own.then(|| change(record))
        });
        changed.await
    }

    pub(super) fn enter(&self, space: &Space, id: ExecutionId, claim: u32) -> Run {
        let cancelled = CancellationToken::new();
        let mut running = self.running();
        let place = running.next;
        running.next += 1;
        running.runs.insert(place, (id, cancelled.clone()));
        Run {
            id,
            space: space.clone(),
            claim,
            attempt: 0,
            version: None,
            cancelled,
            place,
            running: Arc::clone(&self.running),
        }
    }
}

impl Record {
    pub(super) fn begin(&mut self, node: &str, now: u64) {
        let execution = &mut self.execution;
        let last = execution.attempts.last_mut();
        if let Some(lost) = last.filter(|last| last.ended_at_ms.is_none()) {
            lost.ended_at_ms = Some(now);
            lost.error = Some(Trouble {
                code: ErrorCode::Interrupted.to_string(),
                component: protocol::Component::Queue.to_string(),
                message: "the node that ran it was lost, or lost its lease".to_owned(),
                status: None,
                answer: String::new(),
            });
        }
        execution.status = Status::Running;
        execution.attempts_made += 1;
        if execution.attempts.len() == ATTEMPTS_KEPT {
            execution.attempts.remove(0);
        }
        execution.attempts.push(Attempt {
            node: node.to_owned(),
            version: None,
            started_at_ms: now,
            ended_at_ms: None,
            start: None,
            phases: Phases::default(),
            error: None,
        });
    }
}
