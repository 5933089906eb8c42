//! What calls to other clouds have in common: their limits, and which of them are made again, and when.

use std::time::Duration;

use config::settings::{CloudSettings, HttpSettings};
use protocol::{Function, FunctionId, Invocation, Reply, Space};
use tokio::time::Instant;

use crate::Error;
use crate::contract::headers::timed_out;
use crate::http::endpoints::{Attempt, Endpoints};

/// The calls of functions that are no webhooks.
#[derive(Debug)]
pub(crate) struct Calls {
    endpoints: Endpoints<()>,
    patience: Patience,
}

/// How often a call is made again that nobody took.
#[derive(Debug, Clone)]
pub(crate) struct Patience(CloudSettings);

/// The attempts of one call.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    patience: &'a Patience,
    type_name: &'static str,
    until: Instant,
    made: u32,
}

impl Calls {
    pub(crate) fn new(http: &HttpSettings, cloud: &CloudSettings) -> Self {
        Self {
            endpoints: Endpoints::new(http),
            patience: Patience::new(cloud),
        }
    }

    /// Makes a call within its function's time, as often as it is to be made; `exchange` makes it once.
    ///
    /// # Errors
    /// Those of the last exchange, or that there were too many calls or too little time.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; whether the call was taken is not known then.
    pub(crate) async fn make<E: Future<Output = Result<Reply, Error>>>(
        &self,
        function: &Function,
        invocation: &Invocation,
        exchange: impl Fn() -> E,
    ) -> Result<Reply, Error> {
        let limits = function.limits();
        let endpoint = self.endpoints.of(function, || Ok(()))?;
        let mut attempt = Attempt::begin(endpoint, limits.concurrency)?;
        let began = Instant::now();
        let until = (began + limits.timeout).min(Instant::from_std(invocation.deadline.moment()));
        let exchanges = async {
            let mut attempts = self.patience.begin(function.type_name(), until);
            loop {
                match exchange().await {
                    Ok(reply) => return Ok(reply),
                    Err(error) => attempts.after(error).await?,
                }
            }
        };
        let outcome = match tokio::time::timeout_at(until, exchanges).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(until - began)),
        };
        attempt.settle(outcome.as_ref().err());
        outcome
    }

    pub(crate) fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.endpoints.forget(space, function_id);
    }
}

/// Refuses a payload that is longer than the platform takes.
pub(crate) fn check_size(title: &str, bytes: usize, bytes_max: usize) -> Result<(), Error> {
    match bytes <= bytes_max {
        true => Ok(()),
        false => Err(Error::PayloadTooLarge {
            why: format!("it has {bytes} bytes, {title} takes {bytes_max}"),
        }),
    }
}

/// Says at which place nobody took a call, or where it was lost.
pub(crate) fn located(error: Error, place: &str) -> Error {
    let at = |why: String| format!("{place}: {why}");
    match error {
        Error::Unreachable {
            why,
            retry_after_ms,
        } => Error::Unreachable {
            why: at(why),
            retry_after_ms,
        },
        Error::Interrupted { why } => Error::Interrupted { why: at(why) },
        Error::Malformed { why } => Error::Malformed { why: at(why) },
        other => other,
    }
}

impl Patience {
    pub(crate) fn new(settings: &CloudSettings) -> Self {
        Self(settings.clone())
    }

    pub(crate) fn begin(&self, type_name: &'static str, until: Instant) -> Attempts<'_> {
        Attempts {
            patience: self,
            type_name,
            until,
            made: 0,
        }
    }
}

impl Attempts<'_> {
    /// Waits until the next attempt after one that failed.
    ///
    /// # Errors
    /// The same error, where there is to be none: the call may have been taken, was refused for good, or has neither time nor attempts left.
    pub(crate) async fn after(&mut self, error: Error) -> Result<(), Error> {
        let asked_for = match &error {
            Error::Unreachable {
                retry_after_ms: None,
                ..
            } => Duration::ZERO,
            Error::Throttled { retry_after_ms, .. } => {
                Duration::from_millis(retry_after_ms.unwrap_or_default())
            }
            _ => return Err(error),
        };
        let settings = &self.patience.0;
        let doubled = settings.backoff.saturating_mul(1 << self.made.min(16));
        let jitter: f64 = rand::random();
        let pause = doubled
            .min(settings.backoff_max)
            .mul_f64(1.0 + jitter / 2.0);
        let next = Instant::now() + pause.max(asked_for);
        if self.made >= settings.retries_max || next >= self.until {
            return Err(error);
        }
        self.made += 1;
        metrics::counter!("hearth_cloud_retries_total", "type" => self.type_name).increment(1);
        tokio::time::sleep_until(next).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unreachable() -> Error {
        Error::Unreachable {
            why: "nobody listens".into(),
            retry_after_ms: None,
        }
    }

    fn throttled(retry_after_ms: Option<u64>) -> Error {
        Error::Throttled {
            why: "too many".into(),
            retry_after_ms,
        }
    }

    async fn waits(error: Error, times: usize) -> Vec<Duration> {
        let patience = Patience::new(&CloudSettings::default());
        let mut attempts = patience.begin("awslambda", Instant::now() + Duration::from_secs(10));
        let mut waits = Vec::new();
        for _ in 0..times {
            let begun = Instant::now();
            if attempts.after(error.clone()).await.is_err() {
                break;
            }
            waits.push(begun.elapsed());
        }
        waits
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_took_is_made_again_a_few_times_with_growing_pauses() {
        let waits = waits(unreachable(), 5).await;
        assert_eq!(waits.len(), 2);
        for (wait, least) in waits.iter().zip([100, 200]) {
            let least = Duration::from_millis(least);
            let most = least.mul_f64(1.5) + Duration::from_millis(2);
            assert!((least..=most).contains(wait), "{wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_is_asked_for_is_kept_or_the_call_is_given_up() {
        let kept = waits(throttled(Some(3_000)), 1).await;
        assert!(kept[0] >= Duration::from_secs(3), "{kept:?}");
        assert!(waits(throttled(Some(60_000)), 1).await.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_have_been_taken_is_never_made_again() {
        let interrupted = Error::Interrupted {
            why: "it broke".into(),
        };
        let refused = Error::PayloadTooLarge {
            why: "it is".into(),
        };
        let ejected = Error::Unreachable {
            why: "ejected".into(),
            retry_after_ms: Some(5),
        };
        for error in [interrupted, refused, ejected] {
            assert!(waits(error, 1).await.is_empty());
        }
    }
}
