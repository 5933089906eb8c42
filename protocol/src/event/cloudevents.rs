//! CloudEvents 1.0 over HTTP: reading the binary, structured and batched mode, and writing the first two. And version 0.1, which
//! is told by its own attributes.

use std::fmt::Write as _;

use bytes::Bytes;

use super::payload::{write_base64, write_text};
use super::{Event, Payload};

mod read;
mod version01;

pub use read::{Invalid, Mode, read_batch, read_binary, read_structured};
pub(super) use version01::OWN_EXTENSION;
pub use version01::read_binary_version_01;

/// The media type of one event in structured mode.
pub const STRUCTURED_TYPE: &str = "application/cloudevents+json";

/// The media type of a batch of events.
pub const BATCH_TYPE: &str = "application/cloudevents-batch+json";

/// What the names of headers with attributes begin with, in binary mode.
pub const HEADER_PREFIX: &str = "ce-";

impl Event {
    /// The headers of the event in binary mode; its data is the body, and its media type the content type.
    pub fn to_binary_headers(&self) -> Vec<(String, String)> {
        let attributes = &self.attributes;
        let mut headers = vec![
            ("ce-specversion".to_owned(), "1.0".to_owned()),
            ("ce-id".to_owned(), header_value(&self.id)),
            ("ce-source".to_owned(), header_value(self.source())),
            ("ce-type".to_owned(), header_value(&self.event_type)),
            ("ce-time".to_owned(), self.time()),
        ];
        let optional = [
            ("ce-subject", &attributes.subject),
            ("ce-dataschema", &attributes.data_schema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                headers.push((name.to_owned(), header_value(value)));
            }
        }
        for (name, value) in &attributes.extensions {
            headers.push((format!("{HEADER_PREFIX}{name}"), header_value(value)));
        }
        headers
    }

    /// Writes the event in structured mode, as JSON of the media type [`STRUCTURED_TYPE`].
    pub fn to_structured(&self) -> Bytes {
        let attributes = &self.attributes;
        let mut json = Vec::with_capacity(self.data.json_len() + 256);
        json.extend_from_slice(br#"{"specversion":"1.0""#);
        let mut member = |name: &str, text: &str| {
            json.push(b',');
            write_text(name, &mut json);
            json.push(b':');
            write_text(text, &mut json);
        };
        member("id", &self.id);
        member("source", self.source());
        member("type", &self.event_type);
        member("time", &self.time());
        let optional = [
            ("subject", &attributes.subject),
            ("dataschema", &attributes.data_schema),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                member(name, value);
            }
        }
        for (name, value) in &attributes.extensions {
            member(name, value);
        }
        if !self.data_type.is_empty() {
            member("datacontenttype", &self.data_type);
        }
        write_data(&self.data, &self.data_type, &mut json);
        json.push(b'}');
        json.into()
    }
}

/// Text stays text where its media type says so; other bytes are told as base64, and none at all as nothing.
fn write_data(data: &Payload, data_type: &str, json: &mut Vec<u8>) {
    match data {
        Payload::Json(text) => {
            json.extend_from_slice(br#","data":"#);
            // Read as JSON again only if the media type says that it is.
            json.extend_from_slice(text);
        }
        Payload::Bytes(bytes) if bytes.is_empty() => {}
        Payload::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) if is_text(data_type) => {
                json.extend_from_slice(br#","data":"#);
                write_text(text, json);
            }
            _ => {
                json.extend_from_slice(br#","data_base64":"#);
                write_base64(bytes, json);
            }
        },
    }
}

fn is_text(data_type: &str) -> bool {
    let starts = data_type.get(..5);
    starts.is_some_and(|start| start.eq_ignore_ascii_case("text/"))
}

/// An attribute as a header can carry it: what is not visible ASCII, and `"` and `%`, as `%XX` of its UTF-8.
fn header_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'%' | ..=b' ' | 0x7f.. => {
                write!(value, "%{byte:02X}").expect("a String takes all that is written");
            }
            _ => value.push(char::from(byte)),
        }
    }
    value
}

#[cfg(test)]
mod tests;
