//! The time that outlives a process, and does not jump while one runs.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::record::micros;

/// The wall clock as it was when the queue was opened, moved on by the monotonic one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    wall: u64,
    begun: Instant,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self {
            wall: micros(SystemTime::now()),
            begun: Instant::now(),
        }
    }

    /// Microseconds since 1970.
    pub(super) fn now(&self) -> u64 {
        self.wall + u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX / 2)
    }

    /// When it will be so late.
    pub(super) fn instant(&self, micros: u64) -> Instant {
        // A year is as good as never, and no clock overflows by it.
        const YEAR: u64 = 31_536_000_000_000;
        let after = micros.saturating_sub(self.wall);
        let passed = self.begun.elapsed() + Duration::from_micros(YEAR);
        self.begun + Duration::from_micros(after).min(passed)
    }
}
