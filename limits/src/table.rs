//! The limits that this node applies now, each with a task that settles it with the store.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use config::Store;
use config::recurring::{Due, Recurring};
use config::settings::QuotasSettings;
use config::store::{Change, WatchEvent, patience};
use foldhash::fast::RandomState;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::at_once::{AtOnce, Besides, Permit};
use crate::bucket::Rate;
use crate::error::Error;
use crate::rate::{RateLimit, Standing, Verdict};
use crate::subject::{Exceeded, Subject, What};

/// The prefix of the buckets.
const RATES: &str = "limits/rate/";

/// The prefix of the shares.
const SHARES: &str = "limits/at-once/";

/// Limits that are settled at once.
const SETTLING_MAX: usize = 32;

/// The shortest time between two settlements of one limit: what is given back meanwhile is given back together.
const PAUSE: Duration = Duration::from_millis(5);

/// What limits are made from.
pub struct Args {
    /// The config store.
    pub store: Arc<dyn Store>,
    /// `[quotas]`.
    pub settings: QuotasSettings,
    /// How many nodes there are, this one included.
    pub nodes: Arc<dyn Fn() -> u32 + Send + Sync>,
    /// What its tasks are spawned on.
    pub tracker: TaskTracker,
    /// Ends them.
    pub stop: CancellationToken,
}

/// All limits, as one node applies them; cheap to clone.
#[derive(Clone)]
pub struct Limits(Arc<Inner>);

struct Inner {
    args: Args,
    /// The name of this run of the node among the shares.
    own: String,
    rates: Table<Subject, Settled>,
    at_once: Table<(&'static str, Subject), AtOnce>,
    begun: Instant,
    settling: Semaphore,
}

/// A rate, and who waits for its next settlement.
struct Settled {
    /// As it was set.
    rate: Rate,
    limit: RateLimit,
    soon: Notify,
    settled: Notify,
}

impl Settled {
    /// Counts one call, if this node can tell.
    fn take(&self, subject: &Subject) -> Result<Option<Standing>, Exceeded> {
        let verdict = self.limit.ask();
        if self.limit.is_low() || verdict == Verdict::Unknown {
            self.soon.notify_one();
        }
        match verdict {
            Verdict::Given => Ok(Some(self.limit.standing())),
            Verdict::Unknown => Ok(None),
            Verdict::Refused => Err(self.exceeded(subject)),
        }
    }

    fn exceeded(&self, subject: &Subject) -> Exceeded {
        Exceeded {
            standing: Some(self.limit.standing()),
            retry_after: self.limit.retry_after(),
            ..exceeded(subject, What::Rate(self.rate))
        }
    }
}

/// What is applied now. The warm path looks here, so the hash is a fast one, seeded anew in each process.
struct Table<K, T>(RwLock<HashMap<K, Arc<T>, RandomState>>);

impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").finish_non_exhaustive()
    }
}

impl Limits {
    /// Follows what other nodes need. Without a limit that is set nothing is asked of the store but that.
    pub fn start(args: Args) -> Self {
        let (tracker, stop) = (args.tracker.clone(), args.stop.clone());
        let limits = Self(Arc::new(Inner {
            args,
            own: format!("{:016x}", rand::random::<u64>()),
            rates: Table::default(),
            at_once: Table::default(),
            begun: Instant::now(),
            settling: Semaphore::new(SETTLING_MAX),
        }));
        let following = limits.clone();
        let following = async move { following.follow().await };
        tracker.spawn(stop.run_until_cancelled_owned(following));
        limits
    }

    /// Counts one call, if this node can tell; nothing where its next settlement tells.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing was counted then.
    pub fn try_take(&self, subject: &Subject, rate: Rate) -> Result<Option<Standing>, Exceeded> {
        let limit = self.rate_of(subject, rate)?;
        limit.take(subject)
    }

    /// Counts one call. What this node can not tell, it waits for, at most `quotas.wait`.
    ///
    /// # Errors
    /// [`Exceeded`]; nothing was counted then.
    ///
    /// # Cancel safety
    /// A call that is dropped may have been counted.
    pub async fn take(&self, subject: &Subject, rate: Rate) -> Result<Standing, Exceeded> {
        let limit = self.rate_of(subject, rate)?;
        let until = Instant::now() + self.0.args.settings.wait;
        loop {
            let settled = limit.settled.notified();
            if let Some(standing) = limit.take(subject)? {
                return Ok(standing);
            }
            if timeout_at(until, settled).await.is_err() {
                return Err(limit.exceeded(subject));
            }
        }
    }

    /// Begins something of which there may be `max` at once, if this node has room for it.
    ///
    /// # Errors
    /// [`Exceeded`], where this node applies as many limits as it may.
    pub fn try_enter(&self, subject: &Subject, max: u32) -> Result<Option<Permit>, Exceeded> {
        let limit = self.at_once_of(subject, What::Concurrent(max), max, || None)?;
        Ok(limit.try_enter(1))
    }

