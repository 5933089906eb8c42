//! Event Gateway's envelope.

use bytes::Bytes;

use super::Event;
use super::payload::write_text;

impl Event {
    /// Writes the event as Event Gateway's functions expect it: `event`, `id`, `receivedAt`, `data` and `dataType`.
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
}
