//! Reads CloudEvents as they come over HTTP, of version 1.0 or 0.1. Every refusal names the attribute that is wrong.

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use bytes::Bytes;
use serde_json::value::RawValue;

use super::super::payload::is_json;
use super::super::time::is_rfc3339;
use super::super::{Attributes, Event, Payload};
use super::{BATCH_TYPE, HEADER_PREFIX, STRUCTURED_TYPE, version01};

/// The way a request carries CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Attributes are headers, the body is the data.
    Binary,
    /// The same in version 0.1.
    BinaryVersion01,
    /// The body is one event as JSON.
    Structured,
    /// The body is a list of events as JSON.
    Batch,
}

/// Why something is no CloudEvent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The body is no JSON, or of the wrong kind.
    #[error("CloudEvent is not valid: the body is no {expected}")]
    Body {
        /// What it should be.
        expected: &'static str,
    },
    /// An attribute is missing or wrong.
    #[error("CloudEvent is not valid: {attribute} {why}")]
    Attribute {
        /// The attribute as the sender knows it.
        attribute: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Attributes of an event of version 0.1 are missing or wrong, a line each.
    #[error("CloudEvent doesn't validate: {0}")]
    Fields(String),
    /// The format of the events is not JSON.
    #[error("CloudEvent is not valid: the format {0} is not supported, only JSON is")]
    Format(String),
    /// One event of a batch is wrong.
    #[error("event {index} of the batch: {why}")]
    InBatch {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        why: Box<Invalid>,
    },
}

