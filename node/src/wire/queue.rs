//! Chooses where events wait.

use std::sync::Arc;

use cluster::Membership;
use cluster::identity::Identity;
use cluster::membership::Members;
use config::Settings;
use config::settings::{QueueBackend, QueueSettings};
use metrics::Counter;
use protocol::{Generation, NodeId};
use queue::backend::{Counters, Deaths, Limits, embedded, etcd, memory};
use queue::{EmbeddedQueue, EtcdQueue, MemoryQueue, Queue};
use tokio::sync::watch;

use super::{bytes, chain};
use crate::node::StartError;

/// What the queue of events is made from.
pub(crate) struct QueueParts<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) identity: &'a Identity,
    pub(crate) membership: &'a Membership,
    /// Counts the deliveries of which nobody knows how they ended.
    pub(crate) lost: Counter,
}

/// Who of the others is dead, as gossip sees them.
#[derive(Debug)]
struct Gossiped(watch::Receiver<Arc<Members>>);

impl Deaths for Gossiped {
    fn is_dead(&self, node: &NodeId, generation: Generation) -> bool {
        let members = Arc::clone(&self.0.borrow());
        // One that started again has another generation, and the process that had this one is gone.
        members.get(node).is_some_and(|member| {
            member.generation > generation || (member.generation == generation && !member.is_alive)
        })
    }
}

/// The queue of events that clients emit.
pub(crate) async fn queue(parts: QueueParts<'_>) -> Result<Arc<dyn Queue>, StartError> {
    let settings = parts.settings;
    match settings.queue.backend_for(&settings.store) {
        QueueBackend::Memory => Ok(in_memory(&settings.queue, parts.lost)),
        QueueBackend::Embedded => on_disk(settings).await,
        QueueBackend::Etcd => in_etcd(&parts).await,
        QueueBackend::JetStream => in_nats(&parts).await,
    }
}

pub(crate) fn queue_limits(settings: &QueueSettings) -> Limits {
    Limits {
        len_max: settings.len_max,
        bytes_max: bytes(settings.bytes_max),
        function_share: settings.function_share,
        lease_timeout: settings.lease_timeout,
    }
}

fn in_memory(settings: &QueueSettings, lost: Counter) -> Arc<dyn Queue> {
    tracing::info!("events wait in memory, and are delivered at most once");
    let backlog = metrics::gauge!("gateway_events_backlog");
    let meters = memory::Meters {
        backlog,
        lost,
        changes: Counters::exported(),
    };
    Arc::new(MemoryQueue::new(queue_limits(settings), meters))
}

async fn on_disk(settings: &Settings) -> Result<Arc<dyn Queue>, StartError> {
    let options = embedded_options(&settings.queue);
    let meters = embedded::Meters {
        backlog: metrics::gauge!("gateway_events_backlog"),
        dead: metrics::gauge!("hearth_dead_letters"),
        bytes: metrics::gauge!("hearth_queue_disk_bytes"),
        lost: metrics::counter!("hearth_delivery_leases_lost_total"),
        dropped: metrics::counter!("hearth_dead_letters_dropped_total"),
        changes: Counters::exported(),
    };
    let path = settings.node.data_dir.join("queue");
    let opened =
        tokio::task::spawn_blocking(move || EmbeddedQueue::open(&path, options, meters)).await;
    let opened = opened.map_err(|error| StartError::Queue(error.to_string()))?;
    let queue = opened.map_err(|error| StartError::Queue(chain(&error)))?;
    Ok(Arc::new(queue))
}

fn embedded_options(settings: &QueueSettings) -> embedded::Options {
    let segment_bytes = settings.segment_size.as_u64();
    embedded::Options {
        limits: queue_limits(settings),
        disk_bytes_max: settings.disk_max.as_u64(),
        segment_bytes: u32::try_from(segment_bytes).unwrap_or(u32::MAX),
        cache_bytes: bytes(settings.cache_max),
        dead_len_max: settings.dead_len_max,
        dead_bytes_max: settings.dead_bytes_max.as_u64(),
        dead_age_max: settings.dead_age_max,
    }
}

async fn in_etcd(parts: &QueueParts<'_>) -> Result<Arc<dyn Queue>, StartError> {
    let Settings {
        queue: settings,
        store,
        cluster,
        ..
    } = parts.settings;
    let options = etcd::Options {
        limits: queue_limits(settings),
        node: parts.identity.node_id().clone(),
        generation: parts.identity.generation(),
        session_timeout: settings.session_timeout,
        operation_timeout: store.etcd.operation_timeout,
        cluster_bytes_max: settings.cluster_bytes_max.as_u64(),
        storage_max: settings.storage_max.as_u64(),
        compact_after: settings.compact_after,
        dead_len_max: settings.dead_len_max,
        dead_bytes_max: settings.dead_bytes_max.as_u64(),
        dead_age_max: settings.dead_age_max,
    };
    let meters = etcd::Meters {
        backlog: metrics::gauge!("gateway_events_backlog"),
        dead: metrics::gauge!("hearth_dead_letters"),
        bytes: metrics::gauge!("hearth_queue_etcd_bytes"),
        lost: metrics::counter!("hearth_delivery_leases_lost_total"),
        dropped: metrics::counter!("hearth_dead_letters_dropped_total"),
        taken_over: metrics::counter!("hearth_deliveries_taken_over_total"),
        sessions_lost: metrics::counter!("hearth_queue_sessions_lost_total"),
        changes: Counters::exported(),
    };
    let deaths = Arc::new(Gossiped(parts.membership.members()));
    let opened = EtcdQueue::open(&store.etcd, &cluster.id, options, deaths, meters).await;
    let queue = opened.map_err(|error| StartError::Queue(chain(&error)))?;
    Ok(Arc::new(queue))
}

#[cfg(feature = "jetstream")]
async fn in_nats(parts: &QueueParts<'_>) -> Result<Arc<dyn Queue>, StartError> {
    use queue::backend::jetstream::{JetStreamQueue, Meters, Options};

    let settings = &parts.settings.queue;
    let options = Options {
        limits: queue_limits(settings),
        settings: settings.jetstream.clone(),
        cluster: parts.settings.cluster.id.clone(),
        node: parts.identity.node_id().clone(),
        generation: parts.identity.generation(),
        dead_len_max: settings.dead_len_max,
        dead_bytes_max: settings.dead_bytes_max.as_u64(),
        dead_age_max: settings.dead_age_max,
    };
    let meters = Meters {
        backlog: metrics::gauge!("gateway_events_backlog"),
        dead: metrics::gauge!("hearth_dead_letters"),
        lost: metrics::counter!("hearth_delivery_leases_lost_total"),
        taken_over: metrics::counter!("hearth_deliveries_taken_over_total"),
        changes: Counters::exported(),
        dropped: metrics::counter!("hearth_dead_letters_dropped_total"),
    };
    let deaths = Arc::new(Gossiped(parts.membership.members()));
    let opened = JetStreamQueue::open(options, deaths, meters).await;
    let queue = opened.map_err(|error| StartError::Queue(chain(&error)))?;
    Ok(Arc::new(queue))
}

/// A node that was built without it has no queue in NATS.
#[cfg(not(feature = "jetstream"))]
async fn in_nats(_parts: &QueueParts<'_>) -> Result<Arc<dyn Queue>, StartError> {
    Err(StartError::Queue(
        "setting queue.backend is jetstream, expected another one: this hearth was built without the feature jetstream".to_owned(),
    ))
}
