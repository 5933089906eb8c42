//! Calls peers over HTTP/1.1 and mutual TLS, from a pool of connections that stand.
//!
//! Whether a failed call is [`Error::Refused`] or [`Error::Interrupted`] decides whether it may be tried elsewhere, so it is
//! answered with care: *refused* only while nothing can have reached the peer's handler, which is until the request's first byte
//! is handed to a connection, or when the peer itself says that it did not ask its handler. From then on it is *interrupted*.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use config::settings::ClusterSettings;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use http::{Request, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;
use protocol::invocation::Body;
use protocol::peer::{InvokeHead, ReplyHead};
use protocol::{Deadline, FunctionId, Space};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::frame::{self, BodyError, FRAME_BYTES_MAX, Message, Operation, SMALL_BYTES_MAX};
use super::{Error, Peer, PeerClient};
use crate::identity::Identity;
use crate::membership::Members;

mod connection;
mod pool;
mod stream;

use connection::{Connection, SendError};
use pool::{Line, Lines};
use stream::Streaming;

/// How often connections that lay idle for long are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long a peer may take until its output begins to come; then it may take for ever.
const LOGS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a client needs.
#[derive(Debug)]
pub struct Args<'a> {
    /// This node: its certificate is shown to peers.
    pub identity: &'a Identity,
    /// Timeouts and bounds.
    pub settings: &'a ClusterSettings,
    /// Who is there: calls to a peer that dies end at once.
    pub members: watch::Receiver<Arc<Members>>,
    /// The most bytes an answer's body may have.
    pub body_bytes_max: usize,
}

/// Calls peers over HTTP.
#[derive(Debug)]
pub struct HttpPeerClient {
    lines: Arc<Lines>,
    body_bytes_max: usize,
    _tasks: TaskTracker,
    _stop: DropGuard,
}

