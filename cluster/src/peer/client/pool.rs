//! The idle connections to every peer, and which peers are gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Connection;
use crate::identity::Identity;
use crate::membership::Members;
use crate::peer::{Error, Fingerprint, Peer, tls};

/// How long a connection may lie idle: shorter than firewalls forget one that is silent.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The connections to one incarnation of a peer.
#[derive(Debug)]
pub(super) struct Line {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    idle_max: usize,
    connect_timeout: Duration,
    idle: Mutex<Vec<Connection>>,
    /// The connection kept for probes.
    probe: Mutex<Option<Connection>>,
    /// Cancelled when gossip says that this incarnation is gone.
    pub(super) gone: CancellationToken,
}

impl Line {
    /// Takes the connection that was put aside last: it is the likeliest to stand, and the others may age.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.pop().filter(|connection| connection.idle_since.elapsed() < IDLE_TIMEOUT)
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
    pub(super) async fn open(&self, peer: &Peer) -> Result<Connection, Error> {
        let refused = |why: String| Error::Refused { peer: peer.name.clone(), why };
        match timeout(self.connect_timeout, Connection::open(self.address, Arc::clone(&self.tls))).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(refused(format!("connecting to {} failed: {error}", self.address))),
            Err(_) => Err(refused(format!("connecting to {} took over {:?}", self.address, self.connect_timeout))),
        }
    }

    /// Takes the connection kept for probes.
    pub(super) fn take_probe(&self) -> Option<Connection> {
        self.probe.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Keeps a connection for probes.
    pub(super) fn put_probe(&self, connection: Connection) {
        if !self.gone.is_cancelled() {
            *self.probe.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
    }

    fn end(&self) {
        self.gone.cancel();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.probe.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn drop_aged(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.idle_since.elapsed() < IDLE_TIMEOUT);
    }
}

/// The lines to all peers.
#[derive(Debug)]
pub(super) struct Lines {
    identity: Identity,
    idle_max: usize,
    connect_timeout: Duration,
    lines: Mutex<HashMap<(SocketAddr, Fingerprint), Arc<Line>>>,
}

impl Lines {
    pub(super) fn new(identity: Identity, idle_max: usize, connect_timeout: Duration) -> Self {
        Self { identity, idle_max, connect_timeout, lines: Mutex::default() }
    }

    /// The line to a peer, made at its first call.
    pub(super) fn to(&self, peer: &Peer) -> Result<Arc<Line>, Error> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.address, peer.fingerprint);
        if let Some(line) = lines.get(&key) {
            return Ok(Arc::clone(line));
        }
        let tls = tls::client_config(&self.identity, peer.fingerprint)
            .map_err(|error| Error::Refused { peer: peer.name.clone(), why: format!("no TLS settings: {error}") })?;
        let line = Arc::new(Line {
            address: peer.address,
            tls: Arc::new(tls),
            idle_max: self.idle_max,
            connect_timeout: self.connect_timeout,
            idle: Mutex::default(),
            probe: Mutex::default(),
            gone: CancellationToken::new(),
        });
        lines.insert(key, Arc::clone(&line));
        Ok(line)
    }

    /// Ends the lines to all that are not alive in `members` any more: dead, forgotten, or restarted with another certificate.
    pub(super) fn keep_alive_in(&self, members: &Members) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = lines.extract_if(|(address, fingerprint), _| {
            !members.values().any(|member| {
                member.is_alive && member.peer.address == *address && member.peer.fingerprint == *fingerprint
            })
        });
        ended.for_each(|(_, line)| line.end());
    }

    /// Closes connections that lay idle for long.
    pub(super) fn drop_aged(&self) {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.values().for_each(|line| line.drop_aged());
    }

    /// Ends every line.
    pub(super) fn end(&self) {
        self.keep_alive_in(&Members::new());
    }
}
