//! The way to a webhook without TLS: its host's connections, each driven by the call that uses it.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use config::settings::HttpSettings;
use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use protocol::Invocation;
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;
use url::{Position, Url};

use super::outbound::{Outbound, forbidden_in};
use super::{Answer, Content, Rest, describe};
use crate::Error;
use crate::contract::headers::EventHeaders;
use crate::http1::{self, Connection, Exchanged, Pool, Wanted};

/// The hosts that endpoints are on, with the connections to each.
#[derive(Debug)]
pub(super) struct Hosts {
    by_authority: Mutex<HashMap<String, Weak<Host>>>,
    /// Looks addresses up, and tries those of both families at once: see RFC 8305.
    connector: HttpConnector<Resolver>,
    guard: Option<Arc<Outbound>>,
    connections_max: usize,
    idle_timeout: Duration,
}

/// Where endpoints are, and the connections kept there.
#[derive(Debug)]
pub(super) struct Host {
    /// Its name or address, with the port where that is not 80.
    authority: String,
    uri: Uri,
    connector: HttpConnector<Resolver>,
    guard: Option<Arc<Outbound>>,
    pool: Pool,
}

/// Looks names up, as far as the guard lets it.
#[derive(Debug, Clone)]
struct Resolver(Option<Arc<Outbound>>);

/// The way to one endpoint.
#[derive(Debug)]
pub(super) struct Plain {
    host: Arc<Host>,
    /// Its path, with its query.
    path: String,
    has_query: bool,
}

impl Hosts {
    pub(super) fn new(settings: &HttpSettings, guard: Option<Arc<Outbound>>) -> Self {
        let mut connector = HttpConnector::new_with_resolver(Resolver(guard.clone()));
        connector.set_connect_timeout(Some(settings.connect_timeout));
        Self {
            by_authority: Mutex::default(),
            connector,
            guard,
            connections_max: settings.idle_connections_max,
            idle_timeout: settings.idle_timeout,
        }
    }

    /// The host of that name; nothing when it is none that can be asked.
    fn host(&self, authority: &str) -> Option<Arc<Host>> {
        let mut hosts = self.hosts();
        if let Some(host) = hosts.get(authority).and_then(Weak::upgrade) {
            return Some(host);
        }
        hosts.retain(|_, host| host.strong_count() > 0);
        let host = Arc::new(Host {
            authority: authority.to_owned(),
            uri: format!("http://{authority}/").parse().ok()?,
            connector: self.connector.clone(),
            guard: self.guard.clone(),
            pool: Pool::new(self.connections_max, Some(self.idle_timeout), None),
        });
        hosts.insert(authority.to_owned(), Arc::downgrade(&host));
        Some(host)
    }

    /// Closes connections that are idle for too long, or that the other side closed; never ends.
    pub(super) async fn keep_swept(&self) {
        let mut turns = tokio::time::interval(self.idle_timeout / 4);
        loop {
            turns.tick().await;
            let hosts: Vec<_> = self.hosts().values().filter_map(Weak::upgrade).collect();
            for host in hosts {
                host.pool.sweep();
            }
        }
    }

    fn hosts(&self) -> std::sync::MutexGuard<'_, HashMap<String, Weak<Host>>> {
        self.by_authority
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Keeps a connection whose answer was read to its end.
    pub(super) fn put(&self, connection: Connection) {
        self.pool.put(connection);
    }

    /// What a connection that is kept was checked for holds as long as it is open.
    async fn connect(&self) -> io::Result<TcpStream> {
        if let Some(guard) = &self.guard {
            let url = Url::parse(&self.uri.to_string()).map_err(io::Error::other)?;
            guard.check_literal(&url).map_err(io::Error::other)?;
        }
        let connecting = self.connector.clone().call(self.uri.clone()).await;
        connecting
            .map(TokioIo::into_inner)
            .map_err(io::Error::other)
    }

    /// What a request without an answer comes to.
    pub(super) fn failure(&self, error: http1::Error, bytes_max: usize) -> Error {
        match error {
            http1::Error::NotSent(error) => match forbidden_in(&error) {
                Some(forbidden) => forbidden.clone().into(),
                None => super::unreachable(format!(
                    "connecting to {}: {}",
                    self.authority,
                    describe(&error)
                )),
            },
            http1::Error::TooLarge => Error::AnswerTooLarge {
                bytes_max: bytes_max as u64,
            },
            http1::Error::Malformed(why) => Error::Malformed {
                why: format!("no HTTP answer: {why}"),
            },
            http1::Error::Broken(why) => Error::Interrupted {
                why: format!("the connection to {} broke: {why}", self.authority),
            },
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let guard = self.0.clone();
        Box::pin(async move {
            let found = match guard {
                Some(guard) => guard.lookup(name.as_str()).await?,
                None => lookup_host((name.as_str(), 0)).await?.collect(),
            };
            Ok(found.into_iter())
        })
    }
}

impl Plain {
    /// The way to this URL; nothing when it needs TLS or a password.
    pub(super) fn to(url: &Url, hosts: &Hosts) -> Option<Self> {
        let is_plain =
            url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        if !is_plain {
            return None;
        }
        Some(Self {
            host: hosts.host(&url[Position::BeforeHost..Position::AfterPort])?,
            path: url[Position::BeforePath..Position::AfterQuery].to_owned(),
            has_query: url.query().is_some(),
        })
    }

    /// Makes one request.
    pub(super) async fn call(
        &self,
        invocation: &Invocation,
        events: &EventHeaders,
        wanted: Wanted,
    ) -> Result<Answer, Error> {
        let host = &self.host;
        let head = |request: &mut Vec<u8>| self.write_head(request, invocation, events);
        let connect = || host.connect();
        let exchange = host
            .pool
            .request(connect, head, &invocation.payload, wanted)
            .await;
        let Exchanged {
            answer,
            connection,
            is_reusable,
        } = exchange.map_err(|error| host.failure(error, wanted.bytes_max()))?;
        let body = match answer.rest {
            None => {
                if is_reusable {
                    host.put(connection);
                }
                Content::Whole(answer.body)
            }
            Some(rest) => Content::Rest(Box::new(Rest::Plain {
                host: Arc::clone(host),
                connection,
                rest,
                is_reusable,
                kept_for: answer.kept_for,
                bytes_max: wanted.bytes_max(),
            })),
        };
        Ok(Answer {
            status: answer.status,
            content_type: answer.content_type,
            headers: answer.headers,
            elsewhere: answer.elsewhere,
            challenge: None,
            body,
        })
    }

    /// As [`super::target::Target::first`] says it of a URL.
    fn write_head(&self, request: &mut Vec<u8>, invocation: &Invocation, events: &EventHeaders) {
        let call = invocation.call.as_deref();
        let method = call.map_or("POST", |call| &call.method);
        let query = call.and_then(|call| call.query()).unwrap_or_default();
        let joint = match (query.is_empty(), self.has_query) {
            (true, _) => "",
            (false, false) => "?",
            (false, true) if self.path.ends_with('?') => "",
            (false, true) => "&",
        };
        let pieces = [
            method,
            " ",
            &self.path,
            joint,
            query,
            " HTTP/1.1\r\nhost: ",
            &self.host.authority,
            "\r\n",
        ];
        for piece in pieces {
            request.extend_from_slice(piece.as_bytes());
        }
        events.write(invocation, request);
        let length = invocation.payload.len();
        write!(request, "content-length: {length}\r\n\r\n")
            .expect("a Vec takes all that is written");
    }
}
