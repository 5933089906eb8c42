//! [`RouteTable`]: what this node knows of its peers, for `pick`.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use cluster::membership::{LocalState, Member};
use cluster::peer::Peer;
use config::recurring::{Due, Recurring};
use protocol::{Generation, InstanceKey, NodeId};
use tokio::time::Instant;

use super::pick::rank;
use crate::executor::Kind;
use crate::registry_cache::Registered;

/// How long a peer that refused a connection is left alone before one call tries it again.
const REFUSED_PAUSE: Duration = Duration::from_millis(500);

/// How long a peer's own answer outweighs what gossip says of its free slots.
const REPLY_OUTWEIGHS: Duration = Duration::from_secs(1);

/// The peers that gossip hears, by node id.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// Grows with each table published.
    pub version: u64,
    /// The peers.
    pub peers: BTreeMap<NodeId, Arc<PeerRoute>>,
}

/// What happened to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Gossip hears it.
    Joined,
    /// It is another incarnation, and was not missed in between.
    Restarted,
    /// It drained and is gone.
    Left,
    /// It is gone without having said so.
    Lost,
}

/// One peer.
#[derive(Debug)]
pub struct PeerRoute {
    /// How to reach it.
    pub peer: Peer,
    /// Its incarnation.
    pub generation: Generation,
    /// What it says of itself.
    pub state: LocalState,
    /// What this node found out by itself; kept from table to table.
    pub health: Arc<Health>,
    images: HashSet<String>,
    /// Of the keys it gossips, and of those it told of in a reply.
    slots: RwLock<HashMap<InstanceKey, Arc<Slots>>>,
}

/// What this node found out about a peer by calling it.
#[derive(Debug)]
pub struct Health {
    epoch: Instant,
    in_flight: AtomicU32,
    misses: AtomicU32,
    misses_max: u32,
    /// Milliseconds after `epoch` until which the peer counts as unreachable.
    refused_until_ms: AtomicU64,
    failed_calls: Mutex<Recurring>,
}

/// Free slots of one instance key on one peer: gossip's word, corrected by each call and each reply.
#[derive(Debug)]
pub struct Slots {
    epoch: Instant,
    free: AtomicU32,
    instances: AtomicU32,
    gossiped: (u32, u32),
    corrected_at_ms: AtomicU64,
}

/// One call in flight to a peer, for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Arc<Health>);

impl RouteTable {
    /// Builds the next table from what gossip says now; what this node found out by itself is kept.
    pub(super) fn next(&self, members: &cluster::Members, misses_max: u32, now: Instant) -> Self {
        let peers = members
            .values()
            .filter(|member| member.is_alive)
            .map(|member| {
                let known = self
                    .peers
                    .get(&member.id)
                    .filter(|known| known.generation == member.generation);
                (
                    member.id.clone(),
                    Arc::new(PeerRoute::new(member, known, misses_max, now)),
                )
            });
        Self {
            version: self.version + 1,
            peers: peers.collect(),
        }
    }

    /// What happened to the peers since the table before, by their names.
    pub(super) fn changes(&self, before: &Self) -> Vec<(Arc<PeerRoute>, Change)> {
        let gone = (before.peers.iter())
            .filter(|(id, _)| !self.peers.contains_key(*id))
            .map(|(_, route)| {
                let change = if route.state.is_draining {
                    Change::Left
                } else {
                    Change::Lost
                };
                (Arc::clone(route), change)
            });
        let here = self.peers.iter().filter_map(|(id, route)| {
            let change = match before.peers.get(id) {
                None => Change::Joined,
                Some(known) if known.generation != route.generation => Change::Restarted,
                Some(_) => return None,
            };
            Some((Arc::clone(route), change))
        });
        gone.chain(here).collect()
    }

    /// Instances of a key that peers say they have.
    pub fn instances(&self, key: InstanceKey) -> u32 {
        self.peers
            .values()
            .filter_map(|peer| peer.slots(key))
            .map(|slots| slots.instances())
            .sum()
    }

