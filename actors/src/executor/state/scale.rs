//! How many instances of a function there should be: stops what is too many, starts what is too few, makes room.

use std::sync::Arc;
use std::time::Duration;

use protocol::{Component, Effect, ErrorCode, Failure, InstanceKey};
use tokio::time::Instant;

use super::{Action, Elsewhere, Held, State};
use crate::executor::PoolKind;
use crate::executor::launchers::Kind;
use crate::executor::pool::Pool;
use crate::registry_cache::Registered;

/// How long room is thought to come from an instance that is being removed; then another is removed as well.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The longest pause between failing starts of one function.
const START_BACKOFF_MAX: Duration = Duration::from_secs(30);

impl State {
    /// Removes instances that drain and on which nothing runs any more.
    pub(super) fn stop_drained(&mut self, key: InstanceKey, now: Instant) -> Vec<Action> {
        let Some(held) = self.held.get(&key) else {
            return Vec::new();
        };
        let kind = Kind::of(&held.registered.function);
        let Some(pool) = held.pool.pool().cloned() else {
            return Vec::new();
        };
        let mut actions = Vec::new();
        for seat in pool
            .seats()
            .into_iter()
            .filter(|seat| !seat.is_open && seat.busy == 0)
        {
            if let Some(reservation) = pool.remove(&seat.id) {
                actions.push(self.stop(kind, seat.id, Some(reservation), now));
            }
        }
        actions
    }

    pub(super) fn stop_idle(
        &mut self,
        key: InstanceKey,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        let Some((held, pool)) = self
            .held
            .get(&key)
            .and_then(|held| Some((held, held.pool.pool()?)))
        else {
            return Vec::new();
        };
        let scaling = held.registered.function.scaling();
        let kept = if elsewhere.is_home(&held.registered) {
            scaling.min
        } else {
            0
        };
        let seats = pool.seats();
        let open =
            u32::try_from(seats.iter().filter(|seat| seat.is_open).count()).unwrap_or(u32::MAX);
        let mut surplus = open.saturating_sub(kept);
        // A `max` that was lowered holds at once, for what is idle.
        let mut excess = open.saturating_sub(scaling.max);
        for seat in seats
            .iter()
            .rev()
            .filter(|seat| seat.is_open && seat.busy == 0)
        {
            let is_due =
                excess > 0 || (surplus > 0 && now.duration_since(seat.idle_since) >= scaling.idle);
            if is_due && pool.drain_if_idle(&seat.id) {
                surplus = surplus.saturating_sub(1);
                excess = excess.saturating_sub(1);
            }
        }
        self.stop_drained(key, now)
    }

    /// Starts what those who wait, or `min`, need: as many as fit under `max`, the budget and the start limit.
    pub(super) fn scale(
        &mut self,
        key: InstanceKey,
        now: Instant,
        elsewhere: &dyn Elsewhere,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let coming = self.coming(&key);
        let Some(held) = self.held.get_mut(&key).filter(|held| held.is_current) else {
            return actions;
        };
        if self.is_draining
            || self
                .first_listing
                .contains(&Kind::of(&held.registered.function))
        {
            return actions;
        }
        let memory_mb = held.registered.function.limits().memory_mb;
        let PoolKind::Pool(pool) = held.pool.clone() else {
            if held.pool.needs_room() {
                actions.extend(self.make_room(key, now));
            }
            return actions;
        };
        let pause = self.means.settings.start_backoff;
        let wanted = held.wanted_starts(&pool, coming, now, pause, elsewhere);
        if wanted > 0 && !self.means.budget.could_fit(memory_mb) {
            // Nothing that could be stopped would make room, so nothing is.
            let max_mb = self.means.budget.memory_max_mb();
            let message = format!(
                "an instance needs {memory_mb} MiB, instances of this node may have {max_mb} MiB in all"
            );
            pool.fail_waiters(&Failure::new(
                ErrorCode::Overloaded,
                Component::Provider,
                Effect::Refused,
                message,
            ));
            return actions;
        }
        for _ in 0..wanted {
            let Some(held) = self.held.get_mut(&key) else {
                break;
            };
            if held.not_before.is_some_and(|not_before| now < not_before) {
                held.refuse_waiters(&pool, now);
                break;
            }
            if self.starting >= self.means.settings.starts_max {
                break;
            }
            let Some(reservation) = self.means.budget.reserve(memory_mb) else {
                actions.extend(self.make_room(key, now));
                break;
            };
            held.starting += 1;
            self.starting += 1;
            let registered = Arc::clone(&held.registered);
            actions.push(Action::Start {
                key,
                registered,
                reservation,
            });
        }
        actions
    }

