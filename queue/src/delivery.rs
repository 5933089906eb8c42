//! The loop that takes deliveries from a queue and hands them to their functions.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use protocol::Failure;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backend::{Delivery, Leased, Outcome, Permits, Promise, Queue, Stats};

mod judge;
mod meters;
pub(crate) mod seldom;

pub use judge::{OwnRetry, Retry};
pub use meters::Meters;
use seldom::Seldom;

/// How long the queue has at least to be closed.
const CLOSE_TIME_MIN: Duration = Duration::from_secs(1);

/// How a delivery ended that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The function took it.
    Delivered,
    /// There was nothing to do any more: what it was for has ended.
    Void,
}

/// Hands an event, or an invocation, to a function.
#[async_trait]
pub trait Deliver: Send + Sync + fmt::Debug + 'static {
    /// Hands the event to the function, once, and waits for the end of it.
    ///
    /// # Errors
    /// Why the function did not take it. What becomes of the delivery follows from that: see [`Retry`].
    ///
    /// # Cancel safety
    /// Dropping the future cancels the invocation.
    async fn deliver(&self, leased: &Leased) -> Result<End, Failure>;

    /// What the subscription or the function, rather than [`Retry`], says of its deliveries. Asked for each of them, so it must be cheap.
    fn own_retry(&self, _delivery: &Delivery) -> OwnRetry {
        OwnRetry::default()
    }

    /// Notes that a delivery came to nothing, before the queue is told how it goes on. What it returns is what the queue is told.
    async fn failed(&self, _leased: &Leased, _failure: &Failure, outcome: Outcome) -> Outcome {
        outcome
    }
}

/// What a loop is made from.
#[derive(Debug)]
pub struct Args {
    /// Where deliveries come from.
    pub queue: Arc<dyn Queue>,
    /// What calls the functions.
    pub deliver: Arc<dyn Deliver>,
    /// Deliveries that run at once.
    pub permits: usize,
    /// How long the queue's leases last.
    pub lease_timeout: Duration,
    /// When a delivery is tried again.
    pub retry: Retry,
    /// What it counts.
    pub meters: Meters,
}

/// A running loop. Dropping it leaves its tasks to the runtime: use [`DeliveryLoop::drain`].
#[derive(Debug)]
pub struct DeliveryLoop {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    /// The task that leases.
    pulling: JoinHandle<Option<()>>,
    /// Ends the leasing.
    stop: CancellationToken,
    /// Ends what runs as well.
    cut: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    args: Args,
    running: Running,
    failures: Seldom,
}

/// Counts the deliveries that run.
#[derive(Debug, Default)]
struct Running {
    count: AtomicUsize,
    ended: Notify,
}

/// How an attempt ended, and what the queue is told of it.
struct Ended {
    outcome: Outcome,
    told: Outcome,
}

/// One delivery that runs, until it is dropped.
struct Permit(Arc<Shared>);

