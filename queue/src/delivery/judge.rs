//! What becomes of a delivery that its function did not take.

use std::time::Duration;

use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure};

use super::Shared;
use crate::backend::{Leased, Outcome, Promise};

/// The longest pause before a delivery that this cluster had no room for is tried again.
const ROOM_PAUSE_MAX: Duration = Duration::from_secs(30);

/// When a delivery is tried again.
///
/// Where it is made at most once, only after nothing ran, and as long as `until_age` says. Where it is made at least once, after
/// whatever may pass, `attempts_max` times at most.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The first pause, doubled each time.
    pub backoff: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// How old its event may be.
    pub until_age: Duration,
    /// How often it is tried, where it is made at least once.
    pub attempts_max: u32,
}

/// What a function or a subscription says of its own deliveries, where they are made at least once; what it leaves open is as [`Retry`] says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OwnRetry {
    /// How often each is tried.
    pub attempts_max: Option<u32>,
    /// How old its event may be.
    pub until_age: Option<Duration>,
}

/// How a failed attempt goes on.
enum Next {
    /// Another one would end the same way.
    Over,
    /// After a pause.
    Again { after: Duration, counts: bool },
}

impl Shared {
    /// Why a delivery is not even begun: it is too old, or was begun too often by a node that went down over it.
    pub(super) fn hopeless(&self, leased: &Leased) -> Option<Failure> {
        if self.args.queue.promise() == Promise::AtMostOnce {
            return None;
        }
        let retry = self.retry(leased);
        if age(leased) > retry.until_age {
            let why = format!("it waited for longer than {:?}", retry.until_age);
            let (expired, queue) = (ErrorCode::Expired, Component::Queue);
            return Some(Failure::new(expired, queue, Effect::Refused, why));
        }
        if leased.attempts >= retry.attempts_max {
            let why = format!(
                "it was begun {} times and may be tried {} times: its node went down over it, or that number was lowered",
                leased.attempts, retry.attempts_max
            );
            let (interrupted, queue) = (ErrorCode::Interrupted, Component::Queue);
            return Some(Failure::new(interrupted, queue, Effect::Interrupted, why));
        }
        None
    }

    fn retry(&self, leased: &Leased) -> Retry {
        let own = self.args.deliver.own_retry(&leased.delivery);
        let retry = self.args.retry;
        match self.args.queue.promise() {
            Promise::AtMostOnce => retry,
            Promise::AtLeastOnce => Retry {
                attempts_max: own.attempts_max.unwrap_or(retry.attempts_max),
                until_age: own.until_age.unwrap_or(retry.until_age),
                ..retry
            },
        }
    }

    /// What becomes of a delivery that the function did not take.
    pub(super) fn judge(&self, leased: &Leased, failure: Failure) -> Outcome {
        let retry = self.retry(leased);
        let next = match self.args.queue.promise() {
            Promise::AtMostOnce => retry.after_at_most_once(leased, &failure),
            Promise::AtLeastOnce => retry.after_at_least_once(leased, &failure),
        };
        let (after, counts) = match next {
            Next::Again { after, counts } if age(leased) + after <= retry.until_age => {
                (after, counts)
            }
            _ => return self.give_up(leased, failure),
        };
        let delivery = &leased.delivery;
        tracing::debug!(
            delivery = %delivery.id, space = %delivery.space, function = %delivery.function_id,
            origin = %delivery.origin, code = %failure.code, error = %failure, ?after,
            "a delivery was not taken and is made again"
        );
        Outcome::Again { after, counts }
    }

    /// Ends a delivery without success.
    pub(super) fn give_up(&self, leased: &Leased, mut reason: Failure) -> Outcome {
        let delivery = &leased.delivery;
        self.failures.warn(|more| {
            tracing::warn!(
                delivery = %delivery.id, space = %delivery.space, function = %delivery.function_id,
                origin = %delivery.origin, code = %reason.code, error = %reason, more,
                "a delivery was given up"
            );
        });
        let said = reason.answered.as_mut();
        let said = said.map(|answered| std::mem::take(&mut answered.said));
        Outcome::DeadLetter {
            reason,
            answer: Bytes::from(said.unwrap_or_default()),
        }
    }
}

impl Retry {
    fn after_at_most_once(self, leased: &Leased, failure: &Failure) -> Next {
        match failure.effect == Effect::Refused && !is_lasting(failure.code) {
            true => Next::Again {
                after: self.pause(leased.attempts).max(asked_for(failure)),
                counts: true,
            },
            false => Next::Over,
        }
    }

    fn after_at_least_once(self, leased: &Leased, failure: &Failure) -> Next {
        if is_lasting(failure.code) || is_lasting_answer(failure) {
            return Next::Over;
        }
        if has_no_room(failure) {
            // As long as it has waited already, so that the pauses grow without being counted.
            let waited = age(leased).min(ROOM_PAUSE_MAX).max(self.backoff);
            return Next::Again {
                after: with_jitter(waited).max(asked_for(failure)),
                counts: false,
            };
        }
        match leased.attempts + 1 < self.attempts_max {
            true => Next::Again {
                after: self.pause(leased.attempts).max(asked_for(failure)),
                counts: true,
            },
            false => Next::Over,
        }
    }

