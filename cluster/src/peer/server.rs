//! Answers peers over HTTP/1.1 and mutual TLS.
//!
//! Each connection is one task; the handler's future is part of it, so a caller that hangs up drops it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use config::settings::ClusterSettings;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{PeerHandler, tls};
use crate::identity::Identity;
use crate::membership::Members;

mod answer;
mod callers;
mod connection;

use callers::Callers;

/// How long a draining node still answers "draining" on connections that stand: closing one that a request is on its way on would
/// look to its caller as if the function may have run.
const DRAIN_LINGER: Duration = Duration::from_millis(300);
/// How long to wait when the process has no file descriptor left for another connection.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// What a server needs.
#[derive(Debug)]
pub struct Args<'a> {
    /// The listener, bound already.
    pub listener: std::net::TcpListener,
    /// This node: its certificate is shown to callers.
    pub identity: &'a Identity,
    /// Bounds.
    pub settings: &'a ClusterSettings,
    /// Who may call.
    pub members: watch::Receiver<Arc<Members>>,
    /// Who answers.
    pub handler: Arc<dyn PeerHandler>,
    /// The most bytes a payload may have.
    pub body_bytes_max: usize,
    /// Ends the server at once when cancelled, with whatever is in flight.
    pub shutdown: CancellationToken,
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The listener is not usable.
    #[error("the peer listener is not usable")]
    Listener(#[source] std::io::Error),
    /// The certificate is not usable.
    #[error("this node's certificate is not usable")]
    Certificate(#[source] rustls::Error),
}

/// A running server. Dropping it ends it at once.
#[derive(Debug)]
pub struct PeerServer {
    shared: Arc<Shared>,
    tasks: TaskTracker,
}

/// What every connection shares.
struct Shared {
    acceptor: TlsAcceptor,
    handler: Arc<dyn PeerHandler>,
    callers: Callers,
    connections: Arc<Semaphore>,
    body_bytes_max: usize,
    is_draining: AtomicBool,
    /// No connection is accepted any more.
    closed: CancellationToken,
    /// Connections end when they have answered what they are at.
    quiet: CancellationToken,
    /// Connections end.
    stop: CancellationToken,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("is_draining", &self.is_draining)
            .finish_non_exhaustive()
    }
}

impl PeerServer {
    /// Starts to answer. Must be called within a runtime.
    ///
    /// # Errors
    /// When listener or certificate are not usable.
    pub fn start(args: Args<'_>) -> Result<Self, Error> {
        let Args {
            listener,
            identity,
            settings,
            members,
            handler,
            body_bytes_max,
            shutdown,
        } = args;
        listener.set_nonblocking(true).map_err(Error::Listener)?;
        let listener = TcpListener::from_std(listener).map_err(Error::Listener)?;
        let tls = tls::server_config(&identity.credentials()).map_err(Error::Certificate)?;
        let stop = shutdown.child_token();
        let shared = Arc::new(Shared {
            acceptor: TlsAcceptor::from(Arc::new(tls)),
            handler,
            callers: Callers::new(members, stop.clone()),
            connections: Arc::new(Semaphore::new(settings.peer_connections_max)),
            body_bytes_max,
            is_draining: AtomicBool::new(false),
            closed: stop.child_token(),
            quiet: stop.child_token(),
            stop,
        });
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&shared), tasks.clone()));
        tasks.spawn(callers::watch_members(Arc::clone(&shared)));
        Ok(Self { shared, tasks })
    }

    /// Whether it refuses new invocations.
    pub fn is_draining(&self) -> bool {
        self.shared.is_draining.load(Ordering::Acquire)
    }

    /// Drains: accepts no connection, refuses new invocations as draining, ends idle connections, and lets what is in flight
    /// finish until the deadline. When it returns, nothing of the server runs any more.
    pub async fn drain(&self, deadline: Instant) {
        self.shared.is_draining.store(true, Ordering::Release);
        self.shared.closed.cancel();
        self.tasks.close();
        sleep_until(deadline.min(Instant::now() + DRAIN_LINGER)).await;
        self.shared.quiet.cancel();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = sleep_until(deadline) => tracing::info!("calls of peers are cut off at the end of the drain"),
        }
        self.shared.stop.cancel();
        self.tasks.wait().await;
    }
}

impl Drop for PeerServer {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = shared.closed.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => admit(stream, &shared, &tasks),
            Err(error) => {
                tracing::debug!(%error, "a peer's connection was not accepted");
                sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Serves a connection, or closes it when there are too many.
fn admit(stream: TcpStream, shared: &Arc<Shared>, tasks: &TaskTracker) {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        metrics::counter!("hearth_peer_connections_shed_total").increment(1);
        return;
    };
    let shared = Arc::clone(shared);
    tasks.spawn(async move {
        connection::serve(stream, shared).await;
        drop(permit);
    });
}
