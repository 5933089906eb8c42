//! `[quotas]`: how limits are shared by nodes, and what limits users and spaces have that say nothing else.

use std::time::Duration;

use super::Error;
use super::error::{above_zero, require};
use super::field::section;

section! {
    /// How limits are shared by nodes, and those of users and spaces that have none of their own. 0 is no limit.
    pub struct QuotasSettings {
        /// Calls a second of a user.
        pub user_rate: u32 = 0,
        /// Calls at once of a user that has made none for a while; as many as a second has where it is 0.
        pub user_burst: u32 = 0,
        /// Requests of a user in flight.
        pub user_concurrent: u32 = 0,
        /// Invocations a second in a space.
        pub space_rate: u32 = 0,
        /// Invocations at once in a space that had none for a while; as many as a second has where it is 0.
        pub space_burst: u32 = 0,
        /// Invocations of a space in flight.
        pub space_concurrent: u32 = 0,
        /// Functions that a space may have.
        pub space_functions: u32 = 0,
        /// Deliveries of a space that wait in the queue.
        pub space_queued: u32 = 0,
        /// How often a node settles a limit with the others, through the store. Shorter holds it closer and costs more writes.
        #[serde(with = "humantime_serde")]
        pub settle_interval: Duration = Duration::from_millis(250),
        /// How long a call waits for room that another node has, before it is refused.
        #[serde(with = "humantime_serde")]
        pub wait: Duration = Duration::from_millis(500),
        /// Calls that wait so, for each limit; further ones are refused at once.
        pub waiting_max: u32 = 1_000,
        /// How long a node may say nothing before others use what it had in flight.
        #[serde(with = "humantime_serde")]
        pub lost_after: Duration = Duration::from_secs(5),
        /// Rates, and as many other limits, that a node applies at once; calls of further ones are refused.
        pub limits_max: usize = 10_000,
    }
}

impl QuotasSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("quotas", self: settle_interval, waiting_max, limits_max);
        let (interval, lost_after) = (self.settle_interval, self.lost_after);
        require(
            lost_after >= interval * 8,
            "quotas.lost_after",
            humantime::format_duration(lost_after),
            "at least 8 times quotas.settle_interval",
        )?;
        for (burst, rate, key) in [
            (self.user_burst, self.user_rate, "quotas.user_burst"),
            (self.space_burst, self.space_rate, "quotas.space_burst"),
        ] {
            require(
                burst == 0 || rate > 0,
                key,
                burst,
                "0 where there is no rate",
            )?;
        }
        Ok(())
    }
}
