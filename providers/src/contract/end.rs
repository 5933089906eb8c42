//! How an instance ended, and what that says of the calls that it took down with it.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::Notify;

use crate::Error;

/// How an instance ended. Whoever watches the instance tells, and the calls that broke are told.
#[derive(Debug, Default)]
pub(crate) struct End {
    told: OnceLock<Told>,
    is_told: Notify,
}

#[derive(Debug)]
struct Told {
    why: String,
    is_own: bool,
}

/// Signals that come from outside of a function, as when an engine or an operator ends it: SIGHUP, SIGINT, SIGQUIT, SIGKILL
/// and SIGTERM.
const SENT_SIGNALS: [i64; 5] = [1, 2, 3, 9, 15];

impl End {
    /// It was lost, and not by what it did itself. The first end that is told counts.
    pub(crate) fn lost(&self, why: &str) {
        self.tell(why, false);
    }

    /// It ran out of memory.
    pub(crate) fn out_of_memory(&self, why: &str) {
        self.tell(why, true);
    }

    /// It ended with an exit code, 128 and more for a signal; a negative one is not known.
    pub(crate) fn exited(&self, code: i64, why: &str) {
        self.tell(why, is_own(code));
    }

    fn tell(&self, why: &str, is_own: bool) {
        let why = why.to_owned();
        if self.told.set(Told { why, is_own }).is_ok() {
            self.is_told.notify_waiters();
        }
    }

    /// Waits until it is told how the instance ended; false when it is not by then.
    pub(crate) async fn is_told(&self, within: Duration) -> bool {
        let told = self.is_told.notified();
        self.told.get().is_some() || tokio::time::timeout(within, told).await.is_ok()
    }

    /// Waits until it is told how the instance ended.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(crate) async fn told(&self) {
        let told = self.is_told.notified();
        if self.told.get().is_none() {
            told.await;
        }
    }

    /// What a call comes to whose connection broke; `is_up` says whether the instance still listens. Where an instance takes one
    /// call at a time, this call is what it died of; one of several may be innocent, and then may have been anywhere in its run.
    pub(crate) fn judge(&self, concurrency: u32, broke: &str, is_up: bool) -> Error {
        let why = match self.told.get() {
            Some(Told { why, is_own: true }) if concurrency == 1 => {
                return Error::Died { why: why.clone() };
            }
            Some(Told { why, .. }) => format!("{broke}: {why}"),
            None if is_up => format!(
                "the function closed the connection without a whole answer, and its instance is up ({broke})"
            ),
            None => format!("{broke}: the instance does not listen any more"),
        };
        Error::Interrupted { why }
    }
}

/// Whether a function ends with this code by itself: it exits, or crashes. Code 0 without an answer is rather how one ends that was
/// asked to.
fn is_own(code: i64) -> bool {
    code > 0 && !SENT_SIGNALS.contains(&(code - 128))
}

#[cfg(test)]
mod tests {
    use protocol::{Effect, ErrorCode};

    use super::*;

    fn check(tell: impl FnOnce(&End), concurrency: u32, expected: (ErrorCode, Effect, &str)) {
        let end = End::default();
        tell(&end);
        let error = end.judge(concurrency, "it broke", true);
        let said = error.to_string();
        assert_eq!((error.code(), error.effect()), (expected.0, expected.1));
        assert!(said.ends_with(expected.2), "{said}");
    }

    #[test]
    fn a_call_that_an_instance_died_of_failed_and_all_others_are_interrupted() {
        let failed = |why| (ErrorCode::FunctionFailed, Effect::Finished, why);
        let interrupted = |why| (ErrorCode::Interrupted, Effect::Interrupted, why);
        check(|end| end.exited(1, "code 1"), 1, failed("code 1"));
        // A crash by SIGSEGV, and an exit code that only looks like a signal.
        check(|end| end.exited(139, "code 139"), 1, failed("code 139"));
        check(|end| end.exited(255, "code 255"), 1, failed("code 255"));
        check(|end| end.out_of_memory("memory"), 1, failed("memory"));
        check(
            |end| end.exited(1, "code 1"),
            2,
            interrupted("it broke: code 1"),
        );
        check(
            |end| end.out_of_memory("memory"),
            2,
            interrupted("it broke: memory"),
        );
        for code in [-1, 0, 128 + 9, 128 + 15] {
            check(
                |end| end.exited(code, "code"),
                1,
                interrupted("it broke: code"),
            );
        }
        check(
            |end| end.lost("stopped"),
            1,
            interrupted("it broke: stopped"),
        );
        let is_up = "without a whole answer, and its instance is up (it broke)";
        check(|_| {}, 1, interrupted(is_up));
    }

    #[test]
    fn the_first_end_counts() {
        let stopped_first = |end: &End| {
            end.lost("stopped");
            end.exited(1, "code 1");
        };
        let expected = (
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "it broke: stopped",
        );
        check(stopped_first, 1, expected);
    }
}
