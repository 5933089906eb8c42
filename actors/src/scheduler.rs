//! The scheduler fires the slots of schedules: each once in the cluster, decided in the store.
//!
//! It runs on every node, owns nothing but what it can read again from the store, and sleeps until the next slot. The nodes take turns by a
//! rendezvous hash: the first one of a schedule claims a slot when it is due, the others each half a second later, if nobody has.
//! What decides is the store: a claim asks for the progress that its node knows (`progress`), so of two that claim one is refused, and where the
//! store can not be written nothing fires. Which time it is, the clocks of all nodes decide together (`clock`). See docs/adr/0024.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cluster::Members;
use config::Store;
use config::recurring::{Due, Recurring};
use config::settings::SchedulesSettings;
use config::store::{Change, Entry, Error as StoreError, Listing, Watch, WatchEvent};
use protocol::{Failure, Generation, NodeId, ScheduleRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod clock;
mod fire;
pub mod progress;
mod state;

pub use crate::catalog::wall_ms;
use crate::registry_cache::Registry;
use crate::snapshot::Reader;
use clock::Clocks;
use fire::{Firing, Meters};
use progress::PROGRESS_PREFIX;
pub use progress::Progress;
use state::{Ended, Key, Known, State};

/// What the scheduler's records in the store begin with.
const PREFIX: &str = "scheduler/";

/// The prefix of the clocks of nodes; a record's key is `scheduler/clocks/<node>`.
const CLOCKS_PREFIX: &str = "scheduler/clocks/";

/// The longest sleep: a wall clock that was set is noticed by then.
const SLEEP_MAX: Duration = Duration::from_secs(5);

/// The pause before the store is listed again, and before a scheduler that broke starts again.
const PAUSE: Duration = Duration::from_secs(1);

/// One slot of a schedule.
#[derive(Debug, Clone)]
pub struct Slot {
    /// The schedule.
    pub schedule: Arc<ScheduleRecord>,
    /// The moment, in milliseconds since 1970.
    pub slot_ms: u64,
}

/// Has done what a schedule is for.
#[async_trait]
pub trait Fire: Send + Sync + fmt::Debug + 'static {
    /// Queues what comes of a slot. It may be called again for the same slot, and gives it the same names then.
    ///
    /// # Errors
    /// When it was not queued; the effect says whether it may have been.
    async fn fire(&self, slot: &Slot) -> Result<(), Failure>;
}

/// What a scheduler is made from.
#[derive(Debug, Clone)]
pub struct Args {
    /// The limits and times.
    pub settings: SchedulesSettings,
    /// This node.
    pub node_id: NodeId,
    /// Its `--name`.
    pub node_name: Arc<str>,
    /// Its incarnation.
    pub generation: Generation,
    /// Where schedules and their progress are.
    pub store: Arc<dyn Store>,
    /// The schedules that this node knows.
    pub registry: Reader<Registry>,
    /// The other nodes.
    pub members: watch::Receiver<Arc<Members>>,
    /// Does what schedules are for.
    pub fire: Arc<dyn Fire>,
    /// The clock of this node, in milliseconds since 1970: [`wall_ms`] in a running one.
    pub clock: fn() -> u64,
}

/// A running scheduler. Dropping it leaves it to the runtime: use [`Scheduler::stop`].
#[derive(Debug)]
pub struct Scheduler {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A node's clock as it tells it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClockRecord {
    clock_ms: u64,
}

