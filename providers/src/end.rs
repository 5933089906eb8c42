//! How an instance ended, and what that says of the calls that it took down with it.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use protocol::{Function, Invocation, Reply};

use crate::contract::{Fate, HttpInstance};
use crate::{Error, Invoke};

/// How an instance ended. Whoever watches the instance tells, and the calls that broke are told.
#[derive(Debug, Default)]
pub(crate) struct End {
    told: OnceLock<Told>,
    fate: Arc<Fate>,
}

#[derive(Debug)]
struct Told {
    why: String,
    is_own: bool,
}

/// An instance of the `http` contract that is watched: calls that break are told of its end.
#[derive(Debug)]
pub(crate) struct Watched {
    instance: HttpInstance,
    end: Arc<End>,
}

/// Signals that come from outside of a function, as when an engine or an operator ends it: SIGHUP, SIGINT, SIGQUIT, SIGKILL
/// and SIGTERM.
const SENT_SIGNALS: [i64; 5] = [1, 2, 3, 9, 15];

impl End {
    /// What the contract's connections read the reason from.
    pub(crate) fn fate(&self) -> Arc<Fate> {
        Arc::clone(&self.fate)
    }

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
        let told = Told {
            why: why.clone(),
            is_own,
        };
        if self.told.set(told).is_ok() {
            // Last, because it wakes those who then look at the rest.
            self.fate.seal(why);
        }
    }

    /// What a call comes to whose connection broke. Where an instance takes one call at a time, this call is what it died of; one
    /// of several may be innocent, and then may have been anywhere in its run.
    fn judge(&self, concurrency: u32, why: String) -> Error {
        match self.told.get() {
            Some(told) if told.is_own && concurrency == 1 => Error::Died {
                why: told.why.clone(),
            },
            Some(_) => Error::Interrupted { why },
            None => Error::Interrupted {
                why: format!(
                    "the function closed the connection without a whole answer, and its instance is up ({why})"
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

impl Watched {
    pub(crate) fn new(instance: HttpInstance, end: Arc<End>) -> Self {
        Self { instance, end }
    }
}

#[async_trait]
impl Invoke for Watched {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        match self.instance.invoke(function, invocation).await {
            Err(Error::Interrupted { why }) => {
                Err(self.end.judge(function.limits().concurrency, why))
            }
            outcome => outcome,
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::{Effect, ErrorCode};

    use super::*;

    fn check(tell: impl FnOnce(&End), concurrency: u32, expected: (ErrorCode, Effect, &str)) {
        let end = End::default();
        tell(&end);
        let error = end.judge(concurrency, "it broke: what is known".into());
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
        let known = "the run was interrupted: it broke: what is known";
        check(|end| end.exited(1, "code 1"), 2, interrupted(known));
        check(|end| end.out_of_memory("memory"), 2, interrupted(known));
        for code in [-1, 0, 128 + 9, 128 + 15] {
            check(|end| end.exited(code, "code"), 1, interrupted(known));
        }
        check(|end| end.lost("stopped"), 1, interrupted(known));
        let is_up = "without a whole answer, and its instance is up (it broke: what is known)";
        check(|_| {}, 1, interrupted(is_up));
    }

    #[test]
    fn the_first_end_counts() {
        let stopped_first = |end: &End| {
            end.lost("stopped");
            end.exited(1, "code 1");
        };
        let expected = (ErrorCode::Interrupted, Effect::Interrupted, "what is known");
        check(stopped_first, 1, expected);
    }
}
