//! Event Gateway's envelope.

use bytes::Bytes;

use super::cloudevents::OWN_EXTENSION;
use super::payload::write_text;
use super::{Event, HTTP};

impl Event {
    /// Writes the event as Event Gateway's functions expect it: `event`, `id`, `receivedAt`, `data` and `dataType`. A request that an
    /// authorizer let through has a sixth, `extensions`, with what was said of it.
    pub fn to_envelope(&self) -> Bytes {
        let texts = self.event_type.len() + self.id.len() + self.data_type.len();
        let mut json = Vec::with_capacity(self.data.json_len() + texts + 96);
        json.extend_from_slice(br#"{"event":"#);
        write_text(&self.event_type, &mut json);
        json.extend_from_slice(br#","id":"#);
        write_text(&self.id, &mut json);
        json.extend_from_slice(br#","receivedAt":"#);
        json.extend_from_slice(self.received_at_ms.to_string().as_bytes());
        json.extend_from_slice(br#","data":"#);
        self.data.write_json(&mut json);
        json.extend_from_slice(br#","dataType":"#);
        write_text(&self.data_type, &mut json);
        // What a client says of an event of its own by this name is not told: a function of `http` may rely on it.
        let said = self.attributes.json_extensions.get(OWN_EXTENSION);
        if let Some(said) = said.filter(|_| self.event_type == HTTP) {
            json.extend_from_slice(br#","extensions":{"#);
            write_text(OWN_EXTENSION, &mut json);
            json.push(b':');
            json.extend_from_slice(said.as_bytes());
            json.push(b'}');
        }
        json.push(b'}');
        json.into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;

    fn check(data: Payload, data_type: &str, expected_data: &str) {
        let event = Event {
            id: "i".into(),
            ..Event::new("a.b\"c", "/", data, data_type, 1_700_000_000_001)
        };
        let expected = format!(
            r#"{{"event":"a.b\"c","id":"i","receivedAt":1700000000001,"data":{expected_data},"dataType":"{data_type}"}}"#
        );
        assert_eq!(event.to_envelope(), expected);
    }

    /// Section 7: five members, in this order.
    #[test]
    fn the_envelope_has_exactly_five_members() {
        let json = |text: &'static str| Payload::Json(Bytes::from_static(text.as_bytes()));
        check(json(r#"{"n":1.10}"#), "application/json", r#"{"n":1.10}"#);
        check(json("null"), "application/json; charset=utf-8", "null");
        check(
            Payload::Bytes(Bytes::from_static(b"hi")),
            "text/plain",
            r#""aGk=""#,
        );
        check(
            Payload::Bytes(Bytes::new()),
            "application/octet-stream",
            r#""""#,
        );
    }

    #[test]
    fn a_request_that_was_authorized_says_so() {
        let envelope = |event_type: &str| -> serde_json::Value {
            let data = Payload::Json(Bytes::from_static(b"{}"));
            let mut event = Event::new(event_type, "/", data, "application/json", 1);
            event.set_authorization(&serde_json::json!({"principalId": "me"}));
            serde_json::from_slice(&event.to_envelope()).unwrap()
        };
        let own = &envelope("http")["extensions"]["eventgateway"];
        assert_eq!(own["authorization"]["principalId"], "me");
        assert!(envelope("user.created").get("extensions").is_none());
    }
}
