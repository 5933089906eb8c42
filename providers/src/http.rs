//! Functions of type `http`: a webhook that invocations are posted to.

mod outlier;
mod stream;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use config::settings::HttpSettings;
use protocol::function::Provider;
use protocol::invocation::{AnswerRule, Body, Call as HttpCall};
use protocol::{Function, FunctionId, Invocation, Reply, Space};
use reqwest::header::{HeaderValue, RETRY_AFTER};
use tokio::time::Instant;

use self::outlier::Outlier;
use self::stream::Streaming;
use crate::contract::WHOLE_BYTES_MAX;
use crate::contract::headers::{
    EventHeaders, answered_headers, answered_type, status_failure, timed_out,
};
use crate::{AnswerLimits, Error, Remote};

/// Calls webhooks. What it learns of an endpoint counts for one function (space and id) only, never for a host.
#[derive(Debug)]
pub struct Webhook {
    client: reqwest::Client,
    settings: HttpSettings,
    limits: AnswerLimits,
    endpoints: Mutex<HashMap<(Space, FunctionId), Arc<Endpoint>>>,
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no client for webhooks can be made")]
pub struct BuildError(#[from] reqwest::Error);

/// What is known of one function's endpoint on this node.
#[derive(Debug)]
struct Endpoint {
    events: EventHeaders,
    in_flight: AtomicU32,
    outlier: Mutex<Outlier>,
}

/// Endpoints that are remembered before those without a call in flight and without failures are forgotten.
const ENDPOINTS_MAX: usize = 4096;

impl Webhook {
    /// Makes the provider. Certificates are held against the machine's store, or against Mozilla's list where the machine has none.
    ///
    /// # Errors
    /// When neither can be used.
    ///
    /// # Panics
    /// When the process has not installed its rustls provider.
    pub fn new(settings: &HttpSettings, limits: AnswerLimits) -> Result<Self, BuildError> {
        let builder = || {
            reqwest::Client::builder()
                .connect_timeout(settings.connect_timeout)
                .redirect(reqwest::redirect::Policy::limited(settings.redirects_max))
                .pool_max_idle_per_host(settings.idle_connections_max)
                .tcp_nodelay(true)
                // Settings come from one place only; the environment's proxies are not one of ours.
                .no_proxy()
        };
        let client = match builder().build() {
            Ok(client) => client,
            Err(error) => {
                tracing::info!(%error, "this machine has no certificate store, using the built-in list");
                let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
                let roots = roots
                    .map(|root| reqwest::Certificate::from_der(root))
                    .collect::<Result<Vec<_>, _>>()?;
                builder().tls_certs_only(roots).build()?
            }
        };
        Ok(Self {
            client,
            settings: settings.clone(),
            limits,
            endpoints: Mutex::default(),
        })
    }

    fn endpoint(&self, function: &Function) -> Arc<Endpoint> {
        let key = (function.space.clone(), function.function_id.clone());
        let mut endpoints = self.endpoints();
        if let Some(endpoint) = endpoints.get(&key) {
            return Arc::clone(endpoint);
        }
        if endpoints.len() >= ENDPOINTS_MAX {
            endpoints.retain(|_, endpoint| {
                Arc::strong_count(endpoint) > 1 || endpoint.outlier().has_failures()
            });
        }
        let endpoint = Arc::new(Endpoint {
            events: EventHeaders::new(function),
            in_flight: AtomicU32::new(0),
            outlier: Mutex::new(Outlier::new(
                self.settings.failures_max,
                self.settings.ejection,
            )),
        });
        endpoints.insert(key, Arc::clone(&endpoint));
        endpoint
    }

    /// Calls the endpoint. Besides the reply it gives the response whose body is to be passed on as it comes, if it is.
    async fn call(
        &self,
        function: &Function,
        invocation: &Invocation,
        endpoint: &Endpoint,
    ) -> Result<(Reply, Option<reqwest::Response>), Error> {
        let Provider::Http(provider) = &function.provider else {
            let why = format!("a function of type {} has no url", function.type_name());
            return Err(Error::Unreachable {
                why,
                retry_after_ms: None,
            });
        };
        let call = invocation.call.as_deref();
        let rule = call.map_or(AnswerRule::Success, |call| call.answer);
        let request = match call {
            None => self.client.post(&provider.url),
            Some(call) => self
                .client
                .request(method(call)?, target(&provider.url, call)),
        };
        let request = request
            .headers(endpoint.events.of(invocation))
            .body(invocation.payload.clone());
        let mut response = request.send().await.map_err(|error| classify(&error))?;
        let status = response.status();
        let content_type = answered_type(response.headers());
        let headers = match call.filter(|_| rule == AnswerRule::Whole) {
            None => Vec::new(),
            Some(call) => answered_headers(response.headers(), call.method == "HEAD"),
        };
        let reply = Reply {
            status: status.as_u16(),
            content_type,
            headers,
            body: Body::default(),
        };
        let is_short = |bytes| bytes <= WHOLE_BYTES_MAX as u64;
        let may_stream = call.is_some_and(|call| call.may_stream) && rule == AnswerRule::Whole;
        if may_stream && !response.content_length().is_some_and(is_short) {
            return Ok((reply, Some(response)));
        }
        let body = self.collect(&mut response).await?;
        if !rule.takes(status.as_u16()) {
            let pause = response.headers().get(RETRY_AFTER).and_then(retry_after);
            return Err(status_failure(status.as_u16(), pause, &body));
        }
        let body = Body::Whole(body);
        Ok((Reply { body, ..reply }, None))
    }

    async fn collect(&self, response: &mut reqwest::Response) -> Result<Bytes, Error> {
        let too_large = || Error::AnswerTooLarge {
            bytes_max: self.limits.whole as u64,
        };
        if response
            .content_length()
            .is_some_and(|bytes| bytes > self.limits.whole as u64)
        {
            return Err(too_large());
        }
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| classify(&error))? {
            if body.len() + chunk.len() > self.limits.whole {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body.freeze())
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<(Space, FunctionId), Arc<Endpoint>>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Remote for Webhook {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let limits = function.limits();
        let mut attempt = Attempt::begin(self.endpoint(function), limits.concurrency)?;
        let began = Instant::now();
        let until = (began + limits.timeout).min(Instant::from_std(invocation.deadline.moment()));
        let call = self.call(function, invocation, &attempt.endpoint);
        let outcome = match tokio::time::timeout_at(until, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(until - began)),
        };
        attempt.settle(outcome.as_ref().err());
        let (reply, response) = outcome?;
        let Some(response) = response else {
            return Ok(reply);
        };
        let streaming = Streaming {
            response,
            _attempt: attempt,
            limits: self.limits,
            began,
            until,
        };
        let body = Body::Stream(streaming.into_body()?);
        Ok(Reply { body, ..reply })
    }

    fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.endpoints()
            .remove(&(space.clone(), function_id.clone()));
    }
}

impl Endpoint {
    fn outlier(&self) -> std::sync::MutexGuard<'_, Outlier> {
        self.outlier.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call in flight, whose outcome counts; dropped without one, as when the caller goes, it says nothing of the endpoint.
struct Attempt {
    endpoint: Arc<Endpoint>,
    is_settled: bool,
}

impl Attempt {
    fn begin(endpoint: Arc<Endpoint>, calls_max: u32) -> Result<Self, Error> {
        let in_flight = endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        let mut attempt = Self {
            endpoint,
            is_settled: true,
        };
        if in_flight >= calls_max {
            return Err(Error::Busy { calls_max });
        }
        let admitted = attempt.endpoint.outlier().admit(Instant::now());
        match admitted {
            Ok(()) => {
                attempt.is_settled = false;
                Ok(attempt)
            }
            Err(wait) => Err(Error::Unreachable {
                why: "its endpoint is ejected after repeated connection failures and timeouts"
                    .into(),
                retry_after_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1)),
            }),
        }
    }

