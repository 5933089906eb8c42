//! What a request to the events API is: a custom event, a CloudEvent, or an `http` event.

use http::header::{ACCESS_CONTROL_REQUEST_HEADERS, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, Method};
use protocol::event::cloudevents::{Invalid, Mode};

use super::cors;

/// The header that names a custom event.
pub(super) const EVENT: HeaderName = HeaderName::from_static("event");
/// The header that names the space an event is for.
pub(crate) const SPACE: HeaderName = HeaderName::from_static("space");
/// The header that names the function of an `invoke` event.
pub(super) const FUNCTION_ID: HeaderName = HeaderName::from_static("function-id");

/// What a request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// An event that the `Event` header names.
    Custom(String),
    /// One or more CloudEvents.
    CloudEvents(Mode),
    /// A CloudEvent for typed subscriptions, or, if none hears it, a plain request.
    HttpOrTyped(Mode),
    /// A browser asks whether it may emit an event.
    CustomPreflight,
    /// Anything else.
    Http,
}

/// Decides by method and headers. A CloudEvent comes with POST; with other methods its headers mean something to typed
/// subscriptions only.
///
/// # Errors
/// When it says that it carries CloudEvents in a format that nobody here reads.
pub(super) fn decide(method: &Method, fields: &HeaderMap) -> Result<Kind, Invalid> {
    let name = fields.get(EVENT).filter(|name| !name.is_empty());
    let is_preflight = cors::preflight_method(method, fields).is_some();
    if let Some(name) = name {
        return Ok(match is_preflight {
            true => Kind::CustomPreflight,
            false => Kind::Custom(String::from_utf8_lossy(name.as_bytes()).into_owned()),
        });
    }
    if is_preflight && asks_to_emit(fields) {
        return Ok(Kind::CustomPreflight);
    }
    let content_type = fields
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let names = fields.keys().map(HeaderName::as_str);
    if method != Method::POST {
        // Few of these requests say what they have, and no other can have an event.
        let mode = match content_type.is_some() && !is_preflight {
            true => Mode::of(content_type, names).unwrap_or_default(),
            false => None,
        };
        return Ok(mode.map_or(Kind::Http, Kind::HttpOrTyped));
    }
    let mode = Mode::of(content_type, names)?;
    Ok(mode.map_or(Kind::Http, Kind::CloudEvents))
}

/// Whether a preflight asks for the header that names an event. Browsers write the list without spaces, so none are taken off.
fn asks_to_emit(fields: &HeaderMap) -> bool {
    let asked = fields.get(ACCESS_CONTROL_REQUEST_HEADERS);
    let asked = asked.and_then(|value| value.to_str().ok()).unwrap_or("");
    asked
        .split(',')
        .any(|name| matches!(name, "event" | "ce-specversion" | "ce-cloudeventsversion"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, fields: &[(&str, &str)], expected: Kind) {
        let map = fields.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, value.parse().unwrap())
        });
        let decided = decide(&method, &map.collect());
        assert_eq!(decided, Ok(expected), "{method} {fields:?}");
    }

    /// Section 6: the decision, and its order.
    #[test]
    fn a_request_is_known_by_method_and_headers() {
        let custom = |name: &str| Kind::Custom(name.to_owned());
        check(
            Method::POST,
            &[("event", "user.created")],
            custom("user.created"),
        );
        check(Method::POST, &[("event", "http")], custom("http"));
        check(Method::GET, &[("event", "invoke")], custom("invoke"));
        check(Method::OPTIONS, &[("event", "a")], custom("a"));
        check(Method::POST, &[("event", "")], Kind::Http);
        check(Method::POST, &[], Kind::Http);
        let asks = "access-control-request-headers";
        let with = "access-control-request-method";
        for (list, expected) in [
            ("event", Kind::CustomPreflight),
            ("content-type,event", Kind::CustomPreflight),
            ("content-type, event", Kind::Http),
            ("Event", Kind::Http),
            ("event-x", Kind::Http),
            ("ce-id,ce-specversion", Kind::CustomPreflight),
        ] {
            check(Method::OPTIONS, &[(with, "POST"), (asks, list)], expected);
        }
        check(Method::OPTIONS, &[(asks, "event")], Kind::Http);
        check(Method::OPTIONS, &[(with, ""), (asks, "event")], Kind::Http);
        check(Method::GET, &[(with, "POST"), (asks, "event")], Kind::Http);
        check(
            Method::OPTIONS,
            &[(with, "POST"), ("event", "a")],
            Kind::CustomPreflight,
        );
    }

    #[test]
    fn a_cloud_event_is_known_by_its_headers_or_media_type() {
        let binary = || Kind::CloudEvents(Mode::Binary);
        let structured = ("content-type", "application/cloudevents+json");
        check(Method::POST, &[("ce-type", "a")], binary());
        check(
            Method::POST,
            &[structured],
            Kind::CloudEvents(Mode::Structured),
        );
        check(
            Method::PUT,
            &[structured],
            Kind::HttpOrTyped(Mode::Structured),
        );
        check(Method::PUT, &[("content-type", "text/plain")], Kind::Http);
        let version_01 = Kind::CloudEvents(Mode::BinaryVersion01);
        check(
            Method::POST,
            &[("ce-source", "/"), ("ce-eventtype", "a")],
            version_01,
        );
        check(Method::GET, &[("ce-type", "a")], Kind::Http);
        check(
            Method::POST,
            &[structured, ("event", "b")],
            Kind::Custom("b".to_owned()),
        );
    }
}
