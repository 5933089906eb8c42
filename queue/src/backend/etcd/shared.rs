//! What the queue and its tasks share.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::etcd::Members;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::held::{Batch, Given, Held, Told};
use super::keys::{Keys, SessionId};
use super::transaction::Changes;
use super::{Meters, Options};
use crate::backend::books::{Change, Ledger};
use crate::backend::clock::Clock;
use crate::backend::{Bound, Error, Stats};

/// How often it is noted that this process runs.
const AWAKE_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) members: Members,
    pub(super) keys: Keys,
    pub(super) options: Options,
    pub(super) clock: Clock,
    pub(super) meters: Meters,
    state: Mutex<State>,
    /// There may be something to lease.
    pub(super) changed: Notify,
    /// There is something to tell etcd.
    pub(super) wake: Notify,
    /// Something was told, or the session is another one.
    pub(super) told: Notify,
    /// There may be something to take over.
    pub(super) look: Notify,
    pub(super) stop: CancellationToken,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) held: Held,
    pub(super) ledger: Ledger,
    /// The session that all of it is held under.
    pub(super) session: Option<Current>,
    /// Why etcd did not answer the last time that it was asked to write.
    pub(super) away: Option<String>,
    pub(super) is_closing: bool,
    /// Whether more could have been leased than there was, the last time.
    pub(super) has_permits: bool,
    /// A transaction is on its way.
    pub(super) is_writing: bool,
    /// What waits to be written, oldest first.
    pub(super) jobs: VecDeque<Job>,
    /// What is known of the rest of the cluster.
    pub(super) cluster: Cluster,
    stats: Stats,
}

/// The session of this node.
#[derive(Debug, Clone, Copy)]
pub(super) struct Current {
    pub(super) id: SessionId,
    /// Etcd keeps it at least until then, unless others end it.
    pub(super) until: Instant,
    /// How long this process may have stood still until others may have ended it.
    pub(super) standstill_max: Duration,
    /// When this process was last known to run.
    pub(super) awake_at: Instant,
    /// It stood still for too long, and has not seen yet that the session is there.
    pub(super) is_doubtful: bool,
}

/// What the last look at etcd told.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    /// What other nodes hold.
    pub(super) bytes_elsewhere: u64,
    /// Why nothing is accepted, for want of room in etcd.
    pub(super) storage: Option<String>,
    /// Dead letters, as of a revision.
    dead: i64,
    dead_at: i64,
    /// By how many there are more since, by this node's transactions: revision and number.
    dead_since: VecDeque<(i64, i64)>,
}

/// A change that somebody waits for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) changes: Changes,
    /// What this node holds when it is written.
    pub(super) batches: Vec<Batch>,
    /// What others may have then.
    pub(super) gives: Vec<Given>,
    /// Whether room is kept for these batches already.
    pub(super) has_room: bool,
    /// By how many there are more dead letters then.
    pub(super) dead: i64,
    /// Whether it was written, or a guard did not hold.
    pub(super) reply: Option<oneshot::Sender<Result<bool, Error>>>,
}

