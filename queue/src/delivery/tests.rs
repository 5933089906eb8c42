use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::future::{BoxFuture, pending};
use protocol::{Answered, Component, Effect, ErrorCode};

use super::*;
use crate::backend::embedded::{self, EmbeddedQueue};
use crate::backend::memory::{Limits, MemoryQueue};
use crate::backend::{DeadLetter, conformance, memory};

mod own;

/// The bound on every wait of these tests.
const PATIENCE: Duration = Duration::from_secs(600);

type Answer = Box<dyn Fn(u32) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

/// Functions of which only the script is real: what each does with its n-th call.
#[derive(Default)]
struct Scripted {
    functions: BTreeMap<String, Answer>,
    calls: Mutex<Vec<(String, u32, Instant)>>,
    changed: Notify,
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

#[async_trait]
impl Deliver for Scripted {
    async fn deliver(&self, Leased { delivery, .. }: &Leased) -> Result<End, Failure> {
        let function = delivery.function_id.to_string();
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.push((function.clone(), delivery.ordinal, Instant::now()));
            calls.iter().filter(|(name, ..)| *name == function).count()
        };
        self.changed.notify_one();
        match self.functions.get(&function) {
            Some(answer) => answer(u32::try_from(call).unwrap())
                .await
                .map(|()| End::Delivered),
            None => Ok(End::Delivered),
        }
    }
}

impl Scripted {
    fn with<F>(mut self, function: &str, answer: impl Fn(u32) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let answer: Answer = Box::new(move |call| Box::pin(answer(call)));
        self.functions.insert(function.to_owned(), answer);
        self
    }

    fn calls(&self, function: &str) -> Vec<Instant> {
        let calls = self.calls.lock().unwrap();
        let own = calls.iter().filter(|(name, ..)| name == function);
        own.map(|(_, _, at)| *at).collect()
    }

    async fn called(&self, function: &str, times: usize) {
        let reached = async {
            while self.calls(function).len() < times {
                self.changed.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, reached)
            .await
            .unwrap_or_else(|_| {
                panic!("{function} was called {} times", self.calls(function).len())
            });
    }
}

fn failure(code: ErrorCode, effect: Effect) -> Failure {
    Failure::new(code, Component::Provider, effect, "the reason")
}

struct Sandbox {
    queue: Arc<MemoryQueue>,
    functions: Arc<Scripted>,
    running: DeliveryLoop,
}

impl Sandbox {
    fn start(functions: Scripted) -> Self {
        let limits = Limits {
            lease_timeout: Duration::from_secs(10),
            ..conformance::limits()
        };
        let queue = Arc::new(MemoryQueue::new(limits, memory::Meters::none()));
        let functions = Arc::new(functions);
        let running = DeliveryLoop::start(Args {
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            deliver: Arc::clone(&functions) as Arc<dyn Deliver>,
            permits: 20,
            lease_timeout: limits.lease_timeout,
            retry: Retry {
                backoff: Duration::from_secs(1),
                backoff_max: Duration::from_secs(300),
                until_age: Duration::from_secs(60),
                attempts_max: 3,
            },
            meters: Meters::custom(),
        });
        Self {
            queue,
            functions,
            running,
        }
    }

    async fn emit(&self, function: &str, count: u32) {
        let deliveries = conformance::deliveries(function, count);
        self.queue.enqueue(deliveries).await.unwrap();
    }

