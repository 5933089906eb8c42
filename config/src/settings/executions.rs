//! `[executions]`: asynchronous invocations, as the config store keeps them.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

/// What a record of the config store may have in etcd, whose requests are at most 1.5 MiB by default.
const RESULT_MAX: ByteSize = ByteSize::mib(1);

section! {
    /// Asynchronous invocations, as the config store keeps them.
    pub struct ExecutionsSettings {
        /// Bytes of a result that are kept; of a longer one the beginning. 1 MiB at most.
        #[serde(with = "size")]
        pub result_max: ByteSize = ByteSize::kib(16),
        /// Executions of the cluster that are kept after their end; beyond it the oldest are removed.
        pub keep_len_max: usize = 10_000,
        /// How long an execution is kept after its end.
        #[serde(with = "humantime_serde")]
        pub keep_age_max: Duration = Duration::from_secs(7 * 24 * 3600),
        /// How often one of the nodes removes what is kept no longer.
        #[serde(with = "humantime_serde")]
        pub sweep_interval: Duration = Duration::from_secs(60),
        /// How long an `Idempotency-Key` names the execution that it was first sent with.
        #[serde(with = "humantime_serde")]
        pub key_window: Duration = Duration::from_secs(24 * 3600),
        /// Keys of the cluster that are kept; beyond it the oldest are forgotten before their window is over.
        pub keys_max: usize = 50_000,
        /// How long a call with the key of an execution that is still on its way into a queue waits before it puts that there itself.
        #[serde(with = "humantime_serde")]
        pub claim_after: Duration = Duration::from_secs(2),
        /// The longest delay that a call may ask for.
        #[serde(with = "humantime_serde")]
        pub delay_max: Duration = Duration::from_secs(30 * 24 * 3600),
        /// How long a node tries to write the end of an execution down while the config store is away; after that the function is called again.
        #[serde(with = "humantime_serde")]
        pub record_timeout: Duration = Duration::from_secs(60),
    }
}

impl ExecutionsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("executions", self: result_max, keep_len_max, keep_age_max, sweep_interval, key_window);
        above_zero!("executions", self: keys_max, claim_after, delay_max, record_timeout);
        require(
            self.result_max <= RESULT_MAX,
            "executions.result_max",
            size::text(self.result_max),
            "a size of at most 1MiB",
        )
    }
}