    fn settle(&mut self, error: Option<&Error>) {
        self.is_settled = true;
        let mut outlier = self.endpoint.outlier();
        match error {
            Some(Error::Unreachable { .. } | Error::TimedOut { .. }) => {
                outlier.fail(Instant::now());
            }
            // Any answer at all shows that somebody is there, however its body goes on.
            None | Some(_) => outlier.succeed(),
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.endpoint.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.is_settled {
            self.endpoint.outlier().abandon(Instant::now());
        }
    }
}

fn method(call: &HttpCall) -> Result<reqwest::Method, Error> {
    reqwest::Method::from_bytes(call.method.as_bytes()).map_err(|_| Error::Unreachable {
        why: format!("{:?} is no method of HTTP", call.method),
        retry_after_ms: None,
    })
}

/// A webhook has a path of its own; the query of a request is put behind its own one.
fn target(url: &str, call: &HttpCall) -> String {
    let Some(query) = call.query().filter(|query| !query.is_empty()) else {
        return url.to_owned();
    };
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    let joint = match url.split_once('?') {
        None => "?",
        Some((_, "")) => "",
        Some(_) => "&",
    };
    format!("{url}{joint}{query}{fragment}")
}

/// The pause that a webhook asks for, in seconds or as a date.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    until.duration_since(SystemTime::now()).ok()
}

fn classify(error: &reqwest::Error) -> Error {
    let why = describe(error);
    if error.is_builder() || error.is_connect() {
        return Error::Unreachable {
            why,
            retry_after_ms: None,
        };
    }
    if error.is_redirect() {
        return Error::Failed {
            why,
            answered: None,
        };
    }
    if is_garbage(error) {
        return Error::Malformed { why };
    }
    Error::Interrupted { why }
}

/// Whether something answered that is no HTTP.
fn is_garbage(error: &reqwest::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_parse)
        {
            return true;
        }
        source = error.source();
    }
    false
}

/// The error with its causes, which name the address and what the system said.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
