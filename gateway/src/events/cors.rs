//! What web pages of other origins may do with events: the rules of subscriptions, and those of custom events.
//!
//! The semantics are those of the Go library `rs/cors` 1.2, which clients of Event Gateway know.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD,
    ORIGIN, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use protocol::CorsRecord;
use protocol::subscription::Cors;

use super::http_event::named_space;
use super::names;
use super::target::Target;
use crate::node::Node;

/// Who may do what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a, S> {
    /// The origins; `*` is any, and one `*` inside stands for any characters.
    pub(super) origins: &'a [S],
    /// The methods; `OPTIONS` always is one.
    pub(super) methods: &'a [S],
    /// The headers; `*` is any, and `Origin` always is one.
    pub(super) headers: &'a [S],
    /// Whether credentials may be sent.
    pub(super) allow_credentials: bool,
}

/// What everybody may do who emits custom events.
pub(super) const CUSTOM: Rules<'static, &'static str> = Rules {
    origins: &["*"],
    methods: &["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"],
    headers: &["*"],
    allow_credentials: true,
};

/// What a subscription says.
impl<'a> From<&'a Cors> for Rules<'a, String> {
    fn from(cors: &'a Cors) -> Self {
        Self {
            origins: &cors.origins,
            methods: &cors.methods,
            headers: &cors.headers,
            allow_credentials: cors.allow_credentials,
        }
    }
}

/// What a CORS configuration says.
impl<'a> From<&'a CorsRecord> for Rules<'a, String> {
    fn from(cors: &'a CorsRecord) -> Self {
        Self {
            origins: &cors.allowed_origins,
            methods: &cors.allowed_methods,
            headers: &cors.allowed_headers,
            allow_credentials: cors.allow_credentials,
        }
    }
}

/// The headers of an answer to a custom event, whatever comes of it: as a configuration of its method and path says, if there is
/// one, else the page that emitted it may read it.
pub(super) fn of_custom(node: &dyn Node, parts: &Parts) -> HeaderMap {
    let (method, fields) = (&parts.method, &parts.headers);
    match configured(node, method.as_str(), parts) {
        Some(cors) => Rules::from(&*cors).actual(method, fields),
        None => CUSTOM.actual(method, fields),
    }
}

/// The same of an event whose method is not the one of custom events: without a configuration pages are told nothing.
pub(super) fn of_typed(node: &dyn Node, parts: &Parts) -> HeaderMap {
    let (method, fields) = (&parts.method, &parts.headers);
    configured(node, method.as_str(), parts).map_or_else(HeaderMap::new, |cors| {
        Rules::from(&*cors).actual(method, fields)
    })
}

/// The headers of the answer to a preflight that asks for a custom event.
pub(super) fn of_custom_preflight(node: &dyn Node, parts: &Parts) -> HeaderMap {
    let fields = &parts.headers;
    let method = preflight_method(&parts.method, fields).and_then(|asked| asked.to_str().ok());
    match configured(node, method.unwrap_or_default(), parts) {
        Some(cors) => Rules::from(&*cors).preflight(fields),
        None => CUSTOM.preflight(fields),
    }
}

fn configured(node: &dyn Node, method: &str, parts: &Parts) -> Option<Arc<CorsRecord>> {
    let registry = node.registry();
    if registry.cors.is_empty() {
        return None;
    }
    let target = Target::of(parts).ok()?;
    let space = named_space(&parts.headers).ok()?;
    let path = target.route_path();
    let found = registry.cors.find(space.as_ref(), method, &path);
    found.cloned()
}

/// The requested method of a preflight; `None` when the request is none.
pub(super) fn preflight_method<'a>(
    method: &Method,
    fields: &'a HeaderMap,
) -> Option<&'a HeaderValue> {
    let requested = fields.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    (method == Method::OPTIONS && !requested.is_empty()).then_some(requested)
}

