//! The records of a store that lives within this process: what a transaction changes, and what a watch hears of it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{
    Change, Entry, Error, Listing, Precondition, Revision, Transaction, WATCH_BUFFER, Watch,
    WatchEvent, Write,
};

/// Commits kept for watches that are behind; one further behind is told everything anew.
const RECENT_COMMITS_MAX: usize = 1024;
/// Bytes of keys and values that those commits may hold on to.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// Commits handed to a watch at once, so that the lock is held shortly.
const REPLAY_MAX: usize = 64;

/// What one transaction did.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) revision: Revision,
    /// In the order of the keys.
    pub(super) changes: Vec<Change>,
}

impl Commit {
    fn bytes(&self) -> usize {
        let size = |change: &Change| match change {
            Change::Put(entry) => entry.key.len() + entry.value.len(),
            Change::Deleted(key) => key.len(),
        };
        self.changes.iter().map(size).sum()
    }
}

/// All records, the revision they stand at, and the commits that led there last.
#[derive(Debug, Default)]
pub(super) struct Records {
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    recent: VecDeque<Commit>,
    recent_bytes: usize,
    /// Every commit after this revision is among the recent ones.
    forgotten: Revision,
}

impl Records {
    /// Records as they were found on disk.
    pub(super) fn new(entries: impl IntoIterator<Item = Entry>, revision: Revision) -> Self {
        Self {
            entries: entries
                .into_iter()
                .map(|entry| (entry.key.clone(), entry))
                .collect(),
            revision,
            forgotten: revision,
            ..Self::default()
        }
    }

    fn get(&self, key: &str) -> Option<Entry> {
        self.entries.get(key).cloned()
    }

    fn list(&self, prefix: &str) -> Listing {
        let entries = self
            .entries
            .range(prefix.to_owned()..)
            .map(|(_, entry)| entry);
        Listing {
            entries: entries
                .take_while(|entry| entry.key.starts_with(prefix))
                .cloned()
                .collect(),
            revision: self.revision,
        }
    }

    fn list_page(&self, prefix: &str, after: Option<&str>, max: usize) -> Vec<Entry> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let found = self.entries.range::<str, _>((start, Bound::Unbounded));
        found
            .map(|(_, entry)| entry)
            .take_while(|entry| entry.key.starts_with(prefix))
            .take(max)
            .cloned()
            .collect()
    }

    /// What a transaction would do after `ahead` others that are prepared and not applied yet, and that have no key in common with it;
    /// without changes when it only removes what is not there.
    pub(super) fn prepare(&self, transaction: Transaction, ahead: u64) -> Result<Commit, Error> {
        for (key, precondition) in transaction.preconditions {
            let found = self.entries.get(&key).map(|entry| entry.revision);
            let holds = match precondition {
                Precondition::Absent => found.is_none(),
                Precondition::Present => found.is_some(),
                Precondition::At(revision) => found == Some(revision),
            };
            if !holds {
                return Err(Error::Precondition { key });
            }
        }
        let revision = Revision(self.revision.0 + ahead + 1);
        let mut changes: Vec<_> = transaction
            .writes
            .into_iter()
            .filter_map(|write| match write {
                Write::Put(key, value) => Some(Change::Put(Entry {
                    key,
                    value,
                    revision,
                })),
                Write::Delete(key) => self
                    .entries
                    .contains_key(&key)
                    .then_some(Change::Deleted(key)),
            })
            .collect();
        changes.sort_by(|a, b| a.key().cmp(b.key()));
        debug_assert!(
            changes
                .windows(2)
                .all(|pair| pair[0].key() != pair[1].key()),
            "a key is written twice"
        );
        Ok(Commit {
            revision: if changes.is_empty() {
                self.revision
            } else {
                revision
            },
            changes,
        })
    }

    /// Makes a prepared commit's changes.
    pub(super) fn apply(&mut self, commit: Commit) {
        if commit.changes.is_empty() {
            return;
        }
        for change in &commit.changes {
            match change {
                Change::Put(entry) => {
                    self.entries.insert(entry.key.clone(), entry.clone());
                }
                Change::Deleted(key) => {
                    self.entries.remove(key);
                }
            }
        }
        self.revision = commit.revision;
        self.recent_bytes += commit.bytes();
        self.recent.push_back(commit);
        while self.recent.len() > RECENT_COMMITS_MAX || self.recent_bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= oldest.bytes();
            self.forgotten = oldest.revision;
        }
    }

    /// What a watch of `prefix` that has seen everything up to `after` hears next, and the revision it has seen then.
    fn since(&self, prefix: &str, after: Revision) -> (Vec<WatchEvent>, Revision) {
        if after < self.forgotten || after > self.revision {
            return (vec![WatchEvent::Reset(self.list(prefix))], self.revision);
        }
        let start = self
            .recent
            .partition_point(|commit| commit.revision <= after);
        let commits = self.recent.range(start..).take(REPLAY_MAX);
        let mut seen = after;
        let mut events = Vec::new();
        for commit in commits {
            seen = commit.revision;
            let changes = commit
                .changes
                .iter()
                .filter(|change| change.key().starts_with(prefix))
                .cloned();
            let changes: Vec<_> = changes.collect();
            if !changes.is_empty() {
                events.push(WatchEvent::Changes {
                    revision: commit.revision,
                    changes,
                });
            }
        }
        (events, seen)
    }
}

