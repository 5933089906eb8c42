//! Where a request went: host, path and query, as sent and as routes see them.

use std::borrow::Cow;
use std::collections::HashMap;

use http::request::Parts;
use http::{Uri, header};

use super::hosted;

/// Where a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// The host, from the target of the request or its `Host` header; empty without either.
    pub(super) host: String,
    /// The path, decoded.
    pub(super) path: String,
    /// The path as it was sent; what a path can not have in it is escaped.
    pub(super) escaped_path: String,
    /// The first label of a hosted domain.
    pub(super) label: Option<String>,
}

/// A path with a `%` that two hexadecimal digits do not follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadEscape;

impl Target {
    /// Reads it from the head of a request.
    pub(super) fn of(parts: &Parts) -> Result<Self, BadEscape> {
        let host = match parts.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => parts
                .headers
                .get(header::HOST)
                .map_or_else(String::new, |value| {
                    String::from_utf8_lossy(value.as_bytes()).into_owned()
                }),
        };
        let sent = path_of(&parts.uri);
        Ok(Self {
            label: hosted::label(&host).map(str::to_owned),
            path: decode(sent, false).ok_or(BadEscape)?.into_owned(),
            escaped_path: escape(sent),
            host,
        })
    }

    /// The path that custom and `invoke` events are looked up by.
    pub(super) fn event_path(&self) -> String {
        self.prefixed(&self.path)
    }

    /// The path that `http` subscriptions are looked up by.
    pub(super) fn route_path(&self) -> String {
        self.prefixed(&self.escaped_path)
    }

    fn prefixed(&self, path: &str) -> String {
        match &self.label {
            Some(label) => format!("/{label}{path}"),
            None => path.to_owned(),
        }
    }
}

/// The path as it was sent; that of `OPTIONS *` is `*`, and of `http://host` it is `/`.
fn path_of(uri: &Uri) -> &str {
    match uri.path() {
        "" => "/",
        path => path,
    }
}

/// The parameters of a query, in the order in which their names first came. A pair that can not be decoded is left out.
pub(super) fn query(uri: &Uri) -> Vec<(String, Vec<String>)> {
    let mut parameters: Vec<(String, Vec<String>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let pairs = uri.query().unwrap_or_default().split('&');
    for pair in pairs.filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decode(name, true), decode(value, true)) else {
            continue;
        };
        match places.get(&*name) {
            Some(place) => parameters[*place].1.push(value.into_owned()),
            None => {
                places.insert(name.clone().into_owned(), parameters.len());
                parameters.push((name.into_owned(), vec![value.into_owned()]));
            }
        }
    }
    parameters
}

/// Decodes `%XX`, and in a query `+` as a space; `None` when a `%` stands alone. What is then no UTF-8 is replaced.
fn decode(text: &str, is_query: bool) -> Option<Cow<'_, str>> {
    let is_plain = |byte: u8| byte != b'%' && (byte != b'+' || !is_query);
    if text.bytes().all(is_plain) {
        return Some(Cow::Borrowed(text));
    }
    let hex = |byte: &u8| char::from(*byte).to_digit(16);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match first {
            b'%' => {
                let [high, low, after @ ..] = tail else {
                    return None;
                };
                let byte = hex(high)? * 16 + hex(low)?;
                bytes.push(u8::try_from(byte).expect("two hexadecimal digits fit"));
                rest = after;
            }
            b'+' if is_query => bytes.push(b' '),
            byte => bytes.push(*byte),
        }
    }
    Some(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Escapes what a path can not have in it; what is escaped already stays as it is.
fn escape(path: &str) -> String {
    let is_allowed =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:@/[]%".contains(&byte);
    if path.bytes().all(is_allowed) {
        return path.to_owned();
    }
    let mut escaped = String::with_capacity(path.len() + 16);
    for byte in path.bytes() {
        if is_allowed(byte) {
            escaped.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
            escaped.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn target(uri: &str, host: &str) -> Result<Target, BadEscape> {
        let request = Request::builder().uri(uri).header("host", host);
        Target::of(&request.body(()).unwrap().into_parts().0)
    }

    fn check(uri: &str, path: &str, escaped: &str) {
        let target = target(uri, "example.com").expect(uri);
        let expected = (path, escaped);
        assert_eq!(
            (target.path.as_str(), target.escaped_path.as_str()),
            expected
        );
    }

    /// Section 5: what is matched is escaped; section 7: what is told is decoded.
    #[test]
    fn paths_as_sent_and_as_told() {
        check("/", "/", "/");
        check("/a%2Fb/c", "/a/b/c", "/a%2Fb/c");
        check("/a%20b+c", "/a b+c", "/a%20b+c");
        check("/../%2e%2e/x//", "/../../x//", "/../%2e%2e/x//");
        check("/é", "/é", "/%C3%A9");
        check("/%ff", "/\u{fffd}", "/%ff");
        check("/a?b=c", "/a", "/a");
        check("http://other.example/x", "/x", "/x");
        check("http://other.example", "/", "/");
        assert_eq!(target("/%zz", ""), Err(BadEscape));
        assert_eq!(target("/a%2", ""), Err(BadEscape));
    }

    /// Section 5: hosted domains.
    #[test]
    fn a_hosted_domain_is_put_before_the_path() {
        let target = target("/a%2Fb", "custom.slsgateway.com").unwrap();
        assert_eq!(target.event_path(), "/custom/a/b");
        assert_eq!(target.route_path(), "/custom/a%2Fb");
        assert_eq!(target.path, "/a/b");
    }

    #[test]
    fn an_absolute_target_names_the_host() {
        let target = target("http://other.example:81/x", "example.com").unwrap();
        assert_eq!(target.host, "other.example:81");
    }

    fn check_query(text: &str, expected: &[(&str, &[&str])]) {
        let uri = format!("/?{text}").parse().unwrap();
        let found = query(&uri);
        let found: Vec<_> = found
            .iter()
            .map(|(name, values)| {
                let values: Vec<_> = values.iter().map(String::as_str).collect();
                (name.as_str(), values)
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, values)| (*name, values.to_vec()))
            .collect();
        assert_eq!(found, expected, "{text}");
    }

    /// Section 7: the query of an `http` event.
    #[test]
    fn a_query_keeps_its_order() {
        check_query("", &[]);
        check_query("b=1&a=2&b=3", &[("b", &["1", "3"]), ("a", &["2"])]);
        check_query("a&=v&&b=", &[("a", &[""]), ("", &["v"]), ("b", &[""])]);
        check_query("a+b=c%20d%2B", &[("a b", &["c d+"])]);
        check_query("a=%zz&b=1", &[("b", &["1"])]);
        check_query("a=1;b=2", &[("a", &["1;b=2"])]);
        check_query("a=%ff", &[("a", &["\u{fffd}"])]);
    }
}
