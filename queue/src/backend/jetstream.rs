//! Deliveries in streams of NATS, each made at least once: what was accepted outlives the node, and is taken over by another one.
//!
//! JetStream is used as a log in which a record takes the place of the one before it only if whoever writes it names that one's
//! sequence. A record is what one `enqueue` accepted, whole, with the session of the node that holds it. Turns and leases are in that
//! node's memory; when all its deliveries ended, the record is deleted, and until then what is left of it takes its place. Whoever
//! takes a record over puts it anew in its own name, and from then on the node that had it changes nothing: see ADR 0022.
//!
//! `accept.rs` is how deliveries come in, `api.rs` what JetStream is asked, `connect.rs` the connection, `streams.rs` the streams, `held.rs` what is in memory, `tell.rs` how
//! its ends are told, `audit.rs` what of it NATS has, `dead.rs` dead letters, `trim.rs` how many of them are kept, `session.rs` who lives, `sweep.rs` how the deliveries of those who do not are taken over,
//! and `run.rs` when.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use config::settings::JetStreamSettings;
use metrics::{Counter, Gauge};
use protocol::{Generation, NodeId, Space};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::limits::count;
use super::turns::micros;
use super::{
    Audit, Counters, DeadLetter, Deaths, Delivery, DeliveryId, Error, Lease, Leased, Limits,
    Outcome, Permits, Promise, Queue, Stats,
};
use crate::delivery::seldom::Seldom;

mod accept;
mod api;
mod audit;
mod cancel;
mod connect;
mod dead;
mod held;
mod run;
mod session;
mod streams;
mod sweep;
mod tell;
mod trim;

use api::{Api, Failed};
use held::Held;
use session::Sessions;
use streams::Names;
use tell::Lost;

/// Room in a message of NATS for what is not the events: the names of functions, a reason, headers.
const HEAD_BYTES: usize = 16 << 10;

/// What the queue is made from.
#[derive(Debug, Clone)]
pub struct Options {
    /// The bounds of what waits on this node.
    pub limits: Limits,
    /// NATS.
    pub settings: JetStreamSettings,
    /// The cluster whose deliveries these are.
    pub cluster: String,
    /// The node: a restart of it takes over what it had at once.
    pub node: NodeId,
    /// Its incarnation.
    pub generation: Generation,
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
    /// Dead letters that are kept, of all nodes.
    pub dead: Gauge,
    /// Leases that were lost, so that their deliveries are made once more.
    pub lost: Counter,
    /// Deliveries that were taken over from nodes that are gone.
    pub taken_over: Counter,
    /// What happens to deliveries.
    pub changes: Counters,
    /// Dead letters that this node dropped, as there were too many or they were too old.
    pub dropped: Counter,
}

/// Why the queue can not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A setting can not be used.
    #[error("setting queue.jetstream.{key} is {value}, which can not be used: {why}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// The client can not be made.
    #[error("NATS can not be connected to: {0}")]
    Connect(String),
    /// A stream of that name is something else.
    #[error(
        "stream {stream} of NATS has {field} {found}, expected {wanted}: delete it (`nats stream rm {stream}`) if nothing in it is needed, or choose another name with queue.jetstream.stream"
    )]
    Stream {
        /// The stream.
        stream: String,
        /// The field that differs.
        field: String,
        /// What it is.
        found: String,
        /// What it must be.
        wanted: String,
    },
    /// The server does not keep what its replicas acknowledge.
    #[error(
        "NATS {version} loses what several servers acknowledged when one of them is killed, so queue.jetstream.replicas is {replicas} only with NATS 2.11 or later: use that, or 1"
    )]
    Version {
        /// The version of the server.
        version: String,
        /// How many replicas there should be.
        replicas: u32,
    },
    /// JetStream refuses a stream.
    #[error("NATS refuses stream {stream}: {why}")]
    Refused {
        /// The stream.
        stream: String,
        /// What it said.
        why: String,
    },
    /// JetStream does not answer.
    #[error("{0}")]
    Away(String),
}

/// A queue in streams of NATS, shared by the nodes of a cluster.
pub struct JetStreamQueue {
    shared: Arc<Shared>,
    _stop_on_drop: DropGuard,
}

/// What the tasks of a queue share.
struct Shared {
    options: Options,
    api: Api,
    names: Names,
    sessions: Sessions,
    /// The name of this session, which is in every record that this node holds.
    session: String,
    clock: Clock,
    held: Mutex<Held>,
    /// Events that may be on their way to NATS.
    in_flight: Arc<Semaphore>,
    changed: Notify,
    /// Asks for a look through all that waits.
    sweep: Notify,
    /// Held by whoever looks.
    sweeping: tokio::sync::Mutex<()>,
    meters: Meters,
    warnings: Warnings,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What may become a flood in the log. Each has its own limit, so that none hides another.
#[derive(Debug, Default)]
struct Warnings {
    ends: Seldom,
    dead_letters: Seldom,
    taken_over: Seldom,
}

impl JetStreamQueue {
    /// Opens the queue, and makes its streams where there are none. NATS need not be there: what is enqueued is refused until it is.
    ///
    /// # Errors
    /// When a setting can not be used, or a stream is something else.
    pub async fn open(
        options: Options,
        deaths: Arc<dyn Deaths>,
        meters: Meters,
    ) -> Result<Self, OpenError> {
        let settings = &options.settings;
        let client = connect::client(settings, options.node.as_str()).await?;
        let api = Api::new(client, settings.operation_timeout, &settings.servers);
        let clock = Clock::start();
        let (node, generation) = (options.node.clone(), options.generation);
        let sessions = Sessions::new(node, generation, deaths, settings.session_timeout);
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            names: Names::new(&settings.stream, &options.cluster),
            session: sessions.own().to_owned(),
            sessions,
            held: Mutex::new(Held::new(
                options.limits,
                meters.changes.clone(),
                clock.now(),
            )),
            in_flight: Arc::new(Semaphore::new(settings.in_flight_max)),
            changed: Notify::new(),
            sweep: Notify::new(),
            sweeping: tokio::sync::Mutex::default(),
            warnings: Warnings::default(),
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            options,
            api,
            clock,
            meters,
        });
        let begun = run::begin(&shared).await;
        let _stop_on_drop = stop.drop_guard();
        begun?;
        Ok(Self {
            shared,
            _stop_on_drop,
        })
    }
}

