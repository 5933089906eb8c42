//! One keep-alive connection, driven by whoever uses it.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::header::HeaderMap;
use ::http::{Request, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// One connection. Nothing polls it while it is idle; [`Connection::is_open`] finds out whether the other side closed it meanwhile.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    /// Until when the other side said that it keeps the connection.
    kept_until: Option<Instant>,
}

struct Driver {
    connection: http1::Connection<TokioIo<TcpStream>, Full<Bytes>>,
    is_closed: bool,
}

/// Why a request got no answer.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it is taken apart where it is returned"
)]
pub(super) enum SendError {
    /// Not a byte of it was written.
    NotSent {
        /// The request, to be sent on another connection.
        request: Request<Full<Bytes>>,
        /// What happened.
        error: hyper::Error,
    },
    /// It may have arrived.
    Broken(hyper::Error),
}

/// Why a body could not be read whole.
#[derive(Debug)]
pub(super) enum CollectError {
    TooLarge,
    Broken(hyper::Error),
    Closed,
}

impl Connection {
    pub(super) async fn open(stream: TcpStream) -> Result<Self, hyper::Error> {
        // A request is one write; waiting for more of it would only delay it. A socket without the option still works.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            driver: Driver {
                connection,
                is_closed: false,
            },
            kept_until: None,
        })
    }

    /// Looks whether an idle connection can still take a request.
    pub(super) async fn is_open(&mut self) -> bool {
        if self.kept_until.is_some_and(|until| Instant::now() >= until) {
            return false;
        }
        self.settle().await
    }

    /// Polls the connection once: true when it is ready for the next request.
    pub(super) async fn settle(&mut self) -> bool {
        poll_fn(|context| {
            self.driver.drive(context);
            Poll::Ready(!self.driver.is_closed && self.sender.is_ready())
        })
        .await
    }

    pub(super) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, SendError> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let outcome = poll_fn(|context| {
            self.driver.drive(context);
            answer.as_mut().poll(context)
        })
        .await;
        outcome.map_err(|mut failure| match failure.take_message() {
            Some(request) => SendError::NotSent {
                request,
                error: failure.into_error(),
            },
            None => SendError::Broken(failure.into_error()),
        })
    }

    pub(super) async fn collect(
        &mut self,
        mut body: Incoming,
        bytes_max: usize,
    ) -> Result<Bytes, CollectError> {
        let hint = body.size_hint();
        if hint.lower() > bytes_max as u64 {
            return Err(CollectError::TooLarge);
        }
        let expected = usize::try_from(hint.lower()).unwrap_or(0);
        let mut first = Bytes::new();
        let mut whole = BytesMut::new();
        while let Some(data) = self.next_data(&mut body).await? {
            if first.len() + whole.len() + data.len() > bytes_max {
                return Err(CollectError::TooLarge);
            }
            // Most answers are one chunk, which is passed on without a copy.
            if first.is_empty() && whole.is_empty() {
                first = data;
                continue;
            }
            if whole.is_empty() {
                whole.reserve(expected.max(first.len() + data.len()));
                whole.extend_from_slice(&std::mem::take(&mut first));
            }
            whole.extend_from_slice(&data);
        }
        Ok(if whole.is_empty() {
            first
        } else {
            whole.freeze()
        })
    }

    async fn next_data(&mut self, body: &mut Incoming) -> Result<Option<Bytes>, CollectError> {
        loop {
            let frame = poll_fn(|context| {
                if let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) {
                    return Poll::Ready(Ok(frame));
                }
                self.driver.drive(context);
                match Pin::new(&mut *body).poll_frame(context) {
                    Poll::Ready(frame) => Poll::Ready(Ok(frame)),
                    Poll::Pending if self.driver.is_closed => {
                        Poll::Ready(Err(CollectError::Closed))
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
            .await?;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(CollectError::Broken(error)),
                // Trailers carry nothing of the contract.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Heeds `keep-alive: timeout=N`, half a second early: a request that crosses the close can not be told from one that ran.
    pub(super) fn note_keep_alive(&mut self, headers: &HeaderMap) {
        let Some(value) = headers
            .get("keep-alive")
            .and_then(|value| value.to_str().ok())
        else {
            return;
        };
        let seconds = value
            .split(',')
            .find_map(|part| part.trim().strip_prefix("timeout="))
            .and_then(|seconds| seconds.parse::<u32>().ok());
        if let Some(seconds) = seconds {
            let kept =
                Duration::from_secs(seconds.into()).saturating_sub(Duration::from_millis(500));
            self.kept_until = Some(Instant::now() + kept);
        }
    }
}

impl Driver {
    fn drive(&mut self, context: &mut Context<'_>) {
        if !self.is_closed && Pin::new(&mut self.connection).poll(context).is_ready() {
            // The error, if any, reaches the request or the body; here it only matters that the connection is over.
            self.is_closed = true;
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("is_closed", &self.driver.is_closed)
            .finish_non_exhaustive()
    }
}

/// Whether what came back is no HTTP, as against a connection that broke.
pub(super) fn is_garbage(error: &hyper::Error) -> bool {
    if error.is_parse() {
        return true;
    }
    let source =
        std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| {
        matches!(
            source.kind(),
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData
        )
    })
}
