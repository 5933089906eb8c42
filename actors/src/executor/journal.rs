//! Which instances hold a payload, in a file that outlives a `kill -9` of the node.
//!
//! The next incarnation adopts warm instances at once, except for slots that a call of this one may still hold. A record is
//! 32 bytes: hash of the instance id (16), calls in flight at most (4), padding (4), milliseconds since 1970 of the last
//! hand-over at the latest (8). It is written to the page cache, not synced: it has to survive the process, and a machine that
//! fails takes its instances along.
//!
//! A system call at both ends of each call would be a twentieth of what a warm call costs. So a record is a bound, never too
//! low: it covers hand-overs for a while ahead, and the end of a call lowers it at once only as long as calls are rare. Where
//! they follow each other quickly it is lowered soon after the last one.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::{InstanceId, InstanceKey};
use tokio::sync::Notify;

const RECORD_BYTES: usize = 32;

/// How far ahead of its writing a record covers hand-overs; the next incarnation holds slots back for so much longer.
const COVERED: Duration = Duration::from_millis(100);

/// How long after the last of many calls its record is lowered.
const LOWER_DELAY: Duration = Duration::from_millis(5);

/// Ends of calls that may lower a record at once, one after the other, and how long it takes until another one may.
const LOWERINGS_MAX: u32 = 16;
const LOWERING_INTERVAL: Duration = Duration::from_millis(10);

/// After so long nobody waits for a call any more: the longest `timeoutMs` is a day.
const AGE_MAX: Duration = Duration::from_secs(86_400);

/// The file and its free records; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    records: Mutex<Records>,
    /// Entries to lower soon; none twice.
    to_lower: Mutex<Vec<Entry>>,
    lower: Notify,
}

#[derive(Debug, Default)]
struct Records {
    free: Vec<u64>,
    end: u64,
    /// What the last incarnation left, where it stands now. It stays in the file until its instance is taken over, so that a
    /// node that is killed again before it looked at them forgets no call.
    inherited: HashMap<[u8; 16], (u64, Inherited)>,
}

/// What the last incarnation left of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Calls that were in flight, at most.
    pub(crate) busy: u32,
    /// When the last payload was handed over, at the latest.
    pub(crate) handed_over_at: SystemTime,
}

/// One instance's record.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    shared: Arc<Shared>,
    offset: u64,
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    in_flight: u32,
    /// Calls of an earlier incarnation that may go on.
    inherited: u32,
    /// The record is another instance's by now.
    is_closed: bool,
    /// The bound that the record says, and until when it covers hand-overs.
    written: u32,
    covered_until: Moment,
    is_to_be_lowered: bool,
    /// Since when lowerings at once are earned; each takes [`LOWERING_INTERVAL`] of it.
    lowering_earned_since: Moment,
}

/// Time since 1970.
type Moment = Duration;

