//! The headers of our own, and `server-timing`.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use limits::Standing;
use protocol::Phases;
use protocol::invocation::StartKind;

/// The request's id; of an invocation, the id it has in logs and traces.
pub(crate) const INVOCATION: HeaderName = HeaderName::from_static("x-hearth-invocation");
/// The name of the node where it ran, or of the one that answers.
pub(crate) const NODE: HeaderName = HeaderName::from_static("x-hearth-node");
/// `warm` or `cold`.
pub(crate) const START: HeaderName = HeaderName::from_static("x-hearth-start");
/// The version that ran, or `$LATEST`, where the call named a qualifier.
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-hearth-version");
/// `local` or `forwarded`.
pub(crate) const ROUTE: HeaderName = HeaderName::from_static("x-hearth-route");
/// `<code>;<component>`, on errors.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("x-hearth-error");
/// How a run ended whose output is the answer: `ok`, `failed` or `timeout`.
pub(crate) const OUTCOME: HeaderName = HeaderName::from_static("x-hearth-outcome");
/// Its exit code.
pub(crate) const EXIT_CODE: HeaderName = HeaderName::from_static("x-hearth-exit-code");
/// Bytes of its output that are missing at the end.
pub(crate) const CUT: HeaderName = HeaderName::from_static("x-hearth-output-cut");
/// The phases of an invocation, in milliseconds.
pub(crate) const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// Calls at once after a pause that the tightest rate allows.
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
/// Calls at once now.
const RATE_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
/// Whole seconds until all are there again.
const RATE_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// All of them, for pages that want to read them across origins.
pub(crate) const EXPOSED: &str = "x-hearth-invocation, x-hearth-node, x-hearth-start, x-hearth-version, x-hearth-route, x-hearth-error, x-hearth-outcome, x-hearth-exit-code, x-hearth-output-cut, server-timing, etag, location, preference-applied, retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset";

/// What a browser may make of an answer that is meant for programs: nothing but show it as what it says it is, alone, and forget it.
pub(crate) const OF_DOCUMENTS: [(HeaderName, HeaderValue); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (
        header::REFERRER_POLICY,
        HeaderValue::from_static("no-referrer"),
    ),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
];

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

/// Says how a rate stands, in the fields of draft-ietf-httpapi-ratelimit-headers-03; where two do, how the tighter one does.
pub(crate) fn rate_limit(fields: &mut HeaderMap, standing: &Standing) {
    // They share a buffer, since a value of its own costs two allocations.
    let mut text = Vec::with_capacity(32);
    let numbers = [
        standing.limit.get(),
        standing.remaining,
        standing.reset_seconds,
    ];
    let ranges = numbers.map(|number| {
        let start = text.len();
        push_number(&mut text, number);
        start..text.len()
    });
    let text = Bytes::from(text);
    let [limit, remaining, reset] = ranges.map(|range| {
        let value = HeaderValue::from_maybe_shared(text.slice(range));
        value.expect("digits are a valid header value")
    });
    if let Some(said) = fields.insert(RATE_REMAINING, remaining) {
        let tighter = said.to_str().ok().and_then(|said| said.parse::<u32>().ok());
        if tighter.is_some_and(|tighter| tighter <= standing.remaining) {
            fields.insert(RATE_REMAINING, said);
            return;
        }
    }
    fields.insert(RATE_LIMIT, limit);
    fields.insert(RATE_RESET, reset);
}

/// Writes a number: every answer has some, and the formatting of the standard library costs several times as much.
fn push_number(text: &mut Vec<u8>, number: impl itoa::Integer) {
    text.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// The phases as `server-timing`, such as `queue;dur=0.012, run;dur=1.503`; nothing when none happened.
pub(crate) fn server_timing(phases: &Phases) -> Option<HeaderValue> {
    let mut value = Vec::with_capacity(96);
    for (name, micros) in phases.named() {
        if !value.is_empty() {
            value.extend_from_slice(b", ");
        }
        value.extend_from_slice(name.as_bytes());
        value.extend_from_slice(b";dur=");
        push_millis(&mut value, micros);
    }
    let value = (!value.is_empty()).then(|| HeaderValue::from_maybe_shared(Bytes::from(value)))?;
    Some(value.expect("names, digits and punctuation are a valid header value"))
}

/// Writes microseconds as milliseconds with three decimals.
fn push_millis(text: &mut Vec<u8>, micros: u64) {
    push_number(text, micros / 1_000);
    text.push(b'.');
    // A digit more in front, so that none in the middle is left out.
    let start = text.len();
    push_number(text, 1_000 + micros % 1_000);
    text.remove(start);
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
        for (micros, expected) in [
            (0, "run;dur=0.000"),
            (7, "run;dur=0.007"),
            (1_000, "run;dur=1.000"),
            (10_050, "run;dur=10.050"),
            (u64::MAX, "run;dur=18446744073709551.615"),
        ] {
            let phases = Phases {
                run: Some(micros),
                ..Phases::default()
            };
            assert_eq!(server_timing(&phases).unwrap(), expected);
        }
    }

    #[test]
    fn of_two_rates_the_tighter_one_is_told() {
        let standing = |limit: u32, remaining, reset_seconds| Standing {
            limit: limit.try_into().unwrap(),
            remaining,
            reset_seconds,
        };
        let mut fields = HeaderMap::new();
        for (standing, expected) in [
            (standing(1_000, 900, 10), ["1000", "900", "10"]),
            (standing(u32::MAX, 901, 0), ["1000", "900", "10"]),
            (standing(20, 0, 1), ["20", "0", "1"]),
            (standing(7, 0, 2), ["20", "0", "1"]),
        ] {
            rate_limit(&mut fields, &standing);
            let told = [RATE_LIMIT, RATE_REMAINING, RATE_RESET].map(|name| &fields[name]);
            assert_eq!(told, expected);
            assert_eq!(fields.len(), 3);
        }
    }

    #[test]
    fn a_text_no_header_can_carry_is_made_plain() {
        assert_eq!(text("n1"), "n1");
        assert_eq!(text("a\nb\u{1F600}"), "a?b?");
    }
}
