//! `[lambda]`: functions of AWS Lambda's contract, and the API that clients of AWS Lambda call.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

section! {
    /// Functions of the `lambda` contract, and the API of AWS Lambda that clients call: as what they know this cluster, and what they may ask for.
    pub struct LambdaSettings {
        /// The account in the ARNs of functions; 12 digits. Those that clients send may name any.
        pub account_id: String = "000000000000".to_owned(),
        /// The region in the ARNs of functions, where a request is signed for none, and in the environment of those of the `lambda` contract.
        pub region: String = "us-east-1".to_owned(),
        /// How long an invocation waits until the runtime of a free instance asks for one; then that instance is replaced.
        #[serde(with = "humantime_serde")]
        pub next_timeout: Duration = Duration::from_secs(10),
        /// How long a runtime may take to send a request whole, but for an answer that is passed on as it comes.
        #[serde(with = "humantime_serde")]
        pub request_timeout: Duration = Duration::from_secs(60),
        /// Connections of one instance to its Runtime API, besides two for each of its slots.
        pub spare_connections: usize = 16,
        /// The largest payload of a client's call that is waited for; `limits.body_max` holds as well.
        #[serde(with = "size")]
        pub payload_max: ByteSize = ByteSize::mib(6),
        /// The largest payload of a client's call that is not waited for.
        #[serde(with = "size")]
        pub event_payload_max: ByteSize = ByteSize::mib(1),
        /// How far the clock of who signs a request may be from that of the node.
        #[serde(with = "humantime_serde")]
        pub clock_skew_max: Duration = Duration::from_secs(5 * 60),
        /// How long a call that wants the end of the log waits for a further line of it.
        #[serde(with = "humantime_serde")]
        pub log_wait: Duration = Duration::from_millis(100),
        /// The most items in one answer that lists them.
        pub page_len_max: usize = 50,
    }
}

impl LambdaSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("lambda", self: next_timeout, request_timeout, spare_connections);
        above_zero!("lambda", self: payload_max, event_payload_max, clock_skew_max, log_wait, page_len_max);
        let is_account =
            self.account_id.len() == 12 && self.account_id.bytes().all(|b| b.is_ascii_digit());
        require(
            is_account,
            "lambda.account_id",
            format!("{:?}", self.account_id),
            "12 digits, such as 123456789012",
        )?;
        let is_of_regions = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        require(
            !self.region.is_empty() && self.region.bytes().all(is_of_regions),
            "lambda.region",
            format!("{:?}", self.region),
            "a region such as eu-central-1",
        )
    }
}
