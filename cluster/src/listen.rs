//! The sockets peers reach a node at: TCP for calls and UDP for gossip, on one port.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// How often another free port is tried, when the one TCP got is taken over UDP.
const ATTEMPTS: usize = 16;

/// A port that is bound over TCP and UDP.
#[derive(Debug)]
pub struct PeerSockets {
    /// For calls.
    pub calls: TcpListener,
    /// For gossip.
    pub gossip: UdpSocket,
    /// Where both are bound.
    pub address: SocketAddr,
}

impl PeerSockets {
    /// Binds both. Port 0 takes a port that is free over both.
    ///
    /// # Errors
    /// When the address is not one of this host, or the port is taken.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let mut attempt = 1;
        loop {
            let calls = TcpListener::bind(address)?;
            let bound = calls.local_addr()?;
            match UdpSocket::bind(bound) {
                Ok(gossip) => {
                    calls.set_nonblocking(true)?;
                    gossip.set_nonblocking(true)?;
                    return Ok(Self {
                        calls,
                        gossip,
                        address: bound,
                    });
                }
                Err(error)
                    if address.port() == 0
                        && attempt < ATTEMPTS
                        && error.kind() == io::ErrorKind::AddrInUse =>
                {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
