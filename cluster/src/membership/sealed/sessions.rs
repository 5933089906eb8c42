//! Who may still be replaying what: decides about each datagram, without any I/O.
//!
//! A datagram is delivered only if it names the receiver's present session and its counter is new. A session is random and made
//! at start, so nothing recorded before the receiver started can name it; the window takes each counter once. Together: **a
//! datagram is delivered at most once, and only by the process it was meant for**, whatever clocks say.
//!
//! A sender that does not know the receiver's session yet (first contact, or the receiver restarted) names another one. It is
//! told by a `Hello` and sends again. Hello is hardly longer than the shortest datagram, so it amplifies nothing.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::seal::{Kind, OVERHEAD_BYTES, Opened, Seal, Session, Unopened};
use super::window::Window;

/// The most bytes a datagram may have over IPv4.
pub(super) const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Senders whose counters are remembered. When more come, this end renews its session instead of forgetting one of them.
const SENDERS_MAX: usize = 1024;

/// Addresses whose sessions are remembered; one that is forgotten costs a Hello.
const ROUTES_MAX: usize = 4096;

/// Counters by which a Hello is matched to the address it answers for, of one address.
const RECENT_MAX: usize = 32;

/// What to do about a datagram that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Hand this gossip message on.
    Deliver(Vec<u8>),
    /// Send these to that address.
    Send(SocketAddr, Vec<Vec<u8>>),
    /// Nothing: a part of a message, or nothing held for who said hello.
    Nothing,
    /// Nothing but count it; an answer may tell the sender this end's session.
    Dropped(Dropped, Option<Vec<u8>>),
}

/// Why a datagram was dropped, as the metric's label says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Dropped {
    /// Too few bytes to be one of ours.
    Short,
    /// Another layout.
    Version,
    /// Another secret or cluster id, or altered on its way.
    Key,
    /// Well sealed, but with something unknown inside.
    Malformed,
    /// Seen before, or older than the window.
    Replay,
    /// Meant for an earlier incarnation of this node, or for another node.
    Stale,
    /// The rest of a message whose first part did not come.
    Incomplete,
    /// Sent by this very process: a seed is this node itself.
    Own,
    /// Came to the private loopback socket from elsewhere than its other end.
    Stray,
}

impl Dropped {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Version => "version",
            Self::Key => "key",
            Self::Malformed => "malformed",
            Self::Replay => "replay",
            Self::Stale => "stale",
            Self::Incomplete => "incomplete",
            Self::Own => "own",
            Self::Stray => "stray",
        }
    }
}

impl From<Unopened> for Dropped {
    fn from(unopened: Unopened) -> Self {
        match unopened {
            Unopened::Short => Self::Short,
            Unopened::Version => Self::Version,
            Unopened::Key => Self::Key,
            Unopened::Malformed => Self::Malformed,
        }
    }
}

/// What is known of the other ends.
#[derive(Debug)]
pub(super) struct Sessions {
    seal: Seal,
    senders: HashMap<Session, Sender>,
    routes: HashMap<SocketAddr, Route>,
    uses: u64,
}

#[derive(Debug)]
struct Sender {
    window: Window,
    first: Option<(u64, Vec<u8>)>,
}

/// How to address what goes to one address.
#[derive(Debug, Default)]
struct Route {
    session: Option<Session>,
    /// The last message, kept while the session is not known, to be sent again once it is.
    held: Option<Vec<u8>>,
    recent: VecDeque<u64>,
    used: u64,
}

impl Sessions {
    pub(super) fn new(keys: &[[u8; 32]], cluster_id: &str) -> Self {
        Self {
            seal: Seal::new(keys, cluster_id),
            senders: HashMap::new(),
            routes: HashMap::new(),
            uses: 0,
        }
    }

    /// Takes other keys, the first of which seals.
    pub(super) fn set_keys(&mut self, keys: &[[u8; 32]]) {
        self.seal.set_keys(keys);
    }

    /// Seals a message for an address: one datagram, or two when it does not fit into one.
    pub(super) fn outgoing(&mut self, address: SocketAddr, message: &[u8]) -> Vec<Vec<u8>> {
        let route = route(&mut self.routes, &mut self.uses, address);
        route.held = route.session.is_none().then(|| message.to_vec());
        seal_message(&mut self.seal, route, message)
    }