    async fn drain(self, within: Duration) -> Stats {
        self.running.drain(Instant::now() + within).await
    }
}

#[tokio::test(start_paused = true)]
async fn delivers_each_once() {
    let sandbox = Sandbox::start(Scripted::default());
    sandbox.emit("f", 100).await;
    let functions = Arc::clone(&sandbox.functions);
    assert_eq!(sandbox.drain(PATIENCE).await, Stats::default());
    let mut ordinals: Vec<_> = functions
        .calls
        .lock()
        .unwrap()
        .iter()
        .map(|(_, n, _)| *n)
        .collect();
    ordinals.sort_unstable();
    assert_eq!(ordinals, (0..100).collect::<Vec<_>>());
}

/// What hangs, what fails and what is refused take nothing from what is well.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_functions_that_hang_or_fail() {
    let functions = Scripted::default()
        .with("hangs", |_| pending())
        .with("fails", |_| async {
            Err(failure(ErrorCode::FunctionFailed, Effect::Finished))
        })
        .with("refuses", |_| async {
            Err(failure(ErrorCode::Unreachable, Effect::Refused))
        });
    let sandbox = Sandbox::start(functions);
    for function in ["hangs", "fails", "refuses"] {
        sandbox.emit(function, 100).await;
    }
    sandbox.functions.called("hangs", 1).await;
    let began = Instant::now();
    sandbox.emit("healthy", 200).await;
    sandbox.functions.called("healthy", 200).await;
    assert_eq!(began.elapsed(), Duration::ZERO, "it waited for no timer");
    assert_eq!(sandbox.functions.calls("fails").len(), 100);
    assert_eq!(
        sandbox.functions.calls("hangs").len(),
        5,
        "a quarter of the permits"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_tried_again_for_a_while() {
    let functions = Scripted::default().with("f", |call| async move {
        match call {
            1..=2 => Err(failure(ErrorCode::Overloaded, Effect::Refused)),
            _ => Ok(()),
        }
    });
    let sandbox = Sandbox::start(functions.with("never", |_| async {
        Err(failure(ErrorCode::Unreachable, Effect::Refused))
    }));
    let began = Instant::now();
    sandbox.emit("f", 1).await;
    sandbox.emit("never", 1).await;
    sandbox.functions.called("f", 3).await;
    let functions = Arc::clone(&sandbox.functions);
    assert_eq!(sandbox.drain(PATIENCE).await, Stats::default());
    let calls = functions.calls("f");
    assert!(calls[1] - calls[0] >= Duration::from_secs(1));
    assert!(calls[2] - calls[1] >= Duration::from_secs(2));
    assert_eq!(calls.len(), 3);
    let never = functions.calls("never");
    let last = *never.last().unwrap() - began;
    assert!(never.len() >= 4, "{}", never.len());
    assert!(last <= Duration::from_secs(60), "{last:?}");
}

/// At most once: what may have run is not run again, and what can not be better is not tried again.
#[tokio::test(start_paused = true)]
async fn what_may_have_run_is_not_tried_again() {
    let fails = |code, effect| move |_| async move { Err(failure(code, effect)) };
    let functions = Scripted::default()
        .with("failed", fails(ErrorCode::FunctionFailed, Effect::Finished))
        .with("lost", fails(ErrorCode::Interrupted, Effect::Interrupted))
        .with("large", fails(ErrorCode::PayloadTooLarge, Effect::Refused));
    let sandbox = Sandbox::start(functions);
    let functions = Arc::clone(&sandbox.functions);
    for function in ["failed", "lost", "large"] {
        sandbox.emit(function, 1).await;
    }
    assert_eq!(sandbox.drain(PATIENCE).await, Stats::default());
    for function in ["failed", "lost", "large"] {
        assert_eq!(functions.calls(function).len(), 1, "{function}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_was_asked_for_is_kept() {
    let sandbox = Sandbox::start(Scripted::default().with("f", |call| async move {
        match call {
            1 => Err(failure(ErrorCode::Unreachable, Effect::Refused).retry_after_ms(20_000)),
            _ => Ok(()),
        }
    }));
    sandbox.emit("f", 1).await;
    sandbox.functions.called("f", 2).await;
    let calls = sandbox.functions.calls("f");
    assert!(calls[1] - calls[0] >= Duration::from_secs(20));
}

/// A delivery that takes longer than a lease goes on.
#[tokio::test(start_paused = true)]
async fn a_long_delivery_keeps_its_lease() {
    let sandbox = Sandbox::start(Scripted::default().with("slow", |_| async {
        tokio::time::sleep(Duration::from_secs(45)).await;
        Ok(())
    }));
    sandbox.emit("slow", 1).await;
    let (functions, began) = (Arc::clone(&sandbox.functions), Instant::now());
    assert_eq!(sandbox.drain(PATIENCE).await, Stats::default());
    assert!(began.elapsed() >= Duration::from_secs(45));
    assert_eq!(functions.calls("slow").len(), 1);
}

/// A delivery that panics frees its permit, and is lost: whether it was made nobody knows.
#[tokio::test(start_paused = true)]
async fn a_panic_costs_one_delivery() {
    let sandbox = Sandbox::start(
        Scripted::default().with("panics", |_| async { panic!("as the test wants it") }),
    );
    sandbox.emit("panics", 50).await;
    sandbox.functions.called("panics", 50).await;
    sandbox.emit("f", 1).await;
    sandbox.functions.called("f", 1).await;
    let functions = Arc::clone(&sandbox.functions);
    assert_eq!(sandbox.drain(PATIENCE).await, Stats::default());
    assert_eq!(functions.calls("panics").len(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_drain_works_off_what_waits_and_tells_what_is_left() {
    let slow = |_| async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(())
    };
    let sandbox = Sandbox::start(
        Scripted::default()
            .with("slow", slow)
            .with("hangs", |_| pending()),
    );
    sandbox.emit("slow", 15).await;
    sandbox.emit("hangs", 8).await;
    let (functions, began) = (Arc::clone(&sandbox.functions), Instant::now());
    let left = sandbox.drain(Duration::from_secs(20)).await;
    assert_eq!(functions.calls("slow").len(), 15);
    assert_eq!(left.waiting + left.leased, 8, "{left:?}");
    assert_eq!(began.elapsed(), Duration::from_secs(20));
    tokio::time::sleep(Duration::from_secs(30)).await;
    let called = functions.calls("hangs").len();
    assert_eq!(called, left.leased, "nothing is delivered after the drain");
}

/// A queue on disk, to be opened again and again.
struct Kept(tempfile::TempDir);

impl Kept {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn open(&self) -> Arc<EmbeddedQueue> {
        let options = embedded::Options {
            limits: conformance::limits(),
            ..embedded::Options::for_tests()
        };
        let meters = embedded::Meters::none();
        Arc::new(EmbeddedQueue::open(self.0.path(), options, meters).unwrap())
    }

    fn start(
        &self,
        queue: &Arc<EmbeddedQueue>,
        functions: &Arc<Scripted>,
        retry: Retry,
    ) -> DeliveryLoop {
        DeliveryLoop::start(Args {
            queue: Arc::clone(queue) as Arc<dyn Queue>,
            deliver: Arc::clone(functions) as Arc<dyn Deliver>,
            permits: 8,
            lease_timeout: conformance::limits().lease_timeout,
            retry,
            meters: Meters::custom(),
        })
    }

    /// Waits until there are so many dead letters.
    async fn dead(&self, queue: &EmbeddedQueue, count: usize) -> Vec<DeadLetter> {
        let reached = async {
            while queue.stats().dead < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached)
            .await
            .expect("they died in time");
        queue.dead_letters(0, count).await.unwrap()
    }
}

/// What waits on disk is left there: the next process delivers it.
#[tokio::test]
async fn a_drain_leaves_what_is_kept() {
    let retry = Retry {
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(300),
        until_age: Duration::from_secs(60),
        attempts_max: 3,
    };
    let kept = Kept::new();
    let functions = Arc::new(Scripted::default().with("f", |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }));
    let queue = kept.open();
    queue
        .enqueue(conformance::deliveries("f", 100))
        .await
        .unwrap();
    let running = kept.start(&queue, &functions, retry);
    functions.called("f", 1).await;
    let left = running.drain(Instant::now() + PATIENCE).await;
    let delivered = functions.calls("f").len();
    assert_eq!(left.leased, 0, "nothing is on a lease that nobody has");
    let left = left.waiting;
    assert_eq!(left, 100 - delivered);
    assert!(left > 50, "{left}");
    drop(queue);
    let queue = kept.open();
    assert_eq!(queue.stats().waiting, left);
    let functions = Arc::new(Scripted::default());
    let running = kept.start(&queue, &functions, retry);
    functions.called("f", left).await;
    let left = running.drain(Instant::now() + PATIENCE).await;
    assert_eq!(left, Stats::default());
}

fn answered(status: u16) -> Failure {
    let answered = Answered {
        status,
        said: "what it said".into(),
        retry_after_ms: None,
    };
    Failure {
        answered: Some(Box::new(answered)),
        ..failure(ErrorCode::FunctionFailed, Effect::Finished)
    }
}

/// How often each function is called that always fails in one way, where a delivery is made at least once, and how that ends.
#[tokio::test]
async fn at_least_once_tries_again_what_may_pass() {
    let retry = Retry {
        backoff: Duration::from_millis(10),
        backoff_max: Duration::from_millis(20),
        until_age: Duration::from_secs(60),
        attempts_max: 3,
    };
    let fails = |code, effect| failure(code, effect);
    let cases = [
        ("s400", answered(400), 1),
        ("s404", answered(404), 1),
        ("s301", answered(301), 1),
        ("s408", answered(408), 3),
        ("s429", answered(429), 3),
        ("s500", answered(500), 3),
        ("s503", answered(503), 3),
        (
            "exit",
            fails(ErrorCode::FunctionFailed, Effect::Finished),
            3,
        ),
        ("cut", fails(ErrorCode::Interrupted, Effect::Interrupted), 3),
        (
            "late",
            fails(ErrorCode::DeadlineExceeded, Effect::Interrupted),
            3,
        ),
        ("away", fails(ErrorCode::Unreachable, Effect::Refused), 3),
        (
            "garbage",
            fails(ErrorCode::MalformedAnswer, Effect::Finished),
            1,
        ),
        ("vetoed", fails(ErrorCode::Vetoed, Effect::Refused), 1),
    ];
    let mut functions = Scripted::default();
    for (name, failure, _) in &cases {
        let failure = failure.clone();
        functions = functions.with(name, move |_| {
            let failure = failure.clone();
            async move { Err(failure) }
        });
    }
    let (functions, kept) = (Arc::new(functions), Kept::new());
    let queue = kept.open();
    let running = kept.start(&queue, &functions, retry);
    for (name, ..) in &cases {
        queue
            .enqueue(conformance::deliveries(name, 1))
            .await
            .unwrap();
    }
    let dead = kept.dead(&queue, cases.len()).await;
    for (name, failure, calls) in cases {
        assert_eq!(functions.calls(name).len(), calls, "{name}");
        let dead = dead
            .iter()
            .find(|dead| dead.delivery.function_id.as_str() == name);
        let dead = dead.unwrap();
        assert_eq!(dead.attempts as usize, calls, "{name}");
        assert_eq!(dead.reason.code, failure.code, "{name}");
        let status = |failure: &Failure| failure.answered.as_ref().map(|answered| answered.status);
        assert_eq!(status(&dead.reason), status(&failure), "{name}");
        let said = failure.answered.map_or("", |_| "what it said");
        assert_eq!(dead.answer, said.as_bytes(), "{name}");
    }
    running.drain(Instant::now()).await;
}

/// What the cluster had no room for was not tried, so it may come back as often as it takes.
#[tokio::test]
async fn what_finds_no_room_costs_no_attempt() {
    let retry = Retry {
        backoff: Duration::from_millis(10),
        backoff_max: Duration::from_millis(20),
        until_age: Duration::from_secs(60),
        attempts_max: 2,
    };
    let functions = Scripted::default().with("f", |call| async move {
        match call {
            1..=4 => Err(failure(ErrorCode::FunctionBusy, Effect::Refused)),
            5 => Err(answered(500)),
            _ => Ok(()),
        }
    });
    let (functions, kept) = (Arc::new(functions), Kept::new());
    let queue = kept.open();
    let running = kept.start(&queue, &functions, retry);
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    functions.called("f", 6).await;
    assert_eq!(running.drain(Instant::now() + PATIENCE).await.dead, 0);
}

/// What is too old is never begun, and what brought its node down too often neither.
#[tokio::test]
async fn what_is_hopeless_is_not_begun() {
    let retry = Retry {
        backoff: Duration::from_secs(1),
        backoff_max: Duration::from_secs(1),
        until_age: Duration::from_secs(60),
        attempts_max: 2,
    };
    let (functions, kept) = (Arc::new(Scripted::default()), Kept::new());
    let permits = Permits { free: 8, total: 8 };
    let mut queue = kept.open();
    queue
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    for _ in 0..2 {
        // As a node that dies with it: its lease is never settled.
        assert_eq!(queue.lease(permits).await.unwrap().len(), 1);
        drop(queue);
        queue = kept.open();
    }
    let running = kept.start(&queue, &functions, retry);
    let dead = kept.dead(&queue, 1).await.remove(0);
    assert_eq!(dead.reason.code, ErrorCode::Interrupted);
    running.drain(Instant::now()).await;

    let retry = Retry {
        until_age: Duration::ZERO,
        ..retry
    };
    queue
        .enqueue(conformance::deliveries("g", 1))
        .await
        .unwrap();
    let running = kept.start(&queue, &functions, retry);
    let dead = kept.dead(&queue, 2).await.remove(1);
    assert_eq!(dead.reason.code, ErrorCode::Expired);
    assert_eq!(
        functions.calls("f").len() + functions.calls("g").len(),
        0,
        "nothing was called"
    );
    running.drain(Instant::now()).await;
}