    /// Whether this node, rather than a peer, is where instances of a function are kept: the same answer on every node that
    /// sees the same members.
    pub fn is_home(&self, own_id: &NodeId, own_can_run: bool, registered: &Registered) -> bool {
        let own_rank = rank(registered.key, own_id);
        let others = self
            .peers
            .values()
            .filter(|peer| peer.is_usable() && peer.can_run(&registered.function));
        own_can_run
            && others
                .map(|peer| rank(registered.key, &peer.peer.id))
                .all(|other| other < own_rank)
    }
}

impl PeerRoute {
    fn new(member: &Arc<Member>, known: Option<&Arc<Self>>, misses_max: u32, now: Instant) -> Self {
        let mut known_slots = known
            .map(|known| known.read_slots().clone())
            .unwrap_or_default();
        let told = member.state.hints.iter().map(|hint| {
            let known = known_slots.remove(&hint.key);
            (
                hint.key,
                Slots::merge(known, (hint.free_slots, hint.instances), now),
            )
        });
        let mut slots: HashMap<_, _> = told.collect();
        // What it said in a reply, and gossip does not say yet or no more.
        let untold = known_slots
            .into_iter()
            .filter(|(_, known)| known.is_corrected_lately());
        slots.extend(untold.map(|(key, known)| (key, Slots::merge(Some(known), (0, 0), now))));
        Self {
            peer: member.peer.clone(),
            generation: member.generation,
            health: known.map_or_else(
                || Arc::new(Health::new(misses_max, now)),
                |known| Arc::clone(&known.health),
            ),
            images: member.state.images.iter().cloned().collect(),
            slots: RwLock::new(slots),
            state: member.state.clone(),
        }
    }

    /// Free slots of a key; `None` when the peer said nothing of it.
    pub fn slots(&self, key: InstanceKey) -> Option<Arc<Slots>> {
        self.read_slots().get(&key).cloned()
    }

    /// Notes that a call is on its way to one of its slots.
    pub fn note_sent(&self, key: InstanceKey) {
        if let Some(slots) = self.slots(key) {
            slots.note_sent();
        }
    }

    /// Takes over what the peer itself says in a reply, also of a key it has not gossiped yet.
    pub fn note_reply(&self, key: InstanceKey, free: u32, instances: u32) {
        let slots = self.slots(key).or_else(|| {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            (instances > 0).then(|| {
                Arc::clone(
                    slots
                        .entry(key)
                        .or_insert_with(|| Slots::merge(None, (0, 0), Instant::now())),
                )
            })
        });
        if let Some(slots) = slots {
            slots.note_reply(free, instances);
        }
    }

    fn read_slots(&self) -> std::sync::RwLockReadGuard<'_, HashMap<InstanceKey, Arc<Slots>>> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether invocations may go there: it is reachable, answers probes and does not drain.
    pub fn is_usable(&self) -> bool {
        !self.state.is_draining && !self.health.is_silent() && !self.health.is_refusing()
    }

    /// Whether it can run a function's type at all.
    pub fn can_run(&self, function: &protocol::Function) -> bool {
        match Kind::of(function) {
            Kind::Container => self.state.has_engine,
            Kind::Process => self.state.allows_processes,
        }
    }

    /// Whether its engine holds the function's image; true where no image is needed.
    pub fn has_image(&self, function: &protocol::Function) -> bool {
        function
            .image_digest()
            .is_none_or(|digest| self.images.contains(digest))
    }
}

impl Health {
    fn new(misses_max: u32, now: Instant) -> Self {
        Self {
            epoch: now,
            in_flight: AtomicU32::new(0),
            misses: AtomicU32::new(0),
            misses_max,
            refused_until_ms: AtomicU64::new(0),
            failed_calls: Mutex::default(),
        }
    }

