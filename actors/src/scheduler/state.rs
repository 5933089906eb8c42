//! What of which schedule this node should do when; a plain struct.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cluster::Members;
use config::Revision;
use config::settings::SchedulesSettings;
use protocol::schedule::{Missed, Plan};
use protocol::{Generation, InstanceKey, NodeId};
use tokio::time::Instant;

use super::progress::{Claim, Progress};
use crate::registry_cache::{RegisteredSchedule, Registry};
use crate::router::pick::rank;

/// How much later than the node before it each node tries a slot that nobody has claimed yet.
const PLACE: Duration = Duration::from_millis(500);

/// The pause after somebody else was first, until the watch has told it.
const LOST_PAUSE: Duration = Duration::from_millis(250);

/// The pause after the queue refused a slot: at first, and at most.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The pause after the store did not answer: at first, and at most.
const AWAY_PAUSE: Duration = Duration::from_millis(250);
const AWAY_PAUSE_MAX: Duration = Duration::from_secs(2);

/// `<space>/<id>`, as the keys of records end.
pub(super) type Key = Arc<str>;

/// The schedules of the cluster as this node sees them.
#[derive(Debug)]
pub(super) struct State {
    settings: SchedulesSettings,
    node: NodeId,
    generation: Generation,
    entries: BTreeMap<Key, Entry>,
    progress: HashMap<Key, Known>,
    /// When to look at which schedule again, by the clock of the cluster.
    due: BTreeSet<(u64, Key)>,
    busy: HashSet<Key>,
    /// The other nodes that may fire.
    others: Vec<NodeId>,
    members: Arc<Members>,
    /// Nothing is tried before this, as the store did not answer.
    away_until: Option<Instant>,
    away_times: u32,
}

/// A record of the store, and its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) progress: Progress,
    pub(super) revision: Revision,
}

#[derive(Debug)]
struct Entry {
    registered: Arc<RegisteredSchedule>,
    hash: InstanceKey,
    /// When this node heard of it.
    noted_ms: u64,
    /// Slots up to this moment were missed, and are not fired.
    passed_ms: u64,
    /// When it is looked at, as it stands in `due`.
    at_ms: Option<u64>,
    /// It is not tried before this.
    not_before: Option<Instant>,
    refused_times: u32,
    /// The slot that this node has queued and not noted in the store yet.
    queued: Option<u64>,
}

/// Something to do for a schedule.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) key: Key,
    pub(super) registered: Arc<RegisteredSchedule>,
    /// What the store must still say then.
    pub(super) before: Option<Known>,
    pub(super) what: What,
    /// The time of the cluster.
    pub(super) now_ms: u64,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// Count from this moment on.
    Begin(u64),
    /// Fire a slot.
    Fire { slot_ms: u64 },
    /// Note that a slot is queued.
    Settle { slot_ms: u64 },
}

/// How an attempt ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// The store says this now.
    Stored(Known),
    /// It is queued, but the store could not be told; it says this.
    Queued { known: Known, slot_ms: u64 },
    /// Somebody else was first, or the schedule has changed.
    Lost,
    /// The store did not answer.
    Away,
    /// The queue did not take it; the store says this, if it could be told.
    Refused(Option<Known>),
}

impl State {
    pub(super) fn new(settings: SchedulesSettings, node: NodeId, generation: Generation) -> Self {
        Self {
            settings,
            node,
            generation,
            entries: BTreeMap::new(),
            progress: HashMap::new(),
            due: BTreeSet::new(),
            busy: HashSet::new(),
            others: Vec::new(),
            members: Arc::default(),
            away_until: None,
            away_times: 0,
        }
    }

    /// The other nodes that may fire.
    pub(super) fn others(&self) -> &[NodeId] {
        &self.others
    }

    /// Whether there is no schedule that may be due.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes over the schedules that are on.
    pub(super) fn on_registry(&mut self, registry: &Registry, now_ms: u64) {
        let all = registry.schedules.values().flat_map(|all| all.values());
        let on = all.filter(|registered| registered.schedule.enabled);
        let mut before = std::mem::take(&mut self.entries);
        let mut changed = Vec::new();
        for registered in on {
            let schedule = &registered.schedule;
            let key: Key = format!("{}/{}", schedule.space, schedule.schedule_id).into();
            let entry = match before.remove(&key) {
                Some(entry) if Arc::ptr_eq(&entry.registered, registered) => entry,
                other => {
                    changed.push(Arc::clone(&key));
                    Entry {
                        registered: Arc::clone(registered),
                        hash: InstanceKey::hash([key.as_bytes()]),
                        noted_ms: now_ms,
                        passed_ms: 0,
                        at_ms: other.as_ref().and_then(|entry| entry.at_ms),
                        not_before: None,
                        refused_times: 0,
                        queued: other.and_then(|entry| entry.queued),
                    }
                }
            };
            self.entries.insert(key, entry);
        }
        for (key, entry) in before {
            if let Some(at_ms) = entry.at_ms {
                self.due.remove(&(at_ms, key));
            }
        }
        for key in changed {
            self.look(&key, now_ms);
        }
    }

