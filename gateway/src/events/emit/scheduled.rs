//! Queues the events of schedules.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use actors::scheduler::{Fire, Slot, wall_ms};
use async_trait::async_trait;
use protocol::event::{self, Payload};
use protocol::{Event, Failure, FunctionId, ScheduleRecord, SubscriptionId};
use queue::{Delivery, DeliveryId, Origin};
use serde_json::json;

use super::{Emitter, write};

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
        let mut deliveries = match &schedule.function_id {
            Some(function_id) => vec![delivery_to(function_id, schedule, &event)],
            None => self.0.own_deliveries(&schedule.space, &event, PATH)?,
        };
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
        self.0.accept_own(self.deliveries(slot)?).await
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
