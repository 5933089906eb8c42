//! The HTTP client of both APIs: one request, its whole answer under one timeout, and what a failure means.

use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response};
use tokio::time::timeout;
use url::Url;

use crate::failure::{Exit, Failure};
use crate::options::Options;

mod answer;
mod authority;
mod token;

pub(crate) use answer::Answer;

/// An address that takes no connection within this time is down or wrong.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A node resolves an image for at most 10 s at registration; all else is quicker.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is read: a quarter of the largest payload a record can allow, all held in memory.
const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

/// One of the APIs of one node.
#[derive(Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    endpoint: Endpoint,
    has_token: bool,
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
enum Endpoint {
    Config,
    Functions,
}

/// One request.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    /// A last segment that is escaped already.
    escaped: Option<&'a str>,
    query: Option<&'a str>,
    header: Option<(&'static str, &'a HeaderValue)>,
    body: Option<Vec<u8>>,
    timeout: Duration,
}

impl<'a> Call<'a> {
    /// A `GET` of the path's segments.
    pub(crate) fn get(path: &'a [&'a str]) -> Self {
        Self {
            method: Method::GET,
            path,
            escaped: None,
            query: None,
            header: None,
            body: None,
            timeout: ANSWER_TIMEOUT,
        }
    }

    /// A `DELETE` of the path's segments.
    pub(crate) fn delete(path: &'a [&'a str]) -> Self {
        Self::new(Method::DELETE, path, None)
    }

    /// Another method, with or without a JSON body.
    pub(crate) fn new(method: Method, path: &'a [&'a str], body: Option<Vec<u8>>) -> Self {
        Self {
            method,
            body,
            ..Self::get(path)
        }
    }

    /// Adds a last segment as it is, without escaping it.
    pub(crate) fn escaped(mut self, segment: &'a str) -> Self {
        self.escaped = Some(segment);
        self
    }

    /// Adds a query string.
    pub(crate) fn query(mut self, query: &'a str) -> Self {
        self.query = Some(query);
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &'a HeaderValue) -> Self {
        self.header = Some((name, value));
        self
    }

    /// Replaces how long the answer may take where the user says nothing.
    pub(crate) fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }
}

impl Endpoint {
    fn name(self) -> &'static str {
        match self {
            Self::Config => "config API",
            Self::Functions => "functions API",
        }
    }

    fn option(self) -> &'static str {
        match self {
            Self::Config => "--api URL or HEARTH_API",
            Self::Functions => "--functions-api URL or HEARTH_FUNCTIONS_API",
        }
    }
}

impl Api {
    /// The config API the options name.
    ///
    /// # Errors
    /// When the token file or the certificates can not be used, or the system's trust roots can not be loaded for an `https` URL.
    pub(crate) fn config(options: &Options) -> Result<Self, Failure> {
        Self::new(options, Endpoint::Config, &options.api)
    }

    /// The functions API the options name.
    ///
    /// # Errors
    /// As [`Api::config`].
    pub(crate) fn functions(options: &Options) -> Result<Self, Failure> {
        Self::new(options, Endpoint::Functions, &options.functions_api)
    }

