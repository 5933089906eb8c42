//! Callers that write at the same time share one sync of the disk.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use protocol::Effect;
use tokio::sync::oneshot;

use super::{File, unavailable, write};
use crate::store::records::Writer;
use crate::store::{Error, Revision, Transaction, Write};

/// Transactions that are written at once, so that the first of them does not wait for long.
const TOGETHER: usize = 64;

/// A transaction whose caller waits.
#[derive(Debug)]
struct Waiter {
    ticket: Ticket,
    transaction: Transaction,
    answer: oneshot::Sender<Result<Revision, Error>>,
}

/// The place of a transaction among all that ever waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Transactions that wait for the file, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Line>);

#[derive(Debug, Default)]
struct Line {
    next: u64,
    waiters: VecDeque<Waiter>,
}

impl Waiting {
    /// Adds a transaction. Whoever adds one calls [`Waiting::write`] with its ticket.
    pub(super) fn add(
        &self,
        transaction: Transaction,
    ) -> (Ticket, oneshot::Receiver<Result<Revision, Error>>) {
        let (answer, answered) = oneshot::channel();
        let mut line = self.line();
        let ticket = Ticket(line.next);
        line.next += 1;
        line.waiters.push_back(Waiter {
            ticket,
            transaction,
            answer,
        });
        (ticket, answered)
    }

    /// Writes what waits up to this transaction, if another caller has not written it with its own. Blocks on the disk.
    pub(super) fn write(&self, ticket: Ticket, file: &File, writer: &Writer) {
        while self.waits(ticket) {
            self.write_some(file, writer);
        }
    }

    fn waits(&self, ticket: Ticket) -> bool {
        let line = self.line();
        line.waiters
            .front()
            .is_some_and(|first| first.ticket <= ticket)
    }

    /// Writes the first one that waits, and those after it that have nothing to do with each other.
    fn write_some(&self, file: &File, writer: &Writer) {
        let (mut commits, mut callers) = (Vec::new(), Vec::new());
        for Waiter {
            transaction,
            answer,
            ..
        } in self.take()
        {
            match writer.prepare(transaction, commits.len() as u64) {
                Ok(commit) if !commit.changes.is_empty() => {
                    commits.push(commit);
                    callers.push(answer);
                }
                // Whoever is answered may have gone away.
                Ok(commit) => drop(answer.send(Ok(commit.revision))),
                Err(error) => drop(answer.send(Err(error))),
            }
        }
        let written = match commits.is_empty() {
            true => return,
            false => write(&file.database, &commits),
        };
        for (commit, answer) in commits.into_iter().zip(callers) {
            let outcome = match &written {
                Ok(()) => Ok(writer.apply(commit)),
                // What the disk did before it failed is not known.
                Err(error) => Err(unavailable(&file.path, error, Effect::Interrupted)),
            };
            drop(answer.send(outcome));
        }
    }

    fn take(&self) -> Vec<Waiter> {
        let waiting = &mut self.line().waiters;
        let (mut keys, mut taken) = (HashSet::new(), Vec::new());
        while taken.len() < TOGETHER {
            let Some(next) = waiting.front() else { break };
            let own: Vec<String> = next.transaction.keys().map(str::to_owned).collect();
            // It may depend on what another one of them writes.
            if own.iter().any(|key| keys.contains(key)) {
                break;
            }
            keys.extend(own);
            taken.extend(waiting.pop_front());
        }
        taken
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transaction {
    /// All keys that it looks at or changes.
    fn keys(&self) -> impl Iterator<Item = &str> {
        let looked_at = self.preconditions.iter().map(|(key, _)| key.as_str());
        let written = self.writes.iter().map(|write| match write {
            Write::Put(key, _) | Write::Delete(key) => key.as_str(),
        });
        looked_at.chain(written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Precondition;

    /// How many are taken at each turn, of transactions that each look at one key and write another.
    fn turns(transactions: &[(&str, &str)]) -> Vec<usize> {
        let waiting = Waiting::default();
        for (looked_at, written) in transactions {
            drop(waiting.add(Transaction {
                preconditions: vec![((*looked_at).to_owned(), Precondition::Absent)],
                writes: vec![Write::Delete((*written).to_owned())],
            }));
        }
        let mut turns = Vec::new();
        loop {
            match waiting.take().len() {
                0 => return turns,
                taken => turns.push(taken),
            }
        }
    }

    #[test]
    fn what_depends_on_another_waits_for_its_turn_and_so_does_all_after_it() {
        assert!(turns(&[]).is_empty());
        assert_eq!(turns(&[("a", "a"), ("b", "b"), ("c", "d")]), [3]);
        assert_eq!(turns(&[("a", "b"), ("b", "c"), ("d", "d")]), [1, 2]);
        assert_eq!(turns(&[("a", "b"), ("c", "b"), ("b", "e")]), [1, 1, 1]);
        let keys: Vec<_> = (0..TOGETHER * 2 + 1).map(|key| key.to_string()).collect();
        let many: Vec<_> = keys
            .iter()
            .map(|key| (key.as_str(), key.as_str()))
            .collect();
        assert_eq!(turns(&many), [TOGETHER, TOGETHER, 1]);
    }
}
