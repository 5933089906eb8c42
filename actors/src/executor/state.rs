//! What the executor knows and decides, without a runtime: each `on_…` returns what is to be done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use config::settings::ExecutorSettings;
use protocol::{Failure, Function, FunctionId, Generation, InstanceId, InstanceKey, Space};
use providers::{Found, Launched};
use tokio::time::Instant;

use super::attention::Attention;
use super::budget::{Budget, Reservation};
use super::journal::Journal;
use super::launchers::Kind;
use super::pool::Pool;
use super::runs::Runs;
use super::{PoolKind, Pools};
use crate::registry_cache::{Registered, Registry};

mod known;
mod scale;

use known::Known;

/// Something the actor carries out.
#[derive(Debug)]
pub(super) enum Action {
    /// Start an instance.
    Start {
        key: InstanceKey,
        registered: Arc<Registered>,
        reservation: Reservation,
    },
    /// Remove an instance; its share of the budget, if it had one, comes back when it is gone.
    Stop {
        kind: Kind,
        id: InstanceId,
        reservation: Option<Reservation>,
    },
    /// Take over an instance of an earlier generation.
    Adopt {
        kind: Kind,
        found: Found,
        registered: Arc<Registered>,
    },
    /// Forget what is held of a function that is gone.
    Forget { space: Space, id: FunctionId },
    /// Publish the pools anew.
    Publish,
}

/// What the executor needs besides its own state, lent to each incarnation.
#[derive(Debug, Clone)]
pub(super) struct Means {
    /// This node's incarnation: what an earlier one started can not be a start of this one.
    pub(super) generation: Generation,
    pub(super) settings: ExecutorSettings,
    pub(super) budget: Budget,
    pub(super) attention: Attention,
    pub(super) journal: Journal,
}

/// Where instances of a function should be kept, as the route table sees it.
pub(super) trait Elsewhere {
    /// Instances that peers say they have.
    fn instances(&self, key: InstanceKey) -> u32;
    /// Whether this node is the one that keeps `min` instances up.
    fn is_home(&self, registered: &Registered) -> bool;
}

#[derive(Debug)]
pub(super) struct State {
    means: Means,
    known: Known,
    held: BTreeMap<InstanceKey, Held>,
    /// Instances that are being removed, and since when: neither adopted nor removed twice.
    stopping: HashMap<InstanceId, Instant>,
    adopting: HashMap<InstanceId, InstanceKey>,
    /// Kinds whose provider is being listed for the first time: until it is known what can be adopted, none is started.
    first_listing: HashSet<Kind>,
    listed: HashSet<Kind>,
    starting: usize,
    is_draining: bool,
}

#[derive(Debug)]
struct Held {
    pool: PoolKind,
    registered: Arc<Registered>,
    is_current: bool,
    starting: u32,
    failures: u32,
    not_before: Option<Instant>,
    last_failure: Option<Failure>,
    /// When an instance was last lost: those that are kept up come back after a pause, lest one that dies at once is started without end.
    lost_at: Option<Instant>,
}

impl State {
    /// Takes over the pools that are published already, so that a restarted executor interrupts no call.
    pub(super) fn new(means: Means, published: &Pools) -> Self {
        let held = published.pools.iter().map(|(key, (pool, registered))| {
            if let PoolKind::Pool(pool) = pool {
                // The last incarnation may have taken the notice with it.
                pool.clear_notice();
            }
            let held = Held::new(pool.clone(), Arc::clone(registered));
            (*key, held)
        });
        Self {
            known: Known::new((published.pools.values()).map(|(_, registered)| &**registered)),
            held: held.collect(),
            means,
            stopping: HashMap::new(),
            adopting: HashMap::new(),
            first_listing: HashSet::new(),
            listed: HashSet::new(),
            starting: 0,
            is_draining: false,
        }
    }

    pub(super) fn pools(&self) -> Pools {
        let pools = self
            .held
            .iter()
            .map(|(key, held)| (*key, (held.pool.clone(), Arc::clone(&held.registered))));
        Pools {
            pools: pools.collect::<HashMap<_, _>>(),
        }
    }

