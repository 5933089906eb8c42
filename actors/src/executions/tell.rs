//! Ends that are to be told: a record says so in the same write as its end, and does not any more when they are in a queue.

use std::fmt;

use async_trait::async_trait;
use protocol::destination::Told;
use protocol::{Execution, ExecutionId, Space};

use super::{Error, Executions, Record};

/// An execution that has ended, and whose end may have to be told.
#[derive(Debug, Clone, PartialEq)]
pub struct Untold(pub Execution);

/// Tells an end that its own node did not tell.
#[async_trait]
pub trait Tell: Send + Sync + fmt::Debug + 'static {
    /// Has it told, and says whether it is in a queue, or nobody wants to hear of it. Failures are the teller's to log.
    async fn tell(&self, untold: Untold) -> bool;
}

impl Executions {
    /// Notes where an end was queued to be told.
    ///
    /// # Errors
    /// The store's, when it was away for longer than `executions.record_timeout`; the end is told once more then.
    pub async fn told(&self, space: &Space, id: ExecutionId, told: Vec<Told>) -> Result<(), Error> {
        let changed = self.change(space, id, self.settings.record_timeout, |record| {
            if !record.is_untold {
                return None;
            }
            record.is_untold = false;
            record.execution.told.clone_from(&told);
            Some(Vec::new())
        });
        changed.await.map(|_| ())
    }
}

impl Record {
    /// What is to be told of it.
    pub(super) fn untold(&self) -> Option<Untold> {
        self.is_untold.then(|| Untold(self.execution.clone()))
    }
}
