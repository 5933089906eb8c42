//! Functions of type `http`: a webhook that invocations are posted to. Those of other clouds that have a URL are called so, too, with a
//! header that says who calls.

pub(crate) mod client;
pub(crate) mod endpoints;
mod outbound;
mod outlier;
mod plain;
mod post;
mod stream;
mod target;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
#[cfg(any(feature = "azure", feature = "gcloud"))]
use config::settings::CloudSettings;
use config::settings::HttpSettings;
use protocol::function::Provider;
use protocol::invocation::{AnswerRule, Body};
use protocol::{Function, FunctionId, Invocation, Reply, Space};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use self::client::{Client, Credential};
use self::endpoints::{Attempt, Endpoint, Endpoints};
use self::plain::{Hosts, Plain};
use self::stream::{Rest, Streaming};
use self::target::Target;
use crate::cloud::Patience;
use crate::contract::headers::{EventHeaders, retry_after, status_failure, timed_out};
use crate::http1::{Elsewhere, Wanted};
use crate::{AnswerLimits, Error, Remote};

pub use self::client::BuildError;
pub use self::outbound::{Outbound, OwnAddresses, Range};
pub use self::post::{Posted, Poster};

/// Says who calls a webhook that is not called by everybody, and knows the platform that it is on.
#[async_trait]
pub(crate) trait Authorize: Send + Sync + fmt::Debug + 'static {
    /// Refuses a payload that the platform does not take.
    ///
    /// # Errors
    /// That it does not.
    fn check(&self, payload: &Bytes) -> Result<(), Error>;

    /// The header that a call of the function is to have; none where it needs none. It is asked within the time of the call.
    ///
    /// # Errors
    /// Why there is none; nothing was called then.
    async fn credential(&self, function: &Function) -> Result<Option<Credential>, Error>;

    /// What an answer comes to by which the platform, and not the function, refuses the call; nothing where the function gave it.
    fn refusal(&self, function: &Function, answer: &Answer) -> Option<Error>;

    /// Forgets what is known of a function.
    fn forget(&self, space: &Space, function_id: &FunctionId);
}

/// Calls webhooks.
#[derive(Debug)]
pub struct Webhook {
    hosts: Arc<Hosts>,
    client: Client,
    settings: HttpSettings,
    limits: AnswerLimits,
    authorize: Option<(Arc<dyn Authorize>, Patience)>,
    endpoints: Endpoints<Way>,
}

/// The way to one function's endpoint.
#[derive(Debug)]
pub(crate) struct Way {
    url: Url,
    /// The way to it without TLS.
    plain: Option<Plain>,
    events: EventHeaders,
}

/// What an endpoint answered.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    content_type: Option<String>,
    /// The other headers, if they are wanted.
    headers: Vec<(String, Bytes)>,
    elsewhere: Option<Box<Elsewhere>>,
    /// `www-authenticate`; read where a credential is shown.
    challenge: Option<String>,
    body: Content,
}

#[cfg(any(feature = "azure", feature = "gcloud"))]
impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    /// Whether it has no body.
    #[cfg(feature = "azure")]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.body, Content::Whole(body) if body.is_empty())
    }

    /// What it asks a caller to show: `www-authenticate`.
    #[cfg(feature = "gcloud")]
    pub(crate) fn challenge(&self) -> Option<&str> {
        self.challenge.as_deref()
    }
}

