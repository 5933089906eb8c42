//! `[queue]`: events on their way to their subscribers.

use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::error::{above_zero, require};
use super::field::{Kind, Setting, section, size};
use super::{Error, JetStreamSettings, StoreSettings};

/// The shortest lease that etcd gives with its own settings.
const SESSION_TIMEOUT_MIN: Duration = Duration::from_secs(2);
/// The sizes that a file of a journal may have.
const SEGMENT_BYTES: std::ops::RangeInclusive<u64> = (64 << 10)..=(1 << 30);

section! {
    /// Events on their way to their subscribers.
    pub struct QueueSettings {
        /// Where custom events wait: `embedded` (on this node's disk, each delivered at least once), `etcd` (in the etcd of the config store, at least once, also when this node is lost), `jetstream` (in NATS, as with `etcd`, for higher rates) or `memory` (at most once). With etcd `etcd`, without it `embedded`, unless it is set.
        pub backend: Option<QueueBackend> = None,
        /// Deliveries that wait on this node, one for each subscriber of an event; an event that finds no room is answered with 503.
        pub len_max: usize = 100_000,
        /// Bytes of the events that wait, counted for each delivery, with 256 for the delivery itself; beyond it events are answered with 503.
        #[serde(with = "size")]
        pub bytes_max: ByteSize = ByteSize::mib(128),
        /// The share of `len_max` and `bytes_max` that deliveries to one function may take, so that one that hangs leaves room.
        pub function_share: f64 = 0.5,
        /// Deliveries that run at once on this node; one function gets a quarter of them while others could need some.
        pub permits: usize = 100,
        /// How long a delivery may go without a sign of life from its task until it counts as lost.
        #[serde(with = "humantime_serde")]
        pub lease_timeout: Duration = Duration::from_secs(10),
        /// The pause before a delivery is tried again; doubled each time, and made longer at random by up to a half.
        #[serde(with = "humantime_serde")]
        pub retry_backoff: Duration = Duration::from_secs(1),
        /// The longest such pause, but for one that a function asks for with `Retry-After`.
        #[serde(with = "humantime_serde")]
        pub retry_backoff_max: Duration = Duration::from_secs(300),
        /// `memory`: how long after its event was accepted a delivery is tried again that was refused, so that nothing ran. Of system events as well.
        #[serde(with = "humantime_serde")]
        pub retry_for: Duration = Duration::from_secs(60),
        /// `embedded`, `etcd`, `jetstream`: how often a delivery is tried before it is a dead letter; what this cluster had no room for is not counted.
        pub attempts_max: u32 = 10,
        /// `embedded`, `etcd`, `jetstream`: how old an event may get before its delivery is a dead letter that is not tried any more.
        #[serde(with = "humantime_serde")]
        pub max_age: Duration = Duration::from_secs(24 * 3600),
        /// `embedded`: bytes on this node's disk beyond which events are answered with 503; a few files more may be needed to end what is there.
        #[serde(with = "size")]
        pub disk_max: ByteSize = ByteSize::gib(1),
        /// `embedded`: the size of one file, from 64 KiB to 1 GiB.
        #[serde(with = "size")]
        pub segment_size: ByteSize = ByteSize::mib(16),
        /// `embedded`: events that wait and are kept in memory as well, so that they need not be read.
        #[serde(with = "size")]
        pub cache_max: ByteSize = ByteSize::mib(8),
        /// `embedded`, `etcd`, `jetstream`: dead letters that are kept, on this node, in etcd or in NATS; beyond it the oldest are dropped and counted.
        pub dead_len_max: usize = 10_000,
        /// `embedded`, `etcd`, `jetstream`: bytes of dead letters that are kept.
        #[serde(with = "size")]
        pub dead_bytes_max: ByteSize = ByteSize::mib(64),
        /// `embedded`, `etcd`, `jetstream`: how long dead letters are kept.
        #[serde(with = "humantime_serde")]
        pub dead_age_max: Duration = Duration::from_secs(7 * 24 * 3600),
        /// `etcd`: how long etcd waits for a node that it does not hear, until others take over what that node holds; in whole seconds, 2 at least.
        #[serde(with = "humantime_serde")]
        pub session_timeout: Duration = Duration::from_secs(10),
        /// `etcd`: bytes of events that wait on all nodes together, counted as for `bytes_max` and known to each within a second; beyond it events are answered with 503.
        #[serde(with = "size")]
        pub cluster_bytes_max: ByteSize = ByteSize::mib(256),
        /// `etcd`: what etcd may hold in all, its `--quota-backend-bytes`; when half of it is in use events are answered with 503.
        #[serde(with = "size")]
        pub storage_max: ByteSize = ByteSize::gib(2),
        /// `etcd`: history of etcd that is older than this is compacted by one of the nodes, as what ended takes room until then; `0s` leaves that to you.
        #[serde(with = "humantime_serde")]
        pub compact_after: Duration = Duration::from_secs(60),
        /// NATS, for the backend `jetstream`.
        pub jetstream: JetStreamSettings = JetStreamSettings::default(),
        /// How often the books of the queue are held against what it has, and how long that may take: `hearth_queue_drift` tells what came of it.
        #[serde(with = "humantime_serde")]
        pub audit_interval: Duration = Duration::from_secs(60),
        /// Deliveries of system events that wait on this node; those that find no room are dropped and counted.
        pub system_len_max: usize = 1_000,
        /// Deliveries of system events that run at once on this node.
        pub system_permits: usize = 10,
    }
}