/// The records, shared by the store and its watches.
#[derive(Debug)]
struct Shared {
    records: Mutex<Records>,
    changed: watch::Sender<Revision>,
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        // No code panics between two changes of the records, so what a poisoned lock guards is whole.
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A store's records within this process, and the watches on them.
#[derive(Debug)]
pub(super) struct LocalRecords {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

/// What commits to the records; cheap to clone into a blocking task.
#[derive(Debug, Clone)]
pub(super) struct Writer(Arc<Shared>);

impl Writer {
    /// What a transaction would do after so many others that are prepared and have nothing to do with it.
    pub(super) fn prepare(&self, transaction: Transaction, ahead: u64) -> Result<Commit, Error> {
        self.0.records().prepare(transaction, ahead)
    }

    pub(super) fn apply(&self, commit: Commit) -> Revision {
        let revision = commit.revision;
        self.0.records().apply(commit);
        self.0.changed.send_replace(revision);
        revision
    }

    /// Prepares and applies under one lock.
    pub(super) fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        let mut records = self.0.records();
        let commit = records.prepare(transaction, 0)?;
        let revision = commit.revision;
        records.apply(commit);
        drop(records);
        self.0.changed.send_replace(revision);
        Ok(revision)
    }
}

impl LocalRecords {
    pub(super) fn new(records: Records) -> Self {
        let changed = watch::Sender::new(records.revision);
        let stop = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                records: Mutex::new(records),
                changed,
            }),
            tasks: TaskTracker::new(),
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        }
    }

    pub(super) fn writer(&self) -> Writer {
        Writer(Arc::clone(&self.shared))
    }

    pub(super) fn tasks(&self) -> &TaskTracker {
        &self.tasks
    }

    pub(super) fn get(&self, key: &str) -> Option<Entry> {
        self.shared.records().get(key)
    }

    pub(super) fn list(&self, prefix: &str) -> Listing {
        self.shared.records().list(prefix)
    }

    pub(super) fn list_page(&self, prefix: &str, after: Option<&str>, max: usize) -> Vec<Entry> {
        self.shared.records().list_page(prefix, after, max)
    }

    /// Starts a watch; its task ends with the receiver or the store.
    pub(super) fn watch(&self, prefix: &str, after: Revision) -> Watch {
        let (sender, receiver) = mpsc::channel(WATCH_BUFFER);
        let follow = follow(Arc::clone(&self.shared), prefix.to_owned(), after, sender);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = follow => {}
            }
        });
        receiver
    }
}

