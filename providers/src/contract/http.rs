//! The `http` contract: an invocation is a `POST /` to the instance's address.

mod stream;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use protocol::invocation::{AnswerRule, Body};
use protocol::{Function, Invocation, Reply};
use tokio::net::TcpStream;
use tokio::time::Instant;

use self::stream::Streaming;
use super::End;
use super::headers::{EventHeaders, retry_after, status_failure, timed_out};
use crate::http1::{self, Exchanged, Pool, Wanted};
use crate::output::Running;
use crate::{AnswerLimits, Error, Invoke};

/// One instance that listens at an address, with the connections kept to it.
#[derive(Debug)]
pub(crate) struct HttpInstance {
    shared: Arc<Shared>,
}

/// What an instance shares with its answers that go on after their call.
#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    /// What every request begins with.
    request_start: String,
    events: EventHeaders,
    /// As many connections are kept as there are calls at once.
    pool: Pool,
    concurrency: u32,
    limits: AnswerLimits,
    running: Arc<Running>,
    end: Arc<End>,
}

/// How long a run may take.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    until: Instant,
    /// That, as a duration from its beginning.
    limit: Duration,
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
        limits: AnswerLimits,
        running: Arc<Running>,
        end: Arc<End>,
    ) -> Self {
        let concurrency = function.limits().concurrency;
        let connections_max = usize::try_from(concurrency).unwrap_or(usize::MAX);
        let shared = Shared {
            address,
            request_start: format!("POST / HTTP/1.1\r\nhost: {address}\r\n"),
            events: EventHeaders::new(function),
            pool: Pool::new(connections_max, None, first),
            concurrency,
            limits,
            running,
            end,
        };
        Self {
            shared: Arc::new(shared),
        }
    }
}

impl Shared {
    async fn exchange(
        self: &Arc<Self>,
        invocation: &Invocation,
        bounds: Bounds,
    ) -> Result<Reply, Error> {
        let run = self.running.enter(&invocation.id);
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
        let head = |request: &mut Vec<u8>| self.write_head(request, invocation);
        let connect = || self.connect();
        let exchange = self
            .pool
            .request(connect, head, &invocation.payload, wanted);
        let Exchanged {
            answer,
            connection,
            is_reusable,
        } = match exchange.await {
            Ok(exchanged) => exchanged,
            Err(http1::Error::TooLarge) => return Err(too_large(wanted.bytes_max())),
            Err(error) => return Err(self.failure(error).await),
        };
        if !rule.takes(answer.status) {
            if is_reusable {
                self.pool.put(connection);
            }
            let pause = retry_after(answer.elsewhere.as_deref());
            return Err(status_failure(answer.status, pause, &answer.body));
        }
        let body = match answer.rest {
            None => {
                if is_reusable {
                    self.pool.put(connection);
                }
                Body::Whole(answer.body)
            }
            Some(rest) => {
                let streaming = Streaming {
                    shared: Arc::clone(self),
                    connection,
                    rest,
                    is_reusable,
                    kept_for: answer.kept_for,
                    bounds,
                    run: run.into_owned(&self.running),
                };
                Body::Stream(streaming.into_body())
            }
        };
        Ok(Reply {
            status: answer.status,
            content_type: answer.content_type,
            headers: answer.headers,
            body,
            ended: None,
        })
    }

    fn write_head(&self, request: &mut Vec<u8>, invocation: &Invocation) {
        match invocation.call.as_deref() {
            None => request.extend_from_slice(self.request_start.as_bytes()),
            Some(call) => {
                let host = call.headers.iter().find(|(name, _)| name == "host");
                write!(
                    request,
                    "{} {} HTTP/1.1\r\nhost: ",
                    call.method, call.target
                )
                .and_then(|()| match host {
                    Some((_, host)) => request.write_all(host),
                    None => write!(request, "{}", self.address),
                })
                .expect("a Vec takes all that is written");
                request.extend_from_slice(b"\r\n");
            }
        }
        self.events.write(invocation, request);
        let length = invocation.payload.len();
        // Said also of an empty payload, which some servers would wait for otherwise.
        write!(request, "content-length: {length}\r\n\r\n")
            .expect("a Vec takes all that is written");
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let connecting = TcpStream::connect(self.address);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(std::io::Error::other(format!(
                "no answer within {CONNECT_TIMEOUT:?}"
            ))),
        }
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Unreachable {
            why: format!("connecting to {}: {error}", self.address),
            retry_after_ms: None,
        }
    }

    /// What a request without an answer comes to.
    async fn failure(&self, error: http1::Error) -> Error {
        match error {
            http1::Error::NotSent(error) => self.unreachable(&error),
            http1::Error::TooLarge => too_large(self.limits.stream),
            http1::Error::Malformed(why) => Error::Malformed {
                why: format!("no HTTP answer: {why}"),
            },
            http1::Error::Broken(why) => {
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
}

#[async_trait]
impl Invoke for HttpInstance {
    async fn invoke(&self, function: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        let began = Instant::now();
        let limit = began + function.limits().timeout;
        let until = limit.min(Instant::from_std(invocation.deadline.moment()));
        let bounds = Bounds {
            until,
            limit: until - began,
        };
        let exchange = self.shared.exchange(invocation, bounds);
        match tokio::time::timeout_at(until, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(timed_out(bounds.limit)),
        }
    }
}

fn too_large(bytes_max: usize) -> Error {
    Error::AnswerTooLarge {
        bytes_max: bytes_max as u64,
    }
}

#[cfg(test)]
mod tests;
