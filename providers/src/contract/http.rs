//! The `http` contract: an invocation is a `POST /` to the instance's address.
//!
//! This is the hottest code of a node. A connection is driven by the invocation that uses it, not by a task of its own,
//! so a warm call wakes no other task, and dropping the call closes the connection.

mod connection;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{CONTENT_LENGTH, HOST, HeaderValue};
use ::http::{Method, Request, Response, Uri};
use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use protocol::{Function, Invocation, Reply};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::connection::{CollectError, Connection, SendError};
use super::Fate;
use super::headers::{EventHeaders, answered_type, status_failure, timed_out};
use crate::output::Running;
use crate::{Error, Invoke};

/// One instance that listens at an address, with the connections kept to it.
#[derive(Debug)]
pub(crate) struct HttpInstance {
    address: SocketAddr,
    host: HeaderValue,
    events: EventHeaders,
    /// Connections without an invocation, the last used one last.
    idle: Mutex<Vec<Connection>>,
    idle_max: usize,
    answer_bytes_max: usize,
    running: Arc<Running>,
    fate: Arc<Fate>,
}

/// How long a connection may take to be made; the way is local, so a longer silence means that nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

impl HttpInstance {
    /// Takes an instance that listens; `first` is the connection that found it ready, if it is still open.
    pub(crate) async fn new(
        address: SocketAddr,
        first: Option<TcpStream>,
        function: &Function,
        answer_bytes_max: usize,
        running: Arc<Running>,
        fate: Arc<Fate>,
    ) -> Self {
        let idle_max = usize::try_from(function.limits().concurrency).unwrap_or(usize::MAX);
        let mut idle = Vec::new();
        if let Some(stream) = first
            && let Ok(connection) = Connection::open(stream).await
        {
            idle.push(connection);
        }
        Self {
            address,
            host: HeaderValue::try_from(address.to_string()).expect("an address is visible ASCII"),
            events: EventHeaders::new(function),
            idle: Mutex::new(idle),
            idle_max,
            answer_bytes_max,
            running,
            fate,
        }
    }

    fn request(&self, invocation: &Invocation) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(invocation.payload.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("/");
        *request.headers_mut() = self.events.of(invocation);
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        // Said also of an empty payload, which some servers would wait for otherwise.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(invocation.payload.len()));
        request
    }

    async fn exchange(&self, invocation: &Invocation) -> Result<Reply, Error> {
        let mut request = self.request(invocation);
        while let Some(mut connection) = self.take_idle() {
            if !connection.is_open().await {
                continue;
            }
            match connection.send(request).await {
                Ok(response) => return self.read(connection, response).await,
                // Closed between the look and the write: nothing ran.
                Err(SendError::NotSent {
                    request: unsent, ..
                }) => request = unsent,
                Err(SendError::Broken(error)) => return Err(self.broken(&error).await),
            }
        }
        let mut connection = self.connect().await?;
        match connection.send(request).await {
            Ok(response) => self.read(connection, response).await,
            Err(SendError::NotSent { error, .. }) => Err(self.unreachable(&error)),
            Err(SendError::Broken(error)) => Err(self.broken(&error).await),
        }
    }

    async fn read(
        &self,
        mut connection: Connection,
        response: Response<Incoming>,
    ) -> Result<Reply, Error> {
        let (head, body) = response.into_parts();
        let body = match connection.collect(body, self.answer_bytes_max).await {
            Ok(body) => body,
            Err(CollectError::TooLarge) => {
                return Err(Error::AnswerTooLarge {
                    bytes_max: self.answer_bytes_max as u64,
                });
            }
            Err(CollectError::Broken(error)) => return Err(self.broken(&error).await),
            Err(CollectError::Closed) => {
                let why = self
                    .fate
                    .explain("the connection closed in the middle of the answer".into())
                    .await;
                return Err(Error::Interrupted { why });
            }
        };
        connection.note_keep_alive(&head.headers);
        if connection.settle().await {
            self.put_idle(connection);
        }
        if !head.status.is_success() {
            return Err(status_failure(head.status, &body));
        }
        Ok(Reply {
            status: head.status.as_u16(),
            content_type: answered_type(&head.headers),
            body,
        })
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let stream =
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(self.address)).await {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return Err(self.unreachable(&error)),
                Err(_) => {
                    return Err(self.unreachable(&format!("no answer within {CONNECT_TIMEOUT:?}")));
                }
            };
        Connection::open(stream)
            .await
            .map_err(|error| self.unreachable(&error))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Unreachable {
            why: format!("connecting to {}: {error}", self.address),
            retry_after_ms: None,
        }
    }

    /// What a connection that broke after the request may have arrived comes to.
    async fn broken(&self, error: &hyper::Error) -> Error {
        if connection::is_garbage(error) {
            return Error::Malformed {
                why: format!("no HTTP answer: {error}"),
            };
        }
        Error::Interrupted {
            why: self
                .fate
                .explain(format!("the connection broke: {error}"))
                .await,
        }
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put_idle(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max {
            idle.push(connection);
        }
    }
}

#[async_trait]
impl Invoke for HttpInstance {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let began = Instant::now();
        let limit = began + function.limits().timeout;
        let until = limit.min(Instant::from_std(invocation.deadline.moment()));
        let _run = self.running.enter(&invocation.id);
        match tokio::time::timeout_at(until, self.exchange(invocation)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(until - began)),
        }
    }
}

#[cfg(test)]
mod tests;
