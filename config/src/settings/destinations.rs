//! `[destinations]`: where ends of executions and deliveries are told.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

/// Payload and result, with all that is escaped in them, have to fit into one batch of a queue.
const VALUE_MAX: ByteSize = ByteSize::kib(64);

section! {
    /// Where ends of executions and deliveries are told: callbacks, `onSuccess` and `onFailure`.
    pub struct DestinationsSettings {
        /// How many ends may lead to each other, as when a function is its own `onSuccess`; one more is a dead letter.
        pub depth_max: u32 = 8,
        /// Bytes of a payload, and of a result, that are told; of a longer one the beginning. 64 KiB at most.
        #[serde(with = "size")]
        pub value_max: ByteSize = ByteSize::kib(16),
        /// How long a URL may take to answer.
        #[serde(with = "humantime_serde")]
        pub timeout: Duration = Duration::from_secs(5),
    }
}

impl DestinationsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("destinations", self: depth_max, value_max, timeout);
        require(
            self.value_max <= VALUE_MAX,
            "destinations.value_max",
            size::text(self.value_max),
            "a size of at most 64KiB",
        )
    }
}
