//! `[executor]`: instances of pooled functions.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

section! {
    /// Instances of pooled functions.
    pub struct ExecutorSettings {
        /// Memory that instances may have in all; without one, three quarters of the machine's.
        #[serde(with = "size::option")]
        pub memory_max: Option<ByteSize> = None,
        /// Instances of all functions at once.
        pub instances_max: usize = 500,
        /// Instances that start at once; the container engine slows down beyond a few.
        pub starts_max: usize = 4,
        /// Invocations that wait for a slot of one function; more are shed with 429.
        pub waiters_max: usize = 256,
        /// The share of `memory_max` up to which the cluster counts as lightly loaded and cold starts are packed.
        pub pack_until: f64 = 0.7,
        /// How long a function whose start failed waits before the next one, doubled up to 30 s.
        #[serde(with = "humantime_serde")]
        pub start_backoff: Duration = Duration::from_secs(1),
        /// How long an instance gets between the signal to stop and the kill.
        #[serde(with = "humantime_serde")]
        pub stop_grace: Duration = Duration::from_secs(2),
        /// How often idle instances and `min` are looked at.
        #[serde(with = "humantime_serde")]
        pub sweep_interval: Duration = Duration::from_secs(1),
        /// How often the provider's list is held against the pools, beside its events.
        #[serde(with = "humantime_serde")]
        pub reconcile_interval: Duration = Duration::from_secs(10),
    }
}

impl ExecutorSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("executor", self: memory_max, instances_max, starts_max, waiters_max, start_backoff, stop_grace, sweep_interval,
            reconcile_interval);
        require(
            (0.0..=1.0).contains(&self.pack_until),
            "executor.pack_until",
            self.pack_until,
            "a number from 0 to 1",
        )
    }
}
