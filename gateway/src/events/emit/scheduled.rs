//! Queues the events of schedules.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use actors::Registry;
use actors::scheduler::{Fire, Slot, wall_ms};
use async_trait::async_trait;
use protocol::event::{self, Payload};
use protocol::subscription::EventType;
use protocol::{Event, Failure, FunctionId, ScheduleRecord, SubscriptionId};
use queue::{Delivery, DeliveryId, Origin};
use serde_json::json;

use super::{Emission, Emitter, write};
use crate::error::Error;

/// Where events of schedules are emitted to: a subscription may be for one path.
const PATH: &str = "/";

/// Has the events of schedules queued: for the function that a schedule names, or as a client emits them.
pub struct Scheduled(Arc<Emitter>);

impl Scheduled {
    /// Queues through this emitter.
    pub fn new(emitter: Arc<Emitter>) -> Self {
        Self(emitter)
    }

    fn deliveries(&self, slot: &Slot) -> Result<Vec<Delivery>, Failure> {
        let Slot { schedule, slot_ms } = slot;
        let event = event_of(schedule, *slot_ms);
        let mut deliveries = Vec::new();
        match &schedule.function_id {
            Some(function_id) => deliveries.push(delivery_to(function_id, schedule, &event)),
            None => {
                let registry = self.0.node.registry();
                if !registry.is_loaded {
                    return Err(Error::not_loaded().into_failure());
                }
                let emission = Emission {
                    typed: typed(&registry, schedule, &event),
                    event: &event,
                    is_custom: true,
                };
                let space = Some(&schedule.space);
                Emitter::address(&registry, &emission, space, PATH, &mut deliveries);
            }
        }
        for delivery in &mut deliveries {
            // Whoever does it once more gives it the same name, so that a queue that still has it knows it.
            if let Origin::Subscription(subscription_id) = &delivery.origin {
                let name = schedule.name_of_slot(*slot_ms, subscription_id.as_str());
                delivery.id = DeliveryId::from_bytes(name);
            }
        }
        Ok(deliveries)
    }
}

#[async_trait]
impl Fire for Scheduled {
    async fn fire(&self, slot: &Slot) -> Result<(), Failure> {
        let deliveries = self.deliveries(slot)?;
        let Emitter { queue, meters, .. } = &*self.0;
        if deliveries.is_empty() {
            meters.received.increment(1);
            meters.processed.increment(1);
            return Ok(());
        }
        // What is refused comes again, and is no event until then.
        queue
            .enqueue(deliveries)
            .await
            .map_err(|error| Failure::from(&error))?;
        meters.received.increment(1);
        Ok(())
    }
}

impl fmt::Debug for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scheduled")
    }
}

/// The event of a slot: it happened when the slot was due, at the schedule.
fn event_of(schedule: &ScheduleRecord, slot_ms: u64) -> Event {
    let ScheduleRecord {
        space, schedule_id, ..
    } = schedule;
    let time = event::rfc3339(slot_ms);
    let source = format!("/v1/spaces/{space}/schedules/{schedule_id}");
    let event = match &schedule.data {
        Some(data) => {
            let data = Payload::Json(data.get().to_owned().into());
            Event::new(
                schedule.event_type(),
                source,
                data,
                "application/json",
                wall_ms(),
            )
        }
        None => {
            let data = json!({ "scheduleId": schedule_id, "time": time });
            Event::of_json(schedule.event_type(), source, &data, wall_ms())
        }
    };
    Event {
        id: schedule.event_id(slot_ms),
        attributes: event::Attributes {
            time: Some(time),
            ..event.attributes
        },
        ..event
    }
}

fn delivery_to(function_id: &FunctionId, schedule: &ScheduleRecord, event: &Event) -> Delivery {
    Delivery {
        id: DeliveryId::random(),
        event: write(event),
        space: schedule.space.clone(),
        function_id: function_id.clone(),
        origin: Origin::Subscription(SubscriptionId::of_schedule(&schedule.schedule_id)),
        ordinal: 0,
        accepted_at: SystemTime::now(),
        not_before: None,
    }
}

/// The typed subscriptions that get it. An authorizer judges requests, and this is none: those of its event type get nothing.
fn typed<'e>(
    registry: &Registry,
    schedule: &ScheduleRecord,
    event: &'e Event,
) -> Vec<(Arc<protocol::Subscription>, Cow<'e, Event>)> {
    let name: Option<&EventType> = schedule.event_type.as_ref();
    let registered = name.and_then(|name| registry.event_type(&schedule.space, name));
    if registered.is_some_and(|registered| registered.event_type.authorizer_id.is_some()) {
        return Vec::new();
    }
    let space = Some(&schedule.space);
    let found = registry
        .subscriptions
        .async_subscribers(space, &event.event_type, "POST", PATH);
    found
        .map(|subscription| (Arc::clone(subscription), Cow::Borrowed(event)))
        .collect()
}
