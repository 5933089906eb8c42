//! Functions of type `http`: a webhook that invocations are posted to.

mod client;
mod outbound;
mod outlier;
mod plain;
mod post;
mod stream;
mod target;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::HttpSettings;
use protocol::function::Provider;
use protocol::invocation::{AnswerRule, Body};
use protocol::{Function, FunctionId, Invocation, Reply, Space, Version};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::client::Client;
use self::outlier::Outlier;
use self::plain::{Hosts, Plain};
use self::stream::{Rest, Streaming};
use self::target::Target;
use crate::contract::headers::{EventHeaders, retry_after, status_failure, timed_out};
use crate::http1::{Elsewhere, Wanted};
use crate::{AnswerLimits, Error, Remote};

pub use self::client::BuildError;
pub use self::outbound::{Outbound, OwnAddresses, Range};
pub use self::post::{Posted, Poster};

/// Calls webhooks. What it learns of an endpoint counts for one function (space, id and version) only, never for a host.
#[derive(Debug)]
pub struct Webhook {
    hosts: Arc<Hosts>,
    client: Client,
    settings: HttpSettings,
    limits: AnswerLimits,
    endpoints: Mutex<HashMap<Name, Arc<Endpoint>>>,
}

/// A function, or a version of one.
type Name = (Space, FunctionId, Option<Version>);

/// What is known of one function's endpoint on this node.
#[derive(Debug)]
struct Endpoint {
    url: Url,
    /// The way to it without TLS.
    plain: Option<Plain>,
    events: EventHeaders,
    in_flight: AtomicU32,
    outlier: Mutex<Outlier>,
}

/// What an endpoint answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    content_type: Option<String>,
    /// The other headers, if they are wanted.
    headers: Vec<(String, Bytes)>,
    elsewhere: Option<Box<Elsewhere>>,
    body: Content,
}

/// The body of an answer.
#[derive(Debug)]
enum Content {
    Whole(Bytes),
    /// It is to be passed on as it comes.
    Rest(Box<Rest>),
}

/// Endpoints that are remembered before those without a call in flight and without failures are forgotten.
const ENDPOINTS_MAX: usize = 4096;

