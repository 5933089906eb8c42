//! Why an instance died, for the invocations that it took down with it.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::sync::Notify;

/// Why an instance died; whoever watches the instance sets it, the invocations that broke read it.
#[derive(Debug, Default)]
pub(crate) struct Fate {
    why: OnceLock<String>,
    is_known: Notify,
}

/// How long a broken invocation waits for the reason: a connection breaks a little earlier than the provider hears of the death.
const WAIT: Duration = Duration::from_millis(250);

impl Fate {
    /// Tells the reason; the first one counts.
    pub(crate) fn seal(&self, why: impl Into<String>) {
        if self.why.set(why.into()).is_ok() {
            self.is_known.notify_waiters();
        }
    }

    /// Adds the reason to what the connection said, once it is known.
    pub(crate) async fn explain(&self, what: String) -> String {
        let known = self.is_known.notified();
        if self.why.get().is_none() {
            let _ = tokio::time::timeout(WAIT, known).await;
        }
        match self.why.get() {
            Some(why) => format!("{what}: {why}"),
            None => what,
        }
    }
}