    /// Decides about a datagram.
    pub(super) fn incoming(&mut self, address: SocketAddr, datagram: &[u8]) -> Incoming {
        let opened = match self.seal.open(datagram) {
            Ok(opened) => opened,
            Err(unopened) => return Incoming::Dropped(unopened.into(), None),
        };
        if opened.from == self.seal.session() {
            return Incoming::Dropped(Dropped::Own, None);
        }
        if opened.to != self.seal.session() {
            return self.misaddressed(address, &opened);
        }
        if !self.senders.contains_key(&opened.from) && self.senders.len() >= SENDERS_MAX {
            self.seal.renew();
            self.senders.clear();
            return self.misaddressed(address, &opened);
        }
        let sender = self.senders.entry(opened.from).or_insert_with(|| Sender {
            window: Window::new(),
            first: None,
        });
        if !sender.window.accept(opened.counter) {
            return Incoming::Dropped(Dropped::Replay, None);
        }
        match opened.kind {
            Kind::Hello => return self.hello(address, &opened),
            Kind::First => sender.first = Some((opened.counter, opened.payload)),
            Kind::Rest => match sender.first.take() {
                Some((counter, mut message)) if counter.checked_add(1) == Some(opened.counter) => {
                    message.extend_from_slice(&opened.payload);
                    self.learn(address, opened.from);
                    return Incoming::Deliver(message);
                }
                _ => return Incoming::Dropped(Dropped::Incomplete, None),
            },
            Kind::Whole => {
                self.learn(address, opened.from);
                return Incoming::Deliver(opened.payload);
            }
        }
        Incoming::Nothing
    }

    /// Tells the sender this end's session, unless it answered itself: two ends never say hello to each other for ever.
    fn misaddressed(&mut self, address: SocketAddr, opened: &Opened) -> Incoming {
        if opened.kind == Kind::Hello {
            return Incoming::Dropped(Dropped::Stale, None);
        }
        let (_, hello) = self
            .seal
            .seal(Kind::Hello, opened.from, &opened.counter.to_be_bytes());
        if opened.to == Session::UNKNOWN {
            Incoming::Send(address, vec![hello])
        } else {
            Incoming::Dropped(Dropped::Stale, Some(hello))
        }
    }

    /// The address that was sent the answered datagram now has this session; it may answer from another address than it is reached at.
    fn hello(&mut self, address: SocketAddr, opened: &Opened) -> Incoming {
        let Ok(counter) = opened.payload.as_slice().try_into().map(u64::from_be_bytes) else {
            return Incoming::Dropped(Dropped::Malformed, None);
        };
        let answers = |route: &Route| route.recent.contains(&counter);
        let reached_at = match self.routes.get(&address) {
            Some(route) if answers(route) => Some(address),
            _ => self
                .routes
                .iter()
                .find(|(_, route)| answers(route))
                .map(|(address, _)| *address),
        };
        let Some(reached_at) = reached_at else {
            return Incoming::Nothing;
        };
        self.learn(reached_at, opened.from);
        let route = route(&mut self.routes, &mut self.uses, reached_at);
        match route.held.take() {
            Some(message) => {
                Incoming::Send(reached_at, seal_message(&mut self.seal, route, &message))
            }
            None => Incoming::Nothing,
        }
    }

    fn learn(&mut self, address: SocketAddr, session: Session) {
        route(&mut self.routes, &mut self.uses, address).session = Some(session);
    }
}

fn route<'a>(
    routes: &'a mut HashMap<SocketAddr, Route>,
    uses: &mut u64,
    address: SocketAddr,
) -> &'a mut Route {
    if routes.len() >= ROUTES_MAX && !routes.contains_key(&address) {
        let oldest = routes
            .iter()
            .min_by_key(|(_, route)| route.used)
            .map(|(address, _)| *address);
        oldest.and_then(|address| routes.remove(&address));
    }
    *uses += 1;
    let route = routes.entry(address).or_default();
    route.used = *uses;
    route
}

fn seal_message(seal: &mut Seal, route: &mut Route, message: &[u8]) -> Vec<Vec<u8>> {
    let to = route.session.unwrap_or(Session::UNKNOWN);
    let parts: &[(Kind, &[u8])] =
        match message.split_at_checked(DATAGRAM_BYTES_MAX - OVERHEAD_BYTES) {
            None | Some((_, [])) => &[(Kind::Whole, message)],
            Some((first, rest)) => &[(Kind::First, first), (Kind::Rest, rest)],
        };
    let mut datagrams = Vec::with_capacity(parts.len());
    for (kind, payload) in parts {
        let (counter, datagram) = seal.seal(*kind, to, payload);
        if route.recent.len() == RECENT_MAX {
            route.recent.pop_front();
        }
        route.recent.push_back(counter);
        datagrams.push(datagram);
    }
    datagrams
}

#[cfg(test)]
mod tests;
