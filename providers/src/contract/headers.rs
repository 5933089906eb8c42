//! What containers, processes and webhooks share of an invocation by HTTP: its CloudEvents 1.0 binary-mode headers, and what an
//! answer comes to.

use std::time::{Duration, SystemTime};

#[cfg(feature = "http")]
use ::http::header::{CONNECTION, CONTENT_LENGTH};
use ::http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
#[cfg(feature = "http")]
use protocol::invocation::is_hop_by_hop;
use protocol::{Answered, Function, Invocation};

use crate::http1::Elsewhere;

const CE_ID: HeaderName = HeaderName::from_static("ce-id");
const CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
const CE_SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
const INVOCATION: HeaderName = HeaderName::from_static("x-hearth-invocation");
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The headers of one function's invocations; what never changes is made once.
#[derive(Debug, Clone)]
pub(crate) struct EventHeaders {
    source: HeaderValue,
}

impl EventHeaders {
    pub(crate) fn new(function: &Function) -> Self {
        let source = format!(
            "/v1/spaces/{}/functions/{}",
            function.space, function.function_id
        );
        let source = HeaderValue::try_from(source)
            .expect("names hold only letters, digits, '.', '-' and '_'");
        Self { source }
    }

    /// The headers of one invocation. What is no valid header value is left out: it came from a client. A call brings its own,
    /// without `host`, which the URL of a webhook names.
    pub(crate) fn of(&self, invocation: &Invocation) -> HeaderMap {
        let id = HeaderValue::from_str(invocation.id.as_str())
            .expect("an invocation id holds only letters, digits, '.', '-' and '_'");
        let mut headers = HeaderMap::with_capacity(16);
        match invocation.call.as_deref() {
            None => {
                headers.insert(CE_ID, id.clone());
                headers.insert(CE_SOURCE, self.source.clone());
                headers.insert(CE_SPEC_VERSION, HeaderValue::from_static("1.0"));
                headers.insert(CE_TYPE, HeaderValue::from_static("hearth.invocation"));
            }
            Some(call) => {
                for (name, value) in &call.headers {
                    let name = HeaderName::from_bytes(name.as_bytes());
                    let value = HeaderValue::from_maybe_shared(value.clone());
                    if let (Ok(name), Ok(value)) = (name, value)
                        && name != HOST
                    {
                        headers.append(name, value);
                    }
                }
            }
        }
        if has_content_type(invocation) {
            headers.insert(CONTENT_TYPE, content_type(&invocation.content_type));
        }
        headers.insert(INVOCATION, id);
        let trace = &invocation.trace;
        for (name, value) in [(TRACE_PARENT, &trace.parent), (TRACE_STATE, &trace.state)] {
            if let Some(value) = value
                .as_deref()
                .and_then(|value| HeaderValue::from_str(value).ok())
            {
                headers.insert(name, value);
            }
        }
        headers
    }

    /// Writes the same as lines of a request's head, but for the `host` that a call brings.
    pub(crate) fn write(&self, invocation: &Invocation, head: &mut Vec<u8>) {
        let id = invocation.id.as_str().as_bytes();
        let mut write = |name: &str, value: &[u8]| {
            for piece in [name.as_bytes(), b": ", value, b"\r\n"] {
                head.extend_from_slice(piece);
            }
        };
        match invocation.call.as_deref() {
            None => {
                let lines: [(&str, &[u8]); 4] = [
                    ("ce-id", id),
                    ("ce-source", self.source.as_bytes()),
                    ("ce-specversion", b"1.0"),
                    ("ce-type", b"hearth.invocation"),
                ];
                for (name, value) in lines {
                    write(name, value);
                }
            }
            Some(call) => {
                let own = call.headers.iter().filter(|(name, _)| name != "host");
                for (name, value) in own {
                    write(name, value);
                }
            }
        }
        if has_content_type(invocation) {
            let content_type = content_type(&invocation.content_type);
            write("content-type", content_type.as_bytes());
        }
        write("x-hearth-invocation", id);
        let trace = &invocation.trace;
        for (name, value) in [("traceparent", &trace.parent), ("tracestate", &trace.state)] {
            if let Some(value) = value
                .as_deref()
                .and_then(|value| HeaderValue::from_str(value).ok())
            {
                write(name, value.as_bytes());
            }
        }
    }
}

