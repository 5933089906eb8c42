//! Listens for the runtime of one instance.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use protocol::Function;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::shared::Shared;
use super::{Instance, Lambda, connection};
use crate::AnswerLimits;
use crate::contract::End;
use crate::output::Running;

/// The Runtime API of one instance. It ends when this is dropped, or what [`Server::into_instance`] makes of it.
#[derive(Debug)]
pub(crate) struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    listener: Option<TcpListener>,
    closes: DropGuard,
}

/// How long what an instance wrote last is read when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(250);
/// The pause after a connection that could not be taken, as when there are too many files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Server {
    /// Listens at a port of its own, until `stop` is cancelled at the latest.
    ///
    /// # Errors
    /// When the address is none of this machine's, or no port is free.
    pub(crate) async fn bind(
        ip: IpAddr,
        function: &Function,
        lambda: &Lambda,
        limits: AnswerLimits,
        stop: &CancellationToken,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((ip, 0)).await?;
        let shared = Shared::new(function, lambda.clone(), limits, stop.child_token());
        Ok(Self {
            address: listener.local_addr()?,
            listener: Some(listener),
            closes: shared.closed.clone().drop_guard(),
            shared: Arc::new(shared),
        })
    }

    /// Where the runtime asks.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says where the instance is; requests from elsewhere are refused, and wait until this is said.
    pub(crate) fn is_at(&self, address: IpAddr) {
        let _ = self.shared.caller.set(address);
    }

    /// Cancelled when the runtime broke the protocol, so that its instance is to be replaced.
    pub(crate) fn broken(&self) -> CancellationToken {
        self.shared.broken.clone()
    }

    /// Begins to serve, in tasks of the tracker, until the instance ends.
    pub(crate) fn serve(&mut self, function: &Function, end: Arc<End>, tasks: &TaskTracker) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        let slots = usize::try_from(function.limits().concurrency).unwrap_or(usize::MAX);
        let connections_max = slots
            .saturating_mul(2)
            .saturating_add(self.shared.lambda.spare_connections)
            .min(Semaphore::MAX_PERMITS);
        let accepting = Accepting {
            listener,
            shared: Arc::clone(&self.shared),
            permits: Arc::new(Semaphore::new(connections_max)),
            connections_max,
            tasks: tasks.clone(),
        };
        let shared = Arc::clone(&self.shared);
        tasks.spawn(async move {
            let closed = shared.closed.clone();
            tokio::select! {
                () = closed.cancelled() => {}
                () = end.told() => accepting.last_words().await,
                () = accepting.run() => {}
            }
            shared.end();
        });
    }

    /// Waits until the runtime asks for its first invocation.
    ///
    /// # Errors
    /// When it says that it can not begin, and why.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        self.shared.ready.wait().await.clone()
    }

    /// The instance that it is the API of.
    pub(crate) fn into_instance(
        self,
        function: &Function,
        running: Arc<Running>,
        end: Arc<End>,
    ) -> super::LambdaInstance {
        super::LambdaInstance::new(
            Arc::new(Instance::new(self.shared, function, running, end)),
            self.closes,
        )
    }
}

/// What takes connections.
struct Accepting {
    listener: TcpListener,
    shared: Arc<Shared>,
    permits: Arc<Semaphore>,
    connections_max: usize,
    tasks: TaskTracker,
}

impl Accepting {
    async fn run(&self) {
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection to a Runtime API was not taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                self.shared.note_crowd(self.connections_max);
                continue;
            };
            let (shared, closed) = (Arc::clone(&self.shared), self.shared.closed.clone());
            self.tasks.spawn(async move {
                let served = connection::serve(shared, stream, from.ip());
                closed.run_until_cancelled(served).await;
                drop(permit);
            });
        }
    }

    /// The instance has ended: its connections are closed from the other side, and what came by them before is read.
    async fn last_words(&self) {
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        let read = self.permits.acquire_many(all);
        let _ = tokio::time::timeout(LAST_WORDS, read).await;
    }
}
