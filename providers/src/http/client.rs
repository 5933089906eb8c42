//! The way to a webhook by TLS, or with a password in its URL: a client that keeps its own connections.

use std::error::Error as _;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use config::settings::HttpSettings;
use protocol::Invocation;
use reqwest::Response;
use reqwest::header::{HeaderMap, HeaderName, LOCATION, RETRY_AFTER};

use super::outbound::{Outbound, forbidden_in};
use super::target::Target;
use super::{Answer, Content, Rest, describe};
use crate::Error;
use crate::contract::WHOLE_BYTES_MAX;
use crate::contract::headers::{EventHeaders, answered_headers, answered_type};
use crate::http1::{Elsewhere, Wanted};

/// Calls any URL that the guard lets it.
#[derive(Debug)]
pub(super) struct Client {
    client: reqwest::Client,
    guard: Option<Arc<Outbound>>,
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
    pub(super) fn new(
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
        events: &EventHeaders,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        if let Some(guard) = &self.guard {
            guard.check_literal(&target.url)?;
        }
        let mut headers = events.of(invocation);
        target.trim(&mut headers);
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
            body: content(response, wanted).await?,
        })
    }
}

pub(super) fn elsewhere(fields: &HeaderMap) -> Option<Box<Elsewhere>> {
    let text = |name: HeaderName| fields.get(name)?.to_str().ok().map(str::to_owned);
    let (location, retry_after) = (text(LOCATION), text(RETRY_AFTER));
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
