//! Takes events for their subscribers: one delivery for each, fixed when the event is accepted.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use actors::Registry;
use bytes::Bytes;
use limits::Besides;
use metrics::Counter;
use plugins::{Hooks, Stage};
use protocol::{Event, Failure, FunctionId, Space, Subscription};
use queue::{Delivery, DeliveryId, MemoryQueue, Origin, Queue};

mod deliver;
mod own;
mod scheduled;
mod system;

pub use deliver::Invocations;
pub use scheduled::Scheduled;
pub(super) use system::About;

use super::plugins::{EventSubject, Plugins};
use crate::destinations::Destinations;
use crate::error::Error;
use crate::node::Node;

/// Takes events for their subscribers. It is the way into the queue for clients, and for what the node says of itself.
pub struct Emitter {
    node: Arc<dyn Node>,
    queue: Arc<dyn Queue>,
    /// System events wait apart, so that they can not crowd out any other.
    system: Arc<MemoryQueue>,
    /// Asked and told on the way.
    pub(super) plugins: Plugins,
    /// Where ends are told.
    destinations: Destinations,
    meters: Meters,
}

struct Meters {
    received: Counter,
    /// Events that nobody subscribed to are done with at once.
    processed: Counter,
    dropped: Counter,
    system_dropped: Counter,
}

/// An event that is to be queued.
pub(crate) struct Emission<'a> {
    pub(crate) event: &'a Event,
    /// The typed subscriptions that get it, each with the event as it may have it. Their filters are not asked yet.
    pub(crate) typed: Vec<(Arc<Subscription>, Cow<'a, Event>)>,
    /// Whether it is a custom event, for those who subscribed to its name.
    pub(crate) is_custom: bool,
}

impl Emitter {
    /// Makes the way into these queues. The recorder of metrics must be installed by then, as handles are looked up once.
    pub fn new(
        node: Arc<dyn Node>,
        queue: Arc<dyn Queue>,
        system: Arc<MemoryQueue>,
        destinations: Destinations,
    ) -> Self {
        let custom =
            |name: &'static str| metrics::counter!(name, "space" => "", "type" => "custom");
        Self {
            node,
            queue,
            system,
            plugins: Plugins::default(),
            destinations,
            meters: Meters {
                received: custom("gateway_events_received_total"),
                processed: custom("gateway_events_processed_total"),
                dropped: custom("gateway_events_dropped_total"),
                system_dropped: metrics::counter!("hearth_system_events_dropped_total"),
            },
        }
    }

    /// The node that it is of.
    pub(crate) fn node(&self) -> &dyn Node {
        self.node.as_ref()
    }

    /// Where ends are told, and how much of them.
    pub(crate) fn destinations(&self) -> &Destinations {
        &self.destinations
    }

    /// Where custom events wait.
    pub(crate) fn queue(&self) -> &dyn Queue {
        self.queue.as_ref()
    }

    /// Lets plugins take part.
    #[must_use]
    pub fn with_plugins(self, hooks: Arc<dyn Hooks>) -> Self {
        Self {
            plugins: Plugins::new(hooks),
            ..self
        }
    }

    /// Asks the plugins about an event that a function is about to be called for; they may change its data.
    ///
    /// # Errors
    /// When one does not let it pass.
    pub(super) async fn ask_invoking(
        &self,
        space: &Space,
        function_id: &FunctionId,
        event: &mut Event,
    ) -> Result<(), Failure> {
        // Nor are they told of the delivery of a system event.
        if event.is_system() {
            return Ok(());
        }
        let about = About::invoking(space, function_id);
        let mut subject = EventSubject { event, about };
        self.plugins.ask(Stage::Invoking, &mut subject).await
    }