    /// Opens pools of new functions and versions, and closes those of replaced and deleted ones.
    pub(super) fn on_registry(&mut self, registry: &Registry, now: Instant) -> Vec<Action> {
        if self.is_draining {
            return Vec::new();
        }
        let mut current = HashSet::new();
        let mut is_changed = false;
        for registered in registry
            .iter()
            .chain(registry.published())
            .filter(|registered| registered.function.contract().is_some())
        {
            current.insert(registered.key);
            match self.held.get_mut(&registered.key) {
                Some(held) => {
                    is_changed |= !Arc::ptr_eq(&held.registered, registered);
                    held.registered = Arc::clone(registered);
                    held.is_current = true;
                    held.pool.reopen(registered.function.scaling().max);
                }
                None => {
                    let held = Held::new(self.open(registered), Arc::clone(registered));
                    self.held.insert(registered.key, held);
                    is_changed = true;
                }
            }
        }
        let mut actions = self.known.on_registry(registry);
        for held in self
            .held
            .values_mut()
            .filter(|held| !current.contains(&held.registered.key))
        {
            held.is_current = false;
            held.pool.close();
        }
        let closed: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| !held.is_current)
            .map(|(key, _)| *key)
            .collect();
        for key in closed {
            actions.extend(self.stop_drained(key, now));
        }
        if is_changed {
            actions.push(Action::Publish);
        }
        actions
    }

    /// Looks at pools that asked, first where somebody waits longest.
    pub(super) fn on_attentions(
        &mut self,
        keys: HashSet<InstanceKey>,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        self.longest_waiting_first(keys.into_iter().collect())
            .into_iter()
            .flat_map(|key| self.on_attention(key, now, elsewhere))
            .collect()
    }

    /// Looks at a pool that asked: recycles what is suspect, starts what is wanted.
    pub(super) fn on_attention(
        &mut self,
        key: InstanceKey,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        let Some(held) = self.held.get(&key) else {
            return Vec::new();
        };
        if let PoolKind::Pool(pool) = &held.pool {
            pool.clear_notice();
        }
        let mut actions = self.stop_drained(key, now);
        actions.extend(self.scale(key, now, elsewhere));
        actions
    }

    /// Looks at every pool, after room or a start permit came free: first where somebody waits longest.
    pub(super) fn on_room(&mut self, now: Instant, elsewhere: &dyn Elsewhere) -> Vec<Action> {
        self.longest_waiting_first(self.held.keys().copied().collect())
            .into_iter()
            .flat_map(|key| self.scale(key, now, elsewhere))
            .collect()
    }

    /// In the order in which they are served: by who waits longest, and where nobody waits last.
    fn longest_waiting_first(&self, mut keys: Vec<InstanceKey>) -> Vec<InstanceKey> {
        let since = |key: &InstanceKey| self.held.get(key)?.pool.pool()?.waited_since();
        keys.sort_by_cached_key(|key| {
            let since = since(key);
            (since.is_none(), since)
        });
        keys
    }

    pub(super) fn on_started(
        &mut self,
        key: InstanceKey,
        result: Result<Launched, Failure>,
        reservation: Reservation,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        self.starting = self.starting.saturating_sub(1);
        let mut actions = Vec::new();
        match self.held.get_mut(&key) {
            Some(held) => {
                held.starting = held.starting.saturating_sub(1);
                match (result, &held.pool) {
                    (Ok(launched), PoolKind::Pool(pool))
                        if held.is_current && !self.is_draining =>
                    {
                        held.failures = 0;
                        held.not_before = None;
                        pool.add(
                            launched.id,
                            launched.invoke,
                            Some(launched.phases),
                            None,
                            reservation,
                        );
                    }
                    (Ok(launched), _) => {
                        let kind = Kind::of(&held.registered.function);
                        actions.push(self.stop(kind, launched.id, Some(reservation), now));
                    }
                    (Err(failure), _) => {
                        drop(reservation);
                        held.on_start_failed(failure, now, self.means.settings.start_backoff);
                    }
                }
            }
            None => drop(reservation),
        }
        actions.extend(self.on_room(now, elsewhere));
        actions
    }

    pub(super) fn on_stopped(&mut self, id: &InstanceId) -> Vec<Action> {
        self.stopping.remove(id);
        self.means.journal.forget(id);
        self.drop_gone()
    }

    /// Drops the pools of functions that are gone, once nothing is left in them.
    fn drop_gone(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let known = &self.known;
        self.held.retain(|_, held| {
            let is_gone = !held.is_current && held.is_empty();
            if is_gone {
                let Function {
                    space, function_id, ..
                } = &*held.registered.function;
                // A start that was under way when the function went may have written something since.
                if !known.contains(space, function_id) {
                    actions.push(Action::Forget {
                        space: space.clone(),
                        id: function_id.clone(),
                    });
                }
                actions.push(Action::Publish);
            }
            !is_gone
        });
        actions
    }

    /// Stops what idled too long, keeps `min` up, hands over slots that calls of an earlier generation held.
    pub(super) fn on_sweep(&mut self, now: Instant, elsewhere: &dyn Elsewhere) -> Vec<Action> {
        let keys: Vec<_> = self.held.keys().copied().collect();
        let mut actions = Vec::new();
        for key in keys {
            if let Some(PoolKind::Pool(pool)) = self.held.get(&key).map(|held| &held.pool) {
                pool.grant_waiters();
            }
            actions.extend(self.stop_idle(key, now, elsewhere));
            actions.extend(self.stop_drained(key, now));
            actions.extend(self.scale(key, now, elsewhere));
        }
        actions.extend(self.drop_gone());
        actions
    }

    /// An instance died or was removed behind our back.
    pub(super) fn on_gone(
        &mut self,
        kind: Kind,
        id: &InstanceId,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        let removed = self.held.iter_mut().find_map(|(key, held)| {
            let reservation = held.pool.pool()?.remove(id)?;
            held.lost_at = Some(now);
            Some((*key, reservation))
        });
        let Some((key, reservation)) = removed else {
            return Vec::new();
        };
        // It may only have stopped: what is left of it is removed like any other.
        let mut actions = vec![self.stop(kind, id.clone(), Some(reservation), now)];
        actions.extend(self.scale(key, now, elsewhere));
        actions
    }

    /// The instances of a kind that have a seat, for [`State::on_listed`]; no start of that kind begins before the first list ended.
    pub(super) fn on_listing(&mut self, kind: Kind) -> HashSet<InstanceId> {
        if !self.listed.contains(&kind) {
            self.first_listing.insert(kind);
        }
        let of_kind = self
            .held
            .values()
            .filter(|held| Kind::of(&held.registered.function) == kind);
        of_kind
            .filter_map(|held| held.pool.pool())
            .flat_map(|pool| pool.instance_ids())
            .collect()
    }

    /// The list has ended, with or without an answer.
    pub(super) fn on_listing_ended(&mut self, kind: Kind) {
        self.first_listing.remove(&kind);
        self.listed.insert(kind);
    }

    /// Holds what the provider has against the pools: adopts what still stands, removes all else, drops what is gone. Only instances
    /// that had a seat `before` the list was made can be missing from it.
    pub(super) fn on_listed(
        &mut self,
        kind: Kind,
        found: Vec<Found>,
        before: &HashSet<InstanceId>,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        let listed: HashSet<&InstanceId> = found.iter().map(|found| &found.id).collect();
        let lost: Vec<&InstanceId> = before.iter().filter(|id| !listed.contains(id)).collect();
        let mut actions: Vec<Action> = lost
            .into_iter()
            .flat_map(|id| self.on_gone(kind, id, now, elsewhere))
            .collect();
        let seated: HashSet<InstanceId> = (self.held.values())
            .filter_map(|held| held.pool.pool())
            .flat_map(|pool| pool.instance_ids())
            .collect();
        for found in found {
            if seated.contains(&found.id)
                || self.stopping.contains_key(&found.id)
                || self.adopting.contains_key(&found.id)
            {
                continue;
            }
            let is_older = found.generation < self.means.generation;
            match self.held.get(&found.key) {
                Some(held)
                    if held.is_current
                        && !self.is_draining
                        && found.is_adoptable
                        && (is_older || !held.has_unseated())
                        && self.instances_here(&found.key)
                            < held.registered.function.scaling().max =>
                {
                    self.adopting.insert(found.id.clone(), found.key);
                    let registered = Arc::clone(&held.registered);
                    actions.push(Action::Adopt {
                        kind,
                        found,
                        registered,
                    });
                }
                // A start or a run of this very generation is under way: this is most likely its instance.
                Some(held) if !is_older && held.has_unseated() => {}
                _ => actions.push(self.stop(kind, found.id, None, now)),
            }
        }
        actions
    }

    /// Instances of a key that are up or about to be.
    fn instances_here(&self, key: &InstanceKey) -> u32 {
        let up = self
            .held
            .get(key)
            .and_then(|held| held.pool.pool())
            .map_or(0, |pool| pool.status().open);
        up.saturating_add(self.coming(key))
    }

    /// Instances of a key that start or are being adopted.
    fn coming(&self, key: &InstanceKey) -> u32 {
        let adopting = self
            .adopting
            .values()
            .filter(|adopting| *adopting == key)
            .count();
        let starting = self.held.get(key).map_or(0, |held| held.starting);
        starting.saturating_add(u32::try_from(adopting).unwrap_or(u32::MAX))
    }

    fn stop(
        &mut self,
        kind: Kind,
        id: InstanceId,
        reservation: Option<Reservation>,
        now: Instant,
    ) -> Action {
        self.stopping.insert(id.clone(), now);
        Action::Stop {
            kind,
            id,
            reservation,
        }
    }

    pub(super) fn on_adopted(
        &mut self,
        kind: Kind,
        found: &Found,
        result: Result<Arc<dyn providers::Invoke>, Failure>,
        (now, wall): (Instant, SystemTime),
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        self.adopting.remove(&found.id);
        let held = self
            .held
            .get(&found.key)
            .filter(|held| held.is_current && !self.is_draining);
        if let (Ok(invoke), Some(held)) = (result, held)
            && let PoolKind::Pool(pool) = &held.pool
        {
            let limits = held.registered.function.limits();
            let inherited = self
                .means
                .journal
                .inherited(&found.id)
                .and_then(|inherited| {
                    let age = wall
                        .duration_since(inherited.handed_over_at)
                        .unwrap_or_default();
                    let left = limits.timeout.checked_sub(age)?;
                    Some((inherited.busy, now + left))
                });
            let reservation = self.means.budget.adopt(limits.memory_mb);
            pool.add(found.id.clone(), invoke, None, inherited, reservation);
            return Vec::new();
        }
        let mut actions = vec![self.stop(kind, found.id.clone(), None, now)];
        // Those who wait may have been promised its slots.
        actions.extend(self.scale(found.key, now, elsewhere));
        actions
    }

    /// Closes all pools: the node goes down, and its instances with it.
    pub(super) fn on_drain(&mut self, now: Instant) -> Vec<Action> {
        self.is_draining = true;
        let keys: Vec<_> = self.held.keys().copied().collect();
        for held in self.held.values_mut() {
            held.pool.close();
            held.is_current = false;
        }
        keys.into_iter()
            .flat_map(|key| self.stop_drained(key, now))
            .collect()
    }

    /// Instances and starts that are left; a drain waits until there are none.
    pub(super) fn remaining(&self) -> usize {
        let up: usize = (self.held.values())
            .filter_map(|held| held.pool.pool())
            .map(|pool| pool.instance_ids().len())
            .sum();
        up + self.starting + self.adopting.len() + self.stopping.len()
    }

    fn open(&self, registered: &Registered) -> PoolKind {
        let limits = registered.function.limits();
        let (key, waiters_max) = (registered.key, self.means.settings.waiters_max);
        let attention = self.means.attention.clone();
        if registered.function.is_pooled() {
            let journal = self.means.journal.clone();
            PoolKind::Pool(Pool::new(
                key,
                limits.concurrency,
                waiters_max,
                attention,
                journal,
            ))
        } else {
            let (max, budget) = (registered.function.scaling().max, self.means.budget.clone());
            PoolKind::Runs(Runs::new(
                key,
                limits.memory_mb,
                max,
                waiters_max,
                budget,
                attention,
            ))
        }
    }
}

/// The record's function, for the provider.
pub(super) fn function_of(registered: &Registered) -> Arc<Function> {
    Arc::clone(&registered.function)
}

#[cfg(test)]
mod tests;