/// Where custom events wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueBackend {
    /// On the disk of the node.
    Embedded,
    /// In the etcd of the cluster.
    Etcd,
    /// In streams of NATS.
    JetStream,
    /// In the memory of the node.
    Memory,
}

impl Setting for QueueBackend {
    const KIND: Kind = Kind::Choice(&["embedded", "etcd", "jetstream", "memory"]);
}

impl QueueBackend {
    /// What it is called in settings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Etcd => "etcd",
            Self::JetStream => "jetstream",
            Self::Memory => "memory",
        }
    }
}

impl QueueSettings {
    /// The backend that is set, or else what fits the config store.
    pub fn backend_for(&self, store: &StoreSettings) -> QueueBackend {
        let fitting = match store.etcd.endpoints.is_empty() {
            true => QueueBackend::Embedded,
            false => QueueBackend::Etcd,
        };
        self.backend.unwrap_or(fitting)
    }

    pub(super) fn check(&self, store: &StoreSettings) -> Result<(), Error> {
        require(
            self.backend != Some(QueueBackend::Etcd) || !store.etcd.endpoints.is_empty(),
            "queue.backend",
            "\"etcd\"",
            "embedded, jetstream or memory, or store.etcd.endpoints to be set",
        )?;
        require(
            self.session_timeout >= SESSION_TIMEOUT_MIN && self.session_timeout.subsec_nanos() == 0,
            "queue.session_timeout",
            humantime::format_duration(self.session_timeout),
            "whole seconds, 2 at least",
        )?;
        above_zero!("queue", self: len_max, bytes_max, permits, lease_timeout, retry_backoff, system_len_max, system_permits);
        above_zero!("queue", self: attempts_max, max_age, disk_max, cluster_bytes_max, storage_max, dead_len_max, dead_bytes_max, dead_age_max, audit_interval);
        require(
            self.function_share > 0.0 && self.function_share <= 1.0,
            "queue.function_share",
            self.function_share,
            "a number above 0, 1 at most",
        )?;
        require(
            self.retry_backoff_max >= self.retry_backoff,
            "queue.retry_backoff_max",
            humantime::format_duration(self.retry_backoff_max),
            "at least queue.retry_backoff",
        )?;
        require(
            SEGMENT_BYTES.contains(&self.segment_size.as_u64()),
            "queue.segment_size",
            size::text(self.segment_size),
            "a size from 64KiB to 1GiB",
        )?;
        require(
            self.disk_max >= self.segment_size,
            "queue.disk_max",
            size::text(self.disk_max),
            "at least queue.segment_size",
        )?;
        self.jetstream
            .check(self.backend == Some(QueueBackend::JetStream))
    }
}
