//! `[listen]`: where the node listens.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Where the node listens. Port 0 takes any free port.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenSettings {
    /// The functions API: `POST /invoke`. Default: `127.0.0.1:3000`.
    pub functions: SocketAddr,
    /// The events API. Default: `127.0.0.1:4000`.
    pub events: SocketAddr,
    /// The config API: records, status, metrics. Default: `127.0.0.1:4001`.
    pub config: SocketAddr,
    /// Peers, TCP and UDP. Default: `127.0.0.1:7400`.
    pub peer: SocketAddr,
}

impl Default for ListenSettings {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            functions: loopback(3000),
            events: loopback(4000),
            config: loopback(4001),
            peer: loopback(7400),
        }
    }
}
