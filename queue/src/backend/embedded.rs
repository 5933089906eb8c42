//! Deliveries on the disk of the node, each made at least once: what was accepted is there after a crash.
//!
//! What it promises. A delivery whose `enqueue` returned is synced to disk. Its end is written at once and synced within a second:
//! a process that is killed forgets nothing, a machine that fails may make the deliveries of its last second once more. The
//! same holds for attempts. Leases are of the process: whatever is open waits again after a restart. What can not be written is
//! refused, and not found after a restart.
//!
//! `record.rs` is what the journal says, `segment.rs` how that looks in a file, `journal.rs` the files, `writer.rs` the thread that writes
//! them, `reserve.rs` the room it needs on a full disk, `index.rs` what of it is in memory, `replay.rs` how that is made when the queue is opened, and `read.rs` how what is in the files
//! comes back.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use metrics::{Counter, Gauge};
use protocol::Space;
use tokio::sync::Semaphore;

use super::limits::count;
use super::{
    Audit, Bound, Change, Counters, DeadLetter, Delivery, DeliveryId, Error, Lease, Leased, Limits,
    Outcome, Permits, Promise, Queue, Stats,
};
use super::{clock, record};

mod audit;
mod disk;
mod index;
mod journal;
mod read;
mod replay;
mod reserve;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use clock::Clock;
use disk::{Directory, Disk};
use index::{Index, Retention, Status, accepted, micros};
use journal::Journal;
use read::Found;
use record::{Death, Id, Put, Record};
use replay::Replay;
use reserve::Reserve;
use writer::{Job, OnDisk, Shared, Writer, closed};

pub use journal::OpenError;

/// The largest batch that is taken at once, in bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Bytes of batches on their way to the disk. Whoever comes then waits.
const HANDOVER_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// How much an embedded queue keeps, and how.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The bounds of what waits.
    pub limits: Limits,
    /// Bytes on disk beyond which nothing is accepted. A few segments more may be needed to end what is there.
    pub disk_bytes_max: u64,
    /// The size of a file of the journal, 1 GiB at most.
    pub segment_bytes: u32,
    /// Bytes of events that are kept in memory as well, so that what is delivered at once need not be read.
    pub cache_bytes: usize,
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
    /// Deliveries that wait.
    pub backlog: Gauge,
    /// Dead letters that are kept.
    pub dead: Gauge,
    /// Bytes of the journal.
    pub bytes: Gauge,
    /// Leases that were lost, so that their deliveries are made once more.
    pub lost: Counter,
    /// Dead letters that were dropped, as there were too many or they were too old.
    pub dropped: Counter,
    /// What happens to deliveries.
    pub changes: Counters,
}

/// A queue in a directory of its own, for one process.
pub struct EmbeddedQueue {
    shared: Arc<Shared>,
    disk: Arc<dyn Disk>,
    /// Bytes that may be on their way to the disk.
    handover: Arc<Semaphore>,
    disk_bytes_max: u64,
    writer: Option<std::thread::JoinHandle<()>>,
}

#[cfg(any(test, feature = "test-util"))]
impl Options {
    /// Small segments, so that there are many, and room for whatever comes.
    pub fn for_tests() -> Self {
        Self {
            limits: Limits {
                len_max: 100_000,
                bytes_max: 1 << 30,
                function_share: 1.0,
                lease_timeout: Duration::from_secs(3_600),
            },
            disk_bytes_max: 1 << 30,
            segment_bytes: 4_096,
            cache_bytes: 4_096,
            dead_len_max: 1_000,
            dead_bytes_max: 1 << 20,
            dead_age_max: Duration::from_secs(3_600),
        }
    }
}

