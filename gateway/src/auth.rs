//! Who may call: the admin token, or, without auth, the Host of a request; and in both cases its Origin.
//!
//! Without auth the node trusts whoever can open a loopback connection. A web page can do that too, through the browser of
//! someone who sits there: by a plain cross-origin request, which its Origin gives away, or after rebinding a name of its own
//! to 127.0.0.1, which its Host gives away.

use std::net::{Ipv4Addr, SocketAddr};

use config::settings::{AuthMode, AuthSettings, Secret};
use http::{HeaderMap, HeaderValue, Uri, header};
use subtle::ConstantTimeEq;

use crate::edge::Listener;
use crate::error::Error;

/// The rules of one node.
pub(crate) struct Guard {
    mode: AuthMode,
    token: Option<Secret>,
    /// The node's own origins and the listed ones, in lower case.
    origins: Vec<String>,
}

impl Guard {
    /// Makes the rules; with auth required and no token, nobody is let in. `own` is what web pages of the node are served by.
    pub(crate) fn new(
        settings: &AuthSettings,
        token: Option<Secret>,
        own: [(&'static str, SocketAddr); 2],
    ) -> Self {
        let own = own
            .into_iter()
            .flat_map(|(scheme, address)| own_origins(scheme, address));
        let listed = settings
            .origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase());
        Self {
            mode: settings.mode,
            token,
            origins: own.chain(listed).collect(),
        }
    }

    /// Checks the Origin of a request and returns it when there is one. The events API has CORS rules of its own.
    ///
    /// # Errors
    /// When the request comes from a page of another origin than the node's own and the listed ones.
    pub(crate) fn origin<'a>(
        &self,
        listener: Listener,
        headers: &'a HeaderMap,
    ) -> Result<Option<&'a HeaderValue>, Error> {
        if listener == Listener::Events {
            return Ok(None);
        }
        let mut values = headers.get_all(header::ORIGIN).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let origin = value.to_str().unwrap_or("");
        let is_known = self
            .origins
            .iter()
            .any(|known| known.eq_ignore_ascii_case(origin));
        if is_known && values.next().is_none() {
            Ok(Some(value))
        } else {
            Err(Error::origin(origin))
        }
    }

    /// Checks the token, or without auth the Host.
    ///
    /// # Errors
    /// When the token is missing or wrong, or the Host is no loopback name.
    pub(crate) fn caller(
        &self,
        listener: Listener,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        match self.mode {
            // The inner listener has rules of its own, and nobody is let in there by these.
            _ if listener == Listener::Inner => Err(Error::unknown_instance()),
            AuthMode::Off if listener == Listener::Events => Ok(()),
            AuthMode::Off => check_host(uri, headers),
            AuthMode::Required if is_open(listener, uri.path()) => Ok(()),
            AuthMode::Required if self.has_token(headers) => Ok(()),
            AuthMode::Required => Err(Error::unauthorized()),
        }
    }

    /// Whether callers need a token. The `Authorization` header is the node's then, and is handed on to no function.
    pub(crate) fn requires_token(&self) -> bool {
        self.mode == AuthMode::Required
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        match (&self.token, token(headers)) {
            (Some(token), Some(sent)) => sent.ct_eq(token.expose().as_bytes()).into(),
            _ => false,
        }
    }
}

/// The bearer token of a request.
pub(crate) fn token(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?;
    bearer(value.as_bytes())
}

