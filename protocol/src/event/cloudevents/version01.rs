//! CloudEvents 0.1 over HTTP, as Event Gateway's last versions spoke it: reading the binary and structured mode, and writing the
//! structured one.
//!
//! An extension that CloudEvents 1.0 can carry, a text with a name of lower-case letters and digits, is an extension of the event
//! like any other. What only 0.1 can carry is kept beside, as JSON, and told in that form alone.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use super::super::payload::write_text;
use super::super::time::is_rfc3339;
use super::super::{Attributes, Event, Payload};
use super::read::{Invalid, binary_data, wrong};

/// The version, as events tell it.
const VERSION: &str = "0.1";

/// Where the gateway keeps what it adds to an event.
/// The extension that has what a node says of an event.
pub(in crate::event) const OWN_EXTENSION: &str = "eventgateway";

/// What an event says that the gateway made of a plain request.
const TRANSFORMED: &str = r#"{"transformed":"true","transformation-version":"0.1"}"#;

/// What the names of headers with extensions begin with.
const EXTENSION_PREFIX: &str = "ce-x-";

/// Whether a header is of the binary mode of this version and of no other.
pub(super) fn is_own_header(name: &str) -> bool {
    matches!(
        name,
        "ce-cloudeventsversion" | "ce-eventtype" | "ce-eventid"
    )
}

/// Whether the members of an event in structured mode are of this version.
pub(super) fn is_meant(members: &BTreeMap<Cow<'_, str>, &RawValue>) -> bool {
    let has = |name: &str| members.contains_key(name);
    !has("specversion") && (has("cloudEventsVersion") || has("eventType") || has("eventID"))
}

/// Reads the members of an event in structured mode; others mean nothing.
pub(super) fn read_members(
    members: &BTreeMap<Cow<'_, str>, &RawValue>,
    body: &Bytes,
    received_at_ms: u64,
) -> Result<Event, Invalid> {
    let mut found = Found::default();
    for name in ATTRIBUTES {
        let Some(value) = members.get(name).filter(|value| value.get() != "null") else {
            continue;
        };
        let value: String =
            serde_json::from_str(value.get()).map_err(|_| wrong(name, "is no text"))?;
        found.texts.insert(name, value);
    }
    if let Some(extensions) = members.get("extensions") {
        let extensions: Option<BTreeMap<String, &RawValue>> =
            serde_json::from_str(extensions.get())
                .map_err(|_| wrong("extensions", "is no JSON object"))?;
        for (name, value) in extensions.unwrap_or_default() {
            found.extend(name, value.get());
        }
    }
    let data = members
        .get("data")
        .map_or(Bytes::from_static(b"null"), |data| {
            body.slice_ref(data.get().as_bytes())
        });
    // JSON is what data is when nothing else is said.
    let data_type = found
        .texts
        .remove("contentType")
        .filter(|text| !text.is_empty());
    let data_type = data_type.unwrap_or_else(|| "application/json".to_owned());
    found.event(Payload::Json(data), data_type, received_at_ms)
}

/// Reads an event in the binary mode of version 0.1. `headers` are names in lower case with their values.
///
/// # Errors
/// When an attribute is missing or wrong, or data that says it is JSON is not.
pub fn read_binary_version_01<'a>(
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    content_type: Option<&str>,
    body: Bytes,
    received_at_ms: u64,
) -> Result<Event, Invalid> {
    let mut found = Found::default();
    for (header, value) in headers {
        let Some(name) = header.strip_prefix("ce-") else {
            continue;
        };
        let value = std::str::from_utf8(value).map_err(|_| wrong(header, "is not valid UTF-8"))?;
        if let Some(name) = header.strip_prefix(EXTENSION_PREFIX) {
            let json = serde_json::to_string(value).expect("a text can be written as JSON");
            found.extend(extension_name(name), &json);
        } else if let Some(name) = ATTRIBUTES
            .iter()
            .find(|known| known.eq_ignore_ascii_case(name))
        {
            found.texts.insert(name, value.to_owned());
        }
    }
    let data = binary_data(content_type, body)?;
    let data_type = content_type.unwrap_or_default().to_owned();
    found.event(data, data_type, received_at_ms)
}

const ATTRIBUTES: [&str; 8] = [
    "eventType",
    "eventTypeVersion",
    "cloudEventsVersion",
    "source",
    "eventID",
    "eventTime",
    "schemaURL",
    "contentType",
];

#[derive(Default)]
struct Found {
    texts: BTreeMap<&'static str, String>,
    extensions: BTreeMap<String, String>,
    json_extensions: BTreeMap<String, String>,
}

impl Found {
    /// Takes an extension, whose value is JSON.
    fn extend(&mut self, name: String, json: &str) {
        let is_attribute = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_reserved = matches!(
            name.as_str(),
            "specversion"
                | "id"
                | "type"
                | "source"
                | "subject"
                | "dataschema"
                | "time"
                | "data"
                | "datacontenttype"
        );
        let text = serde_json::from_str::<String>(json);
        match text {
            Ok(text)
                if !text.is_empty()
                    && !name.is_empty()
                    && name.bytes().all(is_attribute)
                    && !is_reserved =>
            {
                self.extensions.insert(name, text);
            }
            _ => {
                self.json_extensions.insert(name, json.to_owned());
            }
        }
    }

