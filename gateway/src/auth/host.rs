//! Hosts and origins: what tells that a request comes from this machine, or from a page of this node.

use std::net::{Ipv4Addr, SocketAddr};

use http::{HeaderMap, Uri, header};

use crate::error::Error;

/// The origins that pages served from an address have: the address itself and the loopback names.
pub(super) fn own_origins(scheme: &str, address: SocketAddr) -> Vec<String> {
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

pub(super) fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Error> {
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
