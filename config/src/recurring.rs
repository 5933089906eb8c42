//! What goes wrong again and again is logged at once, and then once a minute with how often it happened: a log that repeats itself
//! hides what else is in it.

use std::time::Duration;

use tokio::time::Instant;

/// How often a line is repeated while what it tells goes on.
const INTERVAL: Duration = Duration::from_secs(60);

/// Something that goes wrong, perhaps again and again.
#[derive(Debug, Default)]
pub struct Recurring {
    since: Option<Instant>,
    logged_at: Option<Instant>,
    times: u64,
}

/// What a line that is due tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// How often it happened since the last line, this time included.
    pub times: u64,
    /// Whole seconds since it happened first.
    pub seconds: u64,
}

impl Recurring {
    /// Notes that it happened. A line is due the first time, and then at most once a minute.
    pub fn note(&mut self, now: Instant) -> Option<Due> {
        let since = *self.since.get_or_insert(now);
        self.times += 1;
        let is_due = (self.logged_at).is_none_or(|at| now.duration_since(at) >= INTERVAL);
        is_due.then(|| {
            self.logged_at = Some(now);
            Due {
                times: std::mem::take(&mut self.times),
                seconds: now.duration_since(since).as_secs(),
            }
        })
    }

    /// It is over; for how many whole seconds it went on, if it happened at all.
    pub fn end(&mut self, now: Instant) -> Option<u64> {
        let since = std::mem::take(self).since?;
        Some(now.duration_since(since).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_due_at_once_and_then_once_a_minute_until_it_is_over() {
        let (mut recurring, begun) = (Recurring::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(recurring.end(at(0)), None);
        let due = |times, seconds| Some(Due { times, seconds });
        assert_eq!(recurring.note(at(0)), due(1, 0));
        for seconds in 1..60 {
            assert_eq!(recurring.note(at(seconds)), None);
        }
        assert_eq!(recurring.note(at(60)), due(60, 60));
        assert_eq!(recurring.note(at(61)), None);
        assert_eq!(recurring.end(at(62)), Some(62));
        assert_eq!(recurring.note(at(63)), due(1, 0));
    }
}
