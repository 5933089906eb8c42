//! `[schedules]`: events that come by the clock.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

section! {
    /// Events that come by the clock.
    pub struct SchedulesSettings {
        /// Schedules that a space may have; one more is refused with 409.
        pub per_space_max: usize = 1_000,
        /// The shortest time from slot to slot that a schedule may ask for, from 1 s.
        #[serde(with = "humantime_serde")]
        pub interval_min: Duration = Duration::from_secs(1),
        /// The bytes that the data of a schedule may have.
        #[serde(with = "size")]
        pub data_max: ByteSize = ByteSize::kib(64),
        /// How late a slot may be and still be fired by itself; a later one was missed, and `missed` of its schedule says what becomes of it. Longer than a node needs to be seen dead.
        #[serde(with = "humantime_serde")]
        pub late_max: Duration = Duration::from_secs(10),
        /// How long a node that lives may take between claiming a slot and having it queued, until another one does it once more.
        #[serde(with = "humantime_serde")]
        pub takeover_after: Duration = Duration::from_secs(10),
        /// Slots that this node fires at once; others wait for one of them.
        pub firing_max: usize = 32,
        /// Missed slots that are counted at once, for the metric and the log; of more it is only said that they are more.
        pub counted_max: usize = 1_000,
        /// How often a node tells its clock to the others, through the store, while there are schedules.
        #[serde(with = "humantime_serde")]
        pub clock_interval: Duration = Duration::from_secs(5),
        /// How far this node's clock may be from that of the cluster before it is logged.
        #[serde(with = "humantime_serde")]
        pub clock_skew_max: Duration = Duration::from_secs(2),
    }
}

impl SchedulesSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("schedules", self: per_space_max, data_max, takeover_after, firing_max, counted_max, clock_interval, clock_skew_max);
        for (key, duration) in [
            ("schedules.interval_min", self.interval_min),
            ("schedules.late_max", self.late_max),
        ] {
            require(
                duration >= Duration::from_secs(1),
                key,
                humantime::format_duration(duration),
                "at least 1s",
            )?;
        }
        Ok(())
    }
}
