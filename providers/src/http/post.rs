//! Posts to URLs that no function has: what is told to callbacks and destinations.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::settings::HttpSettings;
use protocol::{Answered, Component, Effect, ErrorCode, Failure};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::client::{BuildError, build, elsewhere};
use super::describe;
use super::outbound::{Forbidden, Outbound, forbidden_in};
use crate::contract::headers::{retry_after, status_failure};

/// Bytes of an answer that are read, so that its connection can be kept and a failure says why.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Posts to any URL that the guard lets it. It follows no redirects: who is told is who was named.
#[derive(Debug)]
pub struct Poster {
    client: reqwest::Client,
    guard: Option<Arc<Outbound>>,
    timeout: Duration,
}

/// What is posted.
#[derive(Debug)]
pub struct Posted {
    /// Headers, by name in lower case; what is no valid header is left out.
    pub headers: Vec<(String, Bytes)>,
    /// The media type of the body.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

impl Poster {
    /// Makes a client of its own. Without a guard it posts anywhere.
    ///
    /// # Errors
    /// As [`super::Webhook::new`].
    ///
    /// # Panics
    /// When the process has not installed its rustls provider.
    pub fn new(
        settings: &HttpSettings,
        timeout: Duration,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            client: build(settings, guard.as_ref())?,
            guard,
            timeout,
        })
    }

    /// Posts, and waits for a status of 2xx.
    ///
    /// # Errors
    /// Why there was none, with the status there was.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; whether it was taken is not known then.
    pub async fn post(&self, url: &str, posted: Posted) -> Result<(), Failure> {
        let url = Url::parse(url).map_err(|error| {
            let why = format!("{url:?} is no URL: {error}");
            failure(ErrorCode::InvalidRequest, Effect::Refused, why)
        })?;
        if let Some(guard) = &self.guard {
            guard
                .check_literal(&url)
                .map_err(|error| forbidden(&error))?;
        }
        let request = self
            .client
            .post(url.clone())
            .headers(headers(&posted))
            .timeout(self.timeout)
            .body(posted.body);
        let mut response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Err(self.classify(&url, &error)),
        };
        let status = response.status();
        let mut said = Vec::new();
        while let Ok(Some(piece)) = response.chunk().await {
            said.extend_from_slice(&piece);
            if said.len() > ANSWER_BYTES_MAX {
                break;
            }
        }
        if status.is_success() {
            return Ok(());
        }
        let pause = retry_after(elsewhere(response.headers()).as_deref());
        Err(not_taken(&url, status.as_u16(), pause, &said))
    }

    fn classify(&self, url: &Url, error: &reqwest::Error) -> Failure {
        if let Some(found) = forbidden_in(error) {
            return forbidden(found);
        }
        let shown = shown(url);
        if error.is_timeout() {
            let why = format!("{shown} did not answer within {:?}", self.timeout);
            return failure(ErrorCode::DeadlineExceeded, Effect::Interrupted, why);
        }
        let (code, effect) = match error.is_builder() || error.is_connect() {
            true => (ErrorCode::Unreachable, Effect::Refused),
            false => (ErrorCode::Interrupted, Effect::Interrupted),
        };
        failure(
            code,
            effect,
            format!("posting to {shown}: {}", describe(error)),
        )
    }
}

fn headers(posted: &Posted) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(posted.headers.len() + 1);
    for (name, value) in &posted.headers {
        let name = HeaderName::from_bytes(name.as_bytes());
        let value = HeaderValue::from_maybe_shared(value.clone());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    if let Ok(content_type) = HeaderValue::from_str(&posted.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers
}

/// A URL without the password that it may have.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    if url.password().is_some() {
        // Only a URL without a host has no place for one.
        let _ = url.set_password(Some("***"));
    }
    url.into()
}

fn forbidden(error: &Forbidden) -> Failure {
    failure(ErrorCode::Forbidden, Effect::Refused, error.to_string())
}

fn not_taken(url: &Url, status: u16, pause: Option<Duration>, said: &[u8]) -> Failure {
    let (why, answered): (String, Option<Answered>) = match status_failure(status, pause, said) {
        crate::Error::Failed { why, answered } => (why, answered),
        other => (other.to_string(), None),
    };
    let why = format!("{} answered with {why}", shown(url));
    Failure {
        answered: answered.map(Box::new),
        ..failure(ErrorCode::FunctionFailed, Effect::Finished, why)
    }
}

fn failure(code: ErrorCode, effect: Effect, why: String) -> Failure {
    Failure::new(code, Component::Provider, effect, why)
}

#[cfg(test)]
mod tests;
