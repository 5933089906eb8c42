//! `[cloud]`: functions on other clouds.

use std::time::Duration;

use super::Error;
use super::error::{above_zero, require};
use super::field::section;

section! {
    /// Functions of the AWS types, and of types `gcloudfunction`, `azurefunction` and `openwhisk`. What `[http]` says of connections and ejection counts for them, too.
    pub struct CloudSettings {
        /// How often a call is tried again that nobody took: no connection, or throttled before it was accepted.
        pub retries_max: u32 = 2,
        /// The pause before the first of these, doubled each time, and up to half as long again by chance.
        #[serde(with = "humantime_serde")]
        pub backoff: Duration = Duration::from_millis(100),
        /// The longest pause.
        #[serde(with = "humantime_serde")]
        pub backoff_max: Duration = Duration::from_secs(2),
    }
}

impl CloudSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("cloud", self: backoff, backoff_max);
        require(
            self.retries_max <= 20,
            "cloud.retries_max",
            self.retries_max,
            "20 or less",
        )
    }
}
