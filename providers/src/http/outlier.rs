//! Outlier ejection of one endpoint: a plain state, given the time by its caller.

use std::time::Duration;

use tokio::time::Instant;

/// The failures of one endpoint, and whether it is ejected.
#[derive(Debug)]
pub(super) struct Outlier {
    failures_max: u32,
    ejection: Duration,
    /// Failures in a row.
    failures: u32,
    /// Ejections in a row.
    ejections: u32,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every call is let through.
    Closed,
    /// None is, until then; the first one after that is the probe.
    Ejected { until: Instant },
    /// One is in flight, and decides.
    Probing,
}

/// An endpoint is ejected after so many failures at least, whatever the settings say.
const FAILURES_MIN: u32 = 5;
/// The longest ejection, as a multiple of the first.
const EJECTION_FACTOR_MAX: u32 = 10;
/// What a caller is told to wait while a probe is in flight.
const PROBE_WAIT: Duration = Duration::from_millis(500);

impl Outlier {
    pub(super) fn new(failures_max: u32, ejection: Duration) -> Self {
        Self {
            failures_max: failures_max.max(FAILURES_MIN),
            ejection,
            failures: 0,
            ejections: 0,
            state: State::Closed,
        }
    }

    /// Lets a call through, or tells how long to wait.
    pub(super) fn admit(&mut self, now: Instant) -> Result<(), Duration> {
        match self.state {
            State::Closed => Ok(()),
            State::Ejected { until } if now < until => Err(until - now),
            State::Ejected { .. } => {
                self.state = State::Probing;
                Ok(())
            }
            State::Probing => Err(PROBE_WAIT),
        }
    }

    /// A call found somebody there.
    pub(super) fn succeed(&mut self) {
        self.failures = 0;
        self.ejections = 0;
        self.state = State::Closed;
    }

    /// A call found nobody there, or waited in vain.
    pub(super) fn fail(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        match self.state {
            State::Probing => self.eject(now),
            State::Closed if self.failures >= self.failures_max => self.eject(now),
            // Late failures of calls that were let through before count no more.
            State::Closed | State::Ejected { .. } => {}
        }
    }

    /// A call ended without an outcome; if it was the probe, the next one is.
    pub(super) fn abandon(&mut self, now: Instant) {
        if self.state == State::Probing {
            self.state = State::Ejected { until: now };
        }
    }

    pub(super) fn has_failures(&self) -> bool {
        self.failures > 0
    }

    fn eject(&mut self, now: Instant) {
        let factor = 2_u32
            .saturating_pow(self.ejections)
            .min(EJECTION_FACTOR_MAX);
        self.ejections = self.ejections.saturating_add(1);
        self.state = State::Ejected {
            until: now + self.ejection * factor,
        };
        metrics::counter!("hearth_webhook_ejections_total").increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EJECTION: Duration = Duration::from_secs(5);

    fn failed(times: u32, now: Instant) -> Outlier {
        let mut outlier = Outlier::new(5, EJECTION);
        for _ in 0..times {
            outlier.fail(now);
        }
        outlier
    }

    #[tokio::test(start_paused = true)]
    async fn ejects_after_failures_in_a_row_only() {
        let now = Instant::now();
        assert_eq!(failed(4, now).admit(now), Ok(()));
        assert_eq!(failed(5, now).admit(now), Err(EJECTION));
        let mut broken_row = failed(4, now);
        broken_row.succeed();
        broken_row.fail(now);
        assert_eq!(broken_row.admit(now), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn fewer_than_five_failures_never_eject() {
        let now = Instant::now();
        let mut eager = Outlier::new(1, EJECTION);
        (0..4).for_each(|_| eager.fail(now));
        assert_eq!(eager.admit(now), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_decides_and_failing_doubles_up_to_ten_times() {
        let mut now = Instant::now();
        let mut outlier = failed(5, now);
        for factor in [1, 2, 4, 8, 10, 10] {
            assert_eq!(outlier.admit(now), Err(EJECTION * factor));
            now += EJECTION * factor;
            assert_eq!(outlier.admit(now), Ok(()), "the probe");
            assert_eq!(outlier.admit(now), Err(PROBE_WAIT), "a single one");
            outlier.fail(now);
        }
        now += EJECTION * 10;
        assert_eq!(outlier.admit(now), Ok(()));
        outlier.succeed();
        assert_eq!(outlier.admit(now), Ok(()));
        assert!(!outlier.has_failures());
    }

    #[tokio::test(start_paused = true)]
    async fn an_abandoned_probe_is_followed_by_another() {
        let now = Instant::now();
        let mut outlier = failed(5, now);
        let later = now + EJECTION;
        assert_eq!(outlier.admit(later), Ok(()));
        outlier.abandon(later);
        assert_eq!(outlier.admit(later), Ok(()));
    }
}
