//! `[executor]`: instances of pooled functions.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Instances of pooled functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorSettings {
    /// Memory that instances may have in all. Default: three quarters of the machine's.
    pub memory_max: Option<ByteSize>,
    /// Instances of all functions at once. Default: 500.
    pub instances_max: usize,
    /// Instances that start at once; the container engine slows down beyond a few. Default: 4.
    pub starts_max: usize,
    /// Invocations that wait for a slot of one function; more are shed with 429. Default: 256.
    pub waiters_max: usize,
    /// The share of `memory_max` up to which the cluster counts as lightly loaded and cold starts are packed. Default: 0.7.
    pub pack_until: f64,
    /// How long a function whose start failed waits before the next one, doubled up to 30 s. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub start_backoff: Duration,
    /// How long an instance gets between the signal to stop and the kill. Default: 2 s.
    #[serde(with = "humantime_serde")]
    pub stop_grace: Duration,
    /// How often idle instances and `min` are looked at. Default: 1 s.
    #[serde(with = "humantime_serde")]
    pub sweep_interval: Duration,
    /// How often the provider's list is held against the pools, beside its events. Default: 10 s.
    #[serde(with = "humantime_serde")]
    pub reconcile_interval: Duration,
}

impl Default for ExecutorSettings {
    fn default() -> Self {
        Self {
            memory_max: None,
            instances_max: 500,
            starts_max: 4,
            waiters_max: 256,
            pack_until: 0.7,
            start_backoff: Duration::from_secs(1),
            stop_grace: Duration::from_secs(2),
            sweep_interval: Duration::from_secs(1),
            reconcile_interval: Duration::from_secs(10),
        }
    }
}
