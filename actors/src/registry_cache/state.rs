//! The records as the store last told them, and the registry built from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::store::{Entry, Listing, WatchEvent};
use protocol::{Function, Space, Subscription, SubscriptionId};
use serde::Deserialize;
use tokio::time::Instant;

use super::disk::Snapshot;
use super::records::Records;
use super::subscriptions::{GroupKey, Subscribed};
use super::{FUNCTIONS_PREFIX, Kind, Registered, Registry, SUBSCRIPTIONS_PREFIX};

/// What the store told, and the registry that says the same; what did not change is shared with the registry before.
#[derive(Debug)]
pub(super) struct State {
    functions: Records<Registered>,
    subscriptions: Records<Subscribed>,
    registry: Arc<Registry>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            functions: Records::new(read_function),
            subscriptions: Records::new(read_subscription),
            registry: Arc::default(),
        }
    }
}

impl State {
    pub(super) fn is_loaded(&self) -> bool {
        self.functions.is_listed && self.subscriptions.is_listed
    }

    /// Replaces everything of a kind: records that are not in the listing are gone.
    pub(super) fn on_listing(&mut self, kind: Kind, listing: Listing) {
        self.on_events(kind, vec![WatchEvent::Reset(listing)]);
    }

    /// Applies what the watch of a kind said.
    pub(super) fn on_events(&mut self, kind: Kind, events: Vec<WatchEvent>) {
        let begun = Instant::now();
        let mut registry = Registry::clone(&self.registry);
        match kind {
            Kind::Functions => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.functions.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_functions(&mut registry, &changed);
            }
            Kind::Subscriptions => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.subscriptions.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_subscriptions(&mut registry, &changed);
            }
        }
        registry.functions_revision = self.functions.revision;
        registry.subscriptions.revision = self.subscriptions.revision;
        registry.revision = self.functions.revision.max(self.subscriptions.revision);
        registry.is_loaded = self.is_loaded();
        self.registry = Arc::new(registry);
        metrics::histogram!("hearth_registry_rebuild_seconds", "records" => kind.name())
            .record(begun.elapsed());
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let functions = self.functions.entries();
        Snapshot {
            revision: self.registry.revision,
            entries: functions.chain(self.subscriptions.entries()).collect(),
        }
    }

    /// Makes the functions of each space anew that has a changed one.
    fn set_functions(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        let spaces: BTreeSet<Space> = changed
            .iter()
            .filter_map(|key| Some(split(FUNCTIONS_PREFIX, key)?.0))
            .collect();
        for space in spaces {
            let prefix = format!("{FUNCTIONS_PREFIX}{space}/");
            let registered = self.functions.under(&prefix);
            let functions: BTreeMap<_, _> = registered
                .map(|registered| {
                    (
                        registered.function.function_id.clone(),
                        Arc::clone(registered),
                    )
                })
                .collect();
            gauge("gateway_functions_total", &space, functions.len());
            match functions.is_empty() {
                true => registry.functions.remove(&space),
                false => registry.functions.insert(space, Arc::new(functions)),
            };
        }
    }

    /// Makes each group of subscriptions anew that has a changed one.
    fn set_subscriptions(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        let groups: BTreeSet<GroupKey> = changed
            .iter()
            .filter_map(|key| {
                let (space, id) = split(SUBSCRIPTIONS_PREFIX, key)?;
                GroupKey::of(&space, id)
            })
            .collect();
        for group in &groups {
            let prefix = format!("{SUBSCRIPTIONS_PREFIX}{}", group.text());
            let subscribed = self.subscriptions.under(&prefix).cloned().collect();
            registry.subscriptions.set_group(group, subscribed);
        }
        let spaces: BTreeSet<&Space> = groups.iter().map(GroupKey::space).collect();
        for space in spaces {
            let count = registry.subscriptions.of_space(space).count();
            gauge("gateway_subscriptions_total", space, count);
        }
    }
}

/// Event Gateway's name and label; a space that has become empty says so.
fn gauge(name: &'static str, space: &Space, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a count of records is small")]
    metrics::gauge!(name, "space" => space.to_string()).set(count as f64);
}

/// Space and id in a key.
fn split<'a>(prefix: &str, key: &'a str) -> Option<(Space, &'a str)> {
    let (space, id) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((space.parse().ok()?, id))
}

/// Reads a function; one that can not be read runs nothing.
fn read_function(entry: &Entry) -> Option<Registered> {
    let function: Function = parsed(entry)?;
    if key(&function) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another function than its key");
        return None;
    }
    Some(Registered {
        key: function.instance_key(),
        function: Arc::new(function),
        revision: entry.revision,
    })
}

/// Reads a subscription; one that can not be read gets no events.
pub(crate) fn read_subscription(entry: &Entry) -> Option<Subscribed> {
    /// What a record has that no API shows.
    #[derive(Deserialize)]
    struct Hidden {
        created: Option<config::Revision>,
    }

    let subscription: Subscription = parsed(entry)?;
    let hidden: Hidden = parsed(entry)?;
    let (event, path) = (&subscription.event, &subscription.path);
    let id = SubscriptionId::of(event, subscription.method, &subscription.function_id, path);
    if id != subscription.subscription_id || subscription_key(&subscription) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another subscription than its key");
        return None;
    }
    Some(Subscribed {
        subscription: Arc::new(subscription),
        revision: entry.revision,
        created: hidden.created.unwrap_or(entry.revision),
    })
}

fn parsed<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Option<T> {
    serde_json::from_slice(&entry.value)
        .inspect_err(|error| tracing::error!(key = %entry.key, %error, "a record in the store can not be read"))
        .ok()
}

/// The key of a function's record.
pub(crate) fn key(function: &Function) -> String {
    format!(
        "{FUNCTIONS_PREFIX}{}/{}",
        function.space, function.function_id
    )
}

/// The key of a subscription's record.
pub(crate) fn subscription_key(subscription: &Subscription) -> String {
    let (space, id) = (&subscription.space, &subscription.subscription_id);
    format!("{SUBSCRIPTIONS_PREFIX}{space}/{id}")
}

#[cfg(test)]
mod tests {
    use config::Revision;
    use config::store::Change;

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
        state.on_listing(
            Kind::Functions,
            Listing {
                entries: vec![entry("a", 1), entry("b", 2)],
                revision: Revision(2),
            },
        );
        let changes = vec![
            Change::Deleted("functions/default/a".into()),
            Change::Put(entry("c", 3)),
        ];
        state.on_events(
            Kind::Functions,
            vec![WatchEvent::Changes {
                revision: Revision(3),
                changes,
            }],
        );
        assert_eq!(ids(&state), ["b", "c"]);
        assert_eq!(state.registry().revision, Revision(3));
        state.on_listing(
            Kind::Functions,
            Listing {
                entries: vec![entry("d", 9)],
                revision: Revision(9),
            },
        );
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
        state.on_listing(
            Kind::Functions,
            Listing {
                entries: vec![broken, moved, entry("a", 1)],
                revision: Revision(1),
            },
        );
        assert_eq!(ids(&state), ["a"]);
    }
}
