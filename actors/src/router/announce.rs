//! What this node gossips of itself.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cluster::hint::Hint;
use cluster::membership::{Load, LocalState, Membership};

use crate::executor::{Budget, Kind, Launchers, Pools};
use crate::invoker::InFlight;
use crate::snapshot::Reader;

/// Takes what this node says of itself.
pub trait Announce: Send + Sync + fmt::Debug + 'static {
    /// Replaces what was said before; cheap, so that it may be called often.
    fn publish(&self, state: LocalState);

    /// What names the cluster's secrets as this node has them, the one that seals first.
    fn secrets(&self) -> Vec<String>;
}

impl Announce for Membership {
    fn publish(&self, state: LocalState) {
        Membership::publish(self, state);
    }

    fn secrets(&self) -> Vec<String> {
        Membership::secrets(self)
    }
}

/// Puts together what this node gossips of itself.
#[derive(Debug, Clone)]
pub struct Announcer {
    /// What never changes while the node runs.
    pub base: LocalState,
    /// The most instance keys that are told.
    pub hints_max: usize,
    /// The most images that are told.
    pub images_max: usize,
    /// The node's instances.
    pub pools: Reader<Pools>,
    /// The node's memory and instance limits.
    pub budget: Budget,
    /// The node's providers.
    pub launchers: Launchers,
    /// Invocations running or waiting here.
    pub in_flight: InFlight,
    /// Whether the node drains.
    pub is_draining: Arc<AtomicBool>,
    /// Where it is told.
    pub announce: Arc<dyn Announce>,
}

impl Announcer {
    /// Tells gossip how this node is now.
    pub fn announce(&self) {
        self.announce.publish(self.state());
    }

    /// How this node is now.
    pub fn state(&self) -> LocalState {
        let used = self.budget.used();
        let images = self
            .launchers
            .get(Kind::Container)
            .map(|launch| launch.images())
            .unwrap_or_default();
        LocalState {
            is_draining: self.is_draining.load(Ordering::Acquire),
            has_engine: self.launchers.can_run(Kind::Container),
            allows_processes: self.launchers.can_run(Kind::Process),
            secrets: self.announce.secrets(),
            load: Load {
                in_flight: self.in_flight.count(),
                instances: used.instances,
                instances_max: self.budget.instances_max(),
                memory_used_mb: used.memory_mb,
                memory_max_mb: self.budget.memory_max_mb(),
            },
            hints: self.hints(),
            images: images.iter().take(self.images_max).cloned().collect(),
            ..self.base.clone()
        }
    }

    /// Keys with instances, those with most free slots first.
    fn hints(&self) -> Vec<Hint> {
        let pools = self.pools.load();
        let hint = |(key, (pool, _)): (&_, &(crate::executor::PoolKind, _))| {
            let hint = Hint {
                key: *key,
                free_slots: pool.free_slots(),
                instances: pool.instances(),
            };
            (hint.instances > 0).then_some(hint)
        };
        let mut hints: Vec<Hint> = pools.pools.iter().filter_map(hint).collect();
        hints.sort_by_key(|hint| (std::cmp::Reverse(hint.free_slots), hint.key));
        hints.truncate(self.hints_max);
        hints
    }
}
