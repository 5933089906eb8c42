//! Accepting connections, and one connection's life.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::surface::Surface;

/// The largest head of a request; a larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long accepting pauses after the system had no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `shutdown`. At `limits.connections_max` it stops accepting until one ends: the kernel lets further clients wait.
pub(super) async fn accept(
    listener: TcpListener,
    surface: Arc<Surface>,
    shutdown: CancellationToken,
    cut: CancellationToken,
    tracker: TaskTracker,
    connections: TaskTracker,
) {
    let connections_max = surface.shared.limits.connections_max.min(Semaphore::MAX_PERMITS);
    let permits = Arc::new(Semaphore::new(connections_max));
    loop {
        let next = next(&listener, &permits, &surface);
        let (stream, permit) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let serving = serve(stream, permit, Arc::clone(&surface), shutdown.clone(), cut.clone());
        tracker.spawn(connections.track_future(serving));
    }
}

/// Waits for room, then for a connection.
async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    surface: &Surface,
) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = match Arc::clone(permits).try_acquire_owned() {
        Ok(permit) => permit,
        Err(_) => {
            let key = surface.listener.key();
            tracing::warn!(listener = key, "limits.connections_max is reached, further clients wait");
            Arc::clone(permits).acquire_owned().await.expect("this semaphore is never closed")
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The client was gone before it was accepted.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                tracing::error!(listener = surface.listener.key(), %error, "accepting a connection failed");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset
    )
}

/// Serves one connection to its end. A client that goes away drops the request in flight, and with it the invocation.
async fn serve(
    stream: TcpStream,
    permit: OwnedSemaphorePermit,
    surface: Arc<Surface>,
    shutdown: CancellationToken,
    cut: CancellationToken,
) {
    let _permit = permit;
    // Answers are written whole, so waiting for more to send only delays them. A socket that refuses is closed already.
    let _ = stream.set_nodelay(true);
    surface.meters.connections.increment(1.0);
    let service = service_fn(|request| {
        let surface = Arc::clone(&surface);
        async move { Ok::<_, Infallible>(surface.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(surface.shared.limits.head_timeout)
        .max_header_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => Some(ended),
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                biased;
                ended = connection.as_mut() => Some(ended),
                () = cut.cancelled() => None,
            }
        }
    };
    if let Some(Err(error)) = ended {
        tracing::debug!(listener = surface.listener.key(), %error, "a client's connection broke");
    }
    surface.meters.connections.decrement(1.0);
}
