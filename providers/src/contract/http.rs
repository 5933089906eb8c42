//! The `http` contract: an invocation is a `POST /` to the instance's address.
//!
//! This is the hottest code of a node. A connection is driven by the invocation that uses it, not by a task of its own,
//! so a warm call wakes no other task, and dropping the call closes the connection.

mod answer;
mod connection;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use protocol::invocation::AnswerRule;
use protocol::{Function, Invocation, Reply};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::answer::Wanted;
use self::connection::Connection;
use super::End;
use super::headers::{EventHeaders, status_failure, timed_out};
use crate::output::Running;
use crate::{Error, Invoke};

/// One instance that listens at an address, with the connections kept to it.
#[derive(Debug)]
pub(crate) struct HttpInstance {
    address: SocketAddr,
    /// What every request begins with.
    request_start: String,
    events: EventHeaders,
    /// Connections without an invocation, the last used one last.
    idle: Mutex<Vec<Connection>>,
    /// Calls at once, and so connections kept.
    concurrency: u32,
    answer_bytes_max: usize,
    running: Arc<Running>,
    end: Arc<End>,
}

/// How long a connection may take to be made; the way is local, so a longer silence means that nobody is there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How much earlier a connection breaks than the provider hears that the instance ended, and how long that may take where
/// nobody listens at its address any more.
const END_DELAY: Duration = Duration::from_millis(250);
const END_TIMEOUT: Duration = Duration::from_secs(3);

impl HttpInstance {
    /// Takes an instance that listens; `first` is the connection that found it ready, if it is still open.
    pub(crate) fn new(
        address: SocketAddr,
        first: Option<TcpStream>,
        function: &Function,
        answer_bytes_max: usize,
        running: Arc<Running>,
        end: Arc<End>,
    ) -> Self {
        Self {
            address,
            request_start: format!("POST / HTTP/1.1\r\nhost: {address}\r\n"),
            events: EventHeaders::new(function),
            idle: Mutex::new(first.into_iter().map(Connection::new).collect()),
            concurrency: function.limits().concurrency,
            answer_bytes_max,
            running,
            end,
        }
    }

    async fn exchange(&self, invocation: &Invocation) -> Result<Reply, Error> {
        while let Some(connection) = self.take_idle() {
            if !connection.is_open() {
                continue;
            }
            match self.exchange_on(connection, invocation).await {
                // Closed between the look and the write: nothing ran.
                Err(connection::Error::NotSent(_)) => {}
                Err(error) => return Err(self.failure(error).await),
                Ok(reply) => return reply,
            }
        }
        let connection = self.connect().await?;
        match self.exchange_on(connection, invocation).await {
            Err(error) => Err(self.failure(error).await),
            Ok(reply) => reply,
        }
    }

    /// Makes one request; the inner outcome is what the answer comes to.
    async fn exchange_on(
        &self,
        mut connection: Connection,
        invocation: &Invocation,
    ) -> Result<Result<Reply, Error>, connection::Error> {
        let payload = &invocation.payload;
        let head = |request: &mut Vec<u8>| self.write_head(request, invocation);
        let call = invocation.call.as_deref();
        let rule = call.map_or(AnswerRule::Success, |call| call.answer);
        let wanted = Wanted {
            body_bytes_max: self.answer_bytes_max,
            has_headers: rule == AnswerRule::Whole,
            is_of_head: call.is_some_and(|call| call.method == "HEAD"),
        };
        let exchange = connection.exchange(head, payload, wanted);
        let (answer, is_reusable) = exchange.await?;
        if is_reusable {
            self.put_idle(connection);
        }
        if !rule.takes(answer.status) {
            return Ok(Err(status_failure(answer.status, &answer.body)));
        }
        Ok(Ok(Reply {
            status: answer.status,
            content_type: answer.content_type,
            headers: answer.headers,
            body: answer.body,
        }))
    }

    fn write_head(&self, request: &mut Vec<u8>, invocation: &Invocation) {
        match invocation.call.as_deref() {
            None => request.extend_from_slice(self.request_start.as_bytes()),
            Some(call) => write!(request, "{} {} HTTP/1.1\r\n", call.method, call.target)
                .and_then(
                    |()| match call.headers.iter().any(|(name, _)| name == "host") {
                        true => Ok(()),
                        false => write!(request, "host: {}\r\n", self.address),
                    },
                )
                .expect("a Vec takes all that is written"),
        }
        self.events.write(invocation, request);
        let length = invocation.payload.len();
        // Said also of an empty payload, which some servers would wait for otherwise.
        write!(request, "content-length: {length}\r\n\r\n")
            .expect("a Vec takes all that is written");
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
        Ok(Connection::new(stream))
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Unreachable {
            why: format!("connecting to {}: {error}", self.address),
            retry_after_ms: None,
        }
    }

    /// What a request without an answer comes to.
    async fn failure(&self, error: connection::Error) -> Error {
        match error {
            connection::Error::NotSent(error) => self.unreachable(&error),
            connection::Error::TooLarge => Error::AnswerTooLarge {
                bytes_max: self.answer_bytes_max as u64,
            },
            connection::Error::Malformed(why) => Error::Malformed {
                why: format!("no HTTP answer: {why}"),
            },
            connection::Error::Broken(why) => {
                let broke = format!("the connection broke: {why}");
                let is_up = !self.end.is_told(END_DELAY).await && self.is_listening().await;
                if !is_up {
                    self.end.is_told(END_TIMEOUT).await;
                }
                self.end.judge(self.concurrency, &broke, is_up)
            }
        }
    }

    async fn is_listening(&self) -> bool {
        let connecting = TcpStream::connect(self.address);
        matches!(tokio::time::timeout(END_DELAY, connecting).await, Ok(Ok(_)))
    }

    fn take_idle(&self) -> Option<Connection> {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop()
    }

    fn put_idle(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < usize::try_from(self.concurrency).unwrap_or(usize::MAX) {
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
