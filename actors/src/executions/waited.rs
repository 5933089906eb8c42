//! Runs that their caller waits for, and that are written down all the same. No queue has them: the node that begins one ends it, and one
//! whose node died is ended by the sweep.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use config::store::{Precondition, Write};
use protocol::execution::{Status, Trouble};
use protocol::invocation::StartKind;
use protocol::{Execution, ExecutionId, FunctionId, Phases, Space, api};

use super::{Error, Executions, Record, Run, count, end, execution_key, millis, result_key};

/// How a run that was waited for ended.
#[derive(Debug, Clone)]
pub struct WaitedEnd {
    /// One of the ends.
    pub status: Status,
    /// The name of the node where it ran, if not this one.
    pub node: Option<String>,
    /// Whether it found an instance that was up.
    pub start: Option<StartKind>,
    /// How long each phase took.
    pub phases: Phases,
    /// What it answered, or printed.
    pub result: Option<api::ExecutionResult>,
    /// Why it did not succeed.
    pub error: Option<Trouble>,
}

impl Executions {
    /// Notes that a run is begun on this node that ends within `limit`.
    ///
    /// # Errors
    /// The store's; nothing is noted then, or it is and the sweep ends it.
    pub async fn begin_waited(
        &self,
        space: &Space,
        function_id: &FunctionId,
        limit: Duration,
    ) -> Result<Run, Error> {
        let now = SystemTime::now();
        let id = ExecutionId::at(now);
        let mut record = Record {
            execution: Execution {
                id,
                space: space.clone(),
                function_id: function_id.clone(),
                status: Status::Accepted,
                accepted_at_ms: millis(now),
                accepted_by: self.node_name.to_string(),
                not_before_ms: None,
                ended_at_ms: None,
                attempts_made: 0,
                attempts: Vec::new(),
                error: None,
                callback: None,
                told: Vec::new(),
            },
            claim: 1,
            expires_at_ms: millis(now + limit),
            is_waited_for: true,
            key: None,
            is_untold: false,
        };
        record.begin(&self.node_name, millis(now));
        // Before the record says so: who cancels it after that finds it here.
        let mut run = self.enter(space, id, record.claim);
        run.attempt = record.execution.attempts_made;
        let absent = Some(Precondition::Absent);
        let key = execution_key(space, id);
        self.store.put(&key, record.write(), absent).await?;
        count(Status::Accepted);
        Ok(run)
    }

    /// Ends a run that was waited for; false when it has another end already. While the store is away it tries as long as `patience`.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_waited(
        &self,
        run: &Run,
        ended: &WaitedEnd,
        patience: Duration,
    ) -> Result<bool, Error> {
        let result = ended.result.as_ref().map(|result| {
            let json = serde_json::to_vec(result).expect("a result has texts for keys");
            Bytes::from(json)
        });
        let now = millis(SystemTime::now());
        let changed = self.close(run, patience, |record| {
            let execution = &mut record.execution;
            end(execution, ended.status, now);
            execution.error.clone_from(&ended.error);
            if let Some(attempt) = execution.attempts.last_mut() {
                if let Some(node) = &ended.node {
                    attempt.node.clone_from(node);
                }
                (attempt.start, attempt.phases) = (ended.start, ended.phases);
                attempt.error.clone_from(&ended.error);
            }
            let key = result_key(&run.space, run.id);
            let result = result.clone().map(|result| Write::Put(key, result));
            result.into_iter().collect()
        });
        let is_ended = matches!(changed.await?, Some((_, true)));
        if is_ended {
            count(ended.status);
        }
        Ok(is_ended)
    }
}
