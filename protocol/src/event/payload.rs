//! The data of an event: JSON as it was written, or bytes.

use base64::Engine;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The data of an event, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// One JSON text.
    Json(Bytes),
    /// Anything else; JSON shows it as the base64 of its bytes.
    Bytes(Bytes),
}

/// Data that says it is JSON and is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed JSON body")]
pub struct MalformedJson;

impl Payload {
    /// Reads a body by its media type: `application/json` and `+json`, with parameters or without, is JSON; an empty body is
    /// empty bytes, whatever its type.
    ///
    /// # Errors
    /// When a body that says it is JSON is not.
    pub fn parse(content_type: Option<&str>, body: Bytes) -> Result<Self, MalformedJson> {
        if body.is_empty() || !content_type.is_some_and(is_json) {
            return Ok(Self::Bytes(body));
        }
        match serde_json::from_slice::<&RawValue>(&body) {
            Ok(json) => Ok(Self::Json(body.slice_ref(json.get().as_bytes()))),
            Err(_) => Err(MalformedJson),
        }
    }

    /// The bytes as they were sent, without white space around JSON.
    pub fn bytes(&self) -> &Bytes {
        match self {
            Self::Json(bytes) | Self::Bytes(bytes) => bytes,
        }
    }

    /// The bytes as a function gets them that is told no JSON around: a text in JSON whose media type is not JSON is that text.
    pub fn bare_bytes(&self, data_type: &str) -> Bytes {
        match self {
            Self::Json(json) if json.first() == Some(&b'"') && !is_json(data_type) => {
                let text = serde_json::from_slice::<String>(json);
                text.map_or_else(|_| json.clone(), Bytes::from)
            }
            _ => self.bytes().clone(),
        }
    }

    /// The text of a form, which typed subscriptions are told as it is.
    pub fn form_text(&self, data_type: &str) -> Option<&str> {
        let essence = data_type.split(';').next().unwrap_or("").trim();
        let is_form = ["application/x-www-form-urlencoded", "multipart/form-data"]
            .iter()
            .any(|form| essence.eq_ignore_ascii_case(form));
        match self {
            Self::Bytes(bytes) if is_form => std::str::from_utf8(bytes).ok(),
            _ => None,
        }
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Writes it as a JSON value: JSON as it is, bytes as a string of base64.
    pub fn write_json(&self, json: &mut Vec<u8>) {
        match self {
            Self::Json(text) => json.extend_from_slice(text),
            Self::Bytes(bytes) => write_base64(bytes, json),
        }
    }

    /// How many bytes [`Payload::write_json`] writes.
    pub(super) fn json_len(&self) -> usize {
        match self {
            Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len().div_ceil(3) * 4 + 2,
        }
    }
}

/// Writes bytes as a JSON string of base64, in the standard alphabet and padded.
pub(super) fn write_base64(bytes: &[u8], json: &mut Vec<u8>) {
    json.push(b'"');
    let start = json.len();
    json.resize(start + bytes.len().div_ceil(3) * 4, b'=');
    base64::engine::general_purpose::STANDARD
        .encode_slice(bytes, &mut json[start..])
        .expect("there is room for four characters for every three bytes");
    json.push(b'"');
}

/// Writes a JSON string.
pub(super) fn write_text(text: &str, json: &mut Vec<u8>) {
    serde_json::to_writer(json, text).expect("a text can be written as JSON");
}

/// Whether a media type is `application/json` or ends in `+json`, parameters aside.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim();
    let suffix = essence
        .len()
        .checked_sub(5)
        .and_then(|start| essence.get(start..));
    essence.eq_ignore_ascii_case("application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(content_type: Option<&str>, body: &'static [u8], expected: Result<&str, ()>) {
        let parsed = Payload::parse(content_type, Bytes::from_static(body));
        let json = parsed.ok().map(|payload| {
            let mut json = Vec::new();
            payload.write_json(&mut json);
            assert_eq!(payload.json_len(), json.len());
            String::from_utf8(json).unwrap()
        });
        assert_eq!(json.as_deref(), expected.ok(), "{content_type:?} {body:?}");
    }

    /// Section 7: what a body comes to by its content type.
    #[test]
    fn a_body_is_read_by_its_media_type() {
        let json = Some("application/json");
        check(
            json,
            br#" {"b":1.00, "a":1e400}"#,
            Ok(r#"{"b":1.00, "a":1e400}"#),
        );
        check(json, b"18446744073709551616", Ok("18446744073709551616"));
        check(json, b"null", Ok("null"));
        check(json, b"\"text\"", Ok("\"text\""));
        check(json, b"", Ok("\"\""));
        check(json, b"  ", Err(()));
        check(json, b"{", Err(()));
        check(json, b"{} x", Err(()));
        check(json, b"\"\xff\"", Err(()));
        check(Some("application/json; charset=utf-8"), b"[1]", Ok("[1]"));
        check(Some("APPLICATION/JSON"), b"[1]", Ok("[1]"));
        check(Some("application/problem+json"), b"[1]", Ok("[1]"));
        check(Some("application/jsonx"), b"[1]", Ok("\"WzFd\""));
        check(Some("text/plain"), b"hi", Ok("\"aGk=\""));
        check(None, b"\xff\xfe\xfd", Ok("\"//79\""));
        check(None, b"", Ok("\"\""));
        check(
            Some("application/x-www-form-urlencoded"),
            b"a=1",
            Ok("\"YT0x\""),
        );
    }
}