impl Shared {
    pub(super) fn new(members: Members, keys: Keys, options: Options, meters: Meters) -> Self {
        let clock = Clock::start();
        Self {
            state: Mutex::new(State {
                held: Held::new(options.limits, clock.now()),
                ledger: Ledger::new(meters.changes.clone()),
                session: None,
                away: None,
                is_closing: false,
                has_permits: true,
                is_writing: false,
                jobs: VecDeque::new(),
                cluster: Cluster::default(),
                stats: Stats::default(),
            }),
            members,
            keys,
            options,
            clock,
            meters,
            changed: Notify::new(),
            wake: Notify::new(),
            told: Notify::new(),
            look: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the meters by how much the queue grew or shrank since the last time.
    pub(super) fn tell_meters(&self, state: &mut State) {
        let now = state.stats();
        let before = std::mem::replace(&mut state.stats, now);
        self.meters.tell(before, now);
    }

    /// Hands a job to the writer; the answer comes when it is written.
    pub(super) fn push(
        &self,
        state: &mut State,
        mut job: Job,
    ) -> oneshot::Receiver<Result<bool, Error>> {
        let (reply, written) = oneshot::channel();
        job.reply = Some(reply);
        state.jobs.push_back(job);
        self.wake.notify_one();
        written
    }

    /// Begins to hold deliveries under a session.
    pub(super) fn begin(&self, current: Current) {
        let mut state = self.state();
        state.session = Some(current);
        state.away = None;
        drop(state);
        self.changed.notify_one();
    }

    /// Etcd keeps the session for longer.
    pub(super) fn prolong(&self, until: Instant) {
        if let Some(current) = &mut self.state().session {
            current.until = until;
        }
    }

    /// Notes again and again that this process runs. After it was stopped, others may have ended its session although the lease goes on.
    pub(super) async fn stay_awake(&self) -> std::convert::Infallible {
        loop {
            tokio::time::sleep(AWAKE_EVERY).await;
            let now = Instant::now();
            if let Some(current) = &mut self.state().session {
                current.is_doubtful |= current.stood_still(now);
                current.awake_at = now;
            }
        }
    }

    /// Forgets all that was held under a session: others may have it by now. Who waits is refused.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        let held = Held::new(self.options.limits, self.clock.now());
        let held = std::mem::replace(&mut state.held, held);
        let lost = held.turns.stats().leased;
        state.ledger.note(Change::GivenUp, held.len());
        state.session = None;
        state.is_writing = false;
        for job in std::mem::take(&mut state.jobs) {
            job.refuse("the session of this node ended");
        }
        self.tell_meters(&mut state);
        drop(state);
        self.meters.lost.increment(lost as u64);
        self.told.notify_waiters();
        self.changed.notify_one();
    }

    /// Waits until all is told that was changed by now and that somebody waits for.
    ///
    /// # Errors
    /// When etcd does not take it in time, or the session ended, so that nobody knows.
    pub(super) async fn all_told(&self) -> Result<(), Error> {
        let (session, number) = {
            let state = self.state();
            (
                state.session.map(|current| current.id),
                state.held.until_now(),
            )
        };
        let told = async {
            loop {
                let told = self.told.notified();
                let mut told = std::pin::pin!(told);
                told.as_mut().enable();
                {
                    let state = self.state();
                    if state.session.map(|current| current.id) != session {
                        return Err(unavailable("the session of this node ended meanwhile"));
                    }
                    if state.held.is_told_before(number) {
                        return Ok(());
                    }
                }
                told.await;
            }
        };
        let time = self.options.operation_timeout;
        let told = tokio::time::timeout(time, told).await;
        told.unwrap_or_else(|_| Err(unavailable("etcd did not take it in time")))
    }
}

impl State {
    /// The session, if it is sure that etcd still has it.
    pub(super) fn current(&self) -> Option<SessionId> {
        let (current, now) = (self.session?, Instant::now());
        let is_sure = now < current.until && !current.is_doubtful && !current.stood_still(now);
        is_sure.then_some(current.id)
    }

    /// The session, for what is accepted.
    ///
    /// # Errors
    /// When nothing can be.
    pub(super) fn accepting(&self) -> Result<SessionId, Error> {
        if self.is_closing {
            return Err(unavailable("the node ends"));
        }
        if let Some(why) = &self.away {
            return Err(unavailable(why));
        }
        let current = self.current();
        current.ok_or_else(|| unavailable("this node has no session with etcd, and asks for one"))
    }

    /// Whether the cluster's queue may grow by so much.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(super) fn room_for(&self, bytes: u64, bytes_max: u64) -> Result<(), Error> {
        if let Some(why) = &self.cluster.storage {
            return Err(Error::Full(Bound::Storage(why.clone())));
        }
        let own = self.held.turns.stats().waiting_bytes as u64;
        match own + self.cluster.bytes_elsewhere + bytes > bytes_max {
            true => Err(Error::Full(Bound::Cluster(bytes_max))),
            false => Ok(()),
        }
    }