    /// The event, if what it must have is there; what is not is told in the words of Event Gateway's validator.
    fn event(
        mut self,
        data: Payload,
        data_type: String,
        received_at_ms: u64,
    ) -> Result<Event, Invalid> {
        let mut lines = Vec::new();
        let mut text = |name: &'static str| {
            let value = self.texts.remove(name);
            value.filter(|value| !value.is_empty())
        };
        let mut required = |name: &'static str, field: &str, is_valid: fn(&str) -> bool, tag| {
            let value = text(name).unwrap_or_default();
            let failed = match value.is_empty() {
                true => Some("required"),
                false => (!is_valid(&value)).then_some(tag),
            };
            lines.extend(failed.map(|tag| {
                format!("Key: 'Event.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag")
            }));
            value
        };
        let event_type = required("eventType", "EventType", |_| true, "");
        required(
            "cloudEventsVersion",
            "CloudEventsVersion",
            |version| version == VERSION,
            "eq=0.1",
        );
        let source = required("source", "Source", is_uri, "uri");
        let id = required("eventID", "EventID", |_| true, "");
        if !lines.is_empty() {
            return Err(Invalid::Fields(lines.join("\n")));
        }
        let time = text("eventTime");
        if time.as_deref().is_some_and(|time| !is_rfc3339(time)) {
            return Err(wrong("eventTime", "is no time as RFC 3339 writes them"));
        }
        Ok(Event {
            id,
            event_type,
            received_at_ms,
            data,
            data_type,
            attributes: Attributes {
                source,
                time,
                data_schema: text("schemaURL"),
                type_version: text("eventTypeVersion"),
                extensions: self.extensions,
                json_extensions: self.json_extensions,
                ..Attributes::default()
            },
        })
    }
}

/// A path, or what has a scheme, as Go's `ParseRequestURI` takes it.
fn is_uri(text: &str) -> bool {
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(is_allowed)
    });
    let is_visible = text.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    is_visible && (text.starts_with('/') || has_scheme)
}

/// The name that a header's has in JSON: as Go writes headers, but with a small first letter.
fn extension_name(header: &str) -> String {
    let mut is_start = false;
    let letters = header.chars().map(|letter| {
        let shown = match is_start {
            true => letter.to_ascii_uppercase(),
            false => letter,
        };
        is_start = letter == '-';
        shown
    });
    letters.collect()
}

impl Event {
    /// Writes the event in the structured mode of CloudEvents 0.1, as the functions of typed subscriptions expect it.
    pub fn to_version_01(&self) -> Bytes {
        let attributes = &self.attributes;
        let mut json = Vec::with_capacity(self.data.json_len() + 384);
        json.extend_from_slice(br#"{"eventType":"#);
        write_text(&self.event_type, &mut json);
        let mut member = |name: &str, text: &str| {
            json.push(b',');
            write_text(name, &mut json);
            json.push(b':');
            write_text(text, &mut json);
        };
        if let Some(version) = &attributes.type_version {
            member("eventTypeVersion", version);
        }
        member("cloudEventsVersion", VERSION);
        member("source", self.source());
        member("eventID", &self.id);
        member("eventTime", &self.time());
        if let Some(schema) = &attributes.data_schema {
            member("schemaURL", schema);
        }
        self.write_extensions(&mut json);
        if !self.data_type.is_empty() {
            json.extend_from_slice(br#","contentType":"#);
            write_text(&self.data_type, &mut json);
        }
        json.extend_from_slice(br#","data":"#);
        match self.data.form_text(&self.data_type) {
            Some(text) => write_text(text, &mut json),
            None => self.data.write_json(&mut json),
        }
        json.push(b'}');
        json.into()
    }

    fn write_extensions(&self, json: &mut Vec<u8>) {
        let attributes = &self.attributes;
        let mut all: BTreeMap<&str, Cow<'_, str>> = BTreeMap::new();
        for (name, text) in &attributes.extensions {
            let text = serde_json::to_string(text).expect("a text can be written as JSON");
            all.insert(name, text.into());
        }
        if attributes.is_transformed {
            all.insert(OWN_EXTENSION, TRANSFORMED.into());
        }
        for (name, value) in &attributes.json_extensions {
            all.insert(name, value.into());
        }
        if all.is_empty() {
            return;
        }
        json.extend_from_slice(br#","extensions":{"#);
        for (index, (name, value)) in all.iter().enumerate() {
            if index > 0 {
                json.push(b',');
            }
            write_text(name, json);
            json.push(b':');
            json.extend_from_slice(value.as_bytes());
        }
        json.push(b'}');
    }

    /// Adds what an authorizer said of the event, a JSON object, to its extensions: as `eventgateway.authorization`.
    pub fn set_authorization(&mut self, authorization: &serde_json::Value) {
        let attributes = &mut self.attributes;
        attributes.extensions.remove(OWN_EXTENSION);
        let known = match attributes.json_extensions.get(OWN_EXTENSION) {
            Some(known) => known.as_str(),
            None if attributes.is_transformed => TRANSFORMED,
            None => "{}",
        };
        // What the client called so and is no object makes room.
        let mut own: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(known).unwrap_or_default();
        own.insert("authorization".to_owned(), authorization.clone());
        let own = serde_json::Value::Object(own).to_string();
        attributes
            .json_extensions
            .insert(OWN_EXTENSION.to_owned(), own);
    }
}

#[cfg(test)]
mod tests;
