//! The two queues of events, and the loops that deliver from them.

use std::sync::Arc;

use config::settings::QueueSettings;
use gateway::{Emitter, Invocations, Node};
use queue::backend::memory;
use queue::delivery::{self, Retry};
use queue::{Deliver, DeliveryLoop, MemoryQueue, Queue, Stats};
use tokio::time::Instant;

use crate::wire::{self, Plugins};

/// Events on their way to subscribers.
#[derive(Debug)]
pub(crate) struct Events {
    /// The way into the queues.
    pub(crate) emitter: Arc<Emitter>,
    custom: DeliveryLoop,
    system: DeliveryLoop,
}

impl Events {
    /// Starts to deliver through the node. The recorder of metrics must be installed by then.
    pub(crate) fn start(
        settings: &QueueSettings,
        control: &actors::Control,
        plugins: &Plugins,
    ) -> Self {
        let (custom_meters, system_meters) =
            (delivery::Meters::custom(), delivery::Meters::system());
        let backlog = metrics::gauge!("gateway_events_backlog");
        let custom = wire::queue(settings, backlog, custom_meters.lost());
        let limits = memory::Limits {
            len_max: settings.system_len_max,
            ..wire::queue_limits(settings)
        };
        let system_told = memory::Meters {
            backlog: metrics::Gauge::noop(),
            lost: system_meters.lost(),
        };
        let system = Arc::new(MemoryQueue::new(limits, system_told));
        let node: Arc<dyn Node> = Arc::new(control.clone());
        let emitter = Emitter::new(Arc::clone(&node), Arc::clone(&custom), Arc::clone(&system));
        let emitter = Arc::new(match plugins.hooks() {
            Some(hooks) => emitter.with_plugins(hooks),
            None => emitter,
        });
        let deliver: Arc<dyn Deliver> = Arc::new(Invocations::new(node, Arc::clone(&emitter)));
        let start = |queue, permits, meters| {
            DeliveryLoop::start(delivery::Args {
                queue,
                deliver: Arc::clone(&deliver),
                permits,
                lease_timeout: settings.lease_timeout,
                retry: Retry {
                    backoff: settings.retry_backoff,
                    until_age: settings.retry_for,
                },
                meters,
            })
        };
        Self {
            emitter,
            custom: start(custom, settings.permits, custom_meters),
            system: start(
                system as Arc<dyn Queue>,
                settings.system_permits,
                system_meters,
            ),
        }
    }

    /// Delivers what waits, at most until the deadline, and gives up the rest. Nothing is emitted any more by then, but for
    /// system events about these last deliveries.
    pub(crate) async fn drain(self, deadline: Instant) {
        let left = self.custom.drain(deadline).await;
        warn("events", left);
        warn("system events", self.system.drain(deadline).await);
    }
}

fn warn(what: &str, left: Stats) {
    let Stats {
        waiting, leased, ..
    } = left;
    if waiting + leased > 0 {
        tracing::warn!(
            waiting,
            running = leased,
            "{what} were lost at the end of the drain: they were accepted and not delivered; node.drain_timeout bounds it"
        );
    }
}