impl EmbeddedQueue {
    /// Opens the queue in this directory, and makes it where there is none. Reads all of it: not for the threads of a runtime.
    ///
    /// # Errors
    /// When another process has it, the disk fails, or something acknowledged is damaged.
    pub fn open(path: &Path, options: Options, meters: Meters) -> Result<Self, OpenError> {
        let directory = Directory::open(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::InUse(path.to_owned()),
            _ => OpenError::Io {
                path: path.to_owned(),
                source,
            },
        })?;
        Self::open_on(Arc::new(directory), options, meters)
    }

    fn open_on(disk: Arc<dyn Disk>, options: Options, meters: Meters) -> Result<Self, OpenError> {
        let clock = Clock::start();
        let retention = Retention {
            len_max: options.dead_len_max,
            bytes_max: options.dead_bytes_max,
            age_max: micros(options.dead_age_max),
        };
        let index = Index::new(options.limits, retention, options.cache_bytes, clock.now());
        // Offsets have 32 bits, and a segment may be longer by a batch.
        let segment_bytes = options.segment_bytes.min(1 << 30);
        let mut replay = Replay::new(index);
        let (journal, dropped) =
            Journal::open(Arc::clone(&disk), segment_bytes, |place, record| {
                replay.add(place, record)
            })?;
        let mut index = replay.index;
        index.begin(meters.changes.clone(), clock.now());
        meters.tell(&mut index);
        meters.bytes(0, journal.bytes());
        let Stats { waiting, dead, .. } = index.stats();
        tracing::info!(waiting, dead_letters = dead, "the queue was opened");
        if dropped > 0 {
            tracing::warn!(
                bytes = dropped,
                "the end of the queue's journal was cut off: a write that was not finished, and never acknowledged"
            );
        }
        let shared = Arc::new(Shared::new(index, &journal, clock, meters));
        shared.changed.notify_one();
        let reserve = Reserve::new(Arc::clone(&disk));
        let writer = Writer::new(Arc::clone(&shared), journal, reserve);
        let writer = std::thread::Builder::new()
            .name("queue-journal".into())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io {
                path: disk.path().to_owned(),
                source,
            })?;
        Ok(Self {
            shared,
            disk,
            handover: Arc::new(Semaphore::new(HANDOVER_BYTES_MAX)),
            disk_bytes_max: options.disk_bytes_max,
            writer: Some(writer),
        })
    }

    /// Writes what happened to a delivery, in the order in which it is called.
    fn note(&self, record: &Record<'_>) {
        self.shared.push(Job::note(record));
    }

    /// As [`EmbeddedQueue::note`]; the answer comes when it is on disk.
    fn note_on_disk(&self, record: &Record<'_>) -> OnDisk {
        let mut job = Job::note(record);
        let on_disk = job.on_disk();
        self.shared.push(job);
        on_disk
    }
}

#[async_trait]
impl Queue for EmbeddedQueue {
    fn promise(&self) -> Promise {
        Promise::AtLeastOnce
    }

    async fn enqueue(&self, mut deliveries: Vec<Delivery>) -> Result<(), Error> {
        {
            let index = self.shared.index();
            deliveries.retain(|delivery| !index.turns.entries.contains_key(&delivery.id));
        }
        if deliveries.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let body = Record::Put(Put::accepted(&deliveries, now)).write();
        if body.len() > BATCH_BYTES_MAX {
            return Err(Error::TooLarge {
                bytes: body.len(),
                max: BATCH_BYTES_MAX,
            });
        }
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.handover).acquire_many_owned(bytes).await;
        let permit = permit.map_err(|_| closed())?;
        let on_disk = {
            let mut index = self.shared.index();
            let arriving = index.arriving_bytes + u64::from(bytes);
            if self.shared.bytes() + arriving > self.disk_bytes_max {
                return Err(Error::Full(Bound::Disk(self.disk_bytes_max)));
            }
            let lanes = index.turns.admit(&deliveries)?;
            index.arriving_bytes = arriving;
            self.shared.meters.tell(&mut index);
            let entries = deliveries.into_iter().zip(lanes).zip(record::since(now));
            let entries =
                entries.map(|((delivery, (lane, _)), since)| accepted(lane, delivery, since));
            let mut job = Job::put(body, entries.collect(), permit);
            let on_disk = job.on_disk();
            self.shared.push(job);
            on_disk
        };
        fault_point!("embedded.accept.pushed");
        let accepted = on_disk.wait().await;
        fault_point!("embedded.accept.on_disk");
        accepted
    }

    async fn lease(&self, permits: Permits) -> Result<Vec<Leased>, Error> {
        if self.shared.is_behind() {
            return Ok(Vec::new());
        }
        let now = self.shared.clock.now();
        let (taken, lost) = {
            let mut index = self.shared.index();
            let lost = index.turns.expire(now);
            let taken = index.turns.take(permits, now);
            let leased = taken
                .iter()
                .map(|taken| (Id(taken.lease.id), taken.attempts + 1));
            let leased: Vec<_> = leased.collect();
            if !leased.is_empty() {
                self.note(&Record::Leased(leased));
                fault_point!("embedded.lease.noted");
            }
            self.trim(&mut index, now);
            self.shared.meters.tell(&mut index);
            (taken, lost)
        };
        if lost > 0 {
            self.shared.meters.lost.increment(lost as u64);
            tracing::warn!(
                lost,
                "deliveries were neither settled nor extended, and are made once more"
            );
        }
        Ok(self.read(taken).await)
    }

    async fn ready(&self) {
        let due = self.shared.index().next_due();
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
        match self.shared.index().turns.extend(lease, now) {
            true => Ok(()),
            false => Err(Error::LeaseLost(*lease)),
        }
    }

    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error> {
        let now = self.shared.clock.now();
        let mut index = self.shared.index();
        let id = Id(lease.id);
        let change = outcome.change();
        let record = match outcome {
            Outcome::Delivered | Outcome::Void | Outcome::Failed => {
                index.end(lease).then_some(Record::Ended(id))
            }
            Outcome::Again { after, counts } => {
                let due = now.saturating_add(micros(after));
                let is_held = index.turns.wait_again(lease, due, now);
                if is_held
                    && !counts
                    && let Some(attempts) = index.turns.forget_attempt(lease.id)
                {
                    self.note(&Record::Leased(vec![(id, attempts)]));
                }
                is_held.then_some(Record::Again(id, due))
            }
            Outcome::DeadLetter { reason, answer } => index
                .bury(lease, now, reason, answer)
                .map(|death| Record::Died(id, Death::clone(&death))),
        };
        let record = record.ok_or(Error::LeaseLost(*lease))?;
        index.ledger.note(change, 1);
        fault_point!("embedded.settle.before_note");
        self.note(&record);
        fault_point!("embedded.settle.noted");
        if change == Change::DeadLettered {
            fault_point!("embedded.death.noted");
        }
        self.trim(&mut index, now);
        self.shared.meters.tell(&mut index);
        // The function may have another lease now.
        let is_worth_a_look = index.stats().waiting > 0;
        drop(index);
        if is_worth_a_look {
            self.shared.changed.notify_one();
        }
        Ok(())
    }

    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error> {
        let cancel = |index: &mut Index, id| {
            let is_cancelled = index.cancel(id);
            let cancelled = usize::from(is_cancelled);
            index.ledger.note(Change::Cancelled, cancelled);
            is_cancelled
        };
        self.end_by_name(id, cancel).await
    }

    async fn dead_letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error> {
        let found = {
            let index = self.shared.index();
            let later = index.dead.range(after.saturating_add(1)..).take(max);
            let found = later.filter_map(|(position, dead)| Found::of(&index, *position, dead));
            found.collect()
        };
        self.read_dead(found).await
    }

    async fn dead_letter(&self, id: DeliveryId) -> Result<Option<DeadLetter>, Error> {
        let found = {
            let index = self.shared.index();
            index.entry(id).and_then(|entry| match entry.status {
                Status::Dead(position) => Found::of(&index, position, index.dead.get(&position)?),
                Status::Waiting | Status::Leased => None,
            })
        };
        let found = found.into_iter().collect();
        Ok(self.read_dead(found).await?.pop())
    }

    async fn redrive(&self, id: DeliveryId) -> Result<bool, Error> {
        let now = self.shared.clock.now();
        let on_disk = {
            let mut index = self.shared.index();
            if !index.redrive(id, now).map_err(Error::Full)? {
                return Ok(false);
            }
            index.ledger.note(Change::Redriven, 1);
            self.shared.meters.tell(&mut index);
            self.note_on_disk(&Record::Redriven(Id(id), now))
        };
        fault_point!("embedded.redrive.noted");
        on_disk.wait().await?;
        fault_point!("embedded.redrive.on_disk");
        Ok(true)
    }

    async fn purge(&self, id: DeliveryId) -> Result<bool, Error> {
        self.end_by_name(id, Index::purge).await
    }

    fn stats(&self) -> Stats {
        self.shared.index().stats()
    }

    fn waiting_of(&self, space: &Space) -> usize {
        self.shared.index().turns.waiting_of(space)
    }

    async fn audit(&self) -> Result<Audit, Error> {
        self.look_up().await
    }
}