/// Balancers ask for these without a credential, and people who have none yet read how to get one.
fn is_open(listener: Listener, path: &str) -> bool {
    let is_described = path == "/openapi.json" || path == "/docs" || path.starts_with("/docs/");
    match listener {
        Listener::Functions => is_described,
        Listener::Config => is_described || matches!(path, "/v1/status" | "/v1/ready"),
        Listener::Events | Listener::Inner => false,
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

/// The origins that pages served from an address have: the address itself and the loopback names.
fn own_origins(scheme: &str, address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let own = match address {
        SocketAddr::V4(address) => address.ip().to_string(),
        SocketAddr::V6(address) => format!("[{}]", address.ip()),
    };
    let mut hosts = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "[::1]".to_owned(),
    ];
    if !address.ip().is_unspecified() && !hosts.contains(&own) {
        hosts.push(own);
    }
    // A browser leaves out the port that the scheme implies.
    let port = match (scheme, port) {
        ("http", 80) | ("https", 443) => String::new(),
        _ => format!(":{port}"),
    };
    hosts
        .into_iter()
        .map(|host| format!("{scheme}://{host}{port}"))
        .collect()
}

fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
    // The target of the request may name a host as well; then both count.
    if let Some(authority) = uri
        .authority()
        .filter(|authority| !is_loopback(authority.as_str()))
    {
        return Err(Error::host(authority.as_str()));
    }
    let mut values = headers.get_all(header::HOST).iter();
    let host = values
        .next()
        .map_or("", |value| value.to_str().unwrap_or(""));
    if is_loopback(host) && values.next().is_none() {
        Ok(())
    } else {
        Err(Error::host(host))
    }
}

/// Whether a host, with or without a port, is a loopback name: `localhost`, `*.localhost`, `127.0.0.0/8` or `[::1]`.
fn is_loopback(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        // What nearly every client says; reading an address costs more than the rest of the check.
        return name == "127.0.0.1"
            || name
                .parse()
                .is_ok_and(|address: Ipv4Addr| address.is_loopback());
    }
    const LOCALHOST: &str = "localhost";
    let is_localhost = name
        .len()
        .checked_sub(LOCALHOST.len())
        .and_then(|start| name.split_at_checked(start))
        .is_some_and(|(labels, last)| {
            let is_below = labels.len() > 1 && labels.ends_with('.') && !labels.starts_with('.');
            last.eq_ignore_ascii_case(LOCALHOST) && (labels.is_empty() || is_below)
        });
    is_localhost || name == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, expected: bool) {
        assert_eq!(is_loopback(host), expected, "{host:?}");
    }

    #[test]
    fn loopback_names_with_and_without_port() {
        for host in [
            "localhost",
            "LocalHost:3000",
            "a.localhost",
            "a.b.localhost:1",
            "127.0.0.1",
            "127.9.8.7:80",
        ] {
            check(host, true);
        }
        check("[::1]", true);
        check("[::1]:4001", true);
    }

    #[test]
    fn what_a_page_may_have_rebound_is_no_loopback_name() {
        for host in [
            "",
            "evil.com",
            "evil.com:3000",
            "localhost.evil.com",
            "notlocalhost",
            ".localhost",
            "localhost.",
        ] {
            check(host, false);
        }
        for host in [
            "127.0.0.1.evil.com",
            "127.1",
            "128.0.0.1",
            "0.0.0.0",
            "::1",
            "[::2]",
            "[::1",
            "localhost:",
            ":3000",
        ] {
            check(host, false);
        }
        for host in [
            "localhost:80:80",
            "localhost:http",
            "user@localhost",
            "a.localhost\u{0}",
            "élocalhost",
            "[::1]x",
        ] {
            check(host, false);
        }
    }

    #[test]
    fn the_bearer_scheme_is_read_without_case() {
        assert_eq!(bearer(b"Bearer abc"), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"bEARER   abc "), Some(b"abc".as_slice()));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
    }

    #[test]
    fn own_origins_leave_out_the_implied_port() {
        let origins = own_origins("http", "127.0.0.1:80".parse().unwrap());
        assert_eq!(
            origins,
            ["http://localhost", "http://127.0.0.1", "http://[::1]"]
        );
        let origins = own_origins("https", "127.0.0.1:443".parse().unwrap());
        assert!(
            origins.contains(&"https://localhost".to_owned()),
            "{origins:?}"
        );
        let origins = own_origins("http", "10.0.0.5:3000".parse().unwrap());
        assert!(
            origins.contains(&"http://10.0.0.5:3000".to_owned()),
            "{origins:?}"
        );
    }
}
