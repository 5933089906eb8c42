//! The records as the store last told them, and the registry built from them.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::Revision;
use config::store::{Change, Entry, Listing, WatchEvent};
use protocol::Function;

use super::{FUNCTIONS_PREFIX, Registered, Registry};

#[derive(Debug, Default)]
pub(super) struct State {
    revision: Revision,
    is_loaded: bool,
    records: BTreeMap<String, Record>,
}

#[derive(Debug)]
struct Record {
    entry: Entry,
    registered: Option<Arc<Registered>>,
}

impl State {
    pub(super) fn is_loaded(&self) -> bool {
        self.is_loaded
    }

    /// Replaces everything: records that are not in the listing are gone.
    pub(super) fn on_listing(&mut self, listing: &Listing) {
        let mut before = std::mem::take(&mut self.records);
        for entry in &listing.entries {
            let known = before
                .remove(&entry.key)
                .filter(|record| record.entry == *entry);
            self.records.insert(
                entry.key.clone(),
                known.unwrap_or_else(|| Record::read(entry)),
            );
        }
        self.revision = listing.revision;
        self.is_loaded = true;
    }

    pub(super) fn on_event(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::Reset(listing) => self.on_listing(listing),
            WatchEvent::Changes { revision, changes } => {
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            self.records.insert(entry.key.clone(), Record::read(entry));
                        }
                        Change::Deleted(key) => {
                            self.records.remove(key);
                        }
                    }
                }
                self.revision = self.revision.max(*revision);
            }
        }
    }

    pub(super) fn registry(&self) -> Registry {
        let mut registry = Registry {
            revision: self.revision,
            is_loaded: self.is_loaded,
            ..Registry::default()
        };
        for registered in self
            .records
            .values()
            .filter_map(|record| record.registered.as_ref())
        {
            let function = &registered.function;
            let space = registry
                .functions
                .entry(function.space.clone())
                .or_default();
            space.insert(function.function_id.clone(), Arc::clone(registered));
        }
        registry
    }

    pub(super) fn listing(&self) -> Listing {
        let entries = self
            .records
            .values()
            .map(|record| record.entry.clone())
            .collect();
        Listing {
            entries,
            revision: self.revision,
        }
    }
}

impl Record {
    /// Reads a record; one that can not be read is kept and told, but runs nothing.
    fn read(entry: &Entry) -> Self {
        let registered = match serde_json::from_slice::<Function>(&entry.value) {
            Ok(function) if key(&function) == entry.key => Some(Arc::new(Registered {
                key: function.instance_key(),
                function: Arc::new(function),
                revision: entry.revision,
            })),
            Ok(_) => {
                tracing::error!(key = %entry.key, "a record in the store names another function than its key");
                None
            }
            Err(error) => {
                tracing::error!(key = %entry.key, %error, "a record in the store can not be read");
                None
            }
        };
        Self {
            entry: entry.clone(),
            registered,
        }
    }
}

/// The key of a function's record.
pub(crate) fn key(function: &Function) -> String {
    format!(
        "{FUNCTIONS_PREFIX}{}/{}",
        function.space, function.function_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, revision: u64) -> Entry {
        let value = format!(
            r#"{{"space":"default","functionId":"{id}","type":"http","provider":{{"url":"http://a"}}}}"#
        );
        Entry {
            key: format!("functions/default/{id}"),
            value: value.into(),
            revision: Revision(revision),
        }
    }

    fn ids(state: &State) -> Vec<String> {
        state
            .registry()
            .iter()
            .map(|registered| registered.function.function_id.to_string())
            .collect()
    }

    #[test]
    fn changes_and_resets_are_applied() {
        let mut state = State::default();
        assert!(!state.registry().is_loaded);
        state.on_listing(&Listing {
            entries: vec![entry("a", 1), entry("b", 2)],
            revision: Revision(2),
        });
        let changes = vec![
            Change::Deleted("functions/default/a".into()),
            Change::Put(entry("c", 3)),
        ];
        state.on_event(&WatchEvent::Changes {
            revision: Revision(3),
            changes,
        });
        assert_eq!(ids(&state), ["b", "c"]);
        assert_eq!(state.registry().revision, Revision(3));
        state.on_event(&WatchEvent::Reset(Listing {
            entries: vec![entry("d", 9)],
            revision: Revision(9),
        }));
        assert_eq!(
            ids(&state),
            ["d"],
            "a reset forgets what was deleted meanwhile"
        );
    }

    #[test]
    fn a_record_that_can_not_be_read_hides_no_other() {
        let mut state = State::default();
        let broken = Entry {
            key: "functions/default/x".into(),
            value: "{".into(),
            revision: Revision(1),
        };
        let moved = Entry {
            key: "functions/default/y".into(),
            ..entry("z", 1)
        };
        state.on_listing(&Listing {
            entries: vec![broken, moved, entry("a", 1)],
            revision: Revision(1),
        });
        assert_eq!(ids(&state), ["a"]);
    }
}
