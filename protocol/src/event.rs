//! An event: what a client emitted, or what happened to a request, on its way to functions.
//!
//! An event is kept once and written in the form each function wants: Event Gateway's envelope, which for typed subscriptions is
//! CloudEvents 0.1, CloudEvents 1.0 in its binary or structured mode, or its data as it was sent. Data is never parsed into values and back, so numbers stay exact.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub mod cloudevents;
mod encoded;
mod envelope;
pub mod http;
mod payload;
mod time;

pub use self::http::HttpData;
pub use encoded::Encoded;
pub use payload::{MalformedJson, Payload, is_json};
pub use time::rfc3339;

/// One event. Serialises with any format that has bytes, msgpack among them; fields of a later version are passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id: a random UUID, or the one a CloudEvent came with.
    pub id: String,
    /// Its name, such as `user.created`; CloudEvents calls it the type.
    pub event_type: String,
    /// When a node took it, in milliseconds since 1970.
    pub received_at_ms: u64,
    /// What it says.
    pub data: Payload,
    /// The media type of the data, as the client named it.
    pub data_type: String,
    /// What CloudEvents knows of an event besides.
    #[serde(default)]
    pub attributes: Attributes,
}

/// The context attributes of a CloudEvent, besides id, type and media type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Where it happened: a URI reference. Of an event that is no CloudEvent, the path it was emitted to.
    #[serde(default)]
    pub source: String,
    /// What of the source it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// When it happened, as RFC 3339; when absent, it is told as the time it was received.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The schema of its data: a URI.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_schema: Option<String>,
    /// Attributes of the sender's own, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
    /// Extensions that only CloudEvents 0.1 can carry, by name: each is JSON.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub json_extensions: BTreeMap<String, String>,
    /// The version of its type, which only CloudEvents 0.1 tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub type_version: Option<String>,
    /// Whether a node made it of something that was no CloudEvent; only CloudEvents 0.1 tells.
    #[serde(default)]
    pub is_transformed: bool,
}

/// Names that start so are the gateway's own: clients subscribe to them and can not emit them.
pub const SYSTEM_PREFIX: &str = "gateway.";

/// The same in Event Gateway's last versions, for typed subscriptions.
pub const TYPED_SYSTEM_PREFIX: &str = "eventgateway.";

/// The name of events that are HTTP requests.
pub const HTTP: &str = "http";

/// The name of events that run one function and wait for its answer.
pub const INVOKE: &str = "invoke";

/// The media type of data that came without one.
pub const DEFAULT_DATA_TYPE: &str = "application/octet-stream";

impl Event {
    /// Makes an event with a random id. `source` is where it happened, a URI reference.
    pub fn new(
        event_type: impl Into<String>,
        source: impl Into<String>,
        data: Payload,
        data_type: impl Into<String>,
        received_at_ms: u64,
    ) -> Self {
        Self {
            id: uuid::Uuid::new_v4().to_string(),
            event_type: event_type.into(),
            received_at_ms,
            data,
            data_type: data_type.into(),
            attributes: Attributes {
                source: source.into(),
                is_transformed: true,
                ..Attributes::default()
            },
        }
    }

    /// Makes an event whose data is JSON that this node wrote, such as a system event.
    pub fn of_json(
        event_type: impl Into<String>,
        source: impl Into<String>,
        data: &impl Serialize,
        received_at_ms: u64,
    ) -> Self {
        let data = serde_json::to_vec(data).expect("what a node says of itself is valid JSON");
        let data = Payload::Json(data.into());
        Self::new(event_type, source, data, "application/json", received_at_ms)
    }

    /// Whether it is one of the gateway's own.
    pub fn is_system(&self) -> bool {
        self.event_type.starts_with(SYSTEM_PREFIX) || self.is_typed_system()
    }

    /// Whether it is one of the gateway's own as typed subscriptions call them.
    pub fn is_typed_system(&self) -> bool {
        self.event_type.starts_with(TYPED_SYSTEM_PREFIX)
    }

    /// When it happened, as RFC 3339.
    pub fn time(&self) -> String {
        match &self.attributes.time {
            Some(time) => time.clone(),
            None => time::rfc3339(self.received_at_ms),
        }
    }

    /// Where it happened; never empty, as CloudEvents wants it.
    pub fn source(&self) -> &str {
        match self.attributes.source.as_str() {
            "" => "/",
            source => source,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn an_event_survives_a_queue() {
        let mut event = Event::new(
            "user.created",
            "/users",
            Payload::Json(Bytes::from_static(b"{\"n\":1e400}")),
            "application/json",
            1_700_000_000_123,
        );
        event
            .attributes
            .extensions
            .insert("tenant".into(), "a b".into());
        for data in [
            event.data.clone(),
            Payload::Bytes(Bytes::from_static(b"\xff\x00")),
        ] {
            let event = Event {
                data,
                ..event.clone()
            };
            let stored = rmp_serde::to_vec_named(&event).unwrap();
            assert_eq!(rmp_serde::from_slice::<Event>(&stored).unwrap(), event);
        }
    }

    #[test]
    fn an_event_of_json_is_read_as_its_envelope_says() {
        let event = Event::of_json("gateway.info", "/", &serde_json::json!({"a": 1}), 5);
        assert!(event.is_system());
        let envelope: serde_json::Value = serde_json::from_slice(&event.to_envelope()).unwrap();
        assert_eq!(envelope["data"], serde_json::json!({"a": 1}));
        assert_eq!(envelope["dataType"], "application/json");
    }
}