    /// Begins something of which there may be `max` at once. What this node has no room for waits for what others give back, at most
    /// `quotas.wait`.
    ///
    /// # Errors
    /// [`Exceeded`].
    ///
    /// # Cancel safety
    /// Safe: who is dropped has begun nothing.
    pub async fn enter(&self, subject: &Subject, max: u32) -> Result<Permit, Exceeded> {
        let what = What::Concurrent(max);
        let limit = self.at_once_of(subject, what, max, || None)?;
        self.enter_one(&limit, subject, what, 1).await
    }

    /// Begins to queue so many deliveries, of which there may be `max` queued; the permit is for as long as they are not queued yet.
    /// `queued` counts those of this node that are.
    ///
    /// # Errors
    /// [`Exceeded`].
    pub async fn enqueue(
        &self,
        subject: &Subject,
        max: u32,
        count: u32,
        queued: impl FnOnce() -> Besides,
    ) -> Result<Permit, Exceeded> {
        let what = What::Queued(max);
        let limit = self.at_once_of(subject, what, max, || Some(queued()))?;
        self.enter_one(&limit, subject, what, count).await
    }

    async fn enter_one(
        &self,
        limit: &Arc<AtOnce>,
        subject: &Subject,
        what: What,
        count: u32,
    ) -> Result<Permit, Exceeded> {
        if let Some(permit) = limit.try_enter(count) {
            return Ok(permit);
        }
        let settings = &self.0.args.settings;
        let until = Instant::now() + settings.wait;
        let entered = limit.enter(count, until, settings.waiting_max).await;
        entered.ok_or_else(|| exceeded(subject, what))
    }

    fn rate_of(&self, subject: &Subject, rate: Rate) -> Result<Arc<Settled>, Exceeded> {
        let is_current = |limit: &Settled| limit.rate == rate;
        let found = self.0.rates.get(subject);
        if let Some(limit) = found.filter(|limit| is_current(limit)) {
            return Ok(limit);
        }
        let interval = self.0.args.settings.settle_interval;
        let key = format!("{RATES}{}", subject.key());
        let made = self
            .0
            .rates
            .make(subject, self.room(), is_current, || Settled {
                rate,
                limit: RateLimit::new(key.clone(), rate, interval, (self.0.args.nodes)()),
                soon: Notify::new(),
                settled: Notify::new(),
            });
        let (limit, is_new) = made.ok_or_else(|| exceeded(subject, What::Rate(rate)))?;
        if is_new {
            let (limits, limit, subject) = (self.clone(), Arc::clone(&limit), subject.clone());
            self.spawn(async move { limits.keep_rate(&subject, &key, &limit).await });
        }
        Ok(limit)
    }

    fn at_once_of(
        &self,
        subject: &Subject,
        what: What,
        max: u32,
        besides: impl FnOnce() -> Option<Besides>,
    ) -> Result<Arc<AtOnce>, Exceeded> {
        let whose = (what.kind(), subject.clone());
        if let Some(limit) = self.0.at_once.get(&whose) {
            limit.set_max(max);
            return Ok(limit);
        }
        let own = self.0.own.clone();
        let key = format!("{SHARES}{}/{}", what.kind(), subject.key());
        let made = self.0.at_once.make(
            &whose,
            self.room(),
            |_| true,
            || AtOnce::new(key.clone(), own, max, besides()),
        );
        let (limit, is_new) = made.ok_or_else(|| exceeded(subject, what))?;
        if is_new {
            let (limits, limit) = (self.clone(), Arc::clone(&limit));
            self.spawn(async move { limits.keep_at_once(&whose, &key, &limit).await });
        }
        Ok(limit)
    }

    /// How many limits each table may have.
    fn room(&self) -> usize {
        self.0.args.settings.limits_max
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let args = &self.0.args;
        let task = args.stop.clone().run_until_cancelled_owned(task);
        args.tracker.spawn(task);
    }

    /// Settles a rate until nobody asks for it any more.
    async fn keep_rate(&self, subject: &Subject, key: &str, limit: &Arc<Settled>) {
        let args = &self.0.args;
        let (mut pace, mut failing) = (self.pace(), Failing::default());
        let mut passed_since = Instant::now();
        while self.0.rates.has(subject, limit) {
            // In vain it is not settled sooner, but when it is due.
            tokio::select! {
                _ = pace.tick() => {}
                () = limit.soon.notified(), if failing.is_fine() => {}
            }
            let nodes = (args.nodes)();
            let settled = {
                // Never closed.
                let _turn = self.0.settling.acquire().await;
                limit
                    .limit
                    .settle(&*args.store, || self.0.begun.elapsed(), nodes)
                    .await
            };
            let passed = std::mem::replace(&mut passed_since, Instant::now()).elapsed();
            match failing.note(key, settled) {
                None => limit.limit.go_alone(passed, nodes),
                Some(true) if self.0.rates.forget(subject, limit) => return,
                Some(_) => {}
            }
            limit.settled.notify_waiters();
            sleep(PAUSE).await;
        }
    }

