//! Immutable values that one actor publishes and anyone reads without a lock.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;
use tokio::time::Instant;

struct Slot<T> {
    value: ArcSwap<T>,
    stored_at: watch::Sender<Instant>,
}

/// The writing end. There is one for each snapshot; the supervisor lends it to each incarnation of the snapshot's actor,
/// so readers keep the last value while the actor restarts.
pub struct Publisher<T> {
    slot: Arc<Slot<T>>,
}

/// A reading end; cheap to clone.
pub struct Reader<T> {
    slot: Arc<Slot<T>>,
}

impl<T> Publisher<T> {
    /// Makes the snapshot with its first value.
    pub(crate) fn new(first: T) -> Self {
        let slot = Slot {
            value: ArcSwap::from_pointee(first),
            stored_at: watch::Sender::new(Instant::now()),
        };
        Self {
            slot: Arc::new(slot),
        }
    }

    /// Replaces the value for all readers at once.
    pub(crate) fn store(&self, value: Arc<T>) {
        self.slot.value.store(value);
        self.slot.stored_at.send_replace(Instant::now());
    }

    /// A reading end.
    pub fn reader(&self) -> Reader<T> {
        Reader {
            slot: Arc::clone(&self.slot),
        }
    }
}

impl<T> Reader<T> {
    /// Borrows the value; must not be held across an await.
    pub fn load(&self) -> Guard<Arc<T>> {
        self.slot.value.load()
    }

    /// The value, to keep.
    pub fn get(&self) -> Arc<T> {
        self.slot.value.load_full()
    }

    /// Seconds since it was last replaced.
    pub fn age_seconds(&self) -> f64 {
        self.slot.stored_at.borrow().elapsed().as_secs_f64()
    }

    /// Tells of replacements; the value itself is read with [`Reader::load`].
    pub(crate) fn changes(&self) -> watch::Receiver<Instant> {
        self.slot.stored_at.subscribe()
    }

    /// Waits until a value satisfies `test`, at most until `deadline`; false when none did.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped.
    pub(crate) async fn wait_until(&self, deadline: Instant, test: impl Fn(&T) -> bool) -> bool {
        let mut changes = self.changes();
        let reached = async {
            while !test(&self.load()) {
                if changes.changed().await.is_err() {
                    return test(&self.load());
                }
            }
            true
        };
        tokio::time::timeout_at(deadline, reached)
            .await
            .unwrap_or(false)
    }
}

impl<T> Clone for Publisher<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
        }
    }
}

impl<T> Clone for Reader<T> {
    fn clone(&self) -> Self {
        Self {
            slot: Arc::clone(&self.slot),
        }
    }
}

impl<T> std::fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

impl<T> std::fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reader")
    }
}
