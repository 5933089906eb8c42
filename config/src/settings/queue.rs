//! `[queue]`: events on their way to their subscribers.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

section! {
    /// Events on their way to their subscribers.
    pub struct QueueSettings {
        /// Deliveries that wait on this node, one for each subscriber of an event; an event that finds no room is answered with 503.
        pub len_max: usize = 10_000,
        /// Bytes of the events that wait, counted for each delivery, with 256 for the delivery itself; beyond it events are answered with 503.
        #[serde(with = "size")]
        pub bytes_max: ByteSize = ByteSize::mib(64),
        /// The share of `len_max` and `bytes_max` that deliveries to one function may take, so that one that hangs leaves room.
        pub function_share: f64 = 0.5,
        /// Deliveries that run at once on this node; one function gets a quarter of them while others could need some.
        pub permits: usize = 100,
        /// How long a delivery may go without a sign of life from its task until it counts as lost.
        #[serde(with = "humantime_serde")]
        pub lease_timeout: Duration = Duration::from_secs(10),
        /// The pause before a delivery that a node refused, so that nothing ran, is tried again; doubled up to 30 s.
        #[serde(with = "humantime_serde")]
        pub retry_backoff: Duration = Duration::from_secs(1),
        /// How long after its event was accepted a refused delivery is tried again.
        #[serde(with = "humantime_serde")]
        pub retry_for: Duration = Duration::from_secs(60),
        /// Deliveries of system events that wait on this node; those that find no room are dropped and counted.
        pub system_len_max: usize = 1_000,
        /// Deliveries of system events that run at once on this node.
        pub system_permits: usize = 10,
    }
}

impl QueueSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("queue", self: len_max, bytes_max, permits, lease_timeout, retry_backoff, system_len_max, system_permits);
        require(
            self.function_share > 0.0 && self.function_share <= 1.0,
            "queue.function_share",
            self.function_share,
            "a number above 0, 1 at most",
        )
    }
}
