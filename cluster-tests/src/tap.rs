//! What nodes gossip, read on its way.
//!
//! ```text
//! node i at 127.0.0.1:P ─► 127.0.0.2:Q  the tap notes it  127.0.0.2:P ─► node j at 127.0.0.1:Q
//! ```
//!
//! Nodes listen on 127.0.0.1 and advertise the same port of 127.0.0.2, where the tap has an end for each of them. It hands a
//! datagram on from the end of its sender, so that the answer comes through the tap as well. What peers say over TCP passes.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::link::Link;

/// The address that nodes with a tap between them advertise.
pub(crate) const ADVERTISED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// The most bytes a datagram may have over IPv4.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// The ends by the ports of their nodes.
type Ends = BTreeMap<u16, UdpSocket>;

/// Carries what some nodes send each other, until it is dropped.
#[derive(Debug)]
pub struct Tap {
    noted: Arc<Mutex<Vec<Vec<u8>>>>,
    _carrying: Vec<AbortOnDropHandle<()>>,
    _links: Vec<Link>,
}

impl Tap {
    /// Lays a tap between nodes with these peer ports.
    ///
    /// # Panics
    /// When a port is taken at [`ADVERTISED`].
    pub(crate) async fn between(ports: &[u16]) -> Self {
        let (mut ends, mut links) = (Ends::new(), Vec::new());
        for &port in ports {
            let end = UdpSocket::bind((ADVERTISED, port)).await;
            ends.insert(port, end.expect("bind an end of the tap"));
            let node = format!("{}:{port}", Ipv4Addr::LOCALHOST);
            links.push(Link::between((ADVERTISED, port).into(), node).await);
        }
        let (ends, noted, tasks) = (Arc::new(ends), Arc::default(), TaskTracker::new());
        let carry = |&port| tasks.spawn(carry(port, Arc::clone(&ends), Arc::clone(&noted)));
        Self {
            _carrying: (ports.iter().map(carry).map(AbortOnDropHandle::new)).collect(),
            _links: links,
            noted,
        }
    }

    /// All datagrams that came so far, in their order.
    pub fn datagrams(&self) -> Vec<Vec<u8>> {
        self.noted.lock().expect("no holder panics").clone()
    }
}

/// Notes what is sent to a node, and hands on what comes from others of them.
async fn carry(port: u16, ends: Arc<Ends>, noted: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    while let Ok((bytes, from)) = ends[&port].recv_from(&mut datagram).await {
        let datagram = &datagram[..bytes];
        noted
            .lock()
            .expect("no holder panics")
            .push(datagram.to_vec());
        if let Some(end) = ends.get(&from.port()) {
            // One that is lost is sent again in another round.
            let _ = end.send_to(datagram, (Ipv4Addr::LOCALHOST, port)).await;
        }
    }
}
