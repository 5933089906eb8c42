//! The task that tells etcd what this node holds: it gathers what waits, and has one transaction on the way. That is how many callers
//! share one proposal.

use std::time::Duration;

use config::recurring::{Due, Recurring};
use tokio::time::{Instant, sleep};

use super::held::{Room, Told};
use super::shared::{Job, Shared, State, unavailable};
use super::transaction::{Changes, Done, OPS_MAX, Session, Silent, Standing};
use crate::backend::Error;

/// Operations of a transaction that are for ends first, so that much that arrives does not keep them waiting.
const ENDS_FIRST: usize = OPS_MAX / 2;
/// How long a transaction waits for more callers at most.
const GATHER_FOR: Duration = Duration::from_millis(2);
/// The pause before what etcd did not answer is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What one transaction changes.
#[derive(Debug)]
struct Transaction {
    standing: Standing,
    told: Told,
    jobs: Vec<Job>,
    changes: Changes,
}

/// How many callers shared the last transaction, and how long it took.
type Last = (usize, Duration);

impl Shared {
    /// Writes what there is to write, until the session is lost; says why.
    pub(super) async fn write(&self, session: &mut Session) -> String {
        let mut last: Last = (0, Duration::ZERO);
        let mut outage = Recurring::default();
        loop {
            self.gather(last).await;
            let began = Instant::now();
            let Some(mut transaction) = self.next(session) else {
                continue;
            };
            let callers = transaction.jobs.len();
            loop {
                let Transaction {
                    standing,
                    changes,
                    told,
                    ..
                } = &transaction;
                fault_point!("etcd.write.before_commit");
                if told.dead > 0 {
                    fault_point!("etcd.death.before_commit");
                }
                let committed = session
                    .commit(&self.members, &self.keys, standing, changes)
                    .await;
                match committed {
                    Ok(Done::Written(revision)) => {
                        fault_point!("etcd.write.committed");
                        if told.dead > 0 {
                            fault_point!("etcd.death.committed");
                        }
                        self.written(transaction, revision);
                        break;
                    }
                    Ok(Done::Refused) => {
                        self.refused(transaction);
                        break;
                    }
                    Ok(Done::Lost) => {
                        return "others took this node for dead, or etcd did not hear of it"
                            .to_owned();
                    }
                    Err(silent) => {
                        if let Some(Due { times, seconds }) = outage.note(Instant::now()) {
                            tracing::warn!(
                                why = silent.why,
                                times,
                                seconds,
                                "etcd does not take what this node has for the queue: events are answered with 503 until it does"
                            );
                        }
                        transaction = self.turn_away(transaction, &silent);
                        sleep(PAUSE).await;
                    }
                }
            }
            if let Some(seconds) = outage.end(Instant::now()) {
                tracing::info!(seconds, "etcd takes what this node has for the queue again");
            }
            last = (callers, began.elapsed());
        }
    }

    /// Waits until there is something to write. Those who shared the last transaction come back one by one: to wait for them costs
    /// less than a transaction without them.
    async fn gather(&self, (callers, took): Last) {
        let mut patience = None;
        loop {
            let waiting = {
                let state = self.state();
                match state.jobs.len() {
                    0 if !state.held.has_untold() => None,
                    waiting => Some(waiting),
                }
            };
            match waiting {
                None => self.wake.notified().await,
                Some(waiting) if waiting == 0 || waiting >= callers => return,
                Some(_) => {
                    let until = *patience
                        .get_or_insert_with(|| Instant::now() + (took / 4).min(GATHER_FOR));
                    if tokio::time::timeout_at(until, self.wake.notified())
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            }
        }
    }

    fn next(&self, session: &Session) -> Option<Transaction> {
        let mut state = self.state();
        let mut told = Told::default();
        let mut jobs = Vec::new();
        let is_alone = (state.jobs.front()).is_some_and(|job| !job.changes.guards.is_empty());
        if is_alone {
            jobs.extend(state.jobs.pop_front());
        } else {
            let mut room = Room::new();
            let for_jobs = room.leave(OPS_MAX - ENDS_FIRST);
            state
                .held
                .tell(&self.keys, session.id, &mut told, &mut room);
            room.give_back(for_jobs);
            take_jobs(&mut state, &mut jobs, &mut room);
            state
                .held
                .tell(&self.keys, session.id, &mut told, &mut room);
        }
        if jobs.is_empty() && told.ops.is_empty() {
            return None;
        }
        state.is_writing = true;
        let stats = state.held.turns.stats();
        let standing = self.standing(stats, state.has_permits);
        Some(Transaction::new(standing, told, jobs))
    }

    fn written(&self, transaction: Transaction, revision: i64) {
        let now = self.clock.now();
        let mut state = self.state();
        let arrived = !transaction.jobs.is_empty();
        state.apply(&transaction.told, transaction.jobs, revision, now);
        state.away = None;
        self.tell_meters(&mut state);
        drop(state);
        if arrived {
            self.changed.notify_one();
        }
        self.told.notify_waiters();
    }

    fn refused(&self, transaction: Transaction) {
        let mut state = self.state();
        (state.is_writing, state.away) = (false, None);
        for job in transaction.jobs {
            state.refuse(job, Ok(false));
        }
        self.tell_meters(&mut state);
        drop(state);
        self.told.notify_waiters();
    }

    /// Etcd did not answer: refuses all who wait. What may have been written stays in the transaction, until it is known.
    fn turn_away(&self, transaction: Transaction, silent: &Silent) -> Transaction {
        let Transaction {
            mut standing,
            told,
            mut jobs,
            changes,
        } = transaction;
        let mut state = self.state();
        state.away = Some(silent.why.clone());
        for job in std::mem::take(&mut state.jobs) {
            state.refuse(job, Err(unavailable(&silent.why)));
        }
        if silent.may_have_happened {
            for reply in jobs.iter_mut().filter_map(|job| job.reply.take()) {
                let _ = reply.send(Err(Error::MayBeTaken(silent.why.clone())));
            }
            self.tell_meters(&mut state);
            drop(state);
            return Transaction {
                standing,
                told,
                jobs,
                changes,
            };
        }
        for job in jobs {
            state.refuse(job, Err(unavailable(&silent.why)));
        }
        self.tell_meters(&mut state);
        standing.number = rand::random();
        Transaction::new(standing, told, Vec::new())
    }
}

impl Transaction {
    fn new(standing: Standing, told: Told, jobs: Vec<Job>) -> Self {
        let mut changes = Changes {
            guards: Vec::new(),
            ops: told.ops.clone(),
        };
        for job in &jobs {
            changes.guards.extend(job.changes.guards.iter().cloned());
            changes.ops.extend(job.changes.ops.iter().cloned());
        }
        Self {
            standing,
            told,
            jobs,
            changes,
        }
    }
}

/// Takes what there is room for, up to the first that has to be alone.
fn take_jobs(state: &mut State, jobs: &mut Vec<Job>, room: &mut Room) {
    while let Some(job) = state.jobs.front() {
        if !job.changes.guards.is_empty() || !room.take(&job.changes.ops) {
            return;
        }
        jobs.extend(state.jobs.pop_front());
    }
}
