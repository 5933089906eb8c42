//! The thread that writes the journal. It gathers what waits, writes it at once, syncs once, then answers all: that is how many
//! callers share one sync.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::clock::Clock;
use super::index::{Entry, Index, Kept};
use super::journal::{Journal, Segments};
use super::record::Record;
use super::replay::share;
use super::reserve::Reserve;
use super::segment::Place;
use crate::backend::embedded::Meters;
use crate::backend::{Change, DeliveryId, Error};

mod release;

use release::Release;

/// Bytes that are written at once, about.
const BATCH_BYTES: usize = 4 << 20;
/// Records that nobody waits for and that are written and not synced, at most.
const UNSYNCED_MAX: usize = 1_024;
/// How long they may be that, and the pause before what failed is tried again.
const UNSYNCED_FOR: Duration = Duration::from_secs(1);
/// How long a batch waits for more callers at most.
const GATHER_FOR: Duration = Duration::from_millis(1);
/// Records that nobody waits for and that are not on disk, beyond which nothing is leased.
const BEHIND_MAX: usize = 65_536;

/// What the queue and its writer share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: Mutex<Index>,
    pub(super) segments: Arc<Segments>,
    pub(super) changed: Notify,
    pub(super) clock: Clock,
    pub(super) meters: Meters,
    /// The bytes of the journal.
    bytes: AtomicU64,
    pending: Mutex<Pending>,
    wake: Condvar,
    /// Records that nobody waits for and that are not on disk.
    behind: AtomicUsize,
}

#[derive(Debug, Default)]
struct Pending {
    jobs: VecDeque<Job>,
    is_closed: bool,
    /// How many jobs the writer sleeps for; none while it is awake.
    awaited: Option<usize>,
}

/// A record on its way to the disk.
#[derive(Debug)]
pub(super) struct Job {
    body: Vec<u8>,
    kind: Kind,
    /// Who waits for it to be on disk.
    reply: Option<oneshot::Sender<Answer>>,
    /// Whether it was tried to write it.
    has_failed: bool,
    _permit: Option<OwnedSemaphorePermit>,
}

/// What the writer says of a record; nothing if the queue was closed before.
type Answer = Result<Together, Error>;

/// The end of the wait until a record is on disk.
pub(super) struct OnDisk(oneshot::Receiver<Answer>);

/// Those who shared a sync with whoever is answered first, and are answered when this is dropped. So one of them is woken by the
/// writer, and the others by that one: to wake a task from a thread of its runtime costs less than to do so from elsewhere.
#[derive(Debug)]
struct Together(Vec<oneshot::Sender<Answer>>);

/// What becomes of the index when a record is on disk.
#[derive(Debug)]
enum Kind {
    /// These wait. When the record can not be written they are refused.
    Put(Vec<(DeliveryId, Entry)>),
    /// These are kept here, and the reasons of those that have a position among the dead letters. When the record can not be
    /// written they stay where they are.
    Moved(Vec<(DeliveryId, Option<u64>)>),
    /// The reason of this dead letter is here.
    Died(u64),
    Note,
}

/// The writer's own.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    reserve: Reserve,
    /// What is to be written before anything else, as it failed.
    again: VecDeque<Job>,
    /// What is written and not synced.
    unsynced: Vec<(Job, Place)>,
    unsynced_since: Option<Instant>,
    release: Release,
    /// Whether it was told that writing fails.
    fails: bool,
    /// How many records the last sync was for, and how long it took.
    last_sync: (usize, Duration),
}

impl Shared {
    pub(super) fn new(index: Index, journal: &Journal, clock: Clock, meters: Meters) -> Self {
        Self {
            index: Mutex::new(index),
            segments: journal.segments(),
            changed: Notify::new(),
            clock,
            meters,
            bytes: AtomicU64::new(journal.bytes()),
            pending: Mutex::default(),
            wake: Condvar::new(),
            behind: AtomicUsize::new(0),
        }
    }

