//! The two queues of events, and the loops that deliver from them.

use std::sync::Arc;

use cluster::Membership;
use cluster::identity::Identity;
use config::Settings;
use config::settings::QueueSettings;
use gateway::{Destinations, Emitter, Invocations, Node};
use queue::audit;
use queue::backend::{Counters, Limits, memory};
use queue::delivery::{self, Retry};
use queue::{Deliver, DeliveryLoop, MemoryQueue, Promise, Queue, Stats};
use tokio::time::Instant;

use crate::node::StartError;
use crate::wire::{self, Plugins, QueueParts};

/// The queues, before anything is delivered from them. Dropping them closes them.
#[derive(Debug)]
pub(crate) struct Queues {
    custom: Arc<dyn Queue>,
    custom_meters: delivery::Meters,
}

/// Events on their way to subscribers.
#[derive(Debug)]
pub(crate) struct Events {
    /// The way into the queues.
    pub(crate) emitter: Arc<Emitter>,
    custom: DeliveryLoop,
    custom_promise: Promise,
    system: DeliveryLoop,
}

impl Queues {
    /// Opens the queue that the settings choose. The recorder of metrics must be installed by then.
    ///
    /// # Errors
    /// When what it kept can not be read, or another process has it.
    pub(crate) async fn open(
        settings: &Settings,
        identity: &Identity,
        membership: &Membership,
    ) -> Result<Self, StartError> {
        let custom_meters = delivery::Meters::custom();
        let custom = wire::queue(QueueParts {
            settings,
            identity,
            membership,
            lost: custom_meters.lost(),
        })
        .await?;
        Ok(Self {
            custom,
            custom_meters,
        })
    }

    /// The task that audits the books of the queue.
    pub(crate) fn audit(&self, settings: &Settings) -> impl Future<Output = ()> + use<> {
        audit::run(audit::Args {
            queue: Arc::clone(&self.custom),
            interval: settings.queue.audit_interval,
            node: settings.node.name.to_string(),
            backend: settings.queue.backend_for(&settings.store).as_str(),
            meters: audit::Meters::exported(),
        })
    }

    /// Starts to deliver through the node.
    pub(crate) fn start(
        self,
        settings: &Settings,
        control: &actors::Control,
        plugins: &Plugins,
        destinations: Destinations,
    ) -> Events {
        let Self {
            custom,
            custom_meters,
        } = self;
        let settings = &settings.queue;
        let system_meters = delivery::Meters::system();
        let limits = Limits {
            len_max: settings.system_len_max,
            ..wire::queue_limits(settings)
        };
        let system_told = memory::Meters {
            backlog: metrics::Gauge::noop(),
            lost: system_meters.lost(),
            changes: Counters::none(),
        };
        let system = Arc::new(MemoryQueue::new(limits, system_told));
        let node: Arc<dyn Node> = Arc::new(control.clone());
        let (own, queue) = (Arc::clone(&node), Arc::clone(&custom));
        let emitter = Emitter::new(own, queue, Arc::clone(&system), destinations);
        let emitter = Arc::new(match plugins.hooks() {
            Some(hooks) => emitter.with_plugins(hooks),
            None => emitter,
        });
        let start = |queue: Arc<dyn Queue>, permits, meters| {
            let promise = queue.promise();
            let (node, emitter) = (Arc::clone(&node), Arc::clone(&emitter));
            let deliver: Arc<dyn Deliver> = Arc::new(Invocations::new(node, emitter, promise));
            DeliveryLoop::start(delivery::Args {
                queue,
                deliver,
                permits,
                lease_timeout: settings.lease_timeout,
                retry: retry(settings, promise),
                meters,
            })
        };
        let custom_promise = custom.promise();
        let custom = start(custom, settings.permits, custom_meters);
        let system = start(system, settings.system_permits, system_meters);
        Events {
            emitter,
            custom,
            custom_promise,
            system,
        }
    }
}

fn retry(settings: &QueueSettings, promise: Promise) -> Retry {
    Retry {
        backoff: settings.retry_backoff,
        backoff_max: settings.retry_backoff_max,
        until_age: match promise {
            Promise::AtMostOnce => settings.retry_for,
            Promise::AtLeastOnce => settings.max_age,
        },
        attempts_max: settings.attempts_max,
    }
}

impl Events {
    /// Ends by the deadline at the latest. What is kept on disk stays there and what is in etcd is left to others, but for what runs;
    /// what is in memory is delivered, and lost at the deadline. Nothing is emitted any more by then, but for system events about these
    /// last deliveries.
    pub(crate) async fn drain(self, deadline: Instant) {
        let left = self.custom.drain(deadline).await;
        warn("events", self.custom_promise, left);
        let left = self.system.drain(deadline).await;
        warn("system events", Promise::AtMostOnce, left);
    }
}

fn warn(what: &str, promise: Promise, left: Stats) {
    let Stats {
        waiting,
        leased: running,
        ..
    } = left;
    match promise {
        _ if waiting + running == 0 => {}
        Promise::AtMostOnce => tracing::warn!(
            waiting,
            running,
            "{what} were lost at the end of the drain: they were accepted and not delivered; node.drain_timeout bounds it"
        ),
        Promise::AtLeastOnce => tracing::info!(
            waiting,
            running,
            "{what} that were not delivered are kept: in etcd for the other nodes, or on disk until this one starts again"
        ),
    }
}
