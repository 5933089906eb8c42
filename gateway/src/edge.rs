//! The listeners of a node: those of clients, bound, served and drained together, and the one of instances, which is drained last.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use config::Settings;
use config::settings::{CertificateFiles, TlsSettings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::{self, Instant};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{Access, Guard};
use crate::events::Emitter;
use crate::inner::{Callers, Inner, InnerListener};
use crate::invoke::Propagate;
use crate::meters::{EventMeters, InvocationMeters};
use crate::node::Node;
use crate::surface::{RenderMetrics, Shared, Surface};
use crate::{admin, deletion, functions, headers};

mod connection;
mod head_timer;
mod limits;
mod progress;
mod repoll;
mod tls;

pub(crate) use limits::{EdgeLimits, NoRoom, Room};
pub(crate) use tls::Certificate;
pub use tls::CertificateError;

/// Connections the kernel keeps for a listener that is not accepting for a moment.
const BACKLOG: u32 = 1024;

/// The three listeners, bound; clients connect from then on, and wait until the edge is served.
#[derive(Debug)]
pub struct Listeners {
    functions: TcpListener,
    events: TcpListener,
    config: TcpListener,
    addresses: Addresses,
    certificates: Certificates,
}

/// The certificates of those listeners that speak TLS.
#[derive(Debug, Clone, Default)]
struct Certificates {
    functions: Option<Arc<Certificate>>,
    events: Option<Arc<Certificate>>,
    config: Option<Arc<Certificate>>,
}

/// Why the edge can not be had.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A listener could not be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate can not be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The HTTP edge, ready to be served.
pub struct Edge {
    listeners: [(TcpListener, Surface); 3],
    inner: Option<Inner>,
    addresses: Addresses,
    shared: Arc<Shared>,
    reload_interval: Duration,
    deletion_interval: Duration,
}

/// Where the edge listens, with the ports that the system chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// The functions API.
    pub functions: SocketAddr,
    /// The events API.
    pub events: SocketAddr,
    /// The config API.
    pub config: SocketAddr,
}

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{key} {address}: {}", os_text(source))]
pub struct BindError {
    /// The setting that names the address, such as `listen.functions`.
    pub key: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// The edge while it is served.
#[derive(Debug)]
#[must_use = "the connections are left to themselves when it is dropped; finish() and end() wait for them"]
pub struct Serving {
    clients: Connections,
    instances: Connections,
    instances_closing: CancellationToken,
}

/// Connections that are waited for together.
#[derive(Debug, Clone, Default)]
struct Connections {
    tasks: TaskTracker,
    cut: CancellationToken,
}

/// One of the listeners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    Functions,
    Events,
    Config,
    /// For instances of the node's functions.
    Inner,
}

impl Listener {
    /// The setting of its address.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Functions => "listen.functions",
            Self::Events => "listen.events",
            Self::Config => "listen.config",
            Self::Inner => "listen.inner_port",
        }
    }

    /// Its name in metrics.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Functions => "functions",
            Self::Events => "events",
            Self::Config => "config",
            Self::Inner => "inner",
        }
    }
}

impl Listeners {
    /// Binds all three, and reads their certificates.
    ///
    /// # Errors
    /// [`ListenError`] for the first certificate that can not be used, or address that can not be had.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn bind(settings: &Settings) -> Result<Self, ListenError> {
        let certificates = Certificates::load(&settings.tls)?;
        let (functions, functions_address) =
            listen(Listener::Functions, settings.listen.functions)?;
        let (events, events_address) = listen(Listener::Events, settings.listen.events)?;
        let (config, config_address) = listen(Listener::Config, settings.listen.config)?;
        let addresses = Addresses {
            functions: functions_address,
            events: events_address,
            config: config_address,
        };
        Ok(Self {
            functions,
            events,
            config,
            addresses,
            certificates,
        })
    }

    /// Where they listen.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }
}

impl Certificates {
    fn load(settings: &TlsSettings) -> Result<Self, CertificateError> {
        let load = |listener, files: Option<CertificateFiles<'_>>| {
            let load = |files| Certificate::load(listener, files, settings.handshake_timeout);
            files.map(load).transpose()
        };
        Ok(Self {
            functions: load(Listener::Functions, settings.functions())?,
            events: load(Listener::Events, settings.events())?,
            config: load(Listener::Config, settings.config())?,
        })
    }
}