/// Tells a watch every commit after `after`, at the pace of its receiver, until that is dropped.
async fn follow(
    shared: Arc<Shared>,
    prefix: String,
    mut after: Revision,
    sender: mpsc::Sender<WatchEvent>,
) {
    let mut changed = shared.changed.subscribe();
    loop {
        let newest = *changed.borrow_and_update();
        let (events, seen) = shared.records().since(&prefix, after);
        after = seen;
        for event in events {
            if sender.send(event).await.is_err() {
                return;
            }
        }
        if after < newest {
            continue;
        }
        tokio::select! {
            () = sender.closed() => return,
            outcome = changed.changed() => if outcome.is_err() { return },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn put(key: &str) -> Transaction {
        Transaction {
            preconditions: Vec::new(),
            writes: vec![Write::Put(key.into(), Bytes::from_static(b"v"))],
        }
    }

    #[test]
    fn a_watch_too_far_behind_is_told_everything_anew() {
        let mut records = Records::default();
        for index in 0..RECENT_COMMITS_MAX + 10 {
            let commit = records.prepare(put(&format!("k{}", index % 7)), 0).unwrap();
            records.apply(commit);
        }
        assert_eq!(records.recent.len(), RECENT_COMMITS_MAX);
        let (events, seen) = records.since("k", Revision(9));
        assert!(matches!(&events[..], [WatchEvent::Reset(listing)] if listing.entries.len() == 7));
        assert_eq!(seen, records.revision);
        let (events, seen) = records.since("k", Revision(10));
        assert!(matches!(
            events[0],
            WatchEvent::Changes {
                revision: Revision(11),
                ..
            }
        ));
        assert_eq!(
            (events.len(), seen),
            (REPLAY_MAX, Revision(10 + REPLAY_MAX as u64))
        );
    }

    #[test]
    fn a_watch_from_a_revision_of_another_past_is_told_everything_anew() {
        let records = Records::new([], Revision(5));
        assert!(matches!(
            &records.since("", Revision(6)).0[..],
            [WatchEvent::Reset(_)]
        ));
        assert!(matches!(
            &records.since("", Revision(4)).0[..],
            [WatchEvent::Reset(_)]
        ));
        assert!(records.since("", Revision(5)).0.is_empty());
    }

    #[test]
    fn what_recent_commits_hold_on_to_is_bounded() {
        let mut records = Records::default();
        let value = Bytes::from(vec![0; RECENT_BYTES_MAX / 4]);
        for _ in 0..10 {
            let write = Write::Put("k".into(), value.clone());
            let commit = records
                .prepare(
                    Transaction {
                        preconditions: Vec::new(),
                        writes: vec![write],
                    },
                    0,
                )
                .unwrap();
            records.apply(commit);
        }
        assert!(records.recent_bytes <= RECENT_BYTES_MAX && records.recent.len() <= 4);
    }

    #[tokio::test]
    async fn a_watch_ends_with_its_receiver_and_with_its_store() {
        let records = LocalRecords::new(Records::default());
        let (first, mut second) = (
            records.watch("", Revision(0)),
            records.watch("", Revision(0)),
        );
        drop(first);
        while records.tasks.len() > 1 {
            tokio::task::yield_now().await;
        }
        drop(records);
        assert_eq!(second.recv().await, None);
    }

    #[tokio::test]
    async fn a_slow_watch_does_not_hold_up_writers_and_hears_all() {
        let records = LocalRecords::new(Records::default());
        let mut watch = records.watch("", Revision(0));
        for index in 0..WATCH_BUFFER as u64 * 3 {
            assert_eq!(
                records.writer().commit(put("k")).unwrap(),
                Revision(index + 1)
            );
        }
        for index in 0..WATCH_BUFFER as u64 * 3 {
            let event = watch.recv().await;
            assert!(
                matches!(event, Some(WatchEvent::Changes { revision, .. }) if revision == Revision(index + 1))
            );
        }
    }

    #[test]
    fn removing_nothing_changes_nothing() {
        let records = Records::new([], Revision(5));
        let nothing = Transaction {
            preconditions: Vec::new(),
            writes: vec![Write::Delete("k".into())],
        };
        let commit = records.prepare(nothing, 0).unwrap();
        assert!(commit.changes.is_empty());
        assert_eq!(commit.revision, Revision(5));
    }
}