impl HttpPeerClient {
    /// Builds a client. Must be called within a runtime: a task of its own watches the members until the client is dropped.
    pub fn new(args: Args<'_>) -> Self {
        let Args {
            identity,
            settings,
            members,
            body_bytes_max,
        } = args;
        let lines = Lines::new(
            identity.credentials(),
            settings.idle_connections_max,
            settings.connect_timeout,
        );
        let (lines, tasks, stop) = (
            Arc::new(lines),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let watch = Watch {
            lines: Arc::clone(&lines),
            members,
            probe_interval: settings.probe_interval,
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        tasks.spawn(watch.run());
        tasks.close();
        Self {
            lines,
            body_bytes_max,
            _tasks: tasks,
            _stop: stop.drop_guard(),
        }
    }

    /// Makes one request on a connection of the pool and reads its answer whole, or, where it may come piece by piece and does,
    /// its beginning.
    ///
    /// A connection from the pool may have been closed by the peer meanwhile. When it was before a byte of the request was
    /// written, the request goes on the next one, at last on a fresh one.
    async fn call(
        &self,
        peer: &Peer,
        deadline: Instant,
        bytes_max: usize,
        may_stream: bool,
        mut request: impl FnMut() -> Request<Message>,
    ) -> Result<(Bytes, Option<Streaming>), Error> {
        let line = self.lines.to(peer)?;
        loop {
            let (mut connection, is_reused) = connection(&line, deadline).await?;
            let exchange = exchange(&mut connection, request(), bytes_max, may_stream);
            match until_lost(&line, deadline, exchange).await? {
                Ok(Answer {
                    message,
                    rest: Some(body),
                    ..
                }) => {
                    let streaming = Streaming {
                        line,
                        connection,
                        body,
                        deadline,
                    };
                    return Ok((message, Some(streaming)));
                }
                Ok(answer) => {
                    if answer.is_reusable {
                        line.put(connection);
                    }
                    return Ok((answer.into_message(peer)?, None));
                }
                Err(ExchangeError::Unsent) if is_reused => {}
                Err(error) => return Err(error.into_error(peer)),
            }
        }
    }
}

#[async_trait]
impl PeerClient for HttpPeerClient {
    async fn invoke(
        &self,
        peer: &Peer,
        mut head: InvokeHead,
        payload: Bytes,
        deadline: Deadline,
    ) -> Result<(ReplyHead, Body), Error> {
        let may_stream = frame::may_stream(&head);
        let bytes_max = self.body_bytes_max.saturating_add(FRAME_BYTES_MAX);
        let deadline = Instant::from_std(deadline.moment());
        let request = move || {
            let remaining = deadline.saturating_duration_since(Instant::now());
            head.remaining_ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
            frame::invoke_request(&head, payload.clone())
        };
        let call = self.call(peer, deadline, bytes_max, may_stream, request);
        let (message, streaming) = call.await?;
        let (head, body) = frame::read_reply(peer, message)?;
        let body = match streaming {
            None => Body::Whole(body),
            Some(streaming) => Body::Stream(streaming.into_body(&head, body)?),
        };
        Ok((head, body))
    }

    async fn probe(&self, peer: &Peer, timeout: Duration) -> Result<(), Error> {
        let line = self.lines.to(peer)?;
        probe(&line, timeout).await
    }

    async fn resolve_image(
        &self,
        peer: &Peer,
        image: &str,
        deadline: Deadline,
    ) -> Result<Option<String>, Error> {
        let body = frame::ResolveImage {
            image: image.to_owned(),
        };
        let request = || frame::small_request(Operation::ResolveImage, &body);
        let deadline = Instant::from_std(deadline.moment());
        let call = self.call(peer, deadline, SMALL_BYTES_MAX, false, request);
        let (message, _) = call.await?;
        frame::read_resolved_image(peer, &message)
    }

    async fn logs(
        &self,
        peer: &Peer,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, Error> {
        let line = self.lines.to(peer)?;
        let deadline = Instant::now() + LOGS_TIMEOUT;
        let body = frame::Logs {
            space: space.clone(),
            function_id: function_id.clone(),
            follow,
        };
        loop {
            let (mut connection, is_reused) = connection(&line, deadline).await?;
            let request = frame::small_request(Operation::Logs, &body);
            match until_lost(&line, deadline, connection.send(request)).await? {
                Ok(response) if response.status() == StatusCode::OK => {
                    return Ok(connection
                        .into_stream(response.into_body(), line.gone.clone())
                        .boxed());
                }
                Ok(response) => return Err(frame::refusal_error(peer, response.status(), b"")),
                Err(SendError::Unsent) if is_reused => {}
                Err(error) => return Err(ExchangeError::from(error).into_error(peer)),
            }
        }
    }
}

/// An answer, whole or as far as its head.
struct Answer {
    status: StatusCode,
    message: Bytes,
    /// What follows of it, piece by piece.
    rest: Option<Incoming>,
    is_reusable: bool,
}

impl Answer {
    fn into_message(self, peer: &Peer) -> Result<Bytes, Error> {
        match self.status {
            StatusCode::OK => Ok(self.message),
            status => Err(frame::refusal_error(peer, status, &self.message)),
        }
    }
}

/// Why there is none.
#[derive(Debug)]
enum ExchangeError {
    Unsent,
    Lost(hyper::Error),
    TooLarge(usize),
}

impl From<SendError> for ExchangeError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Unsent => Self::Unsent,
            SendError::Lost(error) => Self::Lost(error),
        }
    }
}

impl ExchangeError {
    fn of_body(error: BodyError<hyper::Error>, bytes_max: usize) -> Self {
        match error {
            BodyError::TooLarge => Self::TooLarge(bytes_max),
            BodyError::Lost(error) => Self::Lost(error),
        }
    }

    fn into_error(self, peer: &Peer) -> Error {
        let peer = peer.name.clone();
        match self {
            Self::Unsent => Error::Refused {
                peer,
                why: "the connection ended before the request was written".into(),
                is_answer: false,
            },
            Self::Lost(error) => Error::Interrupted {
                peer,
                why: with_sources(&error),
            },
            Self::TooLarge(bytes_max) => Error::Protocol {
                peer,
                why: format!("more than {bytes_max} bytes"),
            },
        }
    }
}

async fn exchange(
    connection: &mut Connection,
    request: Request<Message>,
    bytes_max: usize,
    may_stream: bool,
) -> Result<Answer, ExchangeError> {
    let response = connection.send(request).await?;
    let status = response.status();
    // An answer that is whole says how long it is.
    if may_stream && status == StatusCode::OK && response.body().size_hint().exact().is_none() {
        let mut body = response.into_body();
        let message = connection.read_start(&mut body).await;
        return Ok(Answer {
            status,
            message: message.map_err(|error| ExchangeError::of_body(error, FRAME_BYTES_MAX))?,
            rest: Some(body),
            is_reusable: false,
        });
    }
    let bytes_max = if status == StatusCode::OK {
        bytes_max
    } else {
        SMALL_BYTES_MAX
    };
    let mut body = response.into_body();
    let message = connection
        .read(&mut body, bytes_max)
        .await
        .map_err(|error| ExchangeError::of_body(error, bytes_max))?;
    Ok(Answer {
        status,
        message,
        rest: None,
        is_reusable: connection.is_reusable().await,
    })
}