    pub(super) fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a record to the writer. One about a delivery is handed over under the lock of the index, so that records are in the
    /// order of what they tell.
    pub(super) fn push(&self, job: Job) {
        if !matches!(job.kind, Kind::Put(_)) {
            self.behind.fetch_add(1, Ordering::AcqRel);
        }
        let mut pending = self.pending();
        if !pending.is_closed {
            pending.jobs.push_back(job);
        }
        // To wake a thread costs as much as all the rest: once, and not for each of those that it waits for.
        let len = pending.jobs.len();
        let is_enough = pending.awaited.take_if(|awaited| len >= *awaited);
        drop(pending);
        if is_enough.is_some() {
            self.wake.notify_one();
        }
    }

    /// The bytes of the journal.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether so much is not on disk that nothing should be leased.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Acquire) >= BEHIND_MAX
    }

    /// Lets the writer end when it has written what waits.
    pub(super) fn close(&self) {
        self.pending().is_closed = true;
        self.wake.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    /// New deliveries, with the room that was kept for them.
    pub(super) fn put(
        body: Vec<u8>,
        entries: Vec<(DeliveryId, Entry)>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            _permit: Some(permit),
            ..Self::of(body, Kind::Put(entries))
        }
    }

    /// Something that happened to a delivery.
    pub(super) fn note(record: &Record<'_>) -> Self {
        let kind = match record {
            Record::Died(_, death) => Kind::Died(death.position),
            _ => Kind::Note,
        };
        Self::of(record.write(), kind)
    }

    fn of(body: Vec<u8>, kind: Kind) -> Self {
        Self {
            body,
            kind,
            reply: None,
            has_failed: false,
            _permit: None,
        }
    }

    /// The end of the wait until it is on disk.
    pub(super) fn on_disk(&mut self) -> OnDisk {
        let (reply, on_disk) = oneshot::channel();
        self.reply = Some(reply);
        OnDisk(on_disk)
    }
}

impl OnDisk {
    /// Waits for it.
    ///
    /// # Errors
    /// When it could not be written, or the queue was closed before.
    pub(super) async fn wait(self) -> Result<(), Error> {
        let answer = self.0.await.unwrap_or_else(|_| Err(closed()));
        answer.map(drop)
    }
}

impl Drop for Together {
    fn drop(&mut self) {
        for reply in self.0.drain(..) {
            // Whoever is gone does not want to know.
            let _ = reply.send(Ok(Self(Vec::new())));
        }
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, journal: Journal, reserve: Reserve) -> Self {
        Self {
            shared,
            journal,
            reserve,
            again: VecDeque::new(),
            unsynced: Vec::new(),
            unsynced_since: None,
            release: Release::default(),
            fails: false,
            last_sync: (0, Duration::ZERO),
        }
    }

    /// Writes until the queue is closed and all is written that can be.
    pub(super) fn run(mut self) {
        loop {
            let (jobs, is_last) = self.gather();
            let written = self.commit(jobs, is_last);
            match written.and_then(|()| self.release()) {
                Ok(()) => self.recovered(),
                Err(error) => self.failed(&error),
            }
            self.tell_bytes();
            if is_last {
                return;
            }
        }
    }