    /// The pause before the next attempt, after so many.
    fn pause(self, attempts: u32) -> Duration {
        let doubled = self.backoff.saturating_mul(1 << attempts.min(16));
        with_jitter(doubled.min(self.backoff_max))
    }
}

/// How long it could have been begun for: a delay that was asked for does not make it older.
fn age(leased: &Leased) -> Duration {
    let delivery = &leased.delivery;
    let delay = delivery
        .not_before
        .and_then(|moment| moment.duration_since(delivery.accepted_at).ok());
    leased.age.saturating_sub(delay.unwrap_or_default())
}

/// Up to half as long again, so that what failed together does not come back together.
fn with_jitter(pause: Duration) -> Duration {
    let jitter: f64 = rand::random();
    pause.mul_f64(1.0 + jitter / 2.0)
}

/// The pause that whoever refused asks for.
fn asked_for(failure: &Failure) -> Duration {
    let answered = failure.answered.as_ref();
    let by_function = answered.and_then(|answered| answered.retry_after_ms);
    let asked = failure.retry_after_ms.max(by_function);
    Duration::from_millis(asked.unwrap_or_default())
}

/// Whether nothing was tried, for want of room or of what the cluster needs: no fault of the function's.
fn has_no_room(failure: &Failure) -> bool {
    let is_ejected = failure.code == ErrorCode::Unreachable && failure.retry_after_ms.is_some();
    let is_ours = matches!(
        failure.code,
        ErrorCode::FunctionBusy
            | ErrorCode::RateLimited
            | ErrorCode::Overloaded
            | ErrorCode::Draining
            | ErrorCode::EngineUnavailable
            | ErrorCode::StoreUnavailable
    );
    failure.effect == Effect::Refused && (is_ours || is_ejected)
}

/// Whether another attempt would end the same way.
fn is_lasting(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidRequest
            | ErrorCode::PayloadTooLarge
            | ErrorCode::Unauthorized
            | ErrorCode::Forbidden
            | ErrorCode::MethodNotAllowed
            | ErrorCode::Vetoed
            | ErrorCode::Internal
    )
}

/// Whether the function said so itself: by a status that is neither 408 nor 429 nor 5xx, or by what is no answer at all.
fn is_lasting_answer(failure: &Failure) -> bool {
    let status = failure.answered.as_ref().map(|answered| answered.status);
    match status {
        Some(408 | 429 | 500..=599) => false,
        Some(_) => true,
        None => failure.code == ErrorCode::MalformedAnswer,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use protocol::Answered;

    use super::*;
    use crate::backend::{Delivery, Lease, conformance};

    const RETRY: Retry = Retry {
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        until_age: Duration::from_secs(86_400),
        attempts_max: 10,
    };

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (attempts, seconds) in [(0, 1), (1, 2), (2, 4), (8, 256), (9, 300), (1_000, 300)] {
            let pause = RETRY.pause(attempts);
            let least = Duration::from_secs(seconds);
            let range = least..=least.mul_f64(1.5);
            assert!(range.contains(&pause), "{attempts}: {pause:?}");
        }
    }

    #[test]
    fn a_delay_that_was_asked_for_does_not_make_it_older() {
        let accepted_at = SystemTime::now();
        let seconds = Duration::from_secs;
        for (delay, expected) in [(None, 70), (Some(60), 10), (Some(90), 0)] {
            let delivery = Delivery {
                not_before: delay.map(|delay| accepted_at + seconds(delay)),
                accepted_at,
                ..conformance::deliveries("f", 1).remove(0)
            };
            let leased = Leased {
                lease: Lease {
                    id: delivery.id,
                    epoch: 1,
                },
                delivery: Arc::new(delivery),
                attempts: 0,
                age: seconds(70),
            };
            assert_eq!(age(&leased), seconds(expected), "{delay:?}");
        }
    }

    #[test]
    fn the_longer_of_the_pauses_that_were_asked_for_is_kept() {
        let failed = |by_node, by_function| {
            let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
            let answered = Answered {
                status: 503,
                said: String::new(),
                retry_after_ms: by_function,
            };
            Failure {
                retry_after_ms: by_node,
                answered: Some(Box::new(answered)),
                ..Failure::new(code, component, Effect::Finished, "status 503")
            }
        };
        for (by_node, by_function, asked) in [
            (None, None, 0),
            (Some(5), None, 5),
            (None, Some(7), 7),
            (Some(5), Some(7), 7),
        ] {
            let asked = Duration::from_millis(asked);
            assert_eq!(asked_for(&failed(by_node, by_function)), asked);
        }
    }
}