impl EmbeddedQueue {
    async fn end_by_name(
        &self,
        id: DeliveryId,
        end: impl FnOnce(&mut Index, DeliveryId) -> bool + Send,
    ) -> Result<bool, Error> {
        let on_disk = {
            let mut index = self.shared.index();
            if !end(&mut index, id) {
                return Ok(false);
            }
            self.shared.meters.tell(&mut index);
            self.note_on_disk(&Record::Ended(Id(id)))
        };
        fault_point!("embedded.cancel.noted");
        // A function that had a lease may have another one.
        self.shared.changed.notify_one();
        on_disk.wait().await?;
        fault_point!("embedded.cancel.on_disk");
        Ok(true)
    }

    /// Drops the dead letters that are not kept any longer.
    fn trim(&self, index: &mut Index, now: u64) {
        let dropped = index.trim_dead(now);
        for id in &dropped {
            self.note(&Record::Ended(Id(*id)));
        }
        if !dropped.is_empty() {
            self.shared.meters.dropped.increment(dropped.len() as u64);
            tracing::warn!(
                dropped = dropped.len(),
                "the oldest dead letters were dropped: there are too many, or they are too old"
            );
        }
    }
}

impl Drop for EmbeddedQueue {
    /// Waits until what happened is on disk.
    fn drop(&mut self) {
        self.shared.close();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!("the writer of the queue's journal panicked");
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
            changes: Counters::none(),
        }
    }

    /// Tells by how much the queue grew or shrank, as other nodes of the process add to the same gauges.
    fn tell(&self, index: &mut Index) {
        let stats = index.stats();
        let told = std::mem::replace(&mut index.told, stats);
        let grown = |by: fn(&Stats) -> usize| count(by(&stats)) - count(by(&told));
        self.backlog.increment(grown(|stats| stats.waiting));
        self.dead.increment(grown(|stats| stats.dead));
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "disks are smaller than 2^52 bytes"
    )]
    fn bytes(&self, before: u64, now: u64) {
        self.bytes.increment(now as f64 - before as f64);
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl fmt::Debug for EmbeddedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedQueue")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