    fn new(options: &Options, endpoint: Endpoint, base: &Url) -> Result<Self, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let login = options.login.as_ref().filter(|login| login.is_for(base));
        let credential = match (&options.token_file, login) {
            (Some(path), _) => Some(token::bearer(path)?),
            (None, Some(login)) => Some(token::of_login(&login.token)?),
            (None, None) => None,
        };
        let has_token = credential.is_some();
        if let Some(credential) = credential {
            headers.insert(AUTHORIZATION, credential);
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hearth/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers)
            .connect_timeout(CONNECT_TIMEOUT)
            // A call may run for hours: only this notices that the node's machine went away meanwhile.
            .tcp_keepalive(Duration::from_secs(15))
            // The APIs redirect nowhere, and a token must not follow where some other server points.
            .redirect(reqwest::redirect::Policy::none());
        match &options.ca_file {
            Some(path) => builder = builder.tls_certs_only(authority::read(path)?),
            // Without this the trust roots are loaded even so, and a system that has none is an error.
            None if base.scheme() == "http" => builder = builder.tls_certs_only([]),
            None => {}
        }
        if is_loopback(base) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| {
            Failure::new(
                Exit::Unreachable,
                format!("cannot set up a connection to {base}: {}", cause(&error)),
            )
            .hint("--ca-file FILE names the certificates to trust")
        })?;
        Ok(Self {
            http,
            base: base.clone(),
            endpoint,
            has_token,
            timeout: options.timeout,
        })
    }

    /// Sends a request and reads its whole answer, whatever its status.
    ///
    /// # Errors
    /// When no whole answer came in time.
    pub(crate) async fn call(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let limit = self.timeout.unwrap_or(call.timeout);
        let asked = format!("{} {}", call.method, self.url(&call));
        let exchange = async {
            let response = self.send(call).await?;
            self.read(response, asked).await
        };
        match timeout(limit, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(self.no_answer_within(limit)),
        }
    }

    /// Sends a request and returns an answer whose body is still to be read, for as long as it takes.
    ///
    /// # Errors
    /// When no answer began in time, or it is not a success.
    pub(crate) async fn open(&self, call: Call<'_>) -> Result<Response, Failure> {
        let limit = self.timeout.unwrap_or(call.timeout);
        let asked = format!("{} {}", call.method, self.url(&call));
        let exchange = async {
            let response = self.send(call).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            Err(self.read(response, asked).await?.failure())
        };
        match timeout(limit, exchange).await {
            Ok(response) => response,
            Err(_) => Err(self.no_answer_within(limit)),
        }
    }

    /// How long an answer may take.
    pub(crate) fn limit(&self) -> Duration {
        self.timeout.unwrap_or(ANSWER_TIMEOUT)
    }

    /// Reads on in an answer that [`Api::open`] began; `None` is its end.
    ///
    /// # Errors
    /// When the connection breaks, or nothing comes within `limit`.
    pub(crate) async fn next_chunk(
        &self,
        response: &mut Response,
        limit: Duration,
    ) -> Result<Option<Bytes>, Failure> {
        match timeout(limit, response.chunk()).await {
            Ok(chunk) => chunk.map_err(|error| self.lost(&error)),
            Err(_) => Err(self.no_answer_within(limit)),
        }
    }

    /// The failure of a connection that broke while an answer was read.
    fn lost(&self, error: &reqwest::Error) -> Failure {
        let (name, base) = (self.endpoint.name(), &self.base);
        Failure::new(
            Exit::Unreachable,
            format!(
                "lost the connection to the {name} at {base}: {}",
                cause(error)
            ),
        )
    }

    /// The failure of an API that said nothing in the time the user gave it.
    pub(crate) fn no_answer(&self) -> Failure {
        let (name, base) = (self.endpoint.name(), &self.base);
        Failure::new(
            Exit::Unreachable,
            format!("no answer from the {name} at {base}"),
        )
    }

    fn no_answer_within(&self, limit: Duration) -> Failure {
        let mut failure = self.no_answer();
        failure.message = format!(
            "{} within {}",
            failure.message,
            humantime::format_duration(limit)
        );
        failure.hint("what was asked for may have happened all the same; --timeout waits longer")
    }

    fn url(&self, call: &Call<'_>) -> Url {
        let mut url = self.base.clone();
        url.path_segments_mut()
            .expect("an http URL has a path; Options takes no other")
            .pop_if_empty()
            .extend(call.path);
        if let Some(segment) = call.escaped {
            let path = format!("{}/{segment}", url.path());
            url.set_path(&path);
        }
        url.set_query(call.query);
        url
    }

    async fn send(&self, call: Call<'_>) -> Result<Response, Failure> {
        let mut request = self.http.request(call.method.clone(), self.url(&call));
        if let Some(body) = call.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        if let Some((name, value)) = call.header {
            request = request.header(name, value);
        }
        request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))
    }

    async fn read(&self, mut response: Response, asked: String) -> Result<Answer, Failure> {
        let status = response.status();
        let headers = std::mem::take(response.headers_mut());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                let message = format!("{asked} answered more than {ANSWER_BYTES_MAX} bytes");
                return Err(Failure::new(Exit::Failed, message));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer {
            status,
            headers,
            body,
            asked,
            endpoint: self.endpoint,
            has_token: self.has_token,
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if !error.is_connect() {
            return self
                .lost(error)
                .hint("the request may have been carried out; look before you send it again");
        }
        let (name, base, option) = (self.endpoint.name(), &self.base, self.endpoint.option());
        Failure::new(
            Exit::Unreachable,
            format!("cannot reach the {name} at {base}: {}", cause(error)),
        )
        .hint(if base.scheme() == "https" {
            "does the node have a certificate (tls.cert_file)? if not, the URL begins with http://; one that \
             the system does not trust is named with --ca-file FILE"
        } else {
            "is a node running there? `hearth dev` starts one on this machine"
        })
        .hint(format!("{option} names another node"))
    }
}

/// The deepest cause: reqwest's own text only repeats the URL.
fn cause(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

/// Whether the host is this machine by name or number, where no proxy can be meant.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests;