    /// Waits for something to write, and says whether that is all. What failed comes first, after a pause or when there is more.
    fn gather(&mut self) -> (Vec<Job>, bool) {
        let mut pending = self.shared.pending();
        while pending.jobs.is_empty() && !pending.is_closed {
            if self.release.is_due() && self.again.is_empty() {
                break;
            }
            pending.awaited = Some(1);
            if self.unsynced.is_empty() && self.again.is_empty() {
                pending = self
                    .shared
                    .wake
                    .wait(pending)
                    .unwrap_or_else(PoisonError::into_inner);
            } else {
                let waited = self.shared.wake.wait_timeout(pending, UNSYNCED_FOR);
                let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
                pending = guard;
                if timeout.timed_out() {
                    break;
                }
            }
        }
        // Those who shared the last sync come back one by one. To wait for them costs less than a sync without them.
        let (callers, took) = self.last_sync;
        let awaited = |pending: &mut Pending| pending.jobs.len() < callers && !pending.is_closed;
        if callers > 1 && !pending.jobs.is_empty() {
            let patience = (took / 8).min(GATHER_FOR);
            pending.awaited = Some(callers);
            let waited = self
                .shared
                .wake
                .wait_timeout_while(pending, patience, awaited);
            (pending, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        pending.awaited = None;
        let mut jobs: Vec<Job> = self.again.drain(..).collect();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(job) = pending.jobs.pop_front()
        {
            bytes += job.body.len();
            jobs.push(job);
        }
        (jobs, pending.is_closed && pending.jobs.is_empty())
    }

    /// Writes these, and syncs if somebody waits for that or it is time. Who is refused has been told when it fails.
    fn commit(&mut self, jobs: Vec<Job>, is_last: bool) -> io::Result<()> {
        let must_sync = is_last || jobs.iter().any(|job| job.reply.is_some());
        let written = self.write(jobs).and_then(|()| {
            let since = self.unsynced_since;
            let is_time = since.is_some_and(|since| since.elapsed() >= UNSYNCED_FOR);
            if must_sync || is_time || self.unsynced.len() >= UNSYNCED_MAX {
                self.sync()?;
            }
            Ok(())
        });
        if let Err(error) = &written {
            self.refuse(error);
        }
        written
    }

    fn write(&mut self, mut jobs: Vec<Job>) -> io::Result<()> {
        let is_put = |job: &mut Job| matches!(job.kind, Kind::Put(_));
        if jobs.iter_mut().any(is_put)
            // What failed is written before there is anything new: that is what makes room.
            && let Err(error) = self.reserve.regain(jobs[0].has_failed)
        {
            self.failed(&error);
            for job in jobs.extract_if(.., |job| is_put(job)) {
                self.refuse_put(job);
            }
        }
        if jobs.is_empty() {
            return Ok(());
        }
        let rolled = self.roll_if_full();
        fault_point!("embedded.write.before");
        let placed = rolled.and_then(|()| {
            let bodies = jobs.iter().map(|job| job.body.as_slice());
            self.journal.append(bodies)
        });
        match placed {
            Ok(places) => {
                fault_point!("embedded.write.after");
                self.unsynced.extend(jobs.into_iter().zip(places));
                self.unsynced_since.get_or_insert_with(Instant::now);
                Ok(())
            }
            Err(error) => {
                let unplaced = jobs.into_iter().map(|job| (job, Place::default()));
                self.unsynced.extend(unplaced);
                Err(error)
            }
        }
    }

    fn roll_if_full(&mut self) -> io::Result<()> {
        if !self.journal.wants_roll() {
            return Ok(());
        }
        if !self.journal.is_broken() {
            self.sync()?;
        }
        self.journal.roll()?;
        fault_point!("embedded.roll.after");
        Ok(())
    }

    /// Syncs, tells the index what is on disk, and answers.
    fn sync(&mut self) -> io::Result<()> {
        let began = Instant::now();
        self.journal.sync()?;
        fault_point!("embedded.sync.after");
        self.unsynced_since = None;
        if self.unsynced.is_empty() {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let mut replies = Vec::new();
        let (mut notes, mut accepted) = (0, 0);
        let mut index = self.shared.index();
        // Before what was arriving is no longer counted.
        self.tell_bytes();
        for (job, place) in self.unsynced.drain(..) {
            notes += usize::from(!matches!(job.kind, Kind::Put(_) | Kind::Moved(_)));
            match job.kind {
                Kind::Put(entries) => {
                    index.arriving_bytes -= job.body.len() as u64;
                    let share = share(place, entries.len());
                    for (id, entry) in entries {
                        if index.turns.entries.contains_key(&id) {
                            // Enqueued a second time before the first one was written.
                            index.turns.give_back(&entry.lane, entry.room as usize);
                            continue;
                        }
                        let kept = Kept { place, share };
                        index.insert(id, Entry { kept, ..entry }, now);
                        accepted += 1;
                    }
                }
                Kind::Moved(moved) => {
                    let share = share(place, moved.len());
                    for (id, position) in moved {
                        index.relocate(id, Kept { place, share });
                        if let Some(position) = position {
                            index.place_text(position, place);
                        }
                    }
                }
                Kind::Died(position) => index.place_text(position, place),
                Kind::Note => {}
            }
            replies.extend(job.reply);
        }
        index.ledger.note(Change::Accepted, accepted);
        self.shared.meters.tell(&mut index);
        drop(index);
        let was_behind = self.shared.is_behind();
        self.shared.behind.fetch_sub(notes, Ordering::AcqRel);
        self.last_sync = (replies.len(), began.elapsed());
        if !replies.is_empty() || was_behind {
            self.shared.changed.notify_one();
        }
        fault_point!("embedded.answer.before");
        let mut replies = replies.into_iter();
        if let Some(first) = replies.next() {
            // When that one is gone, the others are answered at once.
            let _ = first.send(Ok(Together(replies.collect())));
        }
        fault_point!("embedded.answer.after");
        self.vouch()?;
        fault_point!("embedded.mark.after");
        Ok(())
    }

    /// Says in the journal that all of it is on disk, unless what follows soon does.
    fn vouch(&mut self) -> io::Result<()> {
        if !self.shared.pending().jobs.is_empty() {
            return Ok(());
        }
        let mark = Record::Mark.write();
        self.journal.append(std::iter::once(mark.as_slice()))?;
        Ok(())
    }

    /// Cuts the journal back to what is on disk, and refuses whoever waits. What happened to deliveries is kept, to be written later.
    fn refuse(&mut self, error: &io::Error) {
        if let Err(error) = self.journal.cut_back() {
            tracing::error!(%error, "the journal of the queue can not be cut back: events that were refused may be delivered after a restart");
        }
        self.reserve.spend(error);
        self.unsynced_since = None;
        self.release.abandon();
        for (mut job, _) in std::mem::take(&mut self.unsynced) {
            match job.kind {
                Kind::Put(_) => self.refuse_put(job),
                Kind::Moved(_) => {}
                Kind::Died(_) | Kind::Note => {
                    if let Some(reply) = job.reply.take() {
                        let _ = reply.send(Err(unavailable()));
                    }
                    job.has_failed = true;
                    self.again.push_back(job);
                }
            }
        }
    }

    fn refuse_put(&self, job: Job) {
        if let Kind::Put(entries) = job.kind {
            let mut index = self.shared.index();
            index.arriving_bytes -= job.body.len() as u64;
            for (_, entry) in entries {
                index.turns.give_back(&entry.lane, entry.room as usize);
            }
            self.shared.meters.tell(&mut index);
        }
        if let Some(reply) = job.reply {
            let _ = reply.send(Err(unavailable()));
        }
    }

    fn tell_bytes(&self) {
        let bytes = self.journal.bytes();
        let before = self.shared.bytes.swap(bytes, Ordering::Relaxed);
        self.shared.meters.bytes(before, bytes);
    }

    fn failed(&mut self, error: &io::Error) {
        if !std::mem::replace(&mut self.fails, true) {
            tracing::error!(
                %error, not_written = self.again.len(),
                "the journal of the queue can not be written: events are refused until it can; look at the disk of the data directory"
            );
        }
    }

    fn recovered(&mut self) {
        let is_well = self.again.is_empty() && self.reserve.is_there();
        if is_well && std::mem::take(&mut self.fails) {
            tracing::info!("the journal of the queue is written again");
        }
    }
}

impl Drop for Writer {
    /// Nobody waits for a writer that ended, least of all for one that panicked.
    fn drop(&mut self) {
        let mut pending = self.shared.pending();
        pending.is_closed = true;
        pending.jobs.clear();
    }
}

/// Why a record is not on disk when nobody says so.
pub(super) fn closed() -> Error {
    Error::Unavailable("it is closed".into())
}

fn unavailable() -> Error {
    Error::Unavailable("its journal can not be written; the log of the node says why".into())
}
