//! A task that wakes itself while it is polled, polled again at once.
//!
//! hyper reads a request's body in the task that answers it, and each side wakes the other: to the runtime that is a task
//! with more to do than one worker can, so it wakes another worker, which finds nothing: two system calls and a switch for
//! each request, where there is more than one worker.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// How often it is polled in a row, before others have their turn.
const POLLS_MAX: u32 = 8;

/// Nobody polls: a wake goes to the runtime.
const IDLE: u8 = 0;
/// It is being polled.
const POLLED: u8 = 1;
/// It was woken meanwhile.
const WOKEN: u8 = 2;

/// Stands between a future and the waker of its task.
#[derive(Debug, Default)]
struct Between {
    state: AtomicU8,
    task: AtomicWaker,
}

/// Runs a future in the same way, but for the runtime's part in a wake that comes while it is polled.
pub(super) async fn repolled<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let between = Arc::new(Between::default());
    let waker = Waker::from(Arc::clone(&between));
    poll_fn(|context| {
        between.task.register(context.waker());
        for _ in 0..POLLS_MAX {
            between.state.store(POLLED, Ordering::Release);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Poll::Ready(output);
            }
            let settled =
                between
                    .state
                    .compare_exchange(POLLED, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if settled.is_ok() {
                return Poll::Pending;
            }
        }
        between.state.store(IDLE, Ordering::Release);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

impl Wake for Between {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let seen = self
            .state
            .compare_exchange(POLLED, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if seen == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio_util::task::TaskTracker;

    use super::*;

    /// Counts what reaches the runtime.
    #[derive(Default)]
    struct Counter(AtomicU32);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Polls once a future that wakes itself so often, and says what came of it and how often the runtime was woken.
    fn polled(wakes: u32) -> (Poll<u32>, u32) {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let mut polls = 0;
        let future = pin!(repolled(poll_fn(move |context| {
            polls += 1;
            if polls > wakes {
                return Poll::Ready(polls);
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })));
        let outcome = future.poll(&mut Context::from_waker(&waker));
        (outcome, counter.0.load(Ordering::Relaxed))
    }

    #[test]
    fn a_wake_of_itself_is_not_the_runtimes_until_it_is_one_too_many() {
        assert_eq!(polled(0), (Poll::Ready(1), 0));
        assert_eq!(polled(POLLS_MAX - 1), (Poll::Ready(POLLS_MAX), 0));
        assert_eq!(polled(POLLS_MAX), (Poll::Pending, 1));
    }

    /// A wake that is lost would leave one of these waiting for ever.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn wakes_from_other_threads_reach_it() {
        let tasks = TaskTracker::new();
        let passed = async {
            for _ in 0..20_000 {
                let (send, receive) = oneshot::channel();
                tasks.spawn(async move { send.send(1).unwrap() });
                assert_eq!(repolled(receive).await, Ok(1));
            }
        };
        tokio::time::timeout(Duration::from_secs(60), passed)
            .await
            .expect("no wake is lost");
    }
}