/// The body of an answer.
#[derive(Debug)]
enum Content {
    Whole(Bytes),
    /// It is to be passed on as it comes.
    Rest(Box<Rest>),
}

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
            authorize: None,
            endpoints: Endpoints::new(settings),
        })
    }

    /// Makes it show who calls, and call again where nobody took the call.
    #[cfg(any(feature = "azure", feature = "gcloud"))]
    pub(crate) fn authorized(
        self,
        authorize: Arc<dyn Authorize>,
        settings: &CloudSettings,
    ) -> Self {
        Self {
            authorize: Some((authorize, Patience::new(settings))),
            ..self
        }
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
    fn endpoint(&self, function: &Function) -> Result<Arc<Endpoint<Way>>, Error> {
        self.endpoints.of(function, || {
            let url = url_of(function)?;
            // Credentials are put on by the client, which takes URLs of both schemes.
            let plain = match self.authorize {
                None => Plain::to(&url, &self.hosts),
                Some(_) => None,
            };
            Ok(Way {
                plain,
                url,
                events: EventHeaders::new(function),
            })
        })
    }

    /// Calls the endpoint as often as it is to be called.
    async fn calls(
        &self,
        function: &Function,
        invocation: &Invocation,
        (endpoint, until): (&Endpoint<Way>, Instant),
    ) -> Result<(Reply, Option<Box<Rest>>), Error> {
        let Some((authorize, patience)) = &self.authorize else {
            return self.call(function, invocation, endpoint).await;
        };
        authorize.check(&invocation.payload)?;
        let mut attempts = patience.begin(function.type_name(), until);
        loop {
            match self.call(function, invocation, endpoint).await {
                Err(error) => attempts.after(error).await?,
                outcome => return outcome,
            }
        }
    }

    /// Calls the endpoint. Besides the reply it gives what of its body is to be passed on as it comes, if it is.
    async fn call(
        &self,
        function: &Function,
        invocation: &Invocation,
        endpoint: &Endpoint<Way>,
    ) -> Result<(Reply, Option<Box<Rest>>), Error> {
        let credential = match &self.authorize {
            Some((authorize, _)) => authorize.credential(function).await?,
            None => None,
        };
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
                let events = (&endpoint.events, credential.as_ref());
                self.client.call(&first, invocation, events, wanted).await?
            }
        };
        if answer.elsewhere.is_some() {
            let events = (&endpoint.events, credential.as_ref());
            let followed = self.follow(answer, invocation, (&endpoint.url, events), wanted);
            // The function has answered already, so it is not called again where the next one can not be reached.
            answer = followed.await.map_err(|error| match error {
                Error::Unreachable { why, .. } => Error::Failed {
                    why: format!("it redirects to what can not be reached: {why}"),
                    answered: None,
                },
                error => error,
            })?;
        }
        if let Some((authorize, _)) = &self.authorize
            && let Some(refusal) = authorize.refusal(function, &answer)
        {
            return Err(refusal);
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
        (url, events): (&Url, (&EventHeaders, Option<&Credential>)),
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        let mut at = Target::first(url, invocation.call.as_deref());
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
            answer = self.client.call(&at, invocation, events, wanted).await?;
        }
        Ok(answer)
    }
}

#[async_trait]
impl Remote for Webhook {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let limits = function.limits();
        let mut attempt = Attempt::begin(self.endpoint(function)?, limits.concurrency)?;
        let began = Instant::now();
        let until = (began + limits.timeout).min(Instant::from_std(invocation.deadline.moment()));
        let call = self.calls(function, invocation, (&attempt.endpoint, until));
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
        self.endpoints.forget(space, function_id);
        if let Some((authorize, _)) = &self.authorize {
            authorize.forget(space, function_id);
        }
    }
}

/// # Errors
/// When the record has none; it was checked when it was stored.
fn url_of(function: &Function) -> Result<Url, Error> {
    let url = match &function.provider {
        Provider::Http(provider) => &provider.url,
        Provider::GcloudFunction(provider) => &provider.url,
        Provider::AzureFunction(provider) => &provider.url,
        _ => {
            let type_name = function.type_name();
            let why = format!("a function of type {type_name} has no url");
            return Err(unreachable(why));
        }
    };
    let parsed = Url::parse(url);
    parsed.map_err(|error| unreachable(format!("its url {url:?} is none: {error}")))
}

/// Nothing was sent.
pub(crate) fn unreachable(why: String) -> Error {
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
pub(crate) mod tests;
