//! Which instances hold a payload, in a file that outlives a `kill -9` of the node.
//!
//! The next incarnation adopts warm instances at once, except for slots that a call of this one may still hold. A record is
//! 32 bytes: hash of the instance id (16), calls in flight (4), padding (4), milliseconds since 1970 of the last hand-over (8).
//! It is written to the page cache, not synced: it has to survive the process, and a machine that fails takes its instances along.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{InstanceId, InstanceKey};

const RECORD_BYTES: u64 = 32;

/// The file and its free records; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    free: Mutex<Free>,
    inherited: HashMap<[u8; 16], Inherited>,
}

#[derive(Debug, Default)]
struct Free {
    offsets: Vec<u64>,
    end: u64,
}

/// What the last incarnation left of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// Calls that were in flight.
    pub(crate) busy: u32,
    /// When the last payload was handed over.
    pub(crate) handed_over_at: SystemTime,
}

/// One instance's record.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    shared: Arc<Shared>,
    offset: u64,
    busy: Arc<Mutex<u32>>,
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
        let inherited = old.chunks_exact(RECORD_BYTES as usize).filter_map(read_record).collect();
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path)?;
        let shared = Shared { file, free: Mutex::default(), inherited };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What the last incarnation left of an instance, if calls were in flight.
    pub(crate) fn inherited(&self, id: &InstanceId) -> Option<Inherited> {
        self.shared.inherited.get(&hash(id)).copied()
    }

    pub(crate) fn open(&self, id: &InstanceId) -> Entry {
        let offset = {
            let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
            free.offsets.pop().unwrap_or_else(|| {
                let offset = free.end;
                free.end += RECORD_BYTES;
                offset
            })
        };
        let mut record = [0; RECORD_BYTES as usize];
        record[..16].copy_from_slice(&hash(id));
        self.shared.write(&record, offset);
        Entry { shared: Arc::clone(&self.shared), offset, busy: Arc::default() }
    }

    pub(crate) fn close(&self, entry: &Entry) {
        self.shared.write(&[0; RECORD_BYTES as usize], entry.offset);
        let mut free = self.shared.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.offsets.push(entry.offset);
    }
}

impl Shared {
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
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy += 1;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&busy.to_be_bytes());
        bytes[8..].copy_from_slice(&u64::try_from(now.as_millis()).unwrap_or(u64::MAX).to_be_bytes());
        self.shared.write(&bytes, self.offset + 16);
    }

    /// Notes that a call ended.
    pub(crate) fn end(&self) {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = busy.saturating_sub(1);
        self.shared.write(&busy.to_be_bytes(), self.offset + 16);
    }
}

fn read_record(record: &[u8]) -> Option<([u8; 16], Inherited)> {
    let id: [u8; 16] = record.get(..16)?.try_into().ok()?;
    let busy = u32::from_be_bytes(record.get(16..20)?.try_into().ok()?);
    let at_ms = u64::from_be_bytes(record.get(24..32)?.try_into().ok()?);
    let handed_over_at = UNIX_EPOCH.checked_add(std::time::Duration::from_millis(at_ms))?;
    (busy > 0 && id != [0; 16]).then_some((id, Inherited { busy, handed_over_at }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
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
        assert_eq!(journal.inherited(&id("ended")), None);
        assert_eq!(journal.inherited(&id("running")).unwrap().busy, 1);
        let next = Journal::open_file(&path).unwrap();
        assert_eq!(next.inherited(&id("running")), None, "each incarnation begins anew");
    }

    #[test]
    fn a_damaged_file_is_no_reason_not_to_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("busy");
        std::fs::write(&path, [0xff; 77]).unwrap();
        assert!(Journal::open_file(&path).is_ok());
    }
}
