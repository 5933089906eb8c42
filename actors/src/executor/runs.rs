//! Runs of a `stdio` function: one instance each, never warm, as many at once as `max` and the node's budget allow.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use protocol::InstanceKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::attention::Attention;
use super::budget::{Budget, Reservation};
use super::pool::WaitError;

/// The runs of one instance key.
#[derive(Debug)]
pub struct Runs {
    key: InstanceKey,
    memory_mb: u32,
    waiters_max: usize,
    budget: Budget,
    attention: Attention,
    permits: Arc<Semaphore>,
    is_closed: watch::Sender<bool>,
    max: AtomicU32,
    /// Permits that `max` fell by while they were in use.
    owed: AtomicU32,
    running: AtomicU32,
    waiting: AtomicUsize,
    /// Those of them that have a permit and wait for the node's budget.
    short: AtomicUsize,
}

/// The right to run once; gives its share of the budget back when dropped.
#[derive(Debug)]
pub struct RunPermit {
    runs: Arc<Runs>,
    permit: Option<OwnedSemaphorePermit>,
    _reservation: Reservation,
}

/// Counts one who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Runs {
    pub(crate) fn new(
        key: InstanceKey,
        memory_mb: u32,
        max: u32,
        waiters_max: usize,
        budget: Budget,
        attention: Attention,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            memory_mb,
            waiters_max,
            budget,
            attention,
            permits: Arc::new(Semaphore::new(max as usize)),
            is_closed: watch::Sender::new(false),
            max: AtomicU32::new(max),
            owed: AtomicU32::new(0),
            running: AtomicU32::new(0),
            waiting: AtomicUsize::new(0),
            short: AtomicUsize::new(0),
        })
    }

    /// Gets the right to run once, or waits for it, oldest first.
    ///
    /// # Errors
    /// [`WaitError`]; nothing ran.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue.
    pub async fn permit(self: &Arc<Self>, until: Instant) -> Result<RunPermit, WaitError> {
        let _waiting = Waiting::count(&self.waiting);
        if self.waiting() > self.waiters_max {
            return Err(WaitError::Full);
        }
        let mut is_closed = self.is_closed.subscribe();
        let granted = async {
            tokio::select! {
                biased;
                // Those who wait look the function up anew; the sender lives in `self`.
                _ = is_closed.wait_for(|is_closed| *is_closed) => Err(WaitError::Closed),
                granted = self.granted() => Ok(granted),
            }
        };
        let (permit, reservation) =
            tokio::time::timeout_at(until, granted).await.map_err(|_| WaitError::TimedOut)??;
        self.running.fetch_add(1, Ordering::AcqRel);
        Ok(RunPermit { runs: Arc::clone(self), permit, _reservation: reservation })
    }

    async fn granted(&self) -> (Option<OwnedSemaphorePermit>, Reservation) {
        // The semaphore is never closed, so there is always a permit.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        if let Some(reservation) = self.budget.reserve(self.memory_mb) {
            return (permit, reservation);
        }
        let _short = Waiting::count(&self.short);
        loop {
            let freed = self.budget.freed();
            if let Some(reservation) = self.budget.reserve(self.memory_mb) {
                return (permit, reservation);
            }
            // The executor stops what is idle elsewhere to make room.
            self.attention.ask(self.key);
            freed.await;
        }
    }

    /// Runs that may begin at once.
    pub fn free(&self) -> u32 {
        u32::try_from(self.permits.available_permits()).unwrap_or(u32::MAX)
    }

    /// Runs under way.
    pub fn running(&self) -> u32 {
        self.running.load(Ordering::Acquire)
    }

    /// Invocations that wait for the right to run.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Acquire)
    }

    /// Whether one more invocation may wait.
    pub fn may_wait(&self) -> bool {
        self.waiting() < self.waiters_max
    }

    pub(crate) fn needs_room(&self) -> bool {
        self.short.load(Ordering::Acquire) > 0 && !self.budget.has_room(self.memory_mb)
    }

    /// Applies a changed `max`.
    pub(crate) fn set_max(&self, max: u32) {
        let before = self.max.swap(max, Ordering::AcqRel);
        if max > before {
            // Permits that were to be forgotten when they come back are kept instead.
            let more = max - before;
            let mut forgiven = 0;
            let less = |owed: u32| {
                forgiven = owed.min(more);
                Some(owed - forgiven)
            };
            let _ = self.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
            self.permits.add_permits((more - forgiven) as usize);
        } else if max < before {
            let fewer = before - max;
            let forgotten = u32::try_from(self.permits.forget_permits(fewer as usize)).unwrap_or(fewer);
            self.owed.fetch_add(fewer - forgotten, Ordering::AcqRel);
        }
    }

    /// Takes no more runs: the function was replaced or deleted.
    pub(crate) fn close(&self) {
        self.is_closed.send_replace(true);
    }

    /// Takes runs again: the function is back as it was.
    pub(crate) fn reopen(&self) {
        self.is_closed.send_replace(false);
    }

    pub(crate) fn is_closed(&self) -> bool {
        *self.is_closed.borrow()
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        self.runs.running.fetch_sub(1, Ordering::AcqRel);
        let owes = |owed: u32| owed.checked_sub(1);
        let is_owed = self.runs.owed.fetch_update(Ordering::AcqRel, Ordering::Acquire, owes).is_ok();
        if let Some(permit) = self.permit.take()
            && is_owed
        {
            permit.forget();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests;
