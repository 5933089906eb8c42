//! The task between chitchat and the rest of the node: says what is new here, and publishes what the others say.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chitchat::{Chitchat, ChitchatHandle, ChitchatId, NodeState};
use config::Keyring;
use protocol::{Generation, NodeId};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use super::keys::{self, Bounds};
use super::{LocalState, Member, Members};
use crate::identity::Identity;
use crate::peer::Peer;

/// How often it is looked for nodes that are forgotten: chitchat reports lives and deaths, but not that.
const FORGET_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Gossip {
    pub(super) handle: ChitchatHandle,
    pub(super) identity: Identity,
    pub(super) bounds: Bounds,
    pub(super) interval: Duration,
    /// What chitchat was told last.
    pub(super) entries: BTreeMap<String, String>,
    pub(super) local: watch::Receiver<LocalState>,
    pub(super) keyring: watch::Receiver<Keyring>,
    pub(super) cluster_id: String,
    pub(super) members: watch::Sender<Arc<Members>>,
    pub(super) stop: CancellationToken,
    pub(super) failed: CancellationToken,
}

impl Gossip {
    pub(super) async fn run(mut self) {
        let mut live = self.handle.chitchat().lock().await.live_nodes_watcher();
        let terminated = self.handle.termination_watcher();
        tokio::pin!(terminated);
        let mut forget = interval(FORGET_INTERVAL);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = Seen::default();
        let mut publish_from = Instant::now();
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                outcome = &mut terminated => {
                    tracing::error!(?outcome, "gossip ended by itself");
                    self.failed.cancel();
                    return;
                }
                Ok(()) = live.changed() => self.refresh(&mut seen).await,
                _ = forget.tick() => self.refresh(&mut seen).await,
                Ok(()) = self.keyring.changed() => self.say().await,
                () = changed_from(&mut self.local, publish_from) => {
                    self.say().await;
                    publish_from = Instant::now() + self.interval;
                }
            }
        }
        if let Err(error) = self.handle.shutdown().await {
            tracing::debug!(%error, "gossip did not end tidily");
        }
    }

    /// Tells chitchat what changed.
    async fn say(&mut self) {
        let local = LocalState {
            secrets: self.keyring.borrow_and_update().ids(&self.cluster_id),
            ..self.local.borrow_and_update().clone()
        };
        let entries = keys::write(&local, self.identity.fingerprint(), self.bounds);
        let chitchat = self.handle.chitchat();
        let mut chitchat = chitchat.lock().await;
        let said = chitchat.self_node_state();
        for (key, value) in &entries {
            if self.entries.get(key) != Some(value) {
                said.set(key, value);
            }
        }
        for key in self
            .entries
            .keys()
            .filter(|key| !entries.contains_key(*key))
        {
            said.delete(key);
        }
        drop(chitchat);
        self.entries = entries;
    }

    async fn refresh(&self, seen: &mut Seen) {
        let chitchat = self.handle.chitchat();
        let members = seen.update(&*chitchat.lock().await, &self.identity);
        self.members.send_if_modified(|published| {
            let is_new = !is_same(published, &members);
            if is_new {
                *published = Arc::new(members);
            }
            is_new
        });
    }
}

/// Waits until there is something new to say, and it may be said again. Cancel safe: nothing is taken.
async fn changed_from(local: &mut watch::Receiver<LocalState>, from: Instant) {
    while !local.has_changed().unwrap_or(false) {
        // Put back right away, so that being dropped in the sleep below loses nothing.
        if local.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        local.mark_changed();
    }
    sleep_until(from).await;
}

fn is_same(one: &Members, other: &Members) -> bool {
    one.len() == other.len()
        && one
            .values()
            .zip(other.values())
            .all(|(one, other)| Arc::ptr_eq(one, other))
}

/// What was read of every incarnation that chitchat knows, so that only what changed is read again.
#[derive(Default)]
struct Seen {
    incarnations: HashMap<ChitchatId, Incarnation>,
    has_warned_of_twin: bool,
}

struct Incarnation {
    version: u64,
    member: Option<Arc<Member>>,
}

impl Seen {
    fn update(&mut self, chitchat: &Chitchat, own: &Identity) -> Members {
        let states = chitchat.node_states();
        self.incarnations.retain(|id, _| states.contains_key(id));
        let live: HashSet<&ChitchatId> = chitchat.live_nodes().collect();
        for (id, state) in states {
            if *id.node_id == *own.node_id().as_str() {
                self.watch_for_twin(id, live.contains(id), own);
            } else {
                self.read(id, state, live.contains(id));
            }
        }
        let mut members = Members::new();
        for member in self
            .incarnations
            .values()
            .filter_map(|incarnation| incarnation.member.as_ref())
        {
            let rank = |member: &Member| (member.generation, member.is_alive, member.peer.address);
            match members.get(&member.id) {
                Some(other) if rank(other) >= rank(member) => {}
                _ => drop(members.insert(member.id.clone(), Arc::clone(member))),
            }
        }
        members
    }

    fn read(&mut self, id: &ChitchatId, state: &NodeState, is_alive: bool) {
        let known = self.incarnations.entry(id.clone()).or_insert(Incarnation {
            version: 0,
            member: None,
        });
        if known.version != state.max_version() {
            known.version = state.max_version();
            known.member = read_member(id, state, is_alive).map(Arc::new);
        } else if let Some(member) = &mut known.member
            && member.is_alive != is_alive
        {
            // The router tells of it, with what it means.
            tracing::debug!(peer = member.peer.name, is_alive, "a member changed");
            Arc::make_mut(member).is_alive = is_alive;
        }
    }

    /// A copied data directory gives two nodes one id; each would hide the other from its peers.
    fn watch_for_twin(&mut self, id: &ChitchatId, is_alive: bool, own: &Identity) {
        if is_alive && id.generation_id > own.generation().0 && !self.has_warned_of_twin {
            self.has_warned_of_twin = true;
            tracing::error!(
                node_id = %id.node_id, address = %id.gossip_advertise_addr,
                "another node gossips with this node's id: was a data directory copied?"
            );
        }
    }
}

fn read_member(id: &ChitchatId, state: &NodeState, is_alive: bool) -> Option<Member> {
    let node_id: NodeId = id.node_id.parse().ok()?;
    let (state, fingerprint) = keys::read(state.key_values())?;
    let peer = Peer {
        id: node_id.clone(),
        name: state.name.clone(),
        address: id.gossip_advertise_addr,
        fingerprint,
    };
    Some(Member {
        id: node_id,
        generation: Generation(id.generation_id),
        is_alive,
        state,
        peer,
    })
}