/// A connection from the pool, or a fresh one; whether it is from the pool.
async fn connection(line: &Line, deadline: Instant) -> Result<(Connection, bool), Error> {
    match line.take() {
        Some(connection) => Ok((connection, true)),
        None => Ok((open(line, deadline).await?, false)),
    }
}

/// Opens a connection. Nothing was sent yet, so whatever fails here is a refusal.
async fn open(line: &Line, deadline: Instant) -> Result<Connection, Error> {
    match until_lost(line, deadline, line.open()).await {
        Ok(opened) => opened,
        Err(error) => Err(Error::Refused {
            peer: line.peer.name.clone(),
            why: format!("while connecting: {error}"),
            is_answer: false,
        }),
    }
}

/// Waits for something of a peer until the deadline, or until the peer is gone.
async fn until_lost<T>(
    line: &Line,
    deadline: Instant,
    answer: impl Future<Output = T>,
) -> Result<T, Error> {
    tokio::select! {
        biased;
        answer = answer => Ok(answer),
        () = line.gone.cancelled() => {
            Err(Error::Interrupted { peer: line.peer.name.clone(), why: "it is gone from the cluster".into() })
        }
        () = sleep_until(deadline) => Err(Error::Deadline { peer: line.peer.name.clone() }),
    }
}

/// Asks for a sign of life, on the connection kept for that or on a fresh one.
async fn probe(line: &Line, timeout: Duration) -> Result<(), Error> {
    let deadline = Instant::now() + timeout;
    if let Some(mut kept) = line.take_probe() {
        let exchange = exchange(&mut kept, frame::probe_request(), SMALL_BYTES_MAX, false);
        match until_lost(line, deadline, exchange).await? {
            Ok(answer) => return finish_probe(line, kept, answer),
            // Nothing runs by a probe, so however the kept connection ended, a fresh one may tell more.
            Err(error) => tracing::debug!(
                peer = line.peer.name,
                ?error,
                "the connection for probes ended"
            ),
        }
    }
    let mut fresh = open(line, deadline).await?;
    let exchange = exchange(&mut fresh, frame::probe_request(), SMALL_BYTES_MAX, false);
    match until_lost(line, deadline, exchange).await? {
        Ok(answer) => finish_probe(line, fresh, answer),
        Err(error) => Err(error.into_error(&line.peer)),
    }
}

fn finish_probe(line: &Line, connection: Connection, answer: Answer) -> Result<(), Error> {
    if answer.is_reusable {
        line.put_probe(connection);
    }
    answer.into_message(&line.peer).map(drop)
}

/// Ends the lines to peers that are gone.
struct Watch {
    lines: Arc<Lines>,
    members: watch::Receiver<Arc<Members>>,
    probe_interval: Duration,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Watch {
    async fn run(mut self) {
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                Ok(()) = self.members.changed() => {
                    let members = Arc::clone(&self.members.borrow_and_update());
                    for line in self.lines.update(&members) {
                        let probing = probe_doubted(Arc::clone(&self.lines), line, self.probe_interval);
                        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(probing));
                    }
                }
                _ = sweep.tick() => self.lines.drop_aged(),
            }
        }
        self.lines.end();
    }
}

/// Ends the line to a peer that gossip does not hear, and with it the calls in flight, once the peer leaves a probe unanswered too.
///
/// Gossip goes over UDP, between processes that may be starved for a second: a peer that answers a probe is alive, and its calls
/// are not cut off. One that was killed refuses the probe at once, one that is cut off or stopped costs the calls one interval more.
async fn probe_doubted(lines: Arc<Lines>, line: Arc<Line>, interval: Duration) {
    while line.is_doubted() && !line.gone.is_cancelled() {
        if let Err(error) = probe(&line, interval).await {
            // Those who made these calls tell of them, and the router of the peer.
            tracing::debug!(peer = line.peer.name, %error, "a peer is gone; calls in flight to it are interrupted");
            lines.end_one(&line);
            return;
        }
        sleep(interval).await;
    }
}

/// hyper's errors say little themselves; what happened is in their sources. A process that is gone closes no TLS session, which rustls explains at length.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let io = error.downcast_ref::<io::Error>();
        if io.is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof) {
            text.push_str(": it ended early");
            return text;
        }
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