impl Edge {
    /// Puts the edge together. The recorder of metrics must be installed by then, as handles are looked up once.
    ///
    /// Without `propagate` a request's trace context is handed on as it came and no span is made.
    pub fn new(
        listeners: Listeners,
        settings: &Settings,
        node: impl Node,
        emitter: Arc<Emitter>,
        access: Access,
        render_metrics: RenderMetrics,
        propagate: Option<Propagate>,
    ) -> Self {
        let Listeners {
            functions,
            events,
            config,
            addresses,
            certificates,
        } = listeners;
        let [functions_scheme, events_scheme, config_scheme] = settings.tls.schemes();
        let own = [
            (functions_scheme, addresses.functions),
            (config_scheme, addresses.config),
        ];
        let shared = Arc::new(Shared {
            places: [
                (functions_scheme, addresses.functions.port()),
                (events_scheme, addresses.events.port()),
                (config_scheme, addresses.config.port()),
            ],
            node_name: headers::text(node.name()),
            node: Arc::new(node),
            guard: Guard::new(&settings.auth, access, own),
            in_flight: Semaphore::new(settings.limits.in_flight_max.min(Semaphore::MAX_PERMITS)),
            limits: EdgeLimits::new(settings.limits.clone()),
            lambda: settings.lambda.clone(),
            propagate,
            render_metrics,
            invocations: InvocationMeters::new(),
            events: EventMeters::new(),
            emitter,
            queued_age_max: settings.queue.max_age,
            start_timeout: settings.node.start_timeout,
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
        });
        let hsts = settings.tls.hsts();
        let admin = admin::router(admin::routes(settings.node.debug_kill));
        let listeners = [
            (
                functions,
                Surface::new(Listener::Functions, &shared, functions::router())
                    .with_certificate(certificates.functions, hsts),
            ),
            (
                events,
                Surface::new(Listener::Events, &shared, Router::new())
                    .with_certificate(certificates.events, hsts),
            ),
            (
                config,
                Surface::new(Listener::Config, &shared, admin)
                    .with_certificate(certificates.config, hsts),
            ),
        ];
        Self {
            listeners,
            inner: None,
            addresses,
            shared,
            reload_interval: settings.tls.reload_interval,
            deletion_interval: settings.auth.deletion_interval,
        }
    }

    /// Lets instances of the node's functions in, on a listener of their own.
    #[must_use]
    pub fn with_inner(mut self, listener: InnerListener, callers: Arc<dyn Callers>) -> Self {
        let surface = Arc::new(Surface::inner(&self.shared, callers));
        self.inner = Some(Inner { listener, surface });
        self
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Starts to accept, in tasks of `tracker`. When `shutdown` is cancelled it stops accepting clients, closes idle connections a
    /// moment later, and ends each other one after the answer in flight; [`Serving::finish`] waits for that and bounds it. Instances
    /// are served until [`Serving::end`].
    pub fn serve(self, shutdown: CancellationToken, tracker: &TaskTracker) -> Serving {
        let clients = Connections {
            tasks: self.shared.tasks.clone(),
            ..Connections::default()
        };
        let instances = Connections::default();
        for (listener, surface) in self.listeners {
            if let Some(certificate) = &surface.certificate {
                let fresh = Arc::clone(certificate);
                let fresh = fresh.keep_fresh(self.reload_interval, shutdown.clone());
                tracker.spawn(clients.tasks.track_future(fresh));
            }
            clients.accept(listener, Arc::new(surface), tracker);
        }
        if let Ok(accounts) = self.shared.guard.accounts() {
            let (shared, accounts) = (Arc::clone(&self.shared), accounts.clone());
            let interval = self.deletion_interval;
            let sweep = async move { deletion::sweep(&*shared.node, &accounts, interval).await };
            tracker.spawn(shutdown.clone().run_until_cancelled_owned(sweep));
        }
        let closing = self.shared.closing.clone();
        tracker.spawn(clients.tasks.track_future(async move {
            shutdown.cancelled().await;
            closing.cancel();
        }));
        let instances_closing = match self.inner {
            Some(inner) => instances.accept_inner(inner, tracker),
            None => CancellationToken::new(),
        };
        Serving {
            clients,
            instances,
            instances_closing,
        }
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// Waits, after shutdown was cancelled, until the last client's connection has ended, and cuts those that are left at the
    /// deadline. Returns whether all ended by themselves. Instances are still served.
    pub async fn finish(&self, deadline: Instant) -> bool {
        self.clients.finish(deadline).await
    }

    /// Stops to serve instances, and waits for their connections as [`Serving::finish`] does for those of clients.
    pub async fn end(self, deadline: Instant) -> bool {
        self.instances_closing.cancel();
        self.instances.finish(deadline).await
    }
}

impl Connections {
    fn accept(&self, listener: TcpListener, surface: Arc<Surface>, tracker: &TaskTracker) {
        let accepting = connection::accept(
            listener,
            surface,
            self.cut.clone(),
            tracker.clone(),
            self.tasks.clone(),
        );
        tracker.spawn(self.tasks.track_future(accepting));
    }

    /// Accepts on the inner listener and on those that are added to it. Returns what ends that.
    fn accept_inner(&self, inner: Inner, tracker: &TaskTracker) -> CancellationToken {
        let Inner { listener, surface } = inner;
        let InnerListener {
            local, mut more, ..
        } = listener;
        let closing = surface.closing.clone();
        self.accept(local, Arc::clone(&surface), tracker);
        let (connections, tasks) = (self.clone(), tracker.clone());
        tracker.spawn(self.tasks.track_future(async move {
            while let Some(Some(listener)) = surface.closing.run_until_cancelled(more.recv()).await
            {
                connections.accept(listener, Arc::clone(&surface), &tasks);
            }
        }));
        closing
    }

    async fn finish(&self, deadline: Instant) -> bool {
        self.tasks.close();
        let ended = time::timeout_at(deadline, self.tasks.wait()).await;
        self.cut.cancel();
        self.tasks.wait().await;
        ended.is_ok()
    }
}

pub(crate) fn listen(
    listener: Listener,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        // A restarted node must not wait until the kernel forgets the connections of its predecessor.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound().map_err(|source| BindError {
        key: listener.key(),
        address,
        source,
    })
}

/// The system's message without its number, as a part of a sentence.
fn os_text(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters
        .next()
        .map(|first| first.to_lowercase().chain(letters).collect())
        .unwrap_or_default()
}
