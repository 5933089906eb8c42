//! The records of one kind as the store last told them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Revision;
use config::store::{Change, Entry, Listing, WatchEvent};

/// The records of one kind, by key. A record that can not be read is kept and told, but has no value.
#[derive(Debug)]
pub(super) struct Records<T> {
    pub(super) revision: Revision,
    pub(super) is_listed: bool,
    read: fn(&Entry) -> Option<T>,
    records: BTreeMap<String, Record<T>>,
}

#[derive(Debug)]
struct Record<T> {
    entry: Arc<Entry>,
    value: Option<Arc<T>>,
}

impl<T> Records<T> {
    /// No records; `read` makes the value of one, or tells why it can not.
    pub(super) fn new(read: fn(&Entry) -> Option<T>) -> Self {
        Self {
            revision: Revision::default(),
            is_listed: false,
            read,
            records: BTreeMap::new(),
        }
    }

    /// Replaces everything: records that are not in the listing are gone. The keys that changed.
    pub(super) fn on_listing(&mut self, listing: Listing) -> BTreeSet<String> {
        let mut before = std::mem::take(&mut self.records);
        let mut changed = BTreeSet::new();
        for entry in listing.entries {
            let key = entry.key.clone();
            let record = match before.remove(&key) {
                Some(record) if *record.entry == entry => record,
                _ => {
                    changed.insert(key.clone());
                    self.record(entry)
                }
            };
            self.records.insert(key, record);
        }
        changed.extend(before.into_keys());
        self.revision = listing.revision;
        self.is_listed = true;
        changed
    }

    /// Applies what a watch said. The keys that changed.
    pub(super) fn on_event(&mut self, event: WatchEvent) -> BTreeSet<String> {
        let (revision, changes) = match event {
            WatchEvent::Reset(listing) => return self.on_listing(listing),
            WatchEvent::Changes { revision, changes } => (revision, changes),
        };
        let changed = changes.iter().map(|change| change.key().to_owned());
        let changed = changed.collect();
        for change in changes {
            match change {
                Change::Put(entry) => {
                    let key = entry.key.clone();
                    let record = self.record(entry);
                    self.records.insert(key, record);
                }
                Change::Deleted(key) => {
                    self.records.remove(&key);
                }
            }
        }
        self.revision = self.revision.max(revision);
        changed
    }

    /// The values under a prefix, by key.
    pub(super) fn under(&self, prefix: &str) -> impl Iterator<Item = &Arc<T>> {
        self.records
            .range(prefix.to_owned()..)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(|(_, record)| record.value.as_ref())
    }

    /// All records as the store has them.
    pub(super) fn entries(&self) -> impl Iterator<Item = Arc<Entry>> {
        self.records
            .values()
            .map(|record| Arc::clone(&record.entry))
    }

    fn record(&self, entry: Entry) -> Record<T> {
        Record {
            value: (self.read)(&entry).map(Arc::new),
            entry: Arc::new(entry),
        }
    }
}