    /// What the store says of one schedule now; nothing when it says nothing.
    pub(super) fn on_progress(&mut self, key: &Key, known: Option<Known>, now_ms: u64) {
        match known {
            // What an attempt of this node told already may come late by the watch.
            Some(known) if self.revision_of(key) >= Some(known.revision) => return,
            Some(known) => {
                self.progress.insert(Arc::clone(key), known);
            }
            None => {
                self.progress.remove(key);
            }
        }
        self.renote(key, now_ms);
        self.look(key, now_ms);
    }

    /// Everything that the store says.
    pub(super) fn on_all_progress(&mut self, all: HashMap<Key, Known>, now_ms: u64) {
        self.progress = all;
        self.on_clock(now_ms);
    }

    /// The time of the cluster is known now, and was not: what has not begun yet begins now.
    pub(super) fn on_clock(&mut self, now_ms: u64) {
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            self.renote(&key, now_ms);
            self.look(&key, now_ms);
        }
    }

    /// Who is there changed, or how they are.
    pub(super) fn on_members(&mut self, members: &Arc<Members>, now_ms: u64) {
        let may_fire = members
            .values()
            .filter(|member| member.is_alive && !member.state.is_draining);
        let others: Vec<NodeId> = may_fire.map(|member| member.id.clone()).collect();
        let is_news = others != self.others || claims_of(&self.members) != claims_of(members);
        self.members = Arc::clone(members);
        if !is_news {
            return;
        }
        self.others = others;
        let keys: Vec<Key> = self.entries.keys().cloned().collect();
        for key in keys {
            self.look(&key, now_ms);
        }
    }

    /// An attempt has ended.
    pub(super) fn on_ended(&mut self, key: &Key, ended: Ended, now: Instant, now_ms: u64) {
        self.busy.remove(key);
        match ended {
            Ended::Away | Ended::Queued { .. } => {
                let away = AWAY_PAUSE * 2u32.saturating_pow(self.away_times.min(8));
                self.away_times += 1;
                self.away_until = Some(now + away.min(AWAY_PAUSE_MAX));
            }
            _ => (self.away_until, self.away_times) = (None, 0),
        }
        let (mut pause, mut queued, mut stored) = (None, None, None);
        match ended {
            Ended::Stored(known) => stored = Some(known),
            Ended::Queued { known, slot_ms } => (stored, queued) = (Some(known), Some(slot_ms)),
            Ended::Lost => pause = Some(LOST_PAUSE),
            Ended::Away => {}
            Ended::Refused(known) => {
                stored = known;
                let times = self.entries.get_mut(key).map_or(0, |entry| {
                    entry.refused_times += 1;
                    entry.refused_times - 1
                });
                let refused = REFUSED_PAUSE * 2u32.saturating_pow(times.min(8));
                pause = Some(refused.min(REFUSED_PAUSE_MAX));
            }
        }
        if let Some(entry) = self.entries.get_mut(key) {
            entry.not_before = pause.map(|pause| now + pause);
            if pause.is_none() && stored.is_some() {
                entry.refused_times = 0;
                entry.queued = queued;
            }
        }
        match stored {
            Some(known) if self.revision_of(key) < Some(known.revision) => {
                self.on_progress(key, Some(known), now_ms);
            }
            _ => self.look(key, now_ms),
        }
    }

    /// What is to be done now, no more than `room` with those that are busy. They are busy until [`State::on_ended`].
    pub(super) fn take(&mut self, room: usize, now: Instant, now_ms: u64) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        if self.away_until.is_some_and(|until| now < until) {
            return attempts;
        }
        // While the store does not answer, one asks for all.
        let room = match (self.away_times, self.busy.len()) {
            (0, busy) => room.saturating_sub(busy),
            (_, busy) => 1_usize.saturating_sub(busy),
        };
        let mut later = Vec::new();
        while attempts.len() < room
            && let Some((at_ms, key)) = self.due.first().cloned()
            && at_ms <= now_ms
        {
            self.due.pop_first();
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            entry.at_ms = None;
            if entry.not_before.is_some_and(|until| now < until) {
                later.push(key);
                continue;
            }
            self.pass_missed(&key, now_ms);
            match self.next(&key, now_ms) {
                Some((at_ms, what)) if at_ms <= now_ms => {
                    attempts.extend(self.attempt(&key, what, now_ms));
                }
                _ => self.look(&key, now_ms),
            }
        }
        for key in later {
            self.put_off(&key, now, now_ms);
        }
        attempts
    }

    /// When to look again, after [`State::take`]; not by the time when that waits for an attempt to end.
    pub(super) fn wake(&self, now: Instant, now_ms: u64) -> Option<Instant> {
        let (at_ms, _) = self.due.first()?;
        let away_until = self.away_until.filter(|until| now < *until);
        match at_ms.checked_sub(now_ms) {
            Some(wait) if wait > 0 => {
                let at = now + Duration::from_millis(wait);
                Some(away_until.map_or(at, |until| at.max(until)))
            }
            _ => away_until,
        }
    }

    fn attempt(&mut self, key: &Key, what: What, now_ms: u64) -> Option<Attempt> {
        let entry = self.entries.get(key)?;
        self.busy.insert(Arc::clone(key));
        Some(Attempt {
            key: Arc::clone(key),
            registered: Arc::clone(&entry.registered),
            before: self.progress.get(key).cloned(),
            what,
            now_ms,
        })
    }

    /// What is to be done for a schedule next, and when.
    fn next(&self, key: &Key, now_ms: u64) -> Option<(u64, What)> {
        let entry = self.entries.get(key)?;
        if self.busy.contains(key) {
            return None;
        }
        let behind = self.place(entry) * millis(PLACE);
        let Some(Known { progress, .. }) = self.progress.get(key) else {
            return Some((entry.noted_ms + behind, What::Begin(entry.noted_ms)));
        };
        if let Some(claim) = &progress.claim {
            let slot_ms = progress.until_ms;
            if entry.queued == Some(slot_ms) && self.is_own(claim) {
                return Some((now_ms, What::Settle { slot_ms }));
            }
            let at_ms = match self.is_over(claim) {
                true => claim.at_ms + behind,
                false => claim.at_ms + millis(self.settings.takeover_after) + behind,
            };
            return Some((at_ms, What::Fire { slot_ms }));
        }
        let plan = &entry.registered.plan;
        let first = plan.next_after(progress.until_ms.max(entry.passed_ms))?;
        match self.is_missed(first, now_ms) && entry.registered.schedule.missed == Missed::Once {
            true => Some((
                now_ms,
                What::Fire {
                    slot_ms: plan.last_until(now_ms)?,
                },
            )),
            false => Some((first + behind, What::Fire { slot_ms: first })),
        }
    }

    /// Passes over what was missed, where nobody wants it.
    fn pass_missed(&mut self, key: &Key, now_ms: u64) {
        let (Some(entry), Some(known)) = (self.entries.get(key), self.progress.get(key)) else {
            return;
        };
        if known.progress.claim.is_some() || entry.registered.schedule.missed != Missed::Skip {
            return;
        }
        let until_ms = known.progress.until_ms.max(entry.passed_ms);
        let first = entry.registered.plan.next_after(until_ms);
        if first.is_some_and(|first| self.is_missed(first, now_ms))
            && let Some(entry) = self.entries.get_mut(key)
        {
            entry.passed_ms = now_ms;
        }
    }

    fn is_missed(&self, slot_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(slot_ms) > millis(self.settings.late_max)
    }

    /// How many of the nodes that may fire come before this one for a schedule.
    fn place(&self, entry: &Entry) -> u64 {
        let own = rank(entry.hash, &self.node);
        let before = self
            .others
            .iter()
            .filter(|other| rank(entry.hash, other) > own);
        before.count() as u64
    }

    fn is_own(&self, claim: &Claim) -> bool {
        claim.node == self.node && claim.generation == self.generation
    }

    /// Whether who claimed a slot will not come back to it. One that gossip does not know, or not yet, may.
    fn is_over(&self, claim: &Claim) -> bool {
        if claim.node == self.node {
            // Its own attempt has ended, or it was another incarnation's.
            return true;
        }
        self.members
            .get(&claim.node)
            .is_some_and(|member| !member.is_alive || member.generation > claim.generation)
    }

    fn revision_of(&self, key: &Key) -> Option<Revision> {
        self.progress.get(key).map(|known| known.revision)
    }

    /// A schedule without progress counts from the moment that this is known.
    fn renote(&mut self, key: &Key, now_ms: u64) {
        if !self.progress.contains_key(key)
            && let Some(entry) = self.entries.get_mut(key)
        {
            (entry.noted_ms, entry.passed_ms) = (now_ms, 0);
        }
    }

    /// Finds out when a schedule is to be looked at.
    fn look(&mut self, key: &Key, now_ms: u64) {
        let next = self.next(key, now_ms).map(|(at_ms, _)| at_ms);
        self.look_at(key, next);
    }

    fn put_off(&mut self, key: &Key, now: Instant, now_ms: u64) {
        let until = self.entries.get(key).and_then(|entry| entry.not_before);
        let pause = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        self.look_at(key, Some(now_ms + millis(pause)));
    }

    fn look_at(&mut self, key: &Key, at_ms: Option<u64>) {
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut entry.at_ms, at_ms) {
            self.due.remove(&(before, Arc::clone(key)));
        }
        if let Some(at_ms) = at_ms {
            self.due.insert((at_ms, Arc::clone(key)));
        }
    }
}

/// How many slots lie between two moments, both excluded; more than `max` are not counted.
pub(super) fn slots_between(plan: &Plan, after_ms: u64, before_ms: u64, max: usize) -> usize {
    let mut at_ms = after_ms;
    for count in 0..max {
        match plan.next_after(at_ms) {
            Some(next) if next < before_ms => at_ms = next,
            _ => return count,
        }
    }
    max
}

/// What of the members decides whether a claim is over.
fn claims_of(members: &Members) -> Vec<(&NodeId, Generation, bool)> {
    let claims = members.values();
    claims
        .map(|member| (&member.id, member.generation, member.is_alive))
        .collect()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
