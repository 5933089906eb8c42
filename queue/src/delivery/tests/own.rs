//! What functions say of their own deliveries, and what is noted of those that came to nothing.

use super::*;
use crate::delivery::OwnRetry;

/// Fails always, and says how often it wants that. What it notes of `noted` is kept nowhere else.
#[derive(Debug, Default)]
struct Failing {
    calls: Mutex<Vec<String>>,
    failed: Mutex<Vec<(String, ErrorCode, bool)>>,
}

#[async_trait]
impl Deliver for Failing {
    fn own_retry(&self, delivery: &Delivery) -> OwnRetry {
        match delivery.function_id.as_str() {
            "once" | "noted" => OwnRetry {
                attempts_max: Some(1),
                until_age: None,
            },
            "fresh" => OwnRetry {
                attempts_max: None,
                until_age: Some(Duration::ZERO),
            },
            _ => OwnRetry::default(),
        }
    }

    async fn deliver(&self, Leased { delivery, .. }: &Leased) -> Result<End, Failure> {
        let function = delivery.function_id.to_string();
        self.calls.lock().unwrap().push(function);
        Err(failure(ErrorCode::FunctionFailed, Effect::Finished))
    }

    async fn failed(&self, leased: &Leased, failure: &Failure, outcome: Outcome) -> Outcome {
        let delivery = &leased.delivery;
        let function = delivery.function_id.to_string();
        let is_over = matches!(outcome, Outcome::DeadLetter { .. });
        let noted = (function, failure.code, is_over);
        self.failed.lock().unwrap().push(noted);
        match delivery.function_id.as_str() {
            "noted" => Outcome::Failed,
            _ => outcome,
        }
    }
}

#[tokio::test]
async fn a_function_is_tried_as_often_and_as_long_as_it_says() {
    let kept = Kept::new();
    let queue = kept.open();
    let failing = Arc::new(Failing::default());
    let running = DeliveryLoop::start(Args {
        queue: Arc::clone(&queue) as Arc<dyn Queue>,
        deliver: Arc::clone(&failing) as Arc<dyn Deliver>,
        permits: 20,
        lease_timeout: Duration::from_secs(10),
        retry: Retry {
            backoff: Duration::from_millis(10),
            backoff_max: Duration::from_millis(20),
            until_age: Duration::from_secs(60),
            attempts_max: 3,
        },
        meters: Meters::custom(),
    });
    for function in ["noted", "once", "fresh", "thrice"] {
        let deliveries = conformance::deliveries(function, 1);
        queue.enqueue(deliveries).await.unwrap();
    }
    // All but the one that is noted elsewhere.
    let dead = kept.dead(&queue, 3).await;
    let ended = |function: &str| {
        let calls = failing.calls.lock().unwrap();
        let calls = calls.iter().filter(|called| *called == function).count();
        let mut letters = dead.iter();
        let found = letters.find(|dead| dead.delivery.function_id.as_str() == function);
        let found = found.map(|dead| dead.reason.code);
        (calls, found)
    };
    assert_eq!(ended("once"), (1, Some(ErrorCode::FunctionFailed)));
    assert_eq!(ended("fresh"), (0, Some(ErrorCode::Expired)));
    assert_eq!(ended("thrice"), (3, Some(ErrorCode::FunctionFailed)));
    assert_eq!(ended("noted"), (1, None));
    let failed = failing.failed.lock().unwrap().clone();
    let of = |function: &str| -> Vec<_> {
        let own = failed.iter().filter(|(name, ..)| name == function);
        own.map(|(_, code, is_over)| (*code, *is_over)).collect()
    };
    assert_eq!(of("fresh"), [(ErrorCode::Expired, true)]);
    let code = ErrorCode::FunctionFailed;
    assert_eq!(of("thrice"), [(code, false), (code, false), (code, true)]);
    running.drain(Instant::now()).await;
    assert_eq!(queue.stats().waiting + queue.stats().leased, 0);
}