impl<S: AsRef<str>> Rules<'_, S> {
    /// The headers of the answer to a preflight. One that is refused gets no other answer, only fewer headers.
    pub(super) fn preflight(&self, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::with_capacity(8);
        for name in [
            ORIGIN,
            ACCESS_CONTROL_REQUEST_METHOD,
            ACCESS_CONTROL_REQUEST_HEADERS,
        ] {
            answer.append(VARY, names::canonical_value(&name));
        }
        let method = text(request, &ACCESS_CONTROL_REQUEST_METHOD).to_ascii_uppercase();
        let headers = header_list(text(request, &ACCESS_CONTROL_REQUEST_HEADERS));
        let Some(origin) = self.allowed_origin(request) else {
            return answer;
        };
        if !self.allows_method(&method) || !headers.iter().all(|name| self.allows_header(name)) {
            return answer;
        }
        self.allow(origin, &mut answer);
        insert(&mut answer, ACCESS_CONTROL_ALLOW_METHODS, &method);
        if !headers.is_empty() {
            insert(
                &mut answer,
                ACCESS_CONTROL_ALLOW_HEADERS,
                &headers.join(", "),
            );
        }
        answer
    }

    /// The headers of the answer to a request that is no preflight.
    pub(super) fn actual(&self, method: &Method, request: &HeaderMap) -> HeaderMap {
        let mut answer = HeaderMap::new();
        if method == Method::OPTIONS {
            return answer;
        }
        answer.append(VARY, names::canonical_value(&ORIGIN));
        if let Some(origin) = self.allowed_origin(request)
            && self.allows_method(method.as_str())
        {
            self.allow(origin, &mut answer);
        }
        answer
    }

    fn allow(&self, origin: &HeaderValue, answer: &mut HeaderMap) {
        let value = match self.allows_any_origin() && !self.allow_credentials {
            true => HeaderValue::from_static("*"),
            false => origin.clone(),
        };
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, value);
        if self.allow_credentials {
            let value = HeaderValue::from_static("true");
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, value);
        }
    }

    fn allowed_origin<'r>(&self, request: &'r HeaderMap) -> Option<&'r HeaderValue> {
        let value = request.get(ORIGIN).filter(|value| !value.is_empty())?;
        if self.allows_any_origin() {
            return Some(value);
        }
        let origin = value.to_str().ok()?.to_ascii_lowercase();
        let is_meant = |pattern: &S| {
            let pattern = pattern.as_ref().to_ascii_lowercase();
            match pattern.split_once('*') {
                None => pattern == origin,
                Some((start, end)) => {
                    origin.len() >= start.len() + end.len()
                        && origin.starts_with(start)
                        && origin.ends_with(end)
                }
            }
        };
        self.origins.iter().any(is_meant).then_some(value)
    }

    fn allows_any_origin(&self) -> bool {
        self.origins.iter().any(|origin| origin.as_ref() == "*")
    }

    fn allows_method(&self, method: &str) -> bool {
        let is_it = |known: &S| known.as_ref().eq_ignore_ascii_case(method);
        method.eq_ignore_ascii_case("OPTIONS") || self.methods.iter().any(is_it)
    }

    fn allows_header(&self, name: &str) -> bool {
        let is_it = |known: &S| {
            let known = known.as_ref();
            known == "*" || known.eq_ignore_ascii_case(name)
        };
        name.eq_ignore_ascii_case("Origin") || self.headers.iter().any(is_it)
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &HeaderName) -> &'a str {
    let value = fields.get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

fn insert(answer: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.insert(name, value);
    }
}

