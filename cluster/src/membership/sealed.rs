//! The sealed transport: chitchat's own protocol knows no secrets, so every datagram is sealed on its way out and opened on its way in.
//!
//! chitchat does not let others encode its messages, so its own UDP socket does that: it is opened on a private loopback address
//! ([`SealedSocket::inner`]) and talks only to a second private socket, the shim. Both check where a datagram comes from: the
//! shim is connected to the inner socket, and what the inner socket receives from elsewhere is dropped here. A port of a bound
//! socket can not be taken by another process, so nothing unsealed gets in.
//!
//! ```text
//! chitchat ─► inner ─► shim ─ seal ─► the real socket ─► network
//! chitchat ◄─ inner ◄─ shim ◄─ open ─ the real socket ◄─ network
//! ```

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use chitchat::ChitchatEnvelope;
use chitchat::transport::{RecvOutcome, SendOutcome, Socket, Transport, UdpTransport};
use config::Keyring;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};

mod seal;
mod sessions;
mod window;

use sessions::{DATAGRAM_BYTES_MAX, Dropped, Incoming, Sessions};

/// How long a datagram may take between the two private sockets. The kernel hands it over at once; only a stalled machine or a
/// datagram that chitchat can not read makes this pass.
const HANDOVER_TIMEOUT: Duration = Duration::from_millis(500);

/// How often a log line says that datagrams are dropped because they are sealed with another secret.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Opens the one sealed socket of a node over a socket that is bound already.
pub(super) struct SealedTransport {
    outside: Mutex<Option<std::net::UdpSocket>>,
    keyring: watch::Receiver<Keyring>,
    cluster_id: String,
}

impl SealedTransport {
    pub(super) fn new(
        outside: std::net::UdpSocket,
        keyring: watch::Receiver<Keyring>,
        cluster_id: &str,
    ) -> Self {
        Self {
            outside: Mutex::new(Some(outside)),
            keyring,
            cluster_id: cluster_id.to_owned(),
        }
    }