#[async_trait]
impl Queue for JetStreamQueue {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn enqueue(&self, deliveries: Vec<Delivery>) -> Result<(), Error> {
        if deliveries.is_empty() {
            return Ok(());
        }
        self.shared.enqueue(deliveries).await
    }

    async fn lease(&self, permits: Permits) -> Result<Vec<Leased>, Error> {
        let shared = &self.shared;
        if !shared.sessions.is_held() {
            return Ok(Vec::new());
        }
        let now = shared.clock.now();
        let (taken, lost) = {
            let mut held = shared.held();
            let lost = held.turns.expire(now);
            let taken = held.turns.take(permits, now);
            shared.meters.tell(&mut held);
            (taken, lost)
        };
        if lost > 0 {
            shared.meters.lost.increment(lost as u64);
            tracing::warn!(
                lost,
                "deliveries were neither settled nor extended, and are made once more"
            );
        }
        let leased = taken.into_iter().map(|taken| Leased {
            lease: taken.lease,
            delivery: taken.kept.delivery,
            attempts: taken.attempts,
            age: Duration::from_micros(now.saturating_sub(taken.since)),
        });
        Ok(leased.collect())
    }

    async fn ready(&self) {
        let shared = &self.shared;
        let due = shared.held().turns.next_due();
        match due.map(|due| shared.clock.instant(due)) {
            // What is due while nothing may be begun is told of when it may be.
            Some(due) if shared.sessions.is_held() => tokio::select! {
                () = shared.changed.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            _ => shared.changed.notified().await,
        }
    }

    async fn extend(&self, lease: &Lease) -> Result<(), Error> {
        let now = self.shared.clock.now();
        match self.shared.held().turns.extend(lease, now) {
            true => Ok(()),
            false => Err(Error::LeaseLost(*lease)),
        }
    }

    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error> {
        let shared = &self.shared;
        let now = shared.clock.now();
        let (batch, is_worth_telling) = match outcome {
            Outcome::Delivered | Outcome::Void | Outcome::Failed => {
                (shared.held().end(lease, outcome.change()), true)
            }
            Outcome::Again { after, counts } => {
                let due = now.saturating_add(micros(after));
                (shared.held().again(lease, due, counts, now), counts)
            }
            Outcome::DeadLetter { reason, answer } => {
                let buried = shared.bury(lease, reason, answer).await;
                shared.look_again();
                return buried;
            }
        };
        let batch = batch.ok_or(Error::LeaseLost(*lease))?;
        shared.look_again();
        if !is_worth_telling {
            return Ok(());
        }
        let told = shared.tell(batch).await;
        told.map_err(|Lost| Error::LeaseLost(*lease))
    }

    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error> {
        self.shared.cancel(id).await
    }

    async fn dead_letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error> {
        self.shared.letters(after, max).await
    }

    async fn dead_letter(&self, id: DeliveryId) -> Result<Option<DeadLetter>, Error> {
        let stored = self.shared.find_letter(id).await?;
        Ok(stored.as_ref().and_then(dead::read))
    }

    async fn redrive(&self, id: DeliveryId) -> Result<bool, Error> {
        self.shared.redrive(id).await
    }

    async fn purge(&self, id: DeliveryId) -> Result<bool, Error> {
        self.shared.purge(id).await
    }

    async fn close(&self, until: Instant) {
        run::end(&self.shared, until).await;
    }

    fn stats(&self) -> Stats {
        self.shared.held().stats()
    }

    fn waiting_of(&self, space: &Space) -> usize {
        self.shared.held().turns.waiting_of(space)
    }

    async fn audit(&self) -> Result<Audit, Error> {
        self.shared.look_up().await
    }
}

impl Shared {
    /// The largest record that NATS takes.
    fn record_bytes_max(&self) -> usize {
        self.api.client().max_payload().saturating_sub(HEAD_BYTES)
    }

    /// A function may have another lease now.
    fn look_again(&self) {
        let mut held = self.held();
        self.meters.tell(&mut held);
        if held.stats().waiting > 0 {
            self.changed.notify_one();
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unavailable(why: impl fmt::Display) -> Error {
    Error::Unavailable(why.to_string())
}

impl From<Failed> for OpenError {
    fn from(failed: Failed) -> Self {
        Self::Away(failed.to_string())
    }
}

impl Meters {
    /// Tells nobody.
    pub fn none() -> Self {
        Self {
            backlog: Gauge::noop(),
            dead: Gauge::noop(),
            lost: Counter::noop(),
            taken_over: Counter::noop(),
            changes: Counters::none(),
            dropped: Counter::noop(),
        }
    }

    /// Tells by how much it grew or shrank, as other nodes of the process add to the same gauge.
    fn tell(&self, held: &mut Held) {
        let (before, now) = (held.told, held.stats());
        held.told = now;
        self.backlog
            .increment(count(now.waiting) - count(before.waiting));
        self.dead.increment(count(now.dead) - count(before.dead));
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl fmt::Debug for JetStreamQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JetStreamQueue")
            .field("servers", &self.shared.options.settings.servers)
            .field("session", &self.shared.session)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