/// The names of a list, in canonical capitalisation. What no name has is left out.
fn header_list(list: &str) -> Vec<String> {
    let names = list.split([',', ' ']).map(|name| {
        let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let mut is_start = true;
        let mut canonical = String::with_capacity(name.len());
        for c in name.chars() {
            if kept(&c) {
                canonical.push(match is_start {
                    true => c.to_ascii_uppercase(),
                    false => c.to_ascii_lowercase(),
                });
            }
            is_start = matches!(c, '-' | '_');
        }
        canonical
    });
    names.filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Rules<'static, &'static str> = Rules {
        origins: &["http://A.example", "https://*.b.example"],
        methods: &["get", "PUT"],
        headers: &["X-One", "content-type"],
        allow_credentials: false,
    };
    const SECRET: Rules<'static, &'static str> = Rules {
        allow_credentials: true,
        ..STRICT
    };
    const OPEN: Rules<'static, &'static str> = Rules {
        origins: &["http://x", "*"],
        methods: &["GET"],
        headers: &["*"],
        allow_credentials: false,
    };

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        pairs
            .map(|(name, value)| {
                let name = HeaderName::from_static(name);
                (name, HeaderValue::from_static(value))
            })
            .collect()
    }

    /// What an answer allows: origin, methods, headers, credentials.
    fn shown(answer: &HeaderMap) -> [&str; 4] {
        [
            text(answer, &ACCESS_CONTROL_ALLOW_ORIGIN),
            text(answer, &ACCESS_CONTROL_ALLOW_METHODS),
            text(answer, &ACCESS_CONTROL_ALLOW_HEADERS),
            text(answer, &ACCESS_CONTROL_ALLOW_CREDENTIALS),
        ]
    }

    const REFUSED: [&str; 4] = [""; 4];

    fn preflight(
        rules: Rules<'_, &str>,
        [origin, method, headers]: [&'static str; 3],
        expected: [&str; 4],
    ) {
        let request = fields(&[
            ("origin", origin),
            ("access-control-request-method", method),
            ("access-control-request-headers", headers),
        ]);
        let answer = rules.preflight(&request);
        let asked = (origin, method, headers);
        assert_eq!(shown(&answer), expected, "{asked:?}");
        let vary: Vec<_> = answer.get_all(VARY).iter().collect();
        let expected = [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ];
        assert_eq!(vary, expected, "{asked:?}");
    }

    /// Section 9: what a preflight is told.
    #[test]
    fn preflights() {
        let a = "http://a.example";
        preflight(STRICT, [a, "GET", ""], [a, "GET", "", ""]);
        preflight(STRICT, [a, "put", "x-one"], [a, "PUT", "X-One", ""]);
        preflight(
            STRICT,
            [a, "PUT", "origin,CONTENT-type , x-one"],
            [a, "PUT", "Origin, Content-Type, X-One", ""],
        );
        preflight(STRICT, [a, "OPTIONS", ""], [a, "OPTIONS", "", ""]);
        preflight(SECRET, [a, "GET", ""], [a, "GET", "", "true"]);
        let upper = "HTTP://A.EXAMPLE";
        preflight(STRICT, [upper, "GET", ""], [upper, "GET", "", ""]);
        let below = "https://x.y.b.example";
        preflight(STRICT, [below, "GET", ""], [below, "GET", "", ""]);
        preflight(STRICT, ["", "GET", ""], REFUSED);
        preflight(STRICT, ["http://evil.example", "GET", ""], REFUSED);
        preflight(STRICT, ["https://b.example", "GET", ""], REFUSED);
        preflight(STRICT, [a, "POST", ""], REFUSED);
        preflight(STRICT, [a, "GET", "x-two"], REFUSED);
        preflight(STRICT, [a, "GET", "x-one,x-two"], REFUSED);
        preflight(
            OPEN,
            [a, "GET", "x-9_b, any"],
            ["*", "GET", "X-9_B, Any", ""],
        );
        preflight(CUSTOM, [a, "PATCH", "event"], [a, "PATCH", "Event", "true"]);
        preflight(CUSTOM, [a, "TRACE", "event"], REFUSED);
    }

    fn actual(
        rules: Rules<'_, &str>,
        method: Method,
        origin: &'static str,
        expected: [&str; 4],
        vary: &str,
    ) {
        let answer = rules.actual(&method, &fields(&[("origin", origin)]));
        assert_eq!(shown(&answer), expected, "{method} {origin}");
        assert_eq!(text(&answer, &VARY), vary, "{method} {origin}");
    }

    /// Section 9: what other requests are told.
    #[test]
    fn other_requests() {
        let a = "http://a.example";
        actual(STRICT, Method::GET, a, [a, "", "", ""], "Origin");
        actual(STRICT, Method::POST, a, REFUSED, "Origin");
        actual(STRICT, Method::GET, "http://b", REFUSED, "Origin");
        actual(STRICT, Method::GET, "", REFUSED, "Origin");
        actual(STRICT, Method::OPTIONS, a, REFUSED, "");
        actual(SECRET, Method::PUT, a, [a, "", "", "true"], "Origin");
        actual(OPEN, Method::GET, a, ["*", "", "", ""], "Origin");
        actual(CUSTOM, Method::POST, a, [a, "", "", "true"], "Origin");
    }
}
