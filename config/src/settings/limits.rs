//! `[limits]`: admission at the edge.

use std::time::Duration;

use bytesize::ByteSize;

use super::Error;
use super::error::{above_zero, require};
use super::field::{section, size};

/// Less would refuse what browsers send, and more than the second is not kept in one buffer.
const HEAD_MIN: ByteSize = ByteSize::kib(4);
const HEAD_MAX: ByteSize = ByteSize::kib(256);

section! {
    /// Admission at the edge.
    pub struct LimitsSettings {
        /// The largest request body; a function's own `bodyBytes` may be less.
        #[serde(with = "size")]
        pub body_max: ByteSize = ByteSize::mib(6),
        /// What the bodies of all requests in flight take together, those up to 64 KiB aside; more are shed with 503.
        #[serde(with = "size")]
        pub bodies_max: ByteSize = ByteSize::mib(512),
        /// The largest head of a request, its headers and the tokens in them included; of 100 headers at most. From 4 to 256 KiB.
        #[serde(with = "size")]
        pub head_max: ByteSize = ByteSize::kib(64),
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
        /// Open client connections of one address (of IPv6, of one /64) a listener; further ones are closed at once. Behind a proxy or a
        /// balancer all clients have its address: set it to `connections_max` then.
        pub connections_per_address_max: usize = 1024,
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
        above_zero!("limits", self: body_max, answer_max, stream_max, stream_idle_timeout, in_flight_max, connections_max, connections_per_address_max, head_timeout, idle_timeout, body_timeout, write_timeout, apply_timeout);
        require(
            (HEAD_MIN..=HEAD_MAX).contains(&self.head_max),
            "limits.head_max",
            size::text(self.head_max),
            "a size from 4KiB to 256KiB",
        )?;
        require(
            self.bodies_max >= self.body_max,
            "limits.bodies_max",
            size::text(self.bodies_max),
            "at least limits.body_max",
        )?;
        require(
            self.refusals_max <= 10,
            "limits.refusals_max",
            self.refusals_max,
            "10 or less",
        )
    }
}
