//! One keep-alive HTTP/1.1 connection, driven by whoever uses it, over TCP, TLS or a Unix socket.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::{Pin, pin};
use std::task::{Context as TaskContext, Poll};

use anyhow::{Context, bail};
use bytes::{Bytes, BytesMut};
use http::response::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use super::stream::{Stream, Tls};

/// The largest answer that is read; none of a bench comes near.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One connection. Nothing polls it while it is idle.
pub(super) struct Client<S: AsyncRead + AsyncWrite> {
    sender: http1::SendRequest<Full<Bytes>>,
    connection: http1::Connection<TokioIo<S>, Full<Bytes>>,
    is_closed: bool,
}

impl Client<Stream> {
    pub(super) async fn connect(address: SocketAddr, tls: Option<&Tls>) -> anyhow::Result<Self> {
        Self::open(Stream::connect(address, tls).await?).await
    }
}

impl Client<UnixStream> {
    pub(super) async fn unix(path: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(path)
            .await
            .with_context(|| format!("connect to {}", path.display()))?;
        Self::open(stream).await
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Client<S> {
    async fn open(stream: S) -> anyhow::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self {
            sender,
            connection,
            is_closed: false,
        })
    }

    /// Sends a request and reads the answer whole.
    pub(super) async fn call(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<(Parts, Bytes)> {
        let Self {
            sender,
            connection,
            is_closed,
        } = self;
        let exchange = async {
            let (head, mut body) = sender.send_request(request).await?.into_parts();
            let mut whole = BytesMut::new();
            while let Some(frame) = body.frame().await {
                let Ok(data) = frame?.into_data() else {
                    continue;
                };
                if whole.len() + data.len() > ANSWER_BYTES_MAX {
                    bail!("an answer of more than {ANSWER_BYTES_MAX} bytes");
                }
                whole.extend_from_slice(&data);
            }
            Ok((head, whole.freeze()))
        };
        let mut exchange = pin!(exchange);
        poll_fn(|context| {
            // First what has come in, then what the exchange makes of it, then what it has queued to go out.
            drive(connection, is_closed, context);
            let polled = exchange.as_mut().poll(context);
            if polled.is_pending() {
                drive(connection, is_closed, context);
                // The connection may have handed over an answer just now, or its own end.
                return exchange.as_mut().poll(context);
            }
            polled
        })
        .await
    }

    /// Sends a request with a JSON body and reads a JSON answer.
    pub(super) async fn json(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(&method)
            .uri(path)
            .header("host", "bench")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        let (head, body) = self
            .call(request)
            .await
            .with_context(|| format!("{method} {path}"))?;
        // Docker answers some requests with no body at all.
        let value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok((head.status, value))
    }
}

/// Polls the connection unless it has ended, which would panic; its end reaches the exchange as an error.
fn drive<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: &mut http1::Connection<TokioIo<S>, Full<Bytes>>,
    is_closed: &mut bool,
    context: &mut TaskContext<'_>,
) {
    if !*is_closed && let Poll::Ready(_) = Pin::new(connection).poll(context) {
        *is_closed = true;
    }
}

impl<S: AsyncRead + AsyncWrite> std::fmt::Debug for Client<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("is_closed", &self.is_closed)
            .finish_non_exhaustive()
    }
}
