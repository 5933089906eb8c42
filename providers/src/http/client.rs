//! The way to a webhook by TLS, or with a password in its URL: a client that keeps its own connections.

use std::error::Error as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use config::settings::HttpSettings;
use protocol::Invocation;
use reqwest::Response;
use reqwest::header::{
    HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use url::Url;

use super::outbound::{Outbound, forbidden_in};
use super::target::Target;
use super::{Answer, Content, Rest, describe};
use crate::Error;
use crate::contract::WHOLE_BYTES_MAX;
use crate::contract::headers::{EventHeaders, answered_headers, answered_type};
use crate::http1::{Elsewhere, Wanted};

/// Calls any URL that the guard lets it.
#[derive(Debug)]
pub(crate) struct Client {
    client: reqwest::Client,
    guard: Option<Arc<Outbound>>,
}

/// A header that says who calls. Its value is not shown.
#[derive(Debug, Clone)]
pub(crate) struct Credential {
    pub(crate) name: HeaderName,
    pub(crate) value: HeaderValue,
}

impl Credential {
    /// # Errors
    /// When the text can not be the value of a header.
    #[cfg(any(feature = "azure", feature = "gcloud"))]
    pub(crate) fn new(name: HeaderName, value: &str) -> Result<Self, Error> {
        let value = HeaderValue::from_str(value);
        let mut value = value.map_err(|_| Error::NotTaken {
            why: format!("its credential can not be the header {name}"),
            answered: None,
        })?;
        value.set_sensitive(true);
        Ok(Self { name, value })
    }
}

/// A request that is posted to an API.
#[cfg(any(feature = "aws", feature = "gcloud", feature = "openwhisk"))]
#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// What an API answered.
#[cfg(any(feature = "aws", feature = "gcloud", feature = "openwhisk"))]
#[derive(Debug)]
pub(crate) struct Heard {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why the client could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no client for webhooks can be made")]
pub struct BuildError(#[from] reqwest::Error);

/// A client that follows nothing; with `guard` it resolves names as far as that lets it.
pub(super) fn build(
    settings: &HttpSettings,
    guard: Option<&Arc<Outbound>>,
) -> Result<reqwest::Client, BuildError> {
    let builder = || {
        let builder = reqwest::Client::builder()
            .connect_timeout(settings.connect_timeout)
            // Followed by whoever calls.
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(settings.idle_connections_max)
            .pool_idle_timeout(settings.idle_timeout)
            .tcp_nodelay(true)
            // Settings come from one place only; the environment's proxies are not one of ours.
            .no_proxy();
        match guard {
            Some(guard) => builder.dns_resolver(Arc::clone(guard)),
            None => builder,
        }
    };
    match builder().build() {
        Ok(client) => Ok(client),
        Err(error) => {
            tracing::info!(%error, "this machine has no certificate store, using the built-in list");
            let roots = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter();
            let roots = roots
                .map(|root| reqwest::Certificate::from_der(root))
                .collect::<Result<Vec<_>, _>>()?;
            Ok(builder().tls_certs_only(roots).build()?)
        }
    }
}

impl Client {
    pub(crate) fn new(
        settings: &HttpSettings,
        guard: Option<Arc<Outbound>>,
    ) -> Result<Self, BuildError> {
        let client = build(settings, guard.as_ref())?;
        Ok(Self { client, guard })
    }

    /// Makes one request.
    pub(super) async fn call(
        &self,
        target: &Target,
        invocation: &Invocation,
        (events, credential): (&EventHeaders, Option<&Credential>),
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        self.check(&target.url)?;
        let mut headers = events.of(invocation);
        target.trim(&mut headers);
        if let Some(Credential { name, value }) = credential {
            match target.is_own_host() {
                true => headers.insert(name, value.clone()),
                false => headers.remove(name),
            };
        }
        let request = self.client.request(target.method()?, target.url.clone());
        let request = request.headers(headers);
        let request = match target.has_payload {
            true => request.body(invocation.payload.clone()),
            false => request,
        };
        let response = request.send().await.map_err(|error| classify(&error))?;
        let fields = response.headers();
        Ok(Answer {
            status: response.status().as_u16(),
            content_type: answered_type(fields),
            headers: match wanted.has_headers {
                true => answered_headers(fields, wanted.is_of_head),
                false => Vec::new(),
            },
            elsewhere: elsewhere(fields),
            challenge: text(fields, WWW_AUTHENTICATE),
            body: content(response, wanted).await?,
        })
    }

    /// Posts to an API, and reads its answer whole.
    #[cfg(any(feature = "aws", feature = "gcloud", feature = "openwhisk"))]
    pub(crate) async fn post(&self, posted: Posted, bytes_max: usize) -> Result<Heard, Error> {
        let Posted { url, headers, body } = posted;
        self.check(&url)?;
        let request = self.client.post(url).headers(headers).body(body);
        let response = request.send().await.map_err(|error| classify(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let wanted = Wanted {
            body_bytes_max: bytes_max,
            ..Wanted::default()
        };
        let body = match content(response, wanted).await? {
            Content::Whole(body) => body,
            Content::Rest(_) => Bytes::new(),
        };
        Ok(Heard {
            status,
            headers,
            body,
        })
    }

    fn check(&self, url: &Url) -> Result<(), Error> {
        match &self.guard {
            Some(guard) => Ok(guard.check_literal(url)?),
            None => Ok(()),
        }
    }
}

fn text(fields: &HeaderMap, name: HeaderName) -> Option<String> {
    fields.get(name)?.to_str().ok().map(str::to_owned)
}

pub(crate) fn elsewhere(fields: &HeaderMap) -> Option<Box<Elsewhere>> {
    let (location, retry_after) = (text(fields, LOCATION), text(fields, RETRY_AFTER));
    let is_told = location.is_some() || retry_after.is_some();
    is_told.then(|| {
        Box::new(Elsewhere {
            location,
            retry_after,
        })
    })
}

async fn content(mut response: Response, wanted: Wanted) -> Result<Content, Error> {
    let too_large = |bytes_max: usize| Error::AnswerTooLarge {
        bytes_max: bytes_max as u64,
    };
    let length = response.content_length().filter(|_| !wanted.is_of_head);
    let is_short = length.is_some_and(|bytes| bytes <= WHOLE_BYTES_MAX as u64);
    if let Some(bytes_max) = wanted.stream_bytes_max.filter(|_| !is_short) {
        return match length {
            Some(length) if length > bytes_max as u64 => Err(too_large(bytes_max)),
            _ => Ok(Content::Rest(Box::new(Rest::Client {
                response,
                length,
                bytes_left: bytes_max as u64,
                bytes_max: bytes_max as u64,
            }))),
        };
    }
    let bytes_max = wanted.body_bytes_max;
    if length.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let mut body = BytesMut::new();
    while let Some(chunk) = next(&mut response).await? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large(bytes_max));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Content::Whole(body.freeze()))
}

/// The next piece of a body; none at its end.
pub(super) async fn next(response: &mut Response) -> Result<Option<Bytes>, Error> {
    response.chunk().await.map_err(|error| classify(&error))
}

fn classify(error: &reqwest::Error) -> Error {
    if let Some(forbidden) = forbidden_in(error) {
        return forbidden.clone().into();
    }
    let why = describe(error);
    if error.is_builder() || error.is_connect() {
        return super::unreachable(why);
    }
    match is_garbage(error) {
        true => Error::Malformed { why },
        false => Error::Interrupted { why },
    }
}

/// Whether something answered that is no HTTP.
fn is_garbage(error: &reqwest::Error) -> bool {
    let mut source = error.source();
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