    /// Accepts events that came in one request: all of them for all their subscribers, or nothing. Of custom events, with a space only
    /// its subscriptions count, without one those of all spaces. `path` is the decoded path they were emitted to.
    ///
    /// # Errors
    /// When the queue has no room.
    pub(crate) async fn emit(
        &self,
        emissions: &[Emission<'_>],
        space: Option<&Space>,
        path: &str,
    ) -> Result<(), Error> {
        let count = emissions.len() as u64;
        self.meters.received.increment(count);
        let registry = self.node.registry();
        if !registry.is_loaded {
            return Err(Error::not_loaded());
        }
        let mut deliveries = Vec::new();
        let mut unheard = 0;
        for emission in emissions {
            let before = deliveries.len();
            Self::address(&registry, emission, space, path, &mut deliveries);
            unheard += u64::from(deliveries.len() == before);
        }
        if !deliveries.is_empty()
            && let Err(failure) = self.enqueue(deliveries).await
        {
            self.meters.dropped.increment(count);
            return Err(failure.into());
        }
        if unheard > 0 {
            self.meters.processed.increment(unheard);
        }
        Ok(())
    }

    /// Queues these, or none, as far as their spaces may have as much queued.
    ///
    /// # Errors
    /// When a space may not, or the queue does not take them.
    pub(crate) async fn enqueue(&self, deliveries: Vec<Delivery>) -> Result<(), Failure> {
        let mut permits = Vec::new();
        if let Some(quotas) = self.node.quotas() {
            let mut counts: BTreeMap<&Space, usize> = BTreeMap::new();
            for delivery in &deliveries {
                *counts.entry(&delivery.space).or_default() += 1;
            }
            for (space, count) in counts {
                let admitted = quotas.admit_queued(space, count, || self.waiting_of(space));
                permits.extend(
                    admitted
                        .await
                        .map_err(|exceeded| Failure::from(&exceeded))?,
                );
            }
        }
        let queued = self.queue.enqueue(deliveries).await;
        drop(permits);
        queued.map_err(|error| Failure::from(&error))
    }

    fn waiting_of(&self, space: &Space) -> Besides {
        let (queue, space) = (Arc::clone(&self.queue), space.clone());
        Arc::new(move || queue.waiting_of(&space) as u64)
    }

    /// Adds a delivery for each subscriber of an event. The event is written once for all that get the same, and not at all when
    /// nobody hears it.
    fn address(
        registry: &Registry,
        emission: &Emission<'_>,
        space: Option<&Space>,
        path: &str,
        deliveries: &mut Vec<Delivery>,
    ) {
        // What only the gateway itself may say is heard by nobody.
        let event = emission.event;
        if event.is_system() {
            return;
        }
        let custom = emission
            .is_custom
            .then(|| {
                registry
                    .subscriptions
                    .subscribers(space, &event.event_type, path)
            })
            .into_iter()
            .flatten()
            .map(|subscription| (subscription, event));
        let typed = emission.typed.iter();
        let typed = typed.map(|(subscription, event)| (subscription, &**event));
        let subscribers = custom
            .chain(typed)
            .filter(|(subscription, event)| subscription.accepts(|name| attribute(event, name)));
        let mut last: Option<(&Event, Bytes)> = None;
        let mut accepted_at = None;
        for (ordinal, (subscription, event)) in (0..).zip(subscribers) {
            let bytes = match &last {
                Some((written, bytes)) if std::ptr::eq(*written, event) => bytes.clone(),
                _ => write(event),
            };
            last = Some((event, bytes.clone()));
            let accepted_at = *accepted_at.get_or_insert_with(SystemTime::now);
            deliveries.push(delivery(subscription, bytes, ordinal, accepted_at));
        }
    }
}

impl fmt::Debug for Emitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Emitter")
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

fn delivery(
    subscription: &Subscription,
    event: Bytes,
    ordinal: u32,
    accepted_at: SystemTime,
) -> Delivery {
    Delivery {
        id: DeliveryId::random(),
        event,
        space: subscription.space.clone(),
        function_id: subscription.function_id.clone(),
        origin: Origin::Subscription(subscription.subscription_id.clone()),
        ordinal,
        accepted_at,
        not_before: None,
    }
}

/// An event as queues keep it: it may be one of 100,000 that wait, so it takes no more than it is long.
fn write(event: &Event) -> Bytes {
    let bytes = rmp_serde::to_vec_named(event).expect("an event is a map of texts and bytes");
    bytes.into_boxed_slice().into()
}

/// What a filter may ask an event for: its attributes by the names that CloudEvents gives them.
fn attribute<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    let attributes = &event.attributes;
    match name {
        "id" => Some(&event.id),
        "type" => Some(&event.event_type),
        "source" => Some(event.source()),
        "datacontenttype" => Some(&event.data_type),
        "subject" => attributes.subject.as_deref(),
        "time" => attributes.time.as_deref(),
        "dataschema" => attributes.data_schema.as_deref(),
        name => {
            let extensions: &BTreeMap<String, String> = &attributes.extensions;
            extensions.get(name).map(String::as_str)
        }
    }
}
