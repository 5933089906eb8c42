//! `[listen]`: where the node listens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::Error;
use super::field::section;

section! {
    /// Where the node listens. Port 0 takes any free port.
    pub struct ListenSettings {
        /// The functions API: `POST /invoke`.
        pub functions: SocketAddr = loopback(3000),
        /// The events API.
        pub events: SocketAddr = loopback(4000),
        /// The config API: records, status, metrics.
        pub config: SocketAddr = loopback(4001),
        /// Peers, TCP and UDP.
        pub peer: SocketAddr = loopback(7400),
        /// The port that functions call their node at (`HEARTH_URL`), on 127.0.0.1 and on the gateway of the containers' network; 0 takes one from 28000 to 32699 that follows from the node's id.
        pub inner_port: u16 = 0,
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

impl ListenSettings {
    /// The listeners of clients, by key.
    pub(super) fn of_clients(&self) -> [(&'static str, SocketAddr); 3] {
        [
            ("listen.functions", self.functions),
            ("listen.events", self.events),
            ("listen.config", self.config),
        ]
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let all = [
            ("listen.functions", self.functions),
            ("listen.events", self.events),
            ("listen.config", self.config),
            ("listen.peer", self.peer),
        ];
        for (index, (key, address)) in all.iter().enumerate() {
            let twin = all[..index]
                .iter()
                .find(|(_, other)| address.port() != 0 && address == other);
            if let Some((other, _)) = twin {
                return Err(Error::new(
                    *key,
                    address,
                    format!("an address that {other} does not have already"),
                ));
            }
        }
        Ok(())
    }
}
