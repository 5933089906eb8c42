//! `[limits]`: admission at the edge.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

section! {
    /// Admission at the edge.
    pub struct LimitsSettings {
        /// The largest request body; a function's own `bodyBytes` may be less.
        #[serde(with = "size")]
        pub body_max: ByteSize = ByteSize::mib(6),
        /// The largest answer of a function that is read whole.
        #[serde(with = "size")]
        pub answer_max: ByteSize = ByteSize::mib(6),
        /// The most bytes of an answer that is passed on as it comes.
        #[serde(with = "size")]
        pub stream_max: ByteSize = ByteSize::gib(1),
        /// How long a function may write nothing of an answer that is passed on as it comes.
        #[serde(with = "humantime_serde")]
        pub stream_idle_timeout: Duration = Duration::from_secs(60),
        /// Client invocations in flight on this node; more are shed with 503.
        pub in_flight_max: usize = 2048,
        /// Open client connections a listener.
        pub connections_max: usize = 4096,
        /// How long a client may take to send a request's head.
        #[serde(with = "humantime_serde")]
        pub head_timeout: Duration = Duration::from_secs(10),
        /// How long a client's connection may be idle between two requests, at least `head_timeout`: longer than proxies and
        /// clients keep theirs, so that none sends into one that is being closed.
        #[serde(with = "humantime_serde")]
        pub idle_timeout: Duration = Duration::from_secs(120),
        /// How long a client may take to send a request's body.
        #[serde(with = "humantime_serde")]
        pub body_timeout: Duration = Duration::from_secs(30),
        /// How long a client may take no byte of an answer that it asked for before its connection is ended.
        #[serde(with = "humantime_serde")]
        pub write_timeout: Duration = Duration::from_secs(60),
        /// How long a config write waits until this node's registry has reached it.
        #[serde(with = "humantime_serde")]
        pub apply_timeout: Duration = Duration::from_secs(2),
        /// Peers tried after a refusal, besides the first.
        pub refusals_max: u32 = 2,
    }
}

impl LimitsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("limits", self: body_max, answer_max, stream_max, stream_idle_timeout, in_flight_max, connections_max, head_timeout, idle_timeout, body_timeout, write_timeout, apply_timeout);
        require(
            self.refusals_max <= 10,
            "limits.refusals_max",
            self.refusals_max,
            "10 or less",
        )
    }
}
