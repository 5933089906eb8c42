//! One HTTP/1.1 connection to a peer, driven by whoever uses it.
//!
//! A connection has no task of its own: the future of a call polls it. That saves two switches between tasks a call, and dropping
//! the future closes the connection, by which the peer learns that nobody waits for its answer any more.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::peer::frame::{BodyError, Message, read_body, read_start};
use crate::peer::tls;

type Driver = Box<http1::Connection<TokioIo<TlsStream<TcpStream>>, Message>>;

/// One connection; at most one request is on it at a time.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Message>,
    /// Gone once the connection has ended.
    driver: Option<Driver>,
    /// When it was put aside last.
    pub(super) idle_since: Instant,
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection had ended before a byte of the request was written.
    Unsent,
    /// It ended afterwards.
    Lost(hyper::Error),
}

impl Connection {
    /// Connects, and shakes hands over TLS.
    pub(super) async fn open(address: SocketAddr, tls: Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let stream = TlsConnector::from(tls)
            .connect(tls::server_name(), stream)
            .await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(io::Error::other)?;
        Ok(Self {
            sender,
            driver: Some(Box::new(driver)),
            idle_since: Instant::now(),
        })
    }

    /// Sends a request and waits for the head of its response.
    pub(super) async fn send(
        &mut self,
        request: Request<Message>,
    ) -> Result<Response<Incoming>, SendError> {
        let response = self.sender.try_send_request(request);
        let response = drive(&mut self.driver, pin!(response)).await;
        response.map_err(|mut error| match error.take_message() {
            Some(_) => SendError::Unsent,
            None => SendError::Lost(error.into_error()),
        })
    }

    /// Reads the body of a response that this connection gave.
    pub(super) async fn read(
        &mut self,
        body: &mut Incoming,
        bytes_max: usize,
    ) -> Result<Bytes, BodyError<hyper::Error>> {
        drive(&mut self.driver, pin!(read_body(body, bytes_max))).await
    }

    /// Reads the head of a message whose body comes piece by piece.
    pub(super) async fn read_start(
        &mut self,
        body: &mut Incoming,
    ) -> Result<Bytes, BodyError<hyper::Error>> {
        drive(&mut self.driver, pin!(read_start(body))).await
    }

    /// Reads what comes next of a body; none when nothing more does.
    ///
    /// # Cancel safety
    /// Nothing is lost when it is dropped.
    pub(super) async fn next(
        &mut self,
        body: &mut Incoming,
    ) -> Option<hyper::Result<Frame<Bytes>>> {
        drive(&mut self.driver, pin!(body.frame())).await
    }

    /// Whether another request may follow the one that was answered.
    pub(super) async fn is_reusable(&mut self) -> bool {
        poll_fn(|cx| {
            poll_driver(&mut self.driver, cx);
            Poll::Ready(
                self.driver.is_some() && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(()))),
            )
        })
        .await
    }

    /// Gives the pieces of a body as they come; the connection ends with the stream, and the stream when the peer is gone.
    pub(super) fn into_stream(self, body: Incoming, gone: CancellationToken) -> Pieces {
        Pieces {
            driver: self.driver,
            body: Some(body),
            gone: Box::pin(gone.cancelled_owned()),
        }
    }
}

/// Polls a future that waits for the connection, and the connection, until the future is done.
async fn drive<F: Future>(driver: &mut Option<Driver>, mut future: Pin<&mut F>) -> F::Output {
    poll_fn(|cx| {
        poll_driver(driver, cx);
        future.as_mut().poll(cx)
    })
    .await
}

/// Polls the connection. One that has ended is dropped, which answers whoever waits for it, a request not yet written included.
fn poll_driver(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(connection) = driver
        && Pin::new(connection).poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The body of a response, piece by piece.
#[derive(Debug)]
pub(super) struct Pieces {
    driver: Option<Driver>,
    body: Option<Incoming>,
    gone: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Stream for Pieces {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pieces = &mut *self;
        poll_driver(&mut pieces.driver, cx);
        let outcome = match &mut pieces.body {
            None => return Poll::Ready(None),
            Some(body) => poll_piece(body, cx),
        };
        let item = match outcome {
            Poll::Ready(item) => item,
            Poll::Pending if pieces.gone.as_mut().poll(cx).is_ready() => Some(Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the peer is gone",
            ))),
            Poll::Pending => return Poll::Pending,
        };
        if !matches!(item, Some(Ok(_))) {
            (pieces.body, pieces.driver) = (None, None);
        }
        Poll::Ready(item)
    }
}

fn poll_piece(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
    loop {
        match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            None => return Poll::Ready(None),
            Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Poll::Ready(Some(Ok(piece)));
                }
            }
        }
    }
}