    /// Whether nothing is left to be told under this session, or it is another one.
    pub(super) fn has_told_all(&self, session: SessionId) -> bool {
        let is_same = self.session.is_some_and(|current| current.id == session);
        !is_same || (!self.is_writing && self.jobs.is_empty() && !self.held.has_untold())
    }

    pub(super) fn stats(&self) -> Stats {
        let dead = self.cluster.dead() + i64::try_from(self.held.dying()).unwrap_or_default();
        Stats {
            dead: usize::try_from(dead).unwrap_or_default(),
            ..self.held.turns.stats()
        }
    }

    /// Takes in what a transaction changed.
    pub(super) fn apply(&mut self, told: &Told, jobs: Vec<Job>, revision: i64, now: u64) {
        self.is_writing = false;
        self.held.was_told(told);
        let mut dead = i64::try_from(told.dead).unwrap_or_default();
        for job in jobs {
            dead += job.dead;
            job.gives.iter().for_each(|given| self.held.gave(given));
            self.ledger.note(Change::GivenUp, job.gives.len());
            let change = match job.has_room {
                // It was a dead letter until then.
                true if job.dead < 0 => Change::Redriven,
                true => Change::Accepted,
                false => Change::TakenOver,
            };
            for batch in job.batches {
                let new = self.held.insert(batch, job.has_room, now);
                self.ledger.note(change, new);
            }
            if let Some(reply) = job.reply {
                // Whoever is gone does not want to know.
                let _ = reply.send(Ok(true));
            }
        }
        self.cluster.note_dead(revision, dead);
    }

    /// Refuses a job that was not written, and gives its room back.
    pub(super) fn refuse(&mut self, job: Job, answer: Result<bool, Error>) {
        if job.has_room {
            for (_, entry) in job.batches.iter().flat_map(|batch| &batch.entries) {
                self.held.turns.give_back(&entry.lane, entry.room as usize);
            }
        }
        for given in job.gives {
            self.held.take_back(given);
        }
        if let Some(reply) = job.reply {
            let _ = reply.send(answer);
        }
    }
}

impl Current {
    pub(super) fn new(id: SessionId, ttl: Duration, until: Instant) -> Self {
        Self {
            id,
            until,
            standstill_max: ttl / 5,
            awake_at: Instant::now(),
            is_doubtful: false,
        }
    }

    /// It was there at that moment or later.
    pub(super) fn was_seen(&mut self, at: Instant) {
        let now = Instant::now();
        // What was asked before this process stood still says nothing about the time since.
        if now.saturating_duration_since(at) < self.standstill_max {
            (self.is_doubtful, self.awake_at) = (false, now);
        }
    }

    fn stood_still(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.awake_at) >= self.standstill_max
    }
}

impl Cluster {
    fn dead(&self) -> i64 {
        let since: i64 = self.dead_since.iter().map(|(_, more)| more).sum();
        self.dead + since
    }

    fn note_dead(&mut self, revision: i64, more: i64) {
        if more != 0 && revision > self.dead_at {
            self.dead_since.push_back((revision, more));
        }
    }

    /// So many dead letters there were as of this revision.
    pub(super) fn count_dead(&mut self, dead: i64, revision: i64) {
        if revision < self.dead_at {
            return;
        }
        (self.dead, self.dead_at) = (dead, revision);
        self.dead_since.retain(|(at, _)| *at > revision);
    }
}

impl Job {
    fn refuse(self, why: &str) {
        if let Some(reply) = self.reply {
            let _ = reply.send(Err(unavailable(why)));
        }
    }
}

/// What went wrong, where etcd was asked.
pub(super) fn why(error: config::store::Error) -> String {
    match error {
        config::store::Error::Unavailable { why, .. } => format!("etcd: {why}"),
        error => error.to_string(),
    }
}

/// The same, as an error of the queue for what changes nothing.
pub(super) fn of_etcd(error: config::store::Error) -> Error {
    Error::Unavailable(why(error))
}

pub(super) fn unavailable(why: impl Into<String>) -> Error {
    Error::Unavailable(why.into())
}
