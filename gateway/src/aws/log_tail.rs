//! The end of what a function wrote while it ran, as `X-Amz-Log-Result` has it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName};
use protocol::{FunctionId, InvocationId};
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use super::Context;
use super::name::invalid;
use crate::error::Error;
use crate::surface::Shared;

/// Whether a client wants the end of the log: `None` or `Tail`.
const LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");
/// The end of the log, in base64.
pub(super) const LOG_RESULT: HeaderName = HeaderName::from_static("x-amz-log-result");

/// As much as AWS tells.
const BYTES_MAX: usize = 4 * 1024;

/// A function that writes on and on is not waited for longer than so many times for its next line.
const WAITS_MAX: u32 = 10;

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(default, borrow)]
    invocations: Vec<Cow<'a, str>>,
}

/// Whether the end of the log is wanted.
///
/// # Errors
/// When the header says neither.
pub(super) fn is_wanted(fields: &HeaderMap) -> Result<bool, Error> {
    match fields.get(LOG_TYPE).map(http::HeaderValue::as_bytes) {
        None | Some(b"None") => Ok(false),
        Some(b"Tail") => Ok(true),
        Some(other) => Err(invalid(
            "logType",
            &String::from_utf8_lossy(other),
            "one of None, Tail",
        )),
    }
}

/// The end of what a function wrote while it ran this request, in base64. What it wrote last may come a moment after its answer, so
/// further lines are waited for as long as `lambda.log_wait`.
pub(super) async fn read(shared: &Shared, context: &Context, function: &FunctionId) -> String {
    let wait = shared.lambda.log_wait;
    let lines = shared.node.output(&context.space, function, true);
    let mut lines = lines.await;
    let (begun, mut tail) = (Instant::now(), Vec::new());
    loop {
        let until = (Instant::now() + wait).min(begun + wait * WAITS_MAX);
        match timeout_at(until, lines.next()).await {
            Ok(Some(Ok(chunk))) => keep(&mut tail, &chunk, &context.id),
            Ok(Some(Err(_)) | None) | Err(_) => break,
        }
    }
    STANDARD.encode(tail)
}

/// Adds what of some lines is of a request.
fn keep(tail: &mut Vec<u8>, lines: &[u8], id: &InvocationId) {
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
            continue;
        };
        if line.invocations.iter().any(|of| of == id.as_str()) {
            tail.extend_from_slice(line.text.as_bytes());
            tail.push(b'\n');
        }
    }
    let excess = tail.len().saturating_sub(BYTES_MAX);
    tail.drain(..excess);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_what_is_of_the_request_is_kept() {
        let id: InvocationId = "a".parse().unwrap();
        let mut tail = Vec::new();
        let lines = b"{\"text\":\"one\",\"invocations\":[\"a\"]}\n{\"text\":\"x\",\"invocations\":[\"b\"]}\n{\"text\":\"of the node\"}\nbroken\n{\"text\":\"\\\"two\\\"\",\"invocations\":[\"b\",\"a\"]}\n";
        keep(&mut tail, lines, &id);
        assert_eq!(tail, b"one\n\"two\"\n");
        let long = format!(
            "{{\"text\":\"{}\",\"invocations\":[\"a\"]}}\n",
            "y".repeat(BYTES_MAX)
        );
        keep(&mut tail, long.as_bytes(), &id);
        assert_eq!(tail.len(), BYTES_MAX);
        assert!(tail.ends_with(b"y\n"));
    }
}