    /// Settles shares until nobody uses them any more.
    async fn keep_at_once(&self, whose: &(&'static str, Subject), key: &str, limit: &Arc<AtOnce>) {
        let args = &self.0.args;
        let lost_after = args.settings.lost_after;
        let (mut pace, mut failing) = (self.pace(), Failing::default());
        loop {
            tokio::select! {
                _ = pace.tick() => {}
                () = limit.soon.notified(), if failing.is_fine() => {}
            }
            let settled = {
                let _turn = self.0.settling.acquire().await;
                let now = || self.0.begun.elapsed();
                limit.settle(&*args.store, now, lost_after).await
            };
            match failing.note(key, settled) {
                None => {
                    let (now, nodes) = (self.0.begun.elapsed(), (args.nodes)());
                    limit.go_alone(now, lost_after, nodes).await;
                }
                Some(true) if limit.is_idle() && self.0.at_once.forget(whose, limit) => return,
                Some(_) => {}
            }
            sleep(PAUSE).await;
        }
    }

    /// The moments of settlements, at another phase for each limit, so that they do not come together.
    fn pace(&self) -> tokio::time::Interval {
        let every = self.0.args.settings.settle_interval;
        let mut pace = interval_at(Instant::now() + every.mul_f64(rand::random()), every);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        pace
    }

    /// The limit that a record of shares is of, if this node applies it.
    fn shared_by(&self, key: &str) -> Option<Arc<AtOnce>> {
        let (kind, subject) = key.strip_prefix(SHARES)?.split_once('/')?;
        let kinds = [What::Concurrent(0), What::Queued(0)].map(|what| what.kind());
        let kind = kinds.into_iter().find(|known| *known == kind)?;
        self.0.at_once.get(&(kind, Subject::of_key(subject)?))
    }

    /// Hears what other nodes hold and need.
    async fn follow(&self) {
        let store = &self.0.args.store;
        let listing = patience::list_until_done(&**store, SHARES).await;
        let mut watch = store.watch(SHARES, listing.revision);
        while let Some(event) = watch.recv().await {
            let changes = match event {
                WatchEvent::Changes { changes, .. } => changes,
                WatchEvent::Reset(listing) => {
                    listing.entries.into_iter().map(Change::Put).collect()
                }
            };
            for change in changes {
                let Some(limit) = self.shared_by(change.key()) else {
                    continue;
                };
                match change {
                    Change::Put(entry) => limit.on_change(entry.revision, &entry.value),
                    Change::Deleted(_) if limit.is_idle() => {}
                    Change::Deleted(_) => limit.soon.notify_one(),
                }
            }
        }
    }
}

/// What goes wrong with settling one limit.
#[derive(Debug, Default)]
struct Failing {
    is_failing: bool,
    recurring: Recurring,
}

impl Failing {
    fn is_fine(&self) -> bool {
        !self.is_failing
    }

    /// Notes how a settlement ended; nothing when it failed.
    fn note(&mut self, key: &str, settled: Result<bool, Error>) -> Option<bool> {
        self.is_failing = settled.is_err();
        match settled {
            Ok(is_at_rest) => {
                self.recurring.end(Instant::now());
                Some(is_at_rest)
            }
            Err(error) => {
                metrics::counter!("hearth_limits_settle_failures_total").increment(1);
                if let Some(Due { times, seconds }) = self.recurring.note(Instant::now()) {
                    tracing::warn!(
                        limit = key, %error, times, seconds,
                        "a limit is not settled with the other nodes; this one gives its part of it"
                    );
                }
                None
            }
        }
    }
}

fn exceeded(subject: &Subject, what: What) -> Exceeded {
    metrics::counter!("hearth_limits_refused_total", "of" => subject.kind(), "limit" => what.kind())
        .increment(1);
    Exceeded {
        subject: subject.clone(),
        what,
        standing: None,
        retry_after: Duration::from_secs(1),
    }
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<K: Clone + Eq + Hash, T> Table<K, T> {
    fn get(&self, key: &K) -> Option<Arc<T>> {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        table.get(key).cloned()
    }

    /// The one that is there, if it will do, or a new one; nothing where there is no room for that.
    fn make(
        &self,
        key: &K,
        len_max: usize,
        will_do: impl Fn(&T) -> bool,
        new: impl FnOnce() -> T,
    ) -> Option<(Arc<T>, bool)> {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match table.get(key) {
            Some(found) if will_do(found) => return Some((Arc::clone(found), false)),
            None if table.len() >= len_max => return None,
            _ => {}
        }
        let made = Arc::new(new());
        table.insert(key.clone(), Arc::clone(&made));
        Some((made, true))
    }

    fn has(&self, key: &K, item: &Arc<T>) -> bool {
        self.get(key).is_some_and(|found| Arc::ptr_eq(&found, item))
    }

    /// Forgets one that nobody has but the table and its task; false when somebody has.
    fn forget(&self, key: &K, item: &Arc<T>) -> bool {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_unused = Arc::strong_count(item) == 2;
        if is_unused {
            table.remove(key);
        }
        is_unused
    }
}

#[cfg(test)]
mod tests;
