//! The time limit of request heads, as hyper asks for it: one timer of the runtime for a connection's whole life. A timer for
//! each request would be made, entered, taken out and freed again within microseconds.
//!
//! The first head of a connection has the limit that hyper knows. To hyper a connection that is kept and idle waits for its next
//! head as well; that wait has a limit of its own, so that clients which keep connections for a minute do not send into one that
//! the node is closing.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt;
use tokio::time::{self, Instant};

/// One connection's limit; clones share it.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// How long the connection may wait for its second head, and all after it.
    idle: Duration,
    /// When the head that is being read is late; none while no head is waited for.
    due: Mutex<Option<Instant>>,
    has_begun: AtomicBool,
    is_late: AtomicBool,
}

/// What hyper polls beside the head. It is woken by nobody: whoever awaits [`HeadTimer::late`] polls the connection next.
#[derive(Debug)]
struct Waiting {
    shared: Arc<Shared>,
}

impl HeadTimer {
    /// The limit of a new connection, which may be idle for so long between requests.
    pub(super) fn new(idle: Duration) -> Self {
        let shared = Shared {
            idle,
            due: Mutex::default(),
            has_begun: AtomicBool::new(false),
            is_late: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Waits until a head is late; `limit` is how long one may take at least, so nothing is late any earlier.
    pub(super) async fn late(&self, limit: Duration) {
        loop {
            let due = *self.shared.due();
            time::sleep_until(due.unwrap_or_else(|| Instant::now() + limit)).await;
            if due.is_some() && *self.shared.due() == due {
                self.shared.is_late.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

impl rt::Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn rt::Sleep>> {
        self.sleep_until((Instant::now() + duration).into_std())
    }

    #[expect(clippy::disallowed_types, reason = "hyper's own signature")]
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn rt::Sleep>> {
        let deadline = match self.shared.has_begun.swap(true, Ordering::Relaxed) {
            false => Instant::from_std(deadline),
            true => Instant::now() + self.shared.idle,
        };
        *self.shared.due() = Some(deadline);
        Box::pin(Waiting {
            shared: Arc::clone(&self.shared),
        })
    }

    #[expect(clippy::disallowed_types, reason = "hyper's own signature")]
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

impl rt::Sleep for Waiting {}

impl Future for Waiting {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<()> {
        match self.shared.is_late.load(Ordering::Relaxed) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        *self.shared.due() = None;
    }
}

impl Shared {
    fn due(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
