//! `[http]`: functions of type `http`.

use std::time::Duration;

use super::Error;
use super::error::{above_zero, require};
use super::field::section;

section! {
    /// Functions of type `http`.
    pub struct HttpSettings {
        /// Connection failures and timeouts in a row after which a function is ejected; five or more.
        pub failures_max: u32 = 5,
        /// How long an ejected function is refused before one call tries it again, doubled up to ten times as long.
        #[serde(with = "humantime_serde")]
        pub ejection: Duration = Duration::from_secs(5),
        /// How long connecting may take.
        #[serde(with = "humantime_serde")]
        pub connect_timeout: Duration = Duration::from_secs(2),
        /// Redirects followed.
        pub redirects_max: usize = 10,
        /// Idle connections kept to one host.
        pub idle_connections_max: usize = 64,
        /// How long an idle connection is kept.
        #[serde(with = "humantime_serde")]
        pub idle_timeout: Duration = Duration::from_secs(90),
    }
}

impl HttpSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("http", self: ejection, connect_timeout, idle_connections_max, idle_timeout);
        require(
            self.failures_max >= 5,
            "http.failures_max",
            self.failures_max,
            "5 or more",
        )?;
        require(
            self.redirects_max <= 100,
            "http.redirects_max",
            self.redirects_max,
            "100 or less",
        )
    }
}
