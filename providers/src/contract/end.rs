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

/// How long a broken call waits for the reason: a connection breaks a little earlier than the provider hears of the end.
const WAIT: Duration = Duration::from_millis(250);

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

    /// What a call comes to whose connection broke, once the reason is known. Where an instance takes one call at a time, this
    /// call is what it died of; one of several may be innocent, and then may have been anywhere in its run.
    pub(crate) async fn judge(&self, concurrency: u32, broke: String) -> Error {
        let told = self.is_told.notified();
        if self.told.get().is_none() {
            let _ = tokio::time::timeout(WAIT, told).await;
        }
        match self.told.get() {
            Some(Told { why, is_own: true }) if concurrency == 1 => {
                Error::Died { why: why.clone() }
            }
            Some(Told { why, .. }) => Error::Interrupted {
                why: format!("{broke}: {why}"),
            },
            None => Error::Interrupted {
                why: format!(
                    "the function closed the connection without a whole answer, and its instance is up ({broke})"
                ),
            },
        }
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

    async fn check(tell: impl FnOnce(&End), concurrency: u32, expected: (ErrorCode, Effect, &str)) {
        let end = End::default();
        tell(&end);
        let error = end.judge(concurrency, "it broke".into()).await;
        let said = error.to_string();
        assert_eq!((error.code(), error.effect()), (expected.0, expected.1));
        assert!(said.ends_with(expected.2), "{said}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_an_instance_died_of_failed_and_all_others_are_interrupted() {
        let failed = |why| (ErrorCode::FunctionFailed, Effect::Finished, why);
        let interrupted = |why| (ErrorCode::Interrupted, Effect::Interrupted, why);
        check(|end| end.exited(1, "code 1"), 1, failed("code 1")).await;
        // A crash by SIGSEGV, and an exit code that only looks like a signal.
        check(|end| end.exited(139, "code 139"), 1, failed("code 139")).await;
        check(|end| end.exited(255, "code 255"), 1, failed("code 255")).await;
        check(|end| end.out_of_memory("memory"), 1, failed("memory")).await;
        check(
            |end| end.exited(1, "code 1"),
            2,
            interrupted("it broke: code 1"),
        )
        .await;
        check(
            |end| end.out_of_memory("memory"),
            2,
            interrupted("it broke: memory"),
        )
        .await;
        for code in [-1, 0, 128 + 9, 128 + 15] {
            check(
                |end| end.exited(code, "code"),
                1,
                interrupted("it broke: code"),
            )
            .await;
        }
        check(
            |end| end.lost("stopped"),
            1,
            interrupted("it broke: stopped"),
        )
        .await;
        let is_up = "without a whole answer, and its instance is up (it broke)";
        check(|_| {}, 1, interrupted(is_up)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_end_counts() {
        let stopped_first = |end: &End| {
            end.lost("stopped");
            end.exited(1, "code 1");
        };
        let expected = (
            ErrorCode::Interrupted,
            Effect::Interrupted,
            "it broke: stopped",
        );
        check(stopped_first, 1, expected).await;
    }
}
