//! The headers of our own, and `server-timing`.

use std::fmt::Write;

use http::{HeaderName, HeaderValue};
use protocol::Phases;
use protocol::invocation::StartKind;

/// The request's id; of an invocation, the id it has in logs and traces.
pub(crate) const INVOCATION: HeaderName = HeaderName::from_static("x-hearth-invocation");
/// The name of the node where it ran, or of the one that answers.
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-hearth-node");
/// `warm` or `cold`.
pub(crate) const START: HeaderName = HeaderName::from_static("x-hearth-start");
/// `local` or `forwarded`.
pub(crate) const ROUTE: HeaderName = HeaderName::from_static("x-hearth-route");
/// `<code>;<component>`, on errors.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-hearth-error");
/// The phases of an invocation, in milliseconds.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// All of them, for pages that want to read them across origins.
pub(crate) const EXPOSED: &str = "x-hearth-invocation, x-hearth-node, x-hearth-start, x-hearth-route, x-hearth-error, server-timing, etag, retry-after";

/// The media type of JSON answers.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// The value of the route header.
pub(crate) fn route(is_forwarded: bool) -> HeaderValue {
    HeaderValue::from_static(if is_forwarded { "forwarded" } else { "local" })
}

/// The value of the start header.
pub(crate) fn start(kind: StartKind) -> HeaderValue {
    HeaderValue::from_static(kind.as_str())
}

/// A text as a header value; what a header can not carry becomes `?`.
pub(crate) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or_else(|_| {
        let plain: String = value
            .chars()
            .map(|c| if matches!(c, ' '..='~') { c } else { '?' })
            .collect();
        HeaderValue::from_str(&plain).expect("visible ASCII and spaces are a valid header value")
    })
}

/// The phases as `server-timing`, such as `queue;dur=0.012, run;dur=1.503`; nothing when none happened.
pub(crate) fn server_timing(phases: &Phases) -> Option<HeaderValue> {
    let mut value = String::with_capacity(96);
    for (name, micros) in phases.named() {
        let separator = if value.is_empty() { "" } else { ", " };
        write!(
            value,
            "{separator}{name};dur={}.{:03}",
            micros / 1000,
            micros % 1000
        )
        .expect("writing to a string does not fail");
    }
    (!value.is_empty()).then(|| text(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_timing_has_milliseconds_in_the_order_of_phases() {
        let phases = Phases {
            run: Some(1_503),
            queue: Some(12),
            create: Some(2_000_000),
            ..Phases::default()
        };
        let value = server_timing(&phases).unwrap();
        assert_eq!(value, "queue;dur=0.012, create;dur=2000.000, run;dur=1.503");
        assert_eq!(server_timing(&Phases::default()), None);
    }

    #[test]
    fn a_text_no_header_can_carry_is_made_plain() {
        assert_eq!(text("n1"), "n1");
        assert_eq!(text("a\nb\u{1F600}"), "a?b?");
    }
}