    /// Stops the instance of another function that idles longest, above that function's `min`.
    fn make_room(&mut self, for_key: InstanceKey, now: Instant) -> Vec<Action> {
        if self
            .stopping
            .values()
            .any(|since| now.duration_since(*since) < STOP_PATIENCE)
        {
            // Room is on its way already.
            return Vec::new();
        }
        let idle = |(key, held): (&InstanceKey, &Held)| {
            let pool = held.pool.pool().filter(|_| *key != for_key)?;
            let seats = pool.seats();
            if seats.len() <= held.registered.function.scaling().min as usize {
                return None;
            }
            let oldest = seats
                .into_iter()
                .filter(|seat| seat.is_open && seat.busy == 0)
                .min_by_key(|seat| seat.idle_since)?;
            Some((now.duration_since(oldest.idle_since), *key, oldest.id))
        };
        let Some((_, key, id)) = self
            .held
            .iter()
            .filter_map(idle)
            .max_by_key(|(idle_for, ..)| *idle_for)
        else {
            return Vec::new();
        };
        if let Some(pool) = self.held.get(&key).and_then(|held| held.pool.pool()) {
            pool.drain_if_idle(&id);
        }
        self.stop_drained(key, now)
    }
}

impl Held {
    pub(super) fn new(pool: PoolKind, registered: Arc<Registered>) -> Self {
        Self {
            is_current: !pool.is_closed(),
            pool,
            registered,
            starting: 0,
            failures: 0,
            not_before: None,
            last_failure: None,
            lost_at: None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starting == 0 && self.pool.is_empty()
    }

    /// Whether the provider may hold instances of it that have no seat yet, or never get one.
    pub(super) fn has_unseated(&self) -> bool {
        self.starting > 0 || matches!(&self.pool, PoolKind::Runs(runs) if runs.running() > 0)
    }

    fn wanted_starts(
        &self,
        pool: &Arc<Pool>,
        coming: u32,
        now: Instant,
        pause: Duration,
        elsewhere: &dyn Elsewhere,
    ) -> u32 {
        let status = pool.status();
        let scaling = self.registered.function.scaling();
        let waiters = u32::try_from(status.waiters).unwrap_or(u32::MAX);
        let slots_coming = coming.saturating_mul(pool.concurrency());
        let for_waiters = waiters
            .saturating_sub(slots_coming)
            .div_ceil(pool.concurrency());
        let here = status.open.saturating_add(coming);
        let elsewhere_up = elsewhere.instances(self.registered.key);
        let is_put_off = self
            .lost_at
            .is_some_and(|lost_at| now.duration_since(lost_at) < pause);
        let for_min = match elsewhere.is_home(&self.registered) && !is_put_off {
            true => scaling
                .min
                .saturating_sub(here)
                .saturating_sub(elsewhere_up),
            false => 0,
        };
        // Those who wait here get one instance at least: what peers are said to have may be gone.
        let room = match here {
            0 => scaling.max.saturating_sub(elsewhere_up).max(1),
            here => scaling
                .max
                .saturating_sub(here)
                .saturating_sub(elsewhere_up),
        };
        for_waiters.max(for_min).min(room)
    }

    pub(super) fn on_start_failed(&mut self, failure: Failure, now: Instant, backoff: Duration) {
        self.failures = self.failures.saturating_add(1);
        let pause = backoff
            .saturating_mul(1 << (self.failures - 1).min(10))
            .min(START_BACKOFF_MAX);
        self.not_before = Some(now + pause);
        self.last_failure = Some(failure);
        let is_hopeless =
            self.starting == 0 && self.pool.pool().is_some_and(|pool| pool.status().open == 0);
        if let Some(pool) = self.pool.pool().filter(|_| is_hopeless) {
            self.refuse_waiters(&Arc::clone(pool), now);
        }
    }

    /// Tells those who wait why nothing will come, unless an instance is up or coming that will serve them.
    fn refuse_waiters(&self, pool: &Arc<Pool>, now: Instant) {
        if self.starting > 0 || pool.status().open > 0 {
            return;
        }
        let failure = self.last_failure.clone().unwrap_or_else(|| {
            Failure::new(
                ErrorCode::StartFailed,
                Component::Provider,
                Effect::Refused,
                "the instance did not start",
            )
        });
        let left = self.not_before.map_or(Duration::ZERO, |not_before| {
            not_before.saturating_duration_since(now)
        });
        pool.fail_waiters(
            &failure.retry_after_ms(u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1)),
        );
    }
}