impl DeliveryLoop {
    /// Starts to deliver.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(args: Args) -> Self {
        let shared = Arc::new(Shared {
            args,
            running: Running::default(),
            failures: Seldom::default(),
        });
        let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
        let stop = cut.child_token();
        let pulling = pull(
            Arc::clone(&shared),
            tasks.clone(),
            cut.clone(),
            stop.clone(),
        );
        let pulling = tasks.spawn(cut.clone().run_until_cancelled_owned(pulling));
        Self {
            shared,
            tasks,
            pulling,
            stop,
            cut,
        }
    }

    /// Ends by the deadline at the latest; what runs then is cut off. Before that it waits for what runs, and where what waits
    /// would be lost, delivers that too: whoever enqueues must have stopped by now. Returns what is left.
    pub async fn drain(self, deadline: Instant) -> Stats {
        let queue = &self.shared.args.queue;
        let promise = queue.promise();
        if promise == Promise::AtLeastOnce {
            self.stop.cancel();
            // What it is leasing begins, and is waited for: nothing is left on a lease that nobody has. Past the deadline it is cut.
            let _ = tokio::time::timeout_at(deadline, self.pulling).await;
        }
        let is_drained = || match promise {
            Promise::AtMostOnce => {
                let stats = queue.stats();
                stats.waiting + stats.leased == 0
            }
            Promise::AtLeastOnce => self.shared.running.count.load(Ordering::Acquire) == 0,
        };
        let mut pause = Duration::from_millis(2);
        while !is_drained() && Instant::now() < deadline {
            tokio::time::sleep_until(deadline.min(Instant::now() + pause)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        self.cut.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let left = queue.stats();
        self.shared.count_lost(left.waiting + left.leased);
        // What is left of the time may be nothing, and what is to be told is told all the same, if the queue's keeper listens.
        queue
            .close(deadline.max(Instant::now() + CLOSE_TIME_MIN))
            .await;
        left
    }
}

/// Leases what there is, whenever there is something and somebody to deliver it.
async fn pull(
    shared: Arc<Shared>,
    tasks: TaskTracker,
    cut: CancellationToken,
    stop: CancellationToken,
) {
    let queue = &shared.args.queue;
    while !stop.is_cancelled() {
        let permits = shared.permits();
        let leased = match permits.free {
            0 => Vec::new(),
            _ => queue.lease(permits).await.unwrap_or_else(|error| {
                shared
                    .failures
                    .warn(|more| tracing::warn!(%error, more, "the queue can not be read"));
                Vec::new()
            }),
        };
        let has_none = leased.is_empty();
        if !has_none {
            fault_point!("loop.leased");
        }
        for leased in leased {
            let permit = Permit::take(&shared);
            let attempt = attempt(Arc::clone(&shared), leased, permit);
            tasks.spawn(cut.clone().run_until_cancelled_owned(attempt));
        }
        if !has_none {
            // There may be more of those that were passed over as their functions had enough.
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = queue.ready(), if permits.free > 0 => {}
            () = shared.running.ended.notified() => {}
        }
    }
}

/// Makes one attempt, and tells the queue how it ended.
async fn attempt(shared: Arc<Shared>, leased: Leased, permit: Permit) {
    let Args { queue, meters, .. } = &shared.args;
    let Some(Ended { outcome, told }) = shared.end(&leased).await else {
        shared.count_lost(1);
        return;
    };
    meters.made(&leased, &outcome);
    let ended = meters.ended(&outcome).clone();
    fault_point!("loop.ended");
    match queue.settle(&leased.lease, told).await {
        Ok(()) => {
            fault_point!("loop.settled");
            ended.increment(1);
        }
        Err(error) => {
            shared.count_lost(1);
            shared.failures.warn(
                |more| tracing::warn!(%error, more, "a delivery ended and can not be settled"),
            );
        }
    }
    drop(permit);
}

impl Shared {
    fn permits(&self) -> Permits {
        let total = self.args.permits;
        let running = self.running.count.load(Ordering::Acquire);
        Permits {
            free: total.saturating_sub(running),
            total,
        }
    }

    /// Delivers, and decides how it goes on.
    async fn deliver(&self, leased: &Leased) -> Ended {
        let deliver = &self.args.deliver;
        fault_point!("loop.begun");
        let (failure, outcome) = match self.hopeless(leased) {
            Some(reason) => (reason.clone(), self.give_up(leased, reason)),
            None => match deliver.deliver(leased).await {
                Ok(end) => {
                    let outcome = match end {
                        End::Delivered => Outcome::Delivered,
                        End::Void => Outcome::Void,
                    };
                    return Ended {
                        told: outcome.clone(),
                        outcome,
                    };
                }
                Err(failure) => (failure.clone(), self.judge(leased, failure)),
            },
        };
        fault_point!("loop.failed");
        let told = deliver.failed(leased, &failure, outcome.clone());
        let told = told.await;
        Ended { outcome, told }
    }

    /// Delivers, and keeps the lease meanwhile. Nothing when it was lost: what runs is cancelled then, as another one may run.
    async fn end(&self, leased: &Leased) -> Option<Ended> {
        let queue = &self.args.queue;
        let mut delivering = std::pin::pin!(self.deliver(leased));
        let pause = self.args.lease_timeout / 3;
        let mut extension = tokio::time::interval_at(Instant::now() + pause, pause);
        extension.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                ended = &mut delivering => return Some(ended),
                _ = extension.tick() => {
                    if let Err(error) = queue.extend(&leased.lease).await {
                        tracing::warn!(%error, "a delivery is cancelled: somebody else may have it");
                        return None;
                    }
                }
            }
        }
    }

    /// Counts deliveries of which nobody will know how they ended. Where they are kept they are made once more.
    fn count_lost(&self, count: usize) {
        let Args { queue, meters, .. } = &self.args;
        if queue.promise() == Promise::AtMostOnce {
            meters.lost.increment(count as u64);
        }
    }
}

impl Permit {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.running.count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.count.fetch_sub(1, Ordering::AcqRel);
        self.0.running.ended.notify_one();
    }
}

#[cfg(test)]
mod tests;
