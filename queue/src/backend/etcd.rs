//! Deliveries in etcd, each made at least once: those of a node that dies are made by the others.
//!
//! What it promises. A delivery whose `enqueue` returned is in etcd. It belongs to the node that accepted it, and to another one when
//! that node's session is gone; what ran then is made once more. Ends are told at once, and not waited for: a node that is killed may have
//! made deliveries whose ends nobody knows. A node whose session is gone neither accepts, leases nor settles anything.
//!
//! `keys.rs` is what is where in etcd, `transaction.rs` how a node changes that, `session.rs` what it needs for it, `held.rs` what it has in
//! memory, `audit.rs` what of that etcd has, `writer.rs` the task that tells etcd, `look.rs` the one that looks at what the others do, `takeover.rs` and `handover.rs` how work changes its node, `dead.rs`
//! the dead letters, `cancel.rs` how others are asked to end a delivery, and `upkeep.rs` what one node does for all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use config::etcd::Members;
use config::settings::EtcdSettings;
use metrics::{Counter, Gauge};
use protocol::{Generation, NodeId, Space};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tokio_util::task::TaskTracker;

use super::limits::{count, room};
use super::record::{self, Put, Record};
use super::turns::{Taken, micros};
use super::{
    Audit, Change, Counters, DeadLetter, Delivery, DeliveryId, Error, Lease, Leased, Limits,
    Outcome, Permits, Promise, Queue, Stats,
};

mod audit;
mod cancel;
mod dead;
mod handover;
mod held;
mod keys;
mod look;
mod session;
mod shared;
mod takeover;
mod transaction;
mod upkeep;
mod writer;

pub use super::Deaths;
use held::{Batch, Spot};
use keys::Keys;
use shared::{Job, Shared, unavailable};
use transaction::{Changes, Op};

/// The largest batch that is taken at once, in bytes, and the largest request that etcd takes is half as much again.
const BATCH_BYTES_MAX: usize = transaction::BYTES_MAX;

/// How a queue in etcd is kept.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bounds of what waits on this node.
    pub limits: Limits,
    /// This node.
    pub node: NodeId,
    /// Its incarnation.
    pub generation: Generation,
    /// How long etcd keeps the session of a node that it does not hear.
    pub session_timeout: Duration,
    /// How long one operation may take.
    pub operation_timeout: Duration,
    /// Bytes that may wait in the whole cluster.
    pub cluster_bytes_max: u64,
    /// What etcd may hold in all. Nothing is accepted from the half of it on.
    pub storage_max: u64,
    /// History that is older is compacted; never where this is zero.
    pub compact_after: Duration,
    /// Dead letters that are kept; beyond it the oldest are dropped.
    pub dead_len_max: usize,
    /// Bytes of dead letters that are kept.
    pub dead_bytes_max: u64,
    /// How long dead letters are kept.
    pub dead_age_max: Duration,
}

/// What is told of a queue while it runs.
#[derive(Clone)]
pub struct Meters {
    /// Deliveries that wait on this node.
    pub backlog: Gauge,
    /// Dead letters of the cluster.
    pub dead: Gauge,
    /// Bytes that etcd uses.
    pub bytes: Gauge,
    /// Leases that were lost, so that their deliveries are made once more.
    pub lost: Counter,
    /// Dead letters that this node dropped, as there were too many or they were too old.
    pub dropped: Counter,
    /// Deliveries that this node took over from others.
    pub taken_over: Counter,
    /// Sessions that this node lost.
    pub sessions_lost: Counter,
    /// What happens to deliveries.
    pub changes: Counters,
}

/// A queue in etcd, shared by the nodes of a cluster.
pub struct EtcdQueue {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    _stop: DropGuard,
}

impl EtcdQueue {
    /// Opens the queue of this cluster. An etcd that does not answer is no error: nothing is accepted until it does.
    ///
    /// # Errors
    /// When the settings of etcd name no endpoint, or a file that can not be read.
    pub async fn open(
        settings: &EtcdSettings,
        cluster_id: &str,
        options: Options,
        deaths: Arc<dyn Deaths>,
        meters: Meters,
    ) -> Result<Self, config::store::Error> {
        let members = Members::new(settings).await?;
        let keys = Keys::new(settings, cluster_id);
        let patience = options.operation_timeout;
        let shared = Arc::new(Shared::new(members, keys, options, meters));
        let tasks = TaskTracker::new();
        tasks.spawn({
            let shared = Arc::clone(&shared);
            let stop = shared.stop.clone();
            async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = run(&shared, &*deaths) => {}
                }
            }
        });
        let queue = Self {
            _stop: shared.stop.clone().drop_guard(),
            shared,
            tasks,
        };
        // Most often etcd is there, and the node can accept events when it says that it is ready.
        let _ = tokio::time::timeout(patience, queue.has_session()).await;
        Ok(queue)
    }

    async fn has_session(&self) {
        while self.shared.state().session.is_none() {
            self.shared.changed.notified().await;
        }
        self.shared.changed.notify_one();
    }
}

