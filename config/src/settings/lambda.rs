//! `[lambda]`: functions of the `lambda` contract.

use std::time::Duration;

use super::Error;
use super::error::above_zero;
use super::field::section;

section! {
    /// Functions of the `lambda` contract, and the Runtime API that their instances ask.
    pub struct LambdaSettings {
        /// How long an invocation waits until the runtime of a free instance asks for one; then that instance is replaced.
        #[serde(with = "humantime_serde")]
        pub next_timeout: Duration = Duration::from_secs(10),
        /// How long a runtime may take to send a request whole, but for an answer that is passed on as it comes.
        #[serde(with = "humantime_serde")]
        pub request_timeout: Duration = Duration::from_secs(60),
        /// Connections of one instance to its Runtime API, besides two for each of its slots.
        pub spare_connections: usize = 16,
    }
}

impl LambdaSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("lambda", self: next_timeout, request_timeout, spare_connections);
        Ok(())
    }
}