impl Scheduler {
    /// Starts to fire. The recorder of metrics must be installed by then.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(args: Args) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (spawner, token) = (tasks.clone(), stop.clone());
        tasks.spawn(async move {
            while !token.is_cancelled() {
                let run = Run::begin_and_go_on(args.clone(), spawner.clone(), token.clone());
                if let Err(error) = spawner.spawn(run).await {
                    tracing::error!(%error, "the scheduler broke, and starts again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        tasks.close();
        Self { tasks, stop }
    }

    /// Claims nothing more, and waits until what it has claimed is queued, at most until the deadline.
    pub async fn stop(self, deadline: Instant) {
        self.stop.cancel();
        let ended = tokio::time::timeout_at(deadline, self.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("slots that this node has claimed are left to the others");
        }
    }
}

/// A scheduler from when it has read the store.
struct Run {
    args: Args,
    firing: Arc<Firing>,
    state: State,
    clocks: Clocks,
    members: watch::Receiver<Arc<Members>>,
    ended: mpsc::Sender<(Key, Ended)>,
    ends: mpsc::Receiver<(Key, Ended)>,
    told: mpsc::Sender<()>,
    tellings: mpsc::Receiver<()>,
    is_telling: bool,
    has_told: bool,
    /// When this node's clock is told next.
    tell_at: Instant,
    /// Whether the time of the cluster was known when it was looked at last.
    knows_time: bool,
    skewed: Recurring,
    tasks: TaskTracker,
}

impl Run {
    async fn begin_and_go_on(args: Args, tasks: TaskTracker, stop: CancellationToken) {
        let begun = stop.run_until_cancelled(Self::begin(args, tasks)).await;
        if let Some((mut run, listing)) = begun {
            run.go_on(listing, &stop).await;
        }
    }

    async fn begin(args: Args, tasks: TaskTracker) -> (Self, Listing) {
        let listing = list(&*args.store).await;
        let now = Instant::now();
        let others = listing
            .entries
            .iter()
            .filter_map(|entry| clock_of(&entry.key));
        let others: BTreeSet<NodeId> = others.filter(|node| *node != args.node_id).collect();
        let settings = args.settings.clone();
        let firing = Firing {
            store: Arc::clone(&args.store),
            fire: Arc::clone(&args.fire),
            node: args.node_id.clone(),
            node_name: Arc::clone(&args.node_name),
            generation: args.generation,
            queue_timeout: settings.takeover_after,
            counted_max: settings.counted_max,
            meters: Meters::new(),
            trouble: std::sync::Mutex::default(),
        };
        let (ended, ends) = mpsc::channel(settings.firing_max);
        let (told, tellings) = mpsc::channel(1);
        let run = Self {
            firing: Arc::new(firing),
            clocks: Clocks::new(settings.clock_interval, others, now),
            state: State::new(settings, args.node_id.clone(), args.generation),
            members: args.members.clone(),
            args,
            ended,
            ends,
            told,
            tellings,
            is_telling: false,
            has_told: false,
            tell_at: now,
            knows_time: false,
            skewed: Recurring::default(),
            tasks,
        };
        (run, listing)
    }

    async fn go_on(&mut self, listing: Listing, stop: &CancellationToken) {
        let mut watch = self.args.store.watch(PREFIX, listing.revision);
        let mut registry = self.args.registry.changes();
        self.on_listing(&listing);
        self.on_members();
        self.on_registry();
        loop {
            let wake = self.act();
            tokio::select! {
                () = stop.cancelled() => break,
                event = watch.recv() => match event {
                    Some(event) => self.on_event(event),
                    None => match stop.run_until_cancelled(self.watch_anew()).await {
                        Some(anew) => watch = anew,
                        None => break,
                    },
                },
                _ = registry.changed() => self.on_registry(),
                Ok(()) = self.members.changed() => self.on_members(),
                Some((key, outcome)) = self.ends.recv() => {
                    let now = Instant::now();
                    self.state.on_ended(&key, outcome, now, self.now_ms(now));
                }
                Some(()) = self.tellings.recv() => self.is_telling = false,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.say_farewell().await;
    }

    /// The time of the cluster.
    fn now_ms(&self, now: Instant) -> u64 {
        self.clocks.now_ms((self.args.clock)(), now)
    }

    /// Does what is due, and says when to look again.
    fn act(&mut self) -> Instant {
        let now = Instant::now();
        let mut wake = now + SLEEP_MAX;
        let unknown_until = self.clocks.unknown_until(now);
        let has_others = unknown_until.is_some() || !self.members.borrow().is_empty();
        if !self.state.is_idle() && has_others {
            self.tell_clock(now);
            if !self.is_telling {
                wake = wake.min(self.tell_at);
            }
        }
        if let Some(until) = unknown_until {
            self.knows_time = false;
            return wake.min(until);
        }
        let now_ms = self.now_ms(now);
        if !self.knows_time {
            self.knows_time = true;
            self.state.on_clock(now_ms);
            self.forget_silent();
        }
        for attempt in self.state.take(self.args.settings.firing_max, now, now_ms) {
            let (firing, ended) = (Arc::clone(&self.firing), self.ended.clone());
            self.tasks.spawn(async move {
                let outcome = firing.attempt(&attempt).await;
                // Nobody hears it when the node stops, and then nobody needs to.
                let _ = ended.send((attempt.key, outcome)).await;
            });
        }
        self.state.wake(now, now_ms).map_or(wake, |at| wake.min(at))
    }

    /// Tells the other nodes this one's clock, if it is time.
    fn tell_clock(&mut self, now: Instant) {
        if self.is_telling || now < self.tell_at {
            return;
        }
        self.tell_at = now + self.args.settings.clock_interval;
        (self.is_telling, self.has_told) = (true, true);
        self.check_skew(now);
        let key = format!("{CLOCKS_PREFIX}{}", self.args.node_id);
        let (firing, told, clock) = (Arc::clone(&self.firing), self.told.clone(), self.args.clock);
        self.tasks.spawn(async move {
            let record = ClockRecord { clock_ms: clock() };
            let value = serde_json::to_vec(&record).expect("a number has a JSON form");
            if let Err(error) = firing.store.put(&key, value.into(), None).await {
                firing.warn_store(&error);
            }
            let _ = told.send(()).await;
        });
    }

    /// Removes the clocks of nodes that tell them no more, so that no node waits for them again.
    fn forget_silent(&mut self) {
        let silent = self.clocks.take_silent();
        if silent.is_empty() {
            return;
        }
        let store = Arc::clone(&self.args.store);
        self.tasks.spawn(async move {
            for node in silent {
                if let Err(error) = store.delete(&format!("{CLOCKS_PREFIX}{node}"), None).await {
                    tracing::debug!(%node, %error, "the clock of a silent node stays in the store");
                }
            }
        });
    }

    fn check_skew(&mut self, now: Instant) {
        let (own_ms, cluster_ms) = ((self.args.clock)(), self.now_ms(now));
        let skew = Duration::from_millis(own_ms.abs_diff(cluster_ms));
        let sign = if own_ms < cluster_ms { -1.0 } else { 1.0 };
        metrics::gauge!("hearth_clock_skew_seconds").set(sign * skew.as_secs_f64());
        if skew <= self.args.settings.clock_skew_max {
            self.skewed.end(now);
        } else if let Some(Due { seconds, .. }) = self.skewed.note(now) {
            let how = if own_ms < cluster_ms {
                "behind"
            } else {
                "ahead of"
            };
            tracing::error!(
                skew_seconds = skew.as_secs_f64(),
                seconds,
                "this node's clock is {how} the clocks of the other nodes, and schedules go by theirs: set it"
            );
        }
    }

    fn on_listing(&mut self, listing: &Listing) {
        let known = listing.entries.iter().filter_map(known);
        let known: HashMap<Key, Known> = known.collect();
        let now = Instant::now();
        self.state.on_all_progress(known, self.now_ms(now));
    }

    fn on_event(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Reset(listing) => self.on_listing(&listing),
            WatchEvent::Changes { changes, .. } => {
                for change in changes {
                    self.on_change(&change);
                }
            }
        }
    }

    fn on_change(&mut self, change: &Change) {
        let now = Instant::now();
        if let Some(node) = clock_of(change.key()) {
            if node == self.args.node_id {
                return;
            }
            match change {
                Change::Deleted(_) => self.clocks.forget(&node),
                Change::Put(entry) => {
                    let record: Option<ClockRecord> = serde_json::from_slice(&entry.value).ok();
                    let record = record.map(|record| record.clock_ms);
                    if record.is_some_and(|clock_ms| self.clocks.hear(node, clock_ms, now)) {
                        // One that has just begun waits for this one's clock.
                        self.tell_at = now;
                    }
                }
            }
        } else if let Some(key) = change.key().strip_prefix(PROGRESS_PREFIX) {
            let now_ms = self.now_ms(now);
            let told = match change {
                Change::Put(entry) => known(entry).map(|(_, known)| known),
                Change::Deleted(_) => None,
            };
            self.state.on_progress(&key.into(), told, now_ms);
        }
    }

    fn on_registry(&mut self) {
        let registry = self.args.registry.get();
        if !registry.is_loaded {
            return;
        }
        let now = Instant::now();
        let now_ms = self.now_ms(now);
        let was_idle = self.state.is_idle();
        self.state.on_registry(&registry, now_ms);
        if was_idle && !self.state.is_idle() {
            // Nobody told its clock while there was nothing to fire.
            let others = self.state.others().iter().cloned();
            self.clocks.wait_for(others, now);
            self.tell_at = now;
        }
    }

    fn on_members(&mut self) {
        let members = Arc::clone(&self.members.borrow_and_update());
        let now_ms = self.now_ms(Instant::now());
        self.state.on_members(&members, now_ms);
    }

    async fn watch_anew(&mut self) -> Watch {
        tracing::error!("the store's watch of schedules ended; listing anew");
        tokio::time::sleep(PAUSE).await;
        let listing = list(&*self.args.store).await;
        self.on_listing(&listing);
        self.args.store.watch(PREFIX, listing.revision)
    }

    /// Nobody need wait for this node's clock any more.
    async fn say_farewell(&self) {
        let key = format!("{CLOCKS_PREFIX}{}", self.args.node_id);
        if !self.has_told {
            return;
        }
        let deleted = tokio::time::timeout(PAUSE, self.args.store.delete(&key, None)).await;
        if !matches!(deleted, Ok(Ok(_))) {
            tracing::debug!("the clock of this node stays in the store");
        }
    }
}

/// All records of the scheduler, as soon as the store answers.
async fn list(store: &dyn Store) -> Listing {
    let mut failing = Recurring::default();
    loop {
        match store.list(PREFIX).await {
            Ok(listing) => return listing,
            Err(error) => warn_list(&mut failing, &error),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn warn_list(failing: &mut Recurring, error: &StoreError) {
    metrics::counter!("hearth_schedule_failures_total", "reason" => "store").increment(1);
    if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
        tracing::warn!(%error, times, seconds, "schedules do not fire here: the config store can not be read");
    }
}

/// The node whose clock a record is.
fn clock_of(key: &str) -> Option<NodeId> {
    key.strip_prefix(CLOCKS_PREFIX)?.parse().ok()
}

/// The progress that a record is, and whose.
fn known(entry: &Entry) -> Option<(Key, Known)> {
    let key = entry.key.strip_prefix(PROGRESS_PREFIX)?;
    let known = Known {
        progress: Progress::read(&entry.value)?,
        revision: entry.revision,
    };
    Some((key.into(), known))
}

#[cfg(test)]
mod tests;