/// Holds deliveries under one session after the other.
async fn run(shared: &Shared, deaths: &dyn Deaths) {
    loop {
        let mut session = shared.begin_session().await;
        let (id, lease, ttl) = (session.id, session.lease, session.ttl);
        let why = tokio::select! {
            why = shared.write(&mut session) => why,
            why = shared.keep_session(lease, ttl) => why,
            why = shared.look_around(id, lease, deaths) => why,
            never = shared.stay_awake() => match never {},
        };
        shared.forget();
        if shared.state().is_closing {
            return;
        }
        shared.meters.sessions_lost.increment(1);
        tracing::warn!(
            session = %id, why,
            "the queue in etcd lost its session: what this node held is delivered by whoever takes it over, and what ran is made once more"
        );
    }
}

#[async_trait]
impl Queue for EtcdQueue {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn enqueue(&self, mut deliveries: Vec<Delivery>) -> Result<(), Error> {
        let shared = &self.shared;
        {
            let state = shared.state();
            deliveries.retain(|delivery| !state.held.turns.entries.contains_key(&delivery.id));
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let now = shared.clock.now();
        let body = Record::Put(Put::accepted(&deliveries, now)).write();
        if body.len() > BATCH_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes: body.len(),
                max: BATCH_BYTES_MAX,
            });
        }
        let bytes: usize = deliveries.iter().map(room).sum();
        let written = {
            let mut state = shared.state();
            let session = state.accepting()?;
            state.room_for(bytes as u64, shared.options.cluster_bytes_max)?;
            let lanes = state.held.turns.admit(&deliveries)?;
            let number = state.held.number();
            let batch = Batch::accepted(number, deliveries, lanes, record::since(now));
            let key = shared.keys.batch(session, number);
            shared.tell_meters(&mut state);
            shared.push(
                &mut state,
                Job::holding(batch, true, vec![Op::Put(key, body)]),
            )
        };
        fault_point!("etcd.accept.before_commit");
        answered(written).await?;
        fault_point!("etcd.accept.committed");
        Ok(())
    }

    async fn lease(&self, permits: Permits) -> Result<Vec<Leased>, Error> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let (taken, lost) = {
            let mut state = shared.state();
            if state.is_closing || state.current().is_none() {
                return Ok(Vec::new());
            }
            let lost = state.held.turns.expire(now);
            let taken = state.held.turns.take(permits, now);
            state.has_permits = taken.len() < permits.free;
            shared.tell_meters(&mut state);
            (taken, lost)
        };
        if lost > 0 {
            shared.meters.lost.increment(lost as u64);
            tracing::warn!(
                lost,
                "deliveries were neither settled nor extended, and are made once more"
            );
        }
        let leased = taken.into_iter().map(|taken| leased(taken, now));
        Ok(leased.collect())
    }

    async fn ready(&self) {
        let due = self.shared.state().held.turns.next_due();
        match due.map(|due| self.shared.clock.instant(due)) {
            // A pause or lease that is shorter begins with a notification, so this is looked up again then.
            Some(due) => tokio::select! {
                () = self.shared.changed.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            None => self.shared.changed.notified().await,
        }
    }

    async fn extend(&self, lease: &Lease) -> Result<(), Error> {
        let now = self.shared.clock.now();
        let mut state = self.shared.state();
        match state.current().is_some() && state.held.turns.extend(lease, now) {
            true => Ok(()),
            false => Err(Error::LeaseLost(*lease)),
        }
    }

    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let mut state = shared.state();
        let is_held = state.current().is_some();
        let change = outcome.change();
        let held = &mut state.held;
        let is_settled = is_held
            && match outcome {
                Outcome::Delivered | Outcome::Void | Outcome::Failed => held.end(lease),
                Outcome::Again { after, counts } => {
                    let due = now.saturating_add(micros(after));
                    held.again(lease, due, counts, now)
                }
                Outcome::DeadLetter { reason, answer } => held.bury(lease, now, reason, answer),
            };
        if !is_settled {
            return Err(Error::LeaseLost(*lease));
        }
        state.ledger.note(change, 1);
        fault_point!("etcd.settle.noted");
        if change == Change::DeadLettered {
            fault_point!("etcd.death.noted");
        }
        shared.tell_meters(&mut state);
        // The function may have another lease now.
        let is_worth_a_look = state.stats().waiting > 0;
        drop(state);
        shared.wake.notify_one();
        if is_worth_a_look {
            shared.changed.notify_one();
        }
        Ok(())
    }

    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error> {
        match self.shared.cancel_here(id).await? {
            true => Ok(true),
            false => self.shared.cancel_elsewhere(id).await,
        }
    }

    async fn dead_letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error> {
        self.shared.list_dead(after, max).await
    }

    async fn dead_letter(&self, id: DeliveryId) -> Result<Option<DeadLetter>, Error> {
        let found = self.shared.find_dead(id).await?;
        Ok(found.map(|found| found.letter))
    }

    async fn redrive(&self, id: DeliveryId) -> Result<bool, Error> {
        self.shared.redrive(id).await
    }

    async fn purge(&self, id: DeliveryId) -> Result<bool, Error> {
        self.shared.purge(id).await
    }

    fn stats(&self) -> Stats {
        self.shared.state().stats()
    }

    fn waiting_of(&self, space: &Space) -> usize {
        self.shared.state().held.turns.waiting_of(space)
    }

    async fn audit(&self) -> Result<Audit, Error> {
        self.shared.look_up().await
    }

    async fn close(&self, until: Instant) {
        let _ = tokio::time::timeout_at(until, self.shared.leave()).await;
        self.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn leased(taken: Taken<Spot>, now: u64) -> Leased {
    Leased {
        lease: taken.lease,
        delivery: taken.kept.delivery,
        attempts: taken.attempts,
        age: Duration::from_micros(now.saturating_sub(taken.since)),
    }
}

/// What the writer says of a job.
async fn answered(written: oneshot::Receiver<Result<bool, Error>>) -> Result<bool, Error> {
    let lost = || Error::MayBeTaken("the session of this node ended meanwhile".into());
    written.await.unwrap_or_else(|_| Err(lost()))
}

impl Job {
    /// One that makes this node hold a batch.
    fn holding(batch: Batch, has_room: bool, ops: Vec<Op>) -> Self {
        Self {
            changes: Changes {
                guards: Vec::new(),
                ops,
            },
            batches: vec![batch],
            gives: Vec::new(),
            has_room,
            dead: 0,
            reply: None,
        }
    }
}

impl Shared {
    /// Tells etcd what became of all that this node holds, and leaves it to the others.
    async fn leave(&self) {
        let now = self.clock.now();
        let session = {
            let mut state = self.state();
            state.is_closing = true;
            state.held.end_leases(now);
            for job in std::mem::take(&mut state.jobs) {
                state.refuse(job, Err(unavailable("the node ends")));
            }
            state.session.map(|current| current.id)
        };
        let Some(session) = session else { return };
        self.wake.notify_one();
        loop {
            let told = self.told.notified();
            let mut told = std::pin::pin!(told);
            told.as_mut().enable();
            if self.state().has_told_all(session) {
                break;
            }
            told.await;
        }
        if let Err(error) = self.end_session(session).await {
            tracing::warn!(%error, "the session of the queue could not be ended: others wait for its end until they take over what is left");
        }
    }
}

impl Meters {
    /// Tells nobody.
    pub fn none() -> Self {
        Self {
            backlog: Gauge::noop(),
            dead: Gauge::noop(),
            bytes: Gauge::noop(),
            lost: Counter::noop(),
            dropped: Counter::noop(),
            taken_over: Counter::noop(),
            sessions_lost: Counter::noop(),
            changes: Counters::none(),
        }
    }

    fn bytes(&self, used: u64) {
        let used = usize::try_from(used).unwrap_or(usize::MAX);
        self.bytes.set(count(used));
    }

    /// Tells by how much the queue grew or shrank, as other nodes of the process add to the same gauges.
    fn tell(&self, before: Stats, now: Stats) {
        let grown = |by: fn(&Stats) -> usize| count(by(&now)) - count(by(&before));
        self.backlog.increment(grown(|stats| stats.waiting));
        self.dead.increment(grown(|stats| stats.dead));
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl fmt::Debug for EtcdQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdQueue")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