impl Webhook {
    /// Makes the provider. Without a guard it calls any URL. Certificates are held against the machine's store, or against Mozilla's list where the machine has none.
    ///
    /// # Errors
    /// When neither can be used.
    ///
    /// # Panics
    /// When the process has not installed its rustls provider.
    pub fn new(
        settings: &HttpSettings,
        limits: AnswerLimits,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            hosts: Arc::new(Hosts::new(settings, guard.clone())),
            client: Client::new(settings, guard)?,
            settings: settings.clone(),
            limits,
            endpoints: Mutex::default(),
        })
    }

    /// Closes connections that are idle for too long, until it is stopped.
    #[must_use]
    pub fn sweeping(self, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let hosts = Arc::clone(&self.hosts);
        tasks.spawn(stop.run_until_cancelled_owned(async move { hosts.keep_swept().await }));
        self
    }

    /// # Errors
    /// When the record has no URL that can be called.
    fn endpoint(&self, function: &Function) -> Result<Arc<Endpoint>, Error> {
        let key = (
            function.space.clone(),
            function.function_id.clone(),
            function.version,
        );
        let mut endpoints = self.endpoints();
        if let Some(endpoint) = endpoints.get(&key) {
            return Ok(Arc::clone(endpoint));
        }
        let url = url_of(function)?;
        if endpoints.len() >= ENDPOINTS_MAX {
            endpoints.retain(|_, endpoint| {
                Arc::strong_count(endpoint) > 1 || endpoint.outlier().has_failures()
            });
        }
        let endpoint = Arc::new(Endpoint {
            plain: Plain::to(&url, &self.hosts),
            url,
            events: EventHeaders::new(function),
            in_flight: AtomicU32::new(0),
            outlier: Mutex::new(Outlier::new(
                self.settings.failures_max,
                self.settings.ejection,
            )),
        });
        endpoints.insert(key, Arc::clone(&endpoint));
        Ok(endpoint)
    }

    /// Calls the endpoint. Besides the reply it gives what of its body is to be passed on as it comes, if it is.
    async fn call(
        &self,
        invocation: &Invocation,
        endpoint: &Endpoint,
    ) -> Result<(Reply, Option<Box<Rest>>), Error> {
        let call = invocation.call.as_deref();
        let rule = call.map_or(AnswerRule::Success, |call| call.answer);
        let is_whole = rule == AnswerRule::Whole;
        let may_stream = is_whole && call.is_some_and(|call| call.may_stream);
        let wanted = Wanted {
            body_bytes_max: self.limits.whole,
            stream_bytes_max: may_stream.then_some(self.limits.stream),
            has_headers: is_whole,
            is_of_head: call.is_some_and(|call| call.method == "HEAD"),
        };
        let mut answer = match &endpoint.plain {
            Some(plain) => plain.call(invocation, &endpoint.events, wanted).await?,
            None => {
                let first = Target::first(&endpoint.url, call);
                let asked = self
                    .client
                    .call(&first, invocation, &endpoint.events, wanted);
                asked.await?
            }
        };
        if answer.elsewhere.is_some() {
            answer = self.follow(answer, invocation, endpoint, wanted).await?;
        }
        if !rule.takes(answer.status) {
            let pause = retry_after(answer.elsewhere.as_deref());
            let said = match &answer.body {
                Content::Whole(said) => said,
                Content::Rest(_) => &Bytes::new(),
            };
            return Err(status_failure(answer.status, pause, said));
        }
        let (body, rest) = match answer.body {
            Content::Whole(body) => (body, None),
            Content::Rest(rest) => (Bytes::new(), Some(rest)),
        };
        let reply = Reply {
            status: answer.status,
            content_type: answer.content_type,
            headers: answer.headers,
            body: Body::Whole(body),
            ended: None,
        };
        Ok((reply, rest))
    }

    /// Goes where an answer says, as far as the settings allow; other answers are given back.
    async fn follow(
        &self,
        mut answer: Answer,
        invocation: &Invocation,
        endpoint: &Endpoint,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        let mut at = Target::first(&endpoint.url, invocation.call.as_deref());
        let mut followed = 0;
        while let Some(next) = at.after(answer.status, answer.elsewhere.as_deref())? {
            if followed == self.settings.redirects_max {
                let why = format!(
                    "too many redirects: {followed} were followed (http.redirects_max), the last one to {}",
                    at.url
                );
                return Err(Error::Failed {
                    why,
                    answered: None,
                });
            }
            followed += 1;
            at = next;
            let asked = self.client.call(&at, invocation, &endpoint.events, wanted);
            answer = asked.await?;
        }
        Ok(answer)
    }

    fn endpoints(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Arc<Endpoint>>> {
        self.endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Remote for Webhook {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let limits = function.limits();
        let mut attempt = Attempt::begin(self.endpoint(function)?, limits.concurrency)?;
        let began = Instant::now();
        let until = (began + limits.timeout).min(Instant::from_std(invocation.deadline.moment()));
        let call = self.call(invocation, &attempt.endpoint);
        let outcome = match tokio::time::timeout_at(until, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(until - began)),
        };
        attempt.settle(outcome.as_ref().err());
        let (reply, rest) = outcome?;
        let Some(rest) = rest else {
            return Ok(reply);
        };
        let streaming = Streaming {
            rest,
            _attempt: attempt,
            limits: self.limits,
            began,
            until,
        };
        let body = Body::Stream(streaming.into_body());
        Ok(Reply { body, ..reply })
    }

    fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.endpoints()
            .retain(|(of, id, _), _| of != space || id != function_id);
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

/// # Errors
/// When the record has none; it was checked when it was stored.
fn url_of(function: &Function) -> Result<Url, Error> {
    let Provider::Http(provider) = &function.provider else {
        return Err(unreachable(format!(
            "a function of type {} has no url",
            function.type_name()
        )));
    };
    let parsed = Url::parse(&provider.url);
    parsed.map_err(|error| unreachable(format!("its url {:?} is none: {error}", provider.url)))
}

/// Nothing was sent.
fn unreachable(why: String) -> Error {
    Error::Unreachable {
        why,
        retry_after_ms: None,
    }
}

/// The error with its causes, which name the address and what the system said.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
