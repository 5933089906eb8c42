//! Accepting connections, and one connection's life.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use config::recurring::{Due, Recurring};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Listener;
use super::head_timer::HeadTimer;
use super::limits::{Addresses, Counted};
use super::progress::{Progress, Streaming};
use super::repoll::repolled;
use super::tls::{Certificate, Greeting};
use crate::body::AnswerBody;
use crate::surface::Surface;

/// How long accepting pauses after the system had no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long an idle connection outlives the listener: a request that was on its way meanwhile is still answered.
const CLOSE_DELAY: Duration = Duration::from_millis(100);

/// Accepts until the edge closes. At `limits.connections_max` it stops accepting until one ends: the kernel lets further clients wait.
pub(super) async fn accept(
    listener: TcpListener,
    surface: Arc<Surface>,
    cut: CancellationToken,
    tracker: TaskTracker,
    connections: TaskTracker,
) {
    let connections_max = surface
        .shared
        .limits
        .connections_max
        .min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(connections_max));
    let addresses = Addresses::new(match surface.listener {
        // All processes of this node have one address.
        Listener::Inner => connections_max,
        _ => surface.shared.limits.connections_per_address_max,
    });
    let key = surface.listener.key();
    let mut refused = Recurring::default();
    let mut spawn = |stream, from, permit| {
        let surface = Arc::clone(&surface);
        let Some(counted) = addresses.admit(from) else {
            surface.meters.connections_refused.increment(1);
            if let Some(Due { times, .. }) = refused.note(Instant::now()) {
                tracing::warn!(
                    listener = key, %from, times,
                    "an address has limits.connections_per_address_max connections, further ones of it are closed"
                );
            }
            return;
        };
        let client = Client {
            from,
            _permit: permit,
            _counted: counted,
        };
        match surface.certificate.clone() {
            None => {
                let serving = serve_plain(stream, client, surface, cut.clone());
                tracker.spawn(connections.track_future(repolled(serving)));
            }
            Some(certificate) => {
                let serving = serve_secure(stream, client, certificate, surface, cut.clone());
                tracker.spawn(connections.track_future(repolled(serving)));
            }
        }
    };
    let mut full = Recurring::default();
    loop {
        if permits.available_permits() == 0
            && let Some(Due { times, .. }) = full.note(Instant::now())
        {
            tracing::warn!(
                listener = key,
                times,
                "limits.connections_max is reached, further clients wait"
            );
        }
        let next = async {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .expect("this semaphore is never closed");
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            biased;
            () = surface.closing.cancelled() => break,
            next = next => next,
        };
        match accepted {
            Ok((stream, from)) => spawn(stream, from.ip(), permit),
            // The client was gone before it was accepted.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::error!(listener = key, %error, "accepting a connection failed");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Closing the listener resets those whom the kernel has let in already, so they are taken too. Asked directly, because
    // the runtime may not have heard of them yet.
    let Ok(listener) = listener.into_std() else {
        return;
    };
    while let Ok(permit) = Arc::clone(&permits).try_acquire_owned()
        && let Ok((stream, from)) = listener.accept()
    {
        if let Ok(stream) = stream
            .set_nonblocking(true)
            .and_then(|()| TcpStream::from_std(stream))
        {
            spawn(stream, from.ip(), permit);
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
    )
}

/// Who is at the other end of a connection, and its share of those that there may be.
struct Client {
    from: IpAddr,
    /// Given back when the connection ends.
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

/// Whether requests of a connection are answered, or told how to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Welcome {
    Served,
    /// This listener has TLS, and the client did not begin with it.
    Refused,
}

/// Serves a connection of plain HTTP.
async fn serve_plain(
    stream: TcpStream,
    client: Client,
    surface: Arc<Surface>,
    cut: CancellationToken,
) {
    // Answers are written whole, so waiting for more to send only delays them. A socket that refuses is closed already.
    let _ = stream.set_nodelay(true);
    let streaming = Streaming::default();
    let write_timeout = surface.shared.limits.write_timeout;
    let stream = Progress::new(stream, write_timeout, streaming.clone());
    serve(stream, streaming, client, Welcome::Served, surface, cut).await;
}

/// Serves a connection that has to begin with TLS. A client that speaks plain HTTP is told so.
async fn serve_secure(
    stream: TcpStream,
    client: Client,
    certificate: Arc<Certificate>,
    surface: Arc<Surface>,
    cut: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let streaming = Streaming::default();
    let write_timeout = surface.shared.limits.write_timeout;
    let wrap = |stream| Progress::new(stream, write_timeout, streaming.clone());
    let greeting = tokio::select! {
        greeting = certificate.greet(wrap, stream) => greeting,
        () = surface.closing.cancelled() => return,
    };
    match greeting {
        Ok(Greeting::Secure(stream)) => {
            let serving = serve(stream, streaming, client, Welcome::Served, surface, cut);
            Box::pin(serving).await;
        }
        Ok(Greeting::Plain(stream)) => {
            let serving = serve(stream, streaming, client, Welcome::Refused, surface, cut);
            Box::pin(serving).await;
        }
        Err(error) => {
            surface.meters.handshakes_failed.increment(1);
            let (listener, from) = (surface.listener.key(), client.from);
            tracing::debug!(listener, %from, %error, "a client did not get through the handshake");
        }
    }
}

/// Serves one connection to its end. A client that goes away drops the request in flight, and with it the invocation.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    streaming: Streaming,
    client: Client,
    welcome: Welcome,
    surface: Arc<Surface>,
    cut: CancellationToken,
) {
    surface.meters.connections.increment(1.0);
    let from = client.from;
    let service = service_fn(|request: Request<Incoming>| {
        let (surface, streaming) = (Arc::clone(&surface), &streaming);
        let version = request.version();
        async move {
            let response = match welcome {
                Welcome::Served => surface.answer(request, from).await,
                Welcome::Refused => Box::pin(surface.refuse_plain(request)).await,
            };
            Ok::<_, Infallible>(match response.body() {
                AnswerBody::Stream(_) => response.map(|body| streaming.watch(body, version)),
                _ => response,
            })
        }
    });
    let mut builder = http1::Builder::new();
    let limits = &surface.shared.limits;
    let head_timeout = limits.head_timeout;
    let heads = HeadTimer::new(limits.idle_timeout.max(head_timeout));
    builder
        .timer(heads.clone())
        .header_read_timeout(head_timeout)
        .max_header_size(usize::try_from(limits.head_max.as_u64()).unwrap_or(usize::MAX));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let closing = async {
        surface.closing.cancelled().await;
        time::sleep(CLOSE_DELAY).await;
    };
    let mut closing = pin!(closing);
    let mut late = pin!(heads.late(head_timeout));
    let (mut is_late, mut is_closing) = (false, false);
    let ended = loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => break Some(ended),
            // The connection is polled next, and ends.
            () = late.as_mut(), if !is_late => is_late = true,
            () = closing.as_mut(), if !is_closing => {
                connection.as_mut().graceful_shutdown();
                is_closing = true;
            }
            () = cut.cancelled(), if is_closing => break None,
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(listener = surface.listener.key(), %error, "a client's connection broke");
    }
    surface.meters.connections.decrement(1.0);
}
