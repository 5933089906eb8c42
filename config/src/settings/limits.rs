//! `[limits]`: admission at the edge.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Admission at the edge.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsSettings {
    /// The largest request body; a function's own `bodyBytes` may be less. Default: 6 MiB.
    pub body_max: ByteSize,
    /// The largest answer of a function. Default: 6 MiB.
    pub answer_max: ByteSize,
    /// Client invocations in flight on this node; more are shed with 503. Default: 2048.
    pub in_flight_max: usize,
    /// Open client connections a listener. Default: 4096.
    pub connections_max: usize,
    /// How long a client may take to send a request's head. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub head_timeout: Duration,
    /// How long a client may take to send a request's body. Default: 30 s.
    #[serde(with = "humantime_serde")]
    pub body_timeout: Duration,
    /// How long a config write waits until this node's registry has reached it. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub apply_timeout: Duration,
    /// Peers tried after a refusal, besides the first. Default: 2.
    pub refusals_max: u32,
}

impl Default for LimitsSettings {
    fn default() -> Self {
        Self {
            body_max: ByteSize::mib(6),
            answer_max: ByteSize::mib(6),
            in_flight_max: 2048,
            connections_max: 4096,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            apply_timeout: Duration::from_secs(2),
            refusals_max: 2,
        }
    }
}
