//! The idle connections to every peer, and which peers are gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use crate::identity::Credentials;
use crate::membership::Members;
use crate::peer::{Error, Fingerprint, Peer, tls};

/// How long a connection may lie idle: shorter than firewalls forget one that is silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connections to one incarnation of a peer.
#[derive(Debug)]
pub(super) struct Line {
    /// The peer.
    pub(super) peer: Peer,
    tls: Arc<ClientConfig>,
    idle_max: usize,
    connect_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    /// The connection kept for probes.
    probe: Mutex<Option<Connection>>,
    /// Cancelled when this incarnation of the peer is gone.
    pub(super) gone: CancellationToken,
    /// Gossip does not hear the peer, and it is being probed for that.
    is_doubted: AtomicBool,
}

/// What gossip says of the peer at the other end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Alive,
    /// Not heard.
    Doubtful,
    /// Forgotten, or restarted with another certificate.
    Gone,
}

impl Line {
    /// Whether gossip does not hear the peer.
    pub(super) fn is_doubted(&self) -> bool {
        self.is_doubted.load(Ordering::Relaxed)
    }

    /// Takes the connection that was put aside last: it is the likeliest to stand, and the others may age.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop()
            .filter(|connection| connection.idle_since.elapsed() < IDLE_TIMEOUT)
    }

    /// Puts a connection aside for the next call.
    pub(super) fn put(&self, mut connection: Connection) {
        connection.idle_since = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.idle_max && !self.gone.is_cancelled() {
            idle.push(connection);
        }
    }

    /// Opens another connection.
    pub(super) async fn open(&self) -> Result<Connection, Error> {
        let address = self.peer.address;
        let refused = |why: String| Error::Refused {
            peer: self.peer.name.clone(),
            why,
            is_answer: false,
        };
        match timeout(
            self.connect_timeout,
            Connection::open(address, Arc::clone(&self.tls)),
        )
        .await
        {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(format!("connecting to {address} failed: {error}"))),
            Err(_) => Err(refused(format!(
                "connecting to {address} took over {:?}",
                self.connect_timeout
            ))),
        }
    }

    /// Takes the connection kept for probes.
    pub(super) fn take_probe(&self) -> Option<Connection> {
        self.probe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// Keeps a connection for probes.
    pub(super) fn put_probe(&self, connection: Connection) {
        if !self.gone.is_cancelled() {
            *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
    }

    fn end(&self) {
        self.gone.cancel();
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.probe
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    fn drop_aged(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.idle_since.elapsed() < IDLE_TIMEOUT);
    }
}

/// The lines to all peers.
#[derive(Debug)]
pub(super) struct Lines {
    credentials: Arc<Credentials>,
    idle_max: usize,
    connect_timeout: Duration,
    lines: Mutex<HashMap<(SocketAddr, Fingerprint), Arc<Line>>>,
}

impl Lines {
    pub(super) fn new(
        credentials: Arc<Credentials>,
        idle_max: usize,
        connect_timeout: Duration,
    ) -> Self {
        Self {
            credentials,
            idle_max,
            connect_timeout,
            lines: Mutex::default(),
        }
    }

    /// The line to a peer, made at its first call.
    pub(super) fn to(&self, peer: &Peer) -> Result<Arc<Line>, Error> {
        let mut lines = self.lines();
        let key = (peer.address, peer.fingerprint);
        if let Some(line) = lines.get(&key) {
            return Ok(Arc::clone(line));
        }
        let tls = tls::client_config(&self.credentials, peer.fingerprint).map_err(|error| {
            Error::Refused {
                peer: peer.name.clone(),
                why: format!("no TLS settings: {error}"),
                is_answer: false,
            }
        })?;
        let line = Arc::new(Line {
            peer: peer.clone(),
            tls: Arc::new(tls),
            idle_max: self.idle_max,
            connect_timeout: self.connect_timeout,
            idle: Mutex::default(),
            probe: Mutex::default(),
            gone: CancellationToken::new(),
            is_doubted: AtomicBool::new(false),
        });
        lines.insert(key, Arc::clone(&line));
        Ok(line)
    }

    /// Ends the lines to peers that gossip has forgotten or that restarted, and gives those to peers that it newly does not hear.
    pub(super) fn update(&self, members: &Members) -> Vec<Arc<Line>> {
        let mut lines = self.lines();
        lines
            .extract_if(|_, line| standing(&line.peer, members) == Standing::Gone)
            .for_each(|(_, line)| line.end());
        let doubtful = lines.values().filter(|line| {
            let is_doubtful = standing(&line.peer, members) == Standing::Doubtful;
            !line.is_doubted.swap(is_doubtful, Ordering::Relaxed) && is_doubtful
        });
        doubtful.cloned().collect()
    }

    /// Ends a line whose peer gave no sign of life.
    pub(super) fn end_one(&self, line: &Line) {
        self.lines()
            .remove(&(line.peer.address, line.peer.fingerprint));
        line.end();
    }

    /// Ends every line.
    pub(super) fn end(&self) {
        self.lines().drain().for_each(|(_, line)| line.end());
    }

    /// Closes connections that lay idle for long.
    pub(super) fn drop_aged(&self) {
        self.lines().values().for_each(|line| line.drop_aged());
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<(SocketAddr, Fingerprint), Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn standing(peer: &Peer, members: &Members) -> Standing {
    match members.get(&peer.id) {
        Some(member)
            if member.peer.address != peer.address
                || member.peer.fingerprint != peer.fingerprint =>
        {
            Standing::Gone
        }
        Some(member) if member.is_alive => Standing::Alive,
        Some(_) => Standing::Doubtful,
        None => Standing::Gone,
    }
}
