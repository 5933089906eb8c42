//! Which invocations run on an instance, so that its output can be told apart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::InvocationId;

/// The invocations of one instance: those that run, and the last few that ran.
#[derive(Debug, Default)]
pub(crate) struct Running {
    runs: Mutex<Runs>,
}

#[derive(Debug, Default)]
struct Runs {
    now: Vec<(InvocationId, u64)>,
    ended: VecDeque<Ended>,
}

#[derive(Debug)]
struct Ended {
    id: InvocationId,
    began_us: u64,
    ended_us: u64,
}

/// Ended invocations that are remembered: output is read a little later than it was written.
const ENDED_MAX: usize = 16;
/// For how long after its end a line is still given to the invocation that ended last.
const LATE_US_MAX: u64 = 1_000_000;

impl Running {
    /// Notes that an invocation begins; it ends when the guard is dropped.
    pub(crate) fn enter<'a>(&'a self, id: &'a InvocationId) -> Run<'a> {
        self.lock().now.push((id.clone(), now_us()));
        Run { running: self, id }
    }

    /// The invocations that a line written at that time (microseconds since 1970) belongs to: all that ran then, else the one
    /// that ended last shortly before.
    pub(crate) fn at(&self, at_us: u64) -> Vec<String> {
        let runs = self.lock();
        let now = runs
            .now
            .iter()
            .filter(|(_, began_us)| *began_us <= at_us)
            .map(|(id, _)| id);
        let then = runs
            .ended
            .iter()
            .filter(|run| run.began_us <= at_us && at_us <= run.ended_us)
            .map(|run| &run.id);
        let ids: Vec<String> = then.chain(now).map(ToString::to_string).collect();
        if !ids.is_empty() {
            return ids;
        }
        let last = runs.ended.iter().rev().find(|run| run.ended_us <= at_us);
        last.filter(|run| at_us - run.ended_us <= LATE_US_MAX)
            .map(|run| run.id.to_string())
            .into_iter()
            .collect()
    }

    fn leave(&self, id: &InvocationId) {
        let mut runs = self.lock();
        let Some(index) = runs.now.iter().position(|(now, _)| now == id) else {
            return;
        };
        let (id, began_us) = runs.now.swap_remove(index);
        if runs.ended.len() == ENDED_MAX {
            runs.ended.pop_front();
        }
        runs.ended.push_back(Ended {
            id,
            began_us,
            ended_us: now_us(),
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One invocation that runs.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    running: &'a Running,
    id: &'a InvocationId,
}

/// One invocation that goes on when the call that began it has returned.
#[derive(Debug)]
pub(crate) struct OwnedRun {
    running: Arc<Running>,
    id: InvocationId,
}

impl Run<'_> {
    /// Lets the run go on until what is given back is dropped.
    pub(crate) fn into_owned(self, running: &Arc<Running>) -> OwnedRun {
        let id = self.id.clone();
        // It does not end here.
        std::mem::forget(self);
        OwnedRun {
            running: Arc::clone(running),
            id,
        }
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.running.leave(self.id);
    }
}

impl Drop for OwnedRun {
    fn drop(&mut self) {
        self.running.leave(&self.id);
    }
}

/// The time in microseconds since 1970.
pub(crate) fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_belongs_to_what_ran_when_it_was_written() {
        let running = Running::default();
        let [one, other]: [InvocationId; 2] = ["one", "other"].map(|id| id.parse().unwrap());
        let before = now_us() - 1;
        let first = running.enter(&one);
        assert_eq!(running.at(now_us()), ["one"]);
        let second = running.enter(&other);
        assert_eq!(running.at(now_us()), ["one", "other"]);
        drop(first);
        // Two that end within one microsecond both ended last.
        let ended = now_us();
        while now_us() == ended {
            std::hint::spin_loop();
        }
        drop(second);
        assert_eq!(
            running.at(now_us()),
            ["other"],
            "a late line belongs to the one that ended last"
        );
        assert!(running.at(before).is_empty());
        assert!(running.at(now_us() + 2 * LATE_US_MAX).is_empty());
    }
}
