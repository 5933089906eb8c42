//! Hands an end to its destination.

use bytes::Bytes;
use protocol::event::{Encoded, Event};
use protocol::function::EventFormat;
use protocol::{Component, Destination, Effect, ErrorCode, Failure};
use queue::{Delivery, DeliveryId, Origin};
use serde::{Deserialize, Serialize};

use super::{Letter, depth_of, name_of};
use crate::events::Emitter;

/// The path that the events are emitted to: a subscription may be for one path.
const PATH: &str = "/";

/// An end on its way to one destination.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Notice {
    #[serde(rename = "to")]
    pub(crate) destination: Destination,
    #[serde(rename = "e")]
    pub(crate) event: Event,
}

impl Notice {
    /// # Errors
    /// When too many ends led to it: functions that are destinations of each other would go on for ever.
    pub(crate) fn check_depth(&self, depth_max: u32) -> Result<(), Failure> {
        let depth = depth_of(&self.event);
        if depth <= depth_max {
            return Ok(());
        }
        let message = format!(
            "it is the end number {depth} in a row that a destination leads to, and {depth_max} are told (destinations.depth_max): do functions name each other as onSuccess or onFailure?"
        );
        let (code, queue) = (ErrorCode::InvalidRequest, Component::Queue);
        Err(Failure::new(code, queue, Effect::Refused, message))
    }
}

/// Posts an end to a URL, as a CloudEvent in binary mode.
///
/// # Errors
/// Why it was not taken.
pub(crate) async fn post(emitter: &Emitter, url: &str, event: &Event) -> Result<(), Failure> {
    let Encoded {
        payload,
        content_type,
        call,
    } = event.encode(EventFormat::CloudeventsBinary);
    let extensions = &event.attributes.extensions;
    let trace = ["traceparent", "tracestate"]
        .into_iter()
        .filter_map(|name| {
            let value = extensions.get(name)?.clone();
            Some((name.to_owned(), Bytes::from(value)))
        });
    let letter = Letter {
        headers: call.headers.into_iter().chain(trace).collect(),
        content_type,
        body: payload,
    };
    emitter.destinations().post.post(url, letter).await
}

/// Emits an end as an event of its space, for those who subscribed to its type.
///
/// # Errors
/// When no queue takes it.
pub(crate) async fn emit(
    emitter: &Emitter,
    delivery: &Delivery,
    event: &Event,
) -> Result<(), Failure> {
    let mut deliveries = emitter.own_deliveries(&delivery.space, event, PATH)?;
    for subscribed in &mut deliveries {
        // Whoever does it once more gives it the same name.
        if let Origin::Subscription(id) = &subscribed.origin {
            let name = name_of(delivery.id.into_bytes(), id.as_str());
            subscribed.id = DeliveryId::from_bytes(name);
        }
    }
    emitter.accept_own(deliveries).await
}