/// A request that came without a content type is handed on without one.
fn has_content_type(invocation: &Invocation) -> bool {
    invocation.call.is_none() || !invocation.content_type.is_empty()
}

fn content_type(value: &str) -> HeaderValue {
    match value {
        "application/json" => HeaderValue::from_static("application/json"),
        _ => HeaderValue::from_str(value)
            .unwrap_or(HeaderValue::from_static("application/octet-stream")),
    }
}

/// The media type an answer names, if it can be read.
pub(crate) fn answered_type(headers: &HeaderMap) -> Option<String> {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned)
}

/// The headers of an answer that are not for its connection only, but for the content type and the length, which are told
/// otherwise.
#[cfg(feature = "http")]
pub(crate) fn answered_headers(
    headers: &HeaderMap,
    is_of_head: bool,
) -> Vec<(String, bytes::Bytes)> {
    let options: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|option| option.trim().to_ascii_lowercase())
        .collect();
    let is_passed = |name: &HeaderName| {
        let is_told = name == CONTENT_TYPE || (name == CONTENT_LENGTH && !is_of_head);
        !is_told
            && !is_hop_by_hop(name.as_str())
            && !options.iter().any(|option| option == name.as_str())
    };
    headers
        .iter()
        .filter(|(name, _)| is_passed(name))
        .map(|(name, value)| {
            (
                name.as_str().to_owned(),
                bytes::Bytes::copy_from_slice(value.as_bytes()),
            )
        })
        .collect()
}

/// What an answer that does not count as one comes to: the status and the beginning of what it said.
pub(crate) fn status_failure(
    status: u16,
    retry_after: Option<Duration>,
    body: &[u8],
) -> crate::Error {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * SAID_CHARS_MAX)]);
    let said: String = text.trim().chars().take(SAID_CHARS_MAX).collect();
    let why = match said.is_empty() {
        true => format!("status {status}"),
        false => format!("status {status}: {said}"),
    };
    let retry_after_ms =
        retry_after.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
    let answered = Answered {
        status,
        said,
        retry_after_ms,
    };
    crate::Error::Failed {
        why,
        answered: Some(answered),
    }
}

/// The pause that an answer asks for, in seconds or as a date.
pub(crate) fn retry_after(elsewhere: Option<&Elsewhere>) -> Option<Duration> {
    let value = elsewhere?.retry_after.as_deref()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(value).ok()?;
    until.duration_since(SystemTime::now()).ok()
}

/// The error of a run that was stopped after `limit`.
pub(crate) fn timed_out(limit: Duration) -> crate::Error {
    crate::Error::TimedOut {
        timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
    }
}

/// Characters of a failed answer that an error repeats.
const SAID_CHARS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use protocol::invocation::TraceContext;
    use protocol::{Deadline, Hop, InvocationId};

    use super::*;

    #[test]
    fn lines_and_map_say_the_same() {
        let record =
            r#"{"space":"default","functionId":"f","type":"process","provider":{"command":["x"]}}"#;
        let events = EventHeaders::new(&serde_json::from_str(record).unwrap());
        for (content_type, parent, state) in [
            ("application/json", None, None),
            ("text/plain", Some("00-a-b-01"), Some("bad\r\nvalue: x")),
            ("bad\ntype", Some("00-a-b-01"), Some("vendor=1")),
        ] {
            let invocation = Invocation {
                id: InvocationId::random(),
                space: "default".parse().unwrap(),
                function_id: "f".parse().unwrap(),
                payload: bytes::Bytes::new(),
                content_type: content_type.to_owned(),
                call: None,
                deadline: Deadline::at(tokio::time::Instant::now().into_std()),
                hop: Hop::Direct,
                trace: TraceContext {
                    parent: parent.map(str::to_owned),
                    state: state.map(str::to_owned),
                },
            };
            let mut written = Vec::new();
            events.write(&invocation, &mut written);
            let mut lines: Vec<_> = std::str::from_utf8(&written).unwrap().lines().collect();
            let map = events.of(&invocation);
            let mut expected: Vec<_> = map
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort_unstable();
            expected.sort_unstable();
            assert_eq!(lines, expected);
        }
    }
}