    async fn open_sealed(&self) -> anyhow::Result<SealedSocket> {
        let outside = self
            .outside
            .lock()
            .ok()
            .and_then(|mut outside| outside.take());
        let outside = outside.context("the gossip socket was opened before")?;
        outside
            .set_nonblocking(true)
            .context("could not make the gossip socket non-blocking")?;
        let outside =
            UdpSocket::from_std(outside).context("could not register the gossip socket")?;
        ready_to_send(&outside).await?;
        let inner = UdpTransport.open((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let shim = shim(inner.local_addr()?).await?;
        let mut keyring = self.keyring.clone();
        let keys = gossip_keys(&keyring.borrow_and_update(), &self.cluster_id);
        Ok(SealedSocket {
            outside,
            inner,
            shim,
            sessions: Sessions::new(&keys, &self.cluster_id),
            keyring,
            cluster_id: self.cluster_id.clone(),
            buffer: vec![0; DATAGRAM_BYTES_MAX].into(),
            handed_over: None,
            warned: None,
        })
    }
}

impl fmt::Debug for SealedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedTransport")
            .field("cluster_id", &self.cluster_id)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for SealedTransport {
    async fn open(&self, _listen_address: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        Ok(Box::new(self.open_sealed().await?))
    }
}

async fn shim(inner: SocketAddr) -> anyhow::Result<UdpSocket> {
    let shim = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("could not bind a loopback socket")?;
    shim.connect(inner)
        .await
        .context("could not connect a loopback socket")?;
    ready_to_send(&shim).await?;
    Ok(shim)
}

/// Waits until a fresh socket is known to take datagrams: `try_send` refuses one before the runtime has looked at it.
async fn ready_to_send(socket: &UdpSocket) -> anyhow::Result<()> {
    socket
        .writable()
        .await
        .context("a socket takes no datagrams")
}

struct SealedSocket {
    outside: UdpSocket,
    inner: Box<dyn Socket>,
    shim: UdpSocket,
    sessions: Sessions,
    /// What the sessions' keys are made from; looked at before each datagram.
    keyring: watch::Receiver<Keyring>,
    cluster_id: String,
    buffer: Box<[u8]>,
    /// The message that is on its way from the shim to the inner socket: one at a time, so that its sender is known when it
    /// comes out there. It is part of the socket and not of `recv`'s future, which may be dropped at any await.
    handed_over: Option<HandedOver>,
    warned: Option<Instant>,
}

struct HandedOver {
    from: SocketAddr,
    until: Instant,
}

#[async_trait]
impl Socket for SealedSocket {
    fn local_addr(&self) -> anyhow::Result<SocketAddr> {
        self.outside
            .local_addr()
            .context("the gossip socket has no address")
    }

    async fn send(
        &mut self,
        to: SocketAddr,
        envelope: ChitchatEnvelope,
    ) -> anyhow::Result<SendOutcome> {
        // What an earlier, timed-out send left behind would be taken for this message.
        while self.shim.try_recv(&mut self.buffer).is_ok() {}
        let outcome = self.inner.send(self.shim.local_addr()?, envelope).await?;
        match timeout(HANDOVER_TIMEOUT, self.shim.recv(&mut self.buffer)).await {
            Ok(Ok(bytes)) => {
                self.take_new_keys();
                let datagrams = self.sessions.outgoing(to, &self.buffer[..bytes]);
                self.send_out(to, &datagrams);
            }
            Ok(Err(error)) => tracing::debug!(%to, %error, "a gossip message was not sent"),
            Err(_) => tracing::debug!(%to, "a gossip message was not handed over in time"),
        }
        Ok(outcome)
    }

    /// Cancel safe: a datagram is read and handed over without an await between, and `handed_over` survives the future.
    async fn recv(&mut self) -> anyhow::Result<RecvOutcome> {
        loop {
            if let Some(outcome) = self.take_handed_over().await? {
                return Ok(outcome);
            }
            match self.outside.recv_from(&mut self.buffer).await {
                Ok((bytes, from)) => self.accept(bytes, from),
                Err(error) if is_transient(&error) => {
                    tracing::debug!(%error, "the gossip socket reported an error");
                }
                Err(error) => return Err(error).context("the gossip socket is broken"),
            }
        }
    }
}

impl SealedSocket {
    /// Waits for the message that was handed to the inner socket, if there is one.
    async fn take_handed_over(&mut self) -> anyhow::Result<Option<RecvOutcome>> {
        while let Some(HandedOver { from, until }) = self.handed_over {
            match timeout_at(until, self.inner.recv()).await {
                Ok(outcome) => {
                    let outcome = outcome?;
                    if outcome.from_addr == self.shim.local_addr()? {
                        self.handed_over = None;
                        return Ok(Some(RecvOutcome {
                            from_addr: from,
                            ..outcome
                        }));
                    }
                    count(Dropped::Stray);
                }
                Err(_) => {
                    // chitchat could not read it. Should it come out late after all, it comes from a shim that is gone.
                    count(Dropped::Malformed);
                    self.shim = shim(self.inner.local_addr()?).await?;
                    self.handed_over = None;
                }
            }
        }
        Ok(None)
    }

    /// Seals and opens with the secrets that the cluster has now.
    fn take_new_keys(&mut self) {
        if self.keyring.has_changed().unwrap_or(false) {
            let keys = gossip_keys(&self.keyring.borrow_and_update(), &self.cluster_id);
            self.sessions.set_keys(&keys);
        }
    }

    fn accept(&mut self, bytes: usize, from: SocketAddr) {
        self.take_new_keys();
        match self.sessions.incoming(from, &self.buffer[..bytes]) {
            Incoming::Deliver(message) => match self.shim.try_send(&message) {
                Ok(_) => {
                    self.handed_over = Some(HandedOver {
                        from,
                        until: Instant::now() + HANDOVER_TIMEOUT,
                    });
                }
                Err(error) => {
                    tracing::debug!(%from, %error, "a gossip message was not handed over");
                }
            },
            Incoming::Send(to, datagrams) => self.send_out(to, &datagrams),
            Incoming::Nothing => {}
            Incoming::Dropped(dropped, answer) => {
                count(dropped);
                if dropped == Dropped::Key {
                    self.warn(from);
                }
                self.send_out(from, answer.as_slice());
            }
        }
    }

    /// Sends without waiting: gossip that does not fit into the socket's buffer is lost, and said again in the next round.
    fn send_out(&self, to: SocketAddr, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            if let Err(error) = self.outside.try_send_to(datagram, to) {
                metrics::counter!("hearth_gossip_send_errors_total").increment(1);
                tracing::debug!(%to, %error, "a gossip datagram was not sent");
            }
        }
    }

    fn warn(&mut self, from: SocketAddr) {
        let now = Instant::now();
        if self
            .warned
            .is_none_or(|warned| now.duration_since(warned) >= WARNING_INTERVAL)
        {
            self.warned = Some(now);
            tracing::warn!(%from, "gossip is dropped: it is sealed with another cluster secret or cluster id");
        }
    }
}

/// The keys that gossip is sealed with, the first one, and opened with.
fn gossip_keys(keyring: &Keyring, cluster_id: &str) -> Vec<[u8; 32]> {
    let secrets = keyring.secrets().iter();
    secrets
        .map(|secret| secret.derive("gossip", cluster_id))
        .collect()
}

fn count(dropped: Dropped) {
    metrics::counter!("hearth_gossip_dropped_total", "reason" => dropped.as_str()).increment(1);
}

/// Errors that say something of one datagram or of one moment, not of the socket.
fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionRefused
            | Kind::ConnectionReset
            | Kind::HostUnreachable
            | Kind::Interrupted
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::OutOfMemory
            | Kind::WouldBlock
    )
}

#[cfg(test)]
mod tests;
