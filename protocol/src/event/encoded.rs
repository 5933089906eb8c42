//! An event as one function wants it.

use bytes::Bytes;

use super::Event;
use super::cloudevents::STRUCTURED_TYPE;
use crate::function::EventFormat;
use crate::invocation::{AnswerRule, Call};

/// An event in a function's form: what its invocation carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The payload.
    pub payload: Bytes,
    /// The payload's media type.
    pub content_type: String,
    /// How the function is called. What counts as an answer is set for one that is not waited for.
    pub call: Call,
}

impl Event {
    /// Writes the event in a function's form. `Raw` is its data alone; a request's own method, path and headers, which an event
    /// does not keep, are put there by whoever has the request.
    pub fn encode(&self, format: EventFormat) -> Encoded {
        let (payload, content_type, headers) = match format {
            EventFormat::Envelope => (self.to_envelope(), "application/json", Vec::new()),
            EventFormat::CloudeventsStructured => {
                (self.to_structured(), STRUCTURED_TYPE, Vec::new())
            }
            EventFormat::CloudeventsBinary => (
                self.data.bare_bytes(&self.data_type),
                self.data_type.as_str(),
                self.to_binary_headers(),
            ),
            EventFormat::Raw => (
                self.data.bare_bytes(&self.data_type),
                self.data_type.as_str(),
                Vec::new(),
            ),
        };
        let headers = headers
            .into_iter()
            .map(|(name, value)| (name, Bytes::from(value)))
            .collect();
        Encoded {
            payload,
            content_type: content_type.to_owned(),
            call: Call {
                headers,
                answer: match format {
                    EventFormat::Envelope => AnswerRule::Envelope,
                    _ => AnswerRule::Success,
                },
                ..Call::default()
            },
        }
    }
}

impl Event {
    /// Writes the event in a function's form, for a typed subscription: the envelope of Event Gateway's last versions is
    /// CloudEvents 0.1.
    pub fn encode_typed(&self, format: EventFormat) -> Encoded {
        match format {
            EventFormat::Envelope => Encoded {
                payload: self.to_version_01(),
                content_type: STRUCTURED_TYPE.to_owned(),
                call: Call {
                    answer: AnswerRule::Envelope,
                    ..Call::default()
                },
            },
            _ => self.encode(format),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Payload;
    use super::*;

    fn check(format: EventFormat, content_type: &str, payload: &str, headers: &[&str]) {
        let data = Payload::Json(Bytes::from_static(b"[1.0]"));
        let event = Event {
            id: "i".into(),
            ..Event::new("a.b", "/p", data, "application/json; charset=utf-8", 0)
        };
        let encoded = event.encode(format);
        assert_eq!(encoded.payload, payload);
        assert_eq!(encoded.content_type, content_type);
        assert!(encoded.call.is_well_formed());
        let written = encoded.call.headers.iter();
        let written: Vec<_> = written
            .map(|(name, value)| format!("{name}: {}", std::str::from_utf8(value).unwrap()))
            .collect();
        assert_eq!(written, headers, "{format:?}");
    }

    #[test]
    fn each_form_has_its_payload_media_type_and_headers() {
        check(
            EventFormat::Envelope,
            "application/json",
            r#"{"event":"a.b","id":"i","receivedAt":0,"data":[1.0],"dataType":"application/json; charset=utf-8"}"#,
            &[],
        );
        check(
            EventFormat::CloudeventsBinary,
            "application/json; charset=utf-8",
            "[1.0]",
            &[
                "ce-specversion: 1.0",
                "ce-id: i",
                "ce-source: /p",
                "ce-type: a.b",
                "ce-time: 1970-01-01T00:00:00.000Z",
            ],
        );
        check(
            EventFormat::CloudeventsStructured,
            "application/cloudevents+json",
            r#"{"specversion":"1.0","id":"i","source":"/p","type":"a.b","time":"1970-01-01T00:00:00.000Z","datacontenttype":"application/json; charset=utf-8","data":[1.0]}"#,
            &[],
        );
        check(
            EventFormat::Raw,
            "application/json; charset=utf-8",
            "[1.0]",
            &[],
        );
    }
}
