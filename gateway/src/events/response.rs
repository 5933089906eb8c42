//! What a function answers to an `http` event: the response object of Event Gateway, or its answer as it is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use protocol::Reply;
use protocol::invocation::is_hop_by_hop;
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};

use super::sniff;
use crate::body::AnswerBody;
use crate::headers;

/// Why an answer can not be told to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("HTTP response object malformed")]
pub(super) struct Malformed;

/// The response object. Members of other names mean nothing; as in Go, names are known without case, and null is absent.
#[derive(Debug, Default, PartialEq, Eq)]
struct Object<'a> {
    status: Option<u16>,
    headers: BTreeMap<String, Option<String>>,
    body: Cow<'a, str>,
    is_base64: bool,
}

/// Makes the answer from a response object; `fields` is what it has already, which the object's headers replace.
pub(super) fn from_object(
    body: &[u8],
    fields: HeaderMap,
) -> Result<Response<AnswerBody>, Malformed> {
    let object = Object::read(body)?;
    let body = match object.is_base64 {
        false => Bytes::from(object.body.into_owned()),
        true => base64::engine::general_purpose::STANDARD
            .decode(object.body.as_bytes())
            .map_err(|_| Malformed)?
            .into(),
    };
    let status = object.status.unwrap_or(200);
    let mut response = with_status(status, AnswerBody::whole(body), fields)?;
    let fields = response.headers_mut();
    for (name, value) in object.headers {
        if let Ok(name) = HeaderName::from_bytes(name.as_bytes())
            && is_the_functions(&name, false)
        {
            fields.insert(name, one_line(&value.unwrap_or_default()));
        }
    }
    complete(&mut response);
    Ok(response)
}

/// Makes the answer from a function's own. `is_of_head` when it has a length and no body.
pub(super) fn whole(
    reply: Reply,
    fields: HeaderMap,
    is_of_head: bool,
) -> Result<Response<AnswerBody>, Malformed> {
    let mut response = with_status(reply.status, reply.body.into(), fields)?;
    let fields = response.headers_mut();
    let mut replaced: Vec<HeaderName> = Vec::new();
    for (name, value) in reply.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_maybe_shared(value);
        let (Ok(name), Ok(value)) = (name, value) else {
            continue;
        };
        if !is_the_functions(&name, is_of_head) {
            continue;
        }
        // What both depend on, an answer depends on.
        if name != VARY && !replaced.contains(&name) {
            fields.remove(&name);
            replaced.push(name.clone());
        }
        fields.append(name, value);
    }
    if let Some(content_type) = reply.content_type {
        fields.insert(CONTENT_TYPE, headers::text(&content_type));
    }
    complete(&mut response);
    Ok(response)
}

/// Makes the answer to an `invoke` event: the body and nothing else of what the function answered.
pub(super) fn bare(body: Bytes, fields: HeaderMap) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(body));
    *response.headers_mut() = fields;
    complete(&mut response);
    response
}

/// Statuses below 200 end no request.
fn with_status(
    status: u16,
    body: AnswerBody,
    fields: HeaderMap,
) -> Result<Response<AnswerBody>, Malformed> {
    let status = StatusCode::from_u16(status).map_err(|_| Malformed)?;
    if status.is_informational() {
        return Err(Malformed);
    }
    let has_body = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if has_body {
        body
    } else {
        AnswerBody::whole("")
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    Ok(response)
}

/// Names the media type of a body whose function did not, but for one that is encoded, or whose beginning is still to come.
fn complete(response: &mut Response<AnswerBody>) {
    let is_told = [CONTENT_TYPE, CONTENT_ENCODING];
    if is_told
        .iter()
        .any(|name| response.headers().contains_key(name))
    {
        return;
    }
    let content_type = match response.body() {
        AnswerBody::Pieces([body, ..]) if !body.is_empty() => sniff::content_type(body),
        _ => return,
    };
    let value = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, value);
}

/// Whether a function may set a header; the others belong to the connection, or are a node's own.
fn is_the_functions(name: &HeaderName, is_of_head: bool) -> bool {
    let is_length = *name == CONTENT_LENGTH && !is_of_head;
    let is_own = name.as_str().starts_with("x-hearth-") || *name == headers::SERVER_TIMING;
    !is_length && !is_own && !is_hop_by_hop(name.as_str())
}

/// A text as the value of a header; as in Go, what would end the line becomes a space.
fn one_line(text: &str) -> HeaderValue {
    let text = text.trim();
    HeaderValue::from_bytes(text.as_bytes()).unwrap_or_else(|_| {
        let plain: Vec<u8> = text
            .bytes()
            .map(|byte| if byte.is_ascii_control() { b' ' } else { byte })
            .collect();
        HeaderValue::from_bytes(&plain).expect("without control characters any bytes are a value")
    })
}

impl<'a> Object<'a> {
    fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let read: Option<Self> = serde_json::from_slice(body).map_err(|_| Malformed)?;
        let is_list = body.trim_ascii_start().first() == Some(&b'[');
        match is_list {
            true => Err(Malformed),
            false => Ok(read.unwrap_or_default()),
        }
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Members)
    }
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a response object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Object<'de>, A::Error> {
        let mut object = Object::default();
        while let Some(name) = members.next_key::<Cow<'de, str>>()? {
            match name.to_ascii_lowercase().as_str() {
                "statuscode" => {
                    if let Some(status) = members.next_value::<Option<i64>>()? {
                        // One that no status can be is refused when the answer is made.
                        object.status = Some(u16::try_from(status).unwrap_or(0));
                    }
                }
                "headers" => {
                    type Headers = BTreeMap<String, Option<String>>;
                    let headers = members.next_value::<Option<Headers>>()?;
                    object.headers.extend(headers.unwrap_or_default());
                }
                "body" => {
                    if let Some(body) = members.next_value::<Option<Text<'de>>>()? {
                        object.body = body.0;
                    }
                }
                "isbase64encoded" => {
                    if let Some(is_base64) = members.next_value()? {
                        object.is_base64 = is_base64;
                    }
                }
                _ => {
                    members.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(object)
    }
}

/// A text that is not copied unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests;
