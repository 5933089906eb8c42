//! The node's memory and instance limits, held by every start and every run.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// What instances may use in all on this node; cheap to clone.
#[derive(Debug, Clone)]
pub struct Budget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    memory_max_mb: u64,
    instances_max: u32,
    used: Mutex<Used>,
    freed: Notify,
}

/// What is promised at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Memory promised to instances, in MiB.
    pub memory_mb: u64,
    /// Instances that are up, starting or stopping.
    pub instances: u32,
}

/// A share of the budget; gives it back when dropped.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    memory_mb: u64,
}

impl Budget {
    /// A budget of which nothing is used.
    pub fn new(memory_max_mb: u64, instances_max: u32) -> Self {
        Self {
            shared: Arc::new(Shared {
                memory_max_mb,
                instances_max,
                used: Mutex::default(),
                freed: Notify::new(),
            }),
        }
    }

    /// Takes a share for one instance, or none when there is no room.
    pub fn reserve(&self, memory_mb: u32) -> Option<Reservation> {
        let memory_mb = u64::from(memory_mb);
        let mut used = self
            .shared
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let fits = used.memory_mb + memory_mb <= self.shared.memory_max_mb
            && used.instances < self.shared.instances_max;
        fits.then(|| {
            used.memory_mb += memory_mb;
            used.instances += 1;
            Reservation {
                shared: Arc::clone(&self.shared),
                memory_mb,
            }
        })
    }

    /// Takes a share for an instance that is up already, even where that goes over the limit.
    pub fn adopt(&self, memory_mb: u32) -> Reservation {
        let mut used = self
            .shared
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        used.memory_mb += u64::from(memory_mb);
        used.instances += 1;
        Reservation {
            shared: Arc::clone(&self.shared),
            memory_mb: memory_mb.into(),
        }
    }

    /// Whether one more instance of this size has room now.
    pub fn has_room(&self, memory_mb: u32) -> bool {
        let used = self.used();
        used.memory_mb + u64::from(memory_mb) <= self.shared.memory_max_mb
            && used.instances < self.shared.instances_max
    }

    /// Whether an instance of this size can ever have room.
    pub fn could_fit(&self, memory_mb: u32) -> bool {
        u64::from(memory_mb) <= self.shared.memory_max_mb && self.shared.instances_max > 0
    }

    /// Resolves when a share comes back after this call.
    pub fn freed(&self) -> Notified<'_> {
        self.shared.freed.notified()
    }

    /// What is promised now.
    pub fn used(&self) -> Used {
        *self
            .shared
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that instances may have in all, in MiB.
    pub fn memory_max_mb(&self) -> u64 {
        self.shared.memory_max_mb
    }

    /// Instances there may be in all.
    pub fn instances_max(&self) -> u32 {
        self.shared.instances_max
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut used = self
            .shared
            .used
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        used.memory_mb = used.memory_mb.saturating_sub(self.memory_mb);
        used.instances = used.instances.saturating_sub(1);
        drop(used);
        self.shared.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_shares_come_back() {
        let budget = Budget::new(100, 2);
        let first = budget.reserve(60).unwrap();
        assert!(budget.reserve(60).is_none(), "memory is the limit");
        let second = budget.reserve(10).unwrap();
        assert!(budget.reserve(10).is_none(), "instances are the limit");
        drop(first);
        assert_eq!(
            budget.used(),
            Used {
                memory_mb: 10,
                instances: 1
            }
        );
        drop(second);
        assert!(budget.has_room(100));
    }
}