impl Mode {
    /// The way a request carries CloudEvents; `None` when it carries none. `names` are its header names, in lower case.
    ///
    /// # Errors
    /// When it says that it carries some, in a format that nobody here reads.
    pub fn of<'a>(
        content_type: Option<&str>,
        names: impl Iterator<Item = &'a str>,
    ) -> Result<Option<Self>, Invalid> {
        let essence = content_type.and_then(|value| value.split(';').next());
        let essence = essence.unwrap_or_default().trim();
        if essence.eq_ignore_ascii_case(STRUCTURED_TYPE) {
            return Ok(Some(Self::Structured));
        }
        if essence.eq_ignore_ascii_case(BATCH_TYPE) {
            return Ok(Some(Self::Batch));
        }
        let start = essence.get(..23).unwrap_or_default();
        if start.eq_ignore_ascii_case("application/cloudevents") {
            return Err(Invalid::Format(essence.to_owned()));
        }
        // One of the required attributes is enough to know that the others are missing.
        let mut found = None;
        for name in names {
            match name {
                "ce-specversion" => return Ok(Some(Self::Binary)),
                "ce-id" | "ce-source" | "ce-type" => found = found.or(Some(Self::Binary)),
                name if version01::is_own_header(name) => found = Some(Self::BinaryVersion01),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Reads an event in binary mode. `headers` are names in lower case with their values.
///
/// # Errors
/// When an attribute is missing or wrong, or data that says it is JSON is not.
pub fn read_binary<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    content_type: Option<&str>,
    body: Bytes,
    received_at_ms: u64,
) -> Result<Event, Invalid> {
    let mut found = Found::default();
    for (header, value) in headers {
        if let Some(name) = header.strip_prefix(HEADER_PREFIX) {
            let value = decode_value(value).ok_or_else(|| wrong(header, "is not valid UTF-8"))?;
            found.take(name, value, header)?;
        }
    }
    let data = binary_data(content_type, body)?;
    let data_type = content_type.unwrap_or_default();
    found.event(HEADER_PREFIX, data, data_type, received_at_ms)
}

/// The data of an event in binary mode.
pub(super) fn binary_data(content_type: Option<&str>, body: Bytes) -> Result<Payload, Invalid> {
    let expected = "valid JSON, as its content type says";
    Payload::parse(content_type, body).map_err(|_| Invalid::Body { expected })
}

/// Reads an event in structured mode.
///
/// # Errors
/// When the body is no JSON object, or an attribute is missing or wrong.
pub fn read_structured(body: &Bytes, received_at_ms: u64) -> Result<Event, Invalid> {
    let expected = "JSON object";
    let members: BTreeMap<Cow<'_, str>, &RawValue> =
        serde_json::from_slice(body).map_err(|_| Invalid::Body { expected })?;
    if version01::is_meant(&members) {
        return version01::read_members(&members, body, received_at_ms);
    }
    let mut found = Found::default();
    let (mut data, mut data_base64, mut data_type) = (None, None, None);
    for (name, value) in members {
        match &*name {
            "data" => data = Some(value),
            "data_base64" => data_base64 = Some(value),
            _ => {
                let Some(value) = attribute_text(&name, value)? else {
                    continue;
                };
                if name == "datacontenttype" {
                    data_type = Some(value);
                } else {
                    found.take(&name, value, &name)?;
                }
            }
        }
    }
    // JSON is what data is when nothing else is said.
    let data_type = data_type.unwrap_or_else(|| "application/json".to_owned());
    let data = match (data, data_base64) {
        (Some(_), Some(_)) => return Err(wrong("data_base64", "stands beside data")),
        (_, Some(text)) => from_base64(text, &data_type)?,
        (Some(json), None) => from_json(json, &data_type, body),
        (None, None) => Payload::Bytes(Bytes::new()),
    };
    found.event("", data, &data_type, received_at_ms)
}

/// Reads a batch of events, which may be empty.
///
/// # Errors
/// When the body is no JSON list, or any of its events is not valid: then none is taken.
pub fn read_batch(body: &Bytes, received_at_ms: u64) -> Result<Vec<Event>, Invalid> {
    let expected = "JSON array";
    let events: Vec<&RawValue> =
        serde_json::from_slice(body).map_err(|_| Invalid::Body { expected })?;
    let read = |(index, event): (usize, &RawValue)| {
        let event = body.slice_ref(event.get().as_bytes());
        read_structured(&event, received_at_ms).map_err(|why| Invalid::InBatch {
            index,
            why: Box::new(why),
        })
    };
    events.into_iter().enumerate().map(read).collect()
}

/// Attributes as they are found.
#[derive(Default)]
struct Found {
    spec_version: Option<String>,
    id: Option<String>,
    event_type: Option<String>,
    source: Option<String>,
    attributes: Attributes,
}

impl Found {
    /// Takes one attribute; `shown` is its name as the sender knows it.
    fn take(&mut self, name: &str, value: String, shown: &str) -> Result<(), Invalid> {
        if value.is_empty() {
            return Err(wrong(shown, "is empty"));
        }
        let slot = match name {
            "specversion" => &mut self.spec_version,
            "id" => &mut self.id,
            "type" => &mut self.event_type,
            "source" => &mut self.source,
            "subject" => &mut self.attributes.subject,
            "dataschema" => &mut self.attributes.data_schema,
            "time" if !is_rfc3339(&value) => {
                return Err(wrong(shown, "is no time as RFC 3339 writes them"));
            }
            "time" => &mut self.attributes.time,
            // Binary mode has a header of its own for it.
            "datacontenttype" => {
                return Err(wrong(shown, "is told by Content-Type in binary mode"));
            }
            // Structured mode would take it for data.
            "data" | "data_base64" => return Err(wrong(shown, "is no name of an attribute")),
            _ => {
                let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                if name.is_empty() || !name.bytes().all(is_name) {
                    return Err(wrong(
                        shown,
                        "is no attribute: names have only letters a to z and digits",
                    ));
                }
                self.attributes.extensions.insert(name.to_owned(), value);
                return Ok(());
            }
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(wrong(shown, "is there twice")),
        }
    }

    fn event(
        self,
        prefix: &str,
        data: Payload,
        data_type: &str,
        received_at_ms: u64,
    ) -> Result<Event, Invalid> {
        let required = |value: Option<String>, name: &str| {
            value.ok_or_else(|| wrong(&format!("{prefix}{name}"), "is missing"))
        };
        if required(self.spec_version, "specversion")? != "1.0" {
            let name = format!("{prefix}specversion");
            return Err(wrong(&name, "is not supported, expected 1.0"));
        }
        Ok(Event {
            id: required(self.id, "id")?,
            event_type: required(self.event_type, "type")?,
            received_at_ms,
            data,
            data_type: data_type.to_owned(),
            attributes: Attributes {
                source: required(self.source, "source")?,
                ..self.attributes
            },
        })
    }
}

pub(super) fn wrong(attribute: &str, why: &'static str) -> Invalid {
    Invalid::Attribute {
        attribute: attribute.to_owned(),
        why,
    }
}

/// The text of an attribute in JSON; `None` for null, which is as good as absent.
fn attribute_text(name: &str, value: &RawValue) -> Result<Option<String>, Invalid> {
    let text = value.get();
    let is_integer = || text.parse::<i32>().is_ok();
    match text.as_bytes().first() {
        Some(b'n') => Ok(None),
        Some(b'"') => serde_json::from_str(text)
            .map(Some)
            .map_err(|_| wrong(name, "is no valid text")),
        Some(b't' | b'f') => Ok(Some(text.to_owned())),
        Some(_) if is_integer() => Ok(Some(text.to_owned())),
        _ => Err(wrong(name, "is no text, boolean or integer")),
    }
}

/// Data of a type that is not JSON is a text in JSON, if it is one.
fn from_json(json: &RawValue, data_type: &str, body: &Bytes) -> Payload {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) if !is_json(data_type) => Payload::Bytes(text.into()),
        _ => Payload::Json(body.slice_ref(json.get().as_bytes())),
    }
}

fn from_base64(text: &RawValue, data_type: &str) -> Result<Payload, Invalid> {
    let wrong = || wrong("data_base64", "is no base64");
    let text: Cow<'_, str> = serde_json::from_str(text.get()).map_err(|_| wrong())?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(text.as_bytes());
    let bytes = Bytes::from(bytes.map_err(|_| wrong())?);
    // What says that it is JSON and is not stays what it is: the sender chose to send bytes.
    let data = Payload::parse(Some(data_type), bytes.clone());
    Ok(data.unwrap_or(Payload::Bytes(bytes)))
}

/// The text of a header, its `%XX` decoded; `None` when it is no UTF-8. Quotes around it, as headers may have them, are
/// taken off.
fn decode_value(value: &[u8]) -> Option<String> {
    let value = match value {
        [b'"', inner @ .., b'"'] => inner,
        value => value,
    };
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut text = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [first, tail @ ..] = rest {
        let decoded = match (first, tail) {
            (b'%', [high, low, after @ ..]) => hex(*high).zip(hex(*low)).map(|pair| (pair, after)),
            _ => None,
        };
        match decoded {
            Some(((high, low), after)) => {
                text.push(u8::try_from(high * 16 + low).expect("two hexadecimal digits fit"));
                rest = after;
            }
            None => {
                text.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(text).ok()
}