fn now() -> Moment {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn hash(id: &InstanceId) -> [u8; 16] {
    *InstanceKey::hash([id.as_str().as_bytes()]).as_bytes()
}

impl Journal {
    /// Reads what the last incarnation left and begins anew.
    ///
    /// # Errors
    /// When the file can not be read or written.
    pub fn open_file(path: &Path) -> std::io::Result<Self> {
        let old = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let now = SystemTime::now();
        let is_recent = |inherited: &Inherited| {
            let age = now.duration_since(inherited.handed_over_at);
            // A record covers hand-overs for a while ahead.
            inherited.handed_over_at <= now + COVERED && age.unwrap_or_default() < AGE_MAX
        };
        let mut records = Records::default();
        let mut kept = Vec::new();
        for record in old.chunks_exact(RECORD_BYTES) {
            let Some((id, inherited)) =
                read_record(record).filter(|(_, inherited)| is_recent(inherited))
            else {
                continue;
            };
            records.inherited.insert(id, (records.end, inherited));
            records.end += RECORD_BYTES as u64;
            kept.extend_from_slice(record);
        }
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        file.write_all_at(&kept, 0)?;
        file.set_len(records.end)?;
        let shared = Shared {
            file,
            records: Mutex::new(records),
            to_lower: Mutex::default(),
            lower: Notify::new(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// What the last incarnation left of an instance, if calls were in flight.
    pub(crate) fn inherited(&self, id: &InstanceId) -> Option<Inherited> {
        self.shared
            .records()
            .inherited
            .get(&hash(id))
            .map(|(_, inherited)| *inherited)
    }

    /// Opens the record of an instance; one that the last incarnation left goes on.
    pub(crate) fn open(&self, id: &InstanceId) -> Entry {
        let hash = hash(id);
        let mut records = self.shared.records();
        if let Some((offset, inherited)) = records.inherited.remove(&hash) {
            let calls = Calls {
                inherited: inherited.busy,
                written: inherited.busy,
                ..Calls::default()
            };
            return Entry {
                shared: Arc::clone(&self.shared),
                offset,
                calls: Arc::new(Mutex::new(calls)),
            };
        }
        let offset = records.free.pop().unwrap_or_else(|| {
            let offset = records.end;
            records.end += RECORD_BYTES as u64;
            offset
        });
        let mut record = [0; RECORD_BYTES];
        record[..16].copy_from_slice(&hash);
        self.shared.write(&record, offset);
        Entry {
            shared: Arc::clone(&self.shared),
            offset,
            calls: Arc::default(),
        }
    }

    /// Forgets an instance that is gone; calls that still hold its entry write nothing any more.
    pub(crate) fn close(&self, entry: &Entry) {
        let mut calls = entry.calls();
        if !std::mem::replace(&mut calls.is_closed, true) {
            self.shared.free(entry.offset);
        }
    }

    /// Lowers records whose calls followed each other too quickly to do it at once; runs until it is dropped.
    pub(crate) async fn keep_lowering(self) {
        loop {
            self.shared.lower.notified().await;
            tokio::time::sleep(LOWER_DELAY).await;
            self.lower();
        }
    }

    fn lower(&self) {
        let entries = std::mem::take(&mut *self.shared.to_lower());
        for entry in entries {
            let mut calls = entry.calls();
            calls.is_to_be_lowered = false;
            if calls.is_written_high() {
                entry.write_count(&mut calls);
            }
        }
    }

    /// Forgets what the last incarnation left of an instance that is not taken over.
    pub(crate) fn forget(&self, id: &InstanceId) {
        let left = self.shared.records().inherited.remove(&hash(id));
        if let Some((offset, _)) = left {
            self.shared.free(offset);
        }
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn to_lower(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.to_lower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn free(&self, offset: u64) {
        self.write(&[0; RECORD_BYTES], offset);
        self.records().free.push(offset);
    }

    fn write(&self, bytes: &[u8], offset: u64) {
        // A full disk must not fail an invocation; what is lost is the care of the next incarnation for this one call.
        if let Err(error) = self.file.write_all_at(bytes, offset) {
            tracing::warn!(%error, "the journal of busy instances can not be written");
        }
    }
}

impl Entry {
    /// Notes that a payload is about to be handed over.
    pub(crate) fn begin(&self) {
        let now = now();
        let mut calls = self.calls();
        calls.in_flight += 1;
        if calls.count() <= calls.written && now <= calls.covered_until {
            return;
        }
        calls.covered_until = now + COVERED;
        let covered_until_ms = u64::try_from(calls.covered_until.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&calls.count().to_be_bytes());
        bytes[8..].copy_from_slice(&covered_until_ms.to_be_bytes());
        self.write(&mut calls, &bytes);
    }

    /// Notes that a call ended.
    pub(crate) fn end(&self) {
        let mut calls = self.calls();
        calls.in_flight = calls.in_flight.saturating_sub(1);
        if !calls.is_written_high() {
            return;
        }
        if calls.may_lower(now()) {
            self.write_count(&mut calls);
        } else if !std::mem::replace(&mut calls.is_to_be_lowered, true) {
            self.shared.to_lower().push(self.clone());
            self.shared.lower.notify_one();
        }
    }

    /// Notes that no call of an earlier incarnation goes on any more.
    pub(crate) fn settle(&self) {
        let mut calls = self.calls();
        calls.inherited = 0;
        self.write_count(&mut calls);
    }

    fn write_count(&self, calls: &mut Calls) {
        let count = calls.count().to_be_bytes();
        self.write(calls, &count);
    }

    fn write(&self, calls: &mut Calls, bytes: &[u8]) {
        calls.written = calls.count();
        if !calls.is_closed {
            self.shared.write(bytes, self.offset + 16);
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn count(&self) -> u32 {
        self.in_flight.saturating_add(self.inherited)
    }

    /// Whether the record holds back much more than there is: calls that come and go need not be written each time.
    fn is_written_high(&self) -> bool {
        self.written > 0 && self.count() <= self.written / 2
    }

    fn may_lower(&mut self, now: Moment) -> bool {
        let earliest = now.saturating_sub(LOWERING_INTERVAL * LOWERINGS_MAX);
        let next = self.lowering_earned_since.max(earliest) + LOWERING_INTERVAL;
        let may = next <= now;
        if may {
            self.lowering_earned_since = next;
        }
        may
    }
}

fn read_record(record: &[u8]) -> Option<([u8; 16], Inherited)> {
    let id: [u8; 16] = record.get(..16)?.try_into().ok()?;
    let busy = u32::from_be_bytes(record.get(16..20)?.try_into().ok()?);
    let at_ms = u64::from_be_bytes(record.get(24..32)?.try_into().ok()?);
    let handed_over_at = UNIX_EPOCH.checked_add(Duration::from_millis(at_ms))?;
    (busy > 0 && id != [0; 16]).then_some((
        id,
        Inherited {
            busy,
            handed_over_at,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    fn busy(journal: &Journal, text: &str) -> Option<u32> {
        journal.inherited(&id(text)).map(|inherited| inherited.busy)
    }

    #[test]
    fn the_next_incarnation_sees_calls_that_did_not_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        let journal = Journal::open_file(&path).unwrap();
        let (ended, running) = (journal.open(&id("ended")), journal.open(&id("running")));
        ended.begin();
        running.begin();
        running.begin();
        ended.end();
        running.end();
        drop(journal);

        let journal = Journal::open_file(&path).unwrap();
        assert_eq!(
            (busy(&journal, "ended"), busy(&journal, "running")),
            (None, Some(1))
        );
    }

    #[test]
    fn a_node_killed_twice_forgets_no_call() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        Journal::open_file(&path)
            .unwrap()
            .open(&id("running"))
            .begin();
        let killed_before_it_looked = Journal::open_file(&path).unwrap();
        drop(killed_before_it_looked);

        let journal = Journal::open_file(&path).unwrap();
        assert_eq!(busy(&journal, "running"), Some(1));
        let entry = journal.open(&id("running"));
        entry.begin();
        let killed_with_another_call = Journal::open_file(&path).unwrap();
        assert_eq!(busy(&killed_with_another_call, "running"), Some(2));

        entry.end();
        entry.settle();
        assert_eq!(busy(&Journal::open_file(&path).unwrap(), "running"), None);
    }

    #[test]
    fn an_instance_that_is_not_taken_over_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        Journal::open_file(&path).unwrap().open(&id("left")).begin();
        Journal::open_file(&path).unwrap().forget(&id("left"));
        assert_eq!(busy(&Journal::open_file(&path).unwrap(), "left"), None);
    }

    #[test]
    fn a_call_that_outlives_its_instance_leaves_the_next_record_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        let journal = Journal::open_file(&path).unwrap();
        let died = journal.open(&id("died"));
        died.begin();
        journal.close(&died);
        let next = journal.open(&id("next"));
        assert_eq!(next.offset, died.offset, "the record is used again");
        next.begin();
        died.end();
        died.begin();
        assert_eq!(busy(&Journal::open_file(&path).unwrap(), "next"), Some(1));
    }

    #[test]
    fn calls_that_follow_each_other_quickly_are_never_forgotten_and_end_soon() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        let journal = Journal::open_file(&path).unwrap();
        let entry = journal.open(&id("quick"));
        for _ in 0..1000 {
            entry.begin();
            assert!(busy(&Journal::open_file(&path).unwrap(), "quick") >= Some(1));
            entry.end();
        }
        journal.lower();
        assert_eq!(busy(&Journal::open_file(&path).unwrap(), "quick"), None);
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        std::fs::write(&path, [0xff; 77]).unwrap();
        let journal = Journal::open_file(&path).unwrap();
        journal.open(&id("first")).begin();
        assert_eq!(busy(&Journal::open_file(&path).unwrap(), "first"), Some(1));
    }
}
