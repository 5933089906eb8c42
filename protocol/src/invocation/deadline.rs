//! When the caller of an invocation stops waiting.
#![expect(
    clippy::disallowed_types,
    reason = "holds a reading of the caller's clock and reads none, so a paused clock is the caller's matter"
)]

use std::time::Duration;

/// The moment at which the caller stops waiting; absolute in a process, remaining milliseconds on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(std::time::Instant);

impl Deadline {
    /// The deadline at a moment.
    pub fn at(moment: std::time::Instant) -> Self {
        Self(moment)
    }

    /// The moment of the deadline.
    pub fn moment(self) -> std::time::Instant {
        self.0
    }

    /// How long until the deadline, zero once it has passed.
    pub fn remaining(self, now: std::time::Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}