    /// Notes a call for as long as the guard lives.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlight(Arc::clone(self))
    }

    /// Calls from this node in flight there.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Notes that it refused a connection: it is left alone at once.
    pub fn note_refused(&self) {
        let until = self.epoch.elapsed() + REFUSED_PAUSE;
        self.refused_until_ms
            .store(millis(until), Ordering::Release);
    }

    /// Notes a call that failed on its way, and whether the log should tell.
    pub fn note_failed_call(&self) -> Option<Due> {
        let mut failed_calls = (self.failed_calls.lock()).unwrap_or_else(PoisonError::into_inner);
        failed_calls.note(Instant::now())
    }

    /// Notes an answer of any kind.
    pub fn note_answered(&self) {
        self.misses.store(0, Ordering::Release);
        self.refused_until_ms.store(0, Ordering::Release);
    }

    /// Notes a probe that was not answered.
    pub fn note_missed(&self) {
        self.misses.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether it missed so many probes in a row that it is routed around.
    pub fn is_silent(&self) -> bool {
        self.misses.load(Ordering::Acquire) >= self.misses_max
    }

    /// Whether it missed a probe or refused a connection lately.
    pub fn is_suspect(&self) -> bool {
        self.misses.load(Ordering::Acquire) > 0 || self.refused_until_ms.load(Ordering::Acquire) > 0
    }

    fn is_refusing(&self) -> bool {
        let until = self.refused_until_ms.load(Ordering::Acquire);
        until > 0 && millis(self.epoch.elapsed()) < until
    }
}

impl Slots {
    fn merge(known: Option<Arc<Self>>, gossiped: (u32, u32), now: Instant) -> Arc<Self> {
        match known {
            Some(known) if known.gossiped == gossiped => known,
            // Gossip takes a while to come round: what the peer itself said lately is newer.
            Some(known) if known.is_corrected_lately() => Arc::new(Self {
                epoch: known.epoch,
                free: AtomicU32::new(known.free.load(Ordering::Acquire)),
                instances: AtomicU32::new(known.instances.load(Ordering::Acquire)),
                gossiped,
                corrected_at_ms: AtomicU64::new(known.corrected_at_ms.load(Ordering::Acquire)),
            }),
            _ => Arc::new(Self {
                epoch: now,
                free: AtomicU32::new(gossiped.0),
                instances: AtomicU32::new(gossiped.1),
                gossiped,
                corrected_at_ms: AtomicU64::new(0),
            }),
        }
    }

    /// Slots thought to be free: what calls and replies said lately, else what gossip says.
    pub fn free(&self) -> u32 {
        match self.is_corrected_lately() {
            true => self.free.load(Ordering::Acquire),
            false => self.gossiped.0,
        }
    }

    /// Instances thought to be up.
    pub fn instances(&self) -> u32 {
        match self.is_corrected_lately() {
            true => self.instances.load(Ordering::Acquire),
            false => self.gossiped.1,
        }
    }

    fn begin_correction(&self) {
        if !self.is_corrected_lately() {
            // An old correction is no ground for a new one.
            self.free.store(self.gossiped.0, Ordering::Release);
            self.instances.store(self.gossiped.1, Ordering::Release);
        }
        self.corrected_at_ms
            .store(millis(self.epoch.elapsed()).max(1), Ordering::Release);
    }

    /// Notes that a call is on its way to one of the slots.
    pub fn note_sent(&self) {
        self.begin_correction();
        let less = |free: u32| free.checked_sub(1);
        // A count that is zero already stays there.
        let _ = self
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }

    /// Takes over what the peer itself says in a reply.
    pub fn note_reply(&self, free: u32, instances: u32) {
        self.begin_correction();
        self.free.store(free, Ordering::Release);
        self.instances.store(instances, Ordering::Release);
    }

    fn is_corrected_lately(&self) -> bool {
        let at = self.corrected_at_ms.load(Ordering::Acquire);
        at > 0 && millis(self.epoch.elapsed()) < at + millis(REPLY_OUTWEIGHS)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
