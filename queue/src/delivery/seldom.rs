//! Lines of the log that must not become a flood.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The least time between two lines.
const PAUSE: Duration = Duration::from_secs(1);

/// Lets one line through a second, and tells it how many came to nothing since the last one.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    passed_over: u64,
}

impl Seldom {
    /// Calls `log` with the number of lines that were passed over, or passes this one over.
    pub(crate) fn warn(&self, log: impl FnOnce(u64)) {
        let now = Instant::now();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now < last + PAUSE) {
            state.passed_over += 1;
            return;
        }
        state.last = Some(now);
        let passed_over = std::mem::take(&mut state.passed_over);
        drop(state);
        log(passed_over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_says_how_many_there_were() {
        let seldom = Seldom::default();
        let mut lines = Vec::new();
        for _ in 0..25 {
            seldom.warn(|more| lines.push(more));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(lines, [0, 9, 9]);
    }
}
