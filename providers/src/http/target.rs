//! Where a call of a webhook goes, and where a redirect leads it.

use protocol::invocation::Call;
use reqwest::Method;
use reqwest::header::{
    AUTHORIZATION, CONTENT_ENCODING, CONTENT_LANGUAGE, CONTENT_TYPE, COOKIE, HeaderMap,
    PROXY_AUTHORIZATION,
};
use url::Url;

use crate::Error;
use crate::http1::Elsewhere;

/// One request of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) method: String,
    pub(super) url: Url,
    /// Whether the payload is sent.
    pub(super) has_payload: bool,
    /// Whether it goes where the function's record says, and not to somebody whom a redirect named.
    is_own_host: bool,
}

impl Target {
    /// What a function's record says. A webhook has a path of its own; the query of a request is put behind its own one.
    pub(super) fn first(url: &Url, call: Option<&Call>) -> Self {
        let mut url = url.clone();
        let query = call.and_then(Call::query).filter(|query| !query.is_empty());
        if let Some(query) = query {
            let joined = match url.query().filter(|own| !own.is_empty()) {
                None => query.to_owned(),
                Some(own) => format!("{own}&{query}"),
            };
            url.set_query(Some(&joined));
        }
        Self {
            method: call.map_or("POST", |call| &call.method).to_owned(),
            url,
            has_payload: true,
            is_own_host: true,
        }
    }

    /// Where this answer leads; nothing when it is no redirect. See RFC 9110, section 15.4.
    ///
    /// # Errors
    /// When it leads to what is no URL of HTTP.
    pub(super) fn after(
        &self,
        status: u16,
        elsewhere: Option<&Elsewhere>,
    ) -> Result<Option<Self>, Error> {
        let location = elsewhere.and_then(|elsewhere| elsewhere.location.as_deref());
        let (is_redirect, keeps_method) = match status {
            301..=303 => (true, matches!(self.method.as_str(), "GET" | "HEAD")),
            307 | 308 => (true, true),
            _ => (false, false),
        };
        let Some(location) = location.filter(|_| is_redirect) else {
            return Ok(None);
        };
        let nowhere = |why: String| Error::Failed {
            why: format!("status {status}: it redirects to {location:?}, {why}"),
            answered: None,
        };
        let url = self.url.join(location);
        let url = url.map_err(|error| nowhere(format!("which is no URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(nowhere("expected a URL of http or https".to_owned()));
        }
        let is_same = |other: &Url| {
            (other.host(), other.port_or_known_default())
                == (self.url.host(), self.url.port_or_known_default())
        };
        Ok(Some(Self {
            method: match keeps_method {
                true => self.method.clone(),
                false => "GET".to_owned(),
            },
            has_payload: self.has_payload && keeps_method,
            is_own_host: self.is_own_host && is_same(&url),
            url,
        }))
    }

    /// # Errors
    /// When it is none of HTTP.
    pub(super) fn method(&self) -> Result<Method, Error> {
        let method = Method::from_bytes(self.method.as_bytes());
        method.map_err(|_| super::unreachable(format!("{:?} is no method of HTTP", self.method)))
    }

    /// Whether it goes where the function's record says.
    pub(super) fn is_own_host(&self) -> bool {
        self.is_own_host
    }

    /// Takes out what is not for this request: what tells of a payload that is not sent, and secrets of another host.
    pub(super) fn trim(&self, headers: &mut HeaderMap) {
        if !self.has_payload {
            for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LANGUAGE] {
                headers.remove(name);
            }
        }
        if !self.is_own_host {
            for name in [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION] {
                headers.remove(name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(at: &Target, status: u16, location: Option<&str>) -> Result<Option<Target>, Error> {
        let elsewhere = Elsewhere {
            location: location.map(str::to_owned),
            retry_after: None,
        };
        at.after(status, Some(&elsewhere))
    }

    fn first(url: &str, target: &str) -> Target {
        let call = Call {
            method: "PUT".to_owned(),
            target: target.to_owned(),
            ..Call::default()
        };
        Target::first(&url.parse().unwrap(), Some(&call))
    }

    #[test]
    fn the_query_of_a_request_is_put_behind_the_own_one() {
        for (url, target, sent) in [
            ("http://h/a", "/else", "http://h/a"),
            ("http://h/a", "/else?", "http://h/a"),
            ("http://h/a", "/else?b=1", "http://h/a?b=1"),
            ("http://h/a?", "/?b=1", "http://h/a?b=1"),
            ("http://h/a?c=2", "/?b=1", "http://h/a?c=2&b=1"),
            ("http://h/a?c=2#f", "/?b=1", "http://h/a?c=2&b=1#f"),
        ] {
            assert_eq!(first(url, target).url.as_str(), sent);
        }
    }

    #[test]
    fn a_redirect_leads_on_as_its_status_says() {
        let at = first("http://h:80/a/b", "/");
        for (status, location, expected) in [
            (200, Some("/x"), None),
            (304, Some("/x"), None),
            (302, None, None),
            (301, Some("/x"), Some(("GET", "http://h/x", false, true))),
            (
                302,
                Some("x?y"),
                Some(("GET", "http://h/a/x?y", false, true)),
            ),
            (
                303,
                Some("//i/x"),
                Some(("GET", "http://i/x", false, false)),
            ),
            (
                307,
                Some("http://h:81/"),
                Some(("PUT", "http://h:81/", true, false)),
            ),
            (
                308,
                Some("https://h/"),
                Some(("PUT", "https://h/", true, false)),
            ),
        ] {
            let next = after(&at, status, location).unwrap();
            let found = next.as_ref().map(|next| {
                let Target {
                    method,
                    url,
                    has_payload,
                    is_own_host,
                } = next;
                (method.as_str(), url.as_str(), *has_payload, *is_own_host)
            });
            assert_eq!(found, expected, "{status} {location:?}");
        }
        for nowhere in ["file:///etc/passwd", "http://", "mailto:a@b"] {
            let failed = after(&at, 307, Some(nowhere)).unwrap_err();
            assert!(failed.to_string().contains(nowhere), "{failed}");
        }
    }

    #[test]
    fn secrets_stay_with_the_host_that_they_are_for() {
        let at = first("http://h/", "/");
        for (location, kept) in [
            (
                "http://h/x",
                vec!["authorization", "content-type", "cookie", "x-a"],
            ),
            ("http://i/x", vec!["content-type", "x-a"]),
        ] {
            let mut headers = HeaderMap::new();
            for name in ["authorization", "content-type", "cookie", "x-a"] {
                headers.insert(name, "1".parse().unwrap());
            }
            let next = after(&at, 307, Some(location)).unwrap().unwrap();
            next.trim(&mut headers);
            let mut names: Vec<_> = headers
                .keys()
                .map(reqwest::header::HeaderName::as_str)
                .collect();
            names.sort_unstable();
            assert_eq!(names, kept, "{location}");
        }
    }
}
