//! The records as the store last told them, and the registry built from them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::store::{Entry, Listing, WatchEvent};
use protocol::{
    CorsId, CorsRecord, EventTypeRecord, Function, ScheduleRecord, SecretName, SecretRecord, Space,
    Subscription, SubscriptionId,
};
use serde::Deserialize;
use tokio::time::Instant;

use super::disk::Snapshot;
use super::records::Records;
use super::subscriptions::{GroupKey, Subscribed};
use super::versions::{self, RegisteredAlias};
use super::{
    CORS_PREFIX, EVENT_TYPES_PREFIX, FUNCTIONS_PREFIX, Kind, Registered, RegisteredCors,
    RegisteredSchedule, RegisteredSecret, RegisteredType, Registry, SCHEDULES_PREFIX,
    SECRETS_PREFIX, SUBSCRIPTIONS_PREFIX,
};

/// What the store told, and the registry that says the same; what did not change is shared with the registry before.
#[derive(Debug)]
pub(super) struct State {
    functions: Records<Registered>,
    subscriptions: Records<Subscribed>,
    event_types: Records<RegisteredType>,
    cors: Records<RegisteredCors>,
    schedules: Records<RegisteredSchedule>,
    pub(super) secrets: Records<RegisteredSecret>,
    pub(super) versions: Records<Registered>,
    pub(super) aliases: Records<RegisteredAlias>,
    registry: Arc<Registry>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            functions: Records::new(read_function),
            subscriptions: Records::new(read_subscription),
            event_types: Records::new(read_event_type),
            cors: Records::new(read_cors),
            schedules: Records::new(read_schedule),
            secrets: Records::new(read_secret),
            versions: Records::new(versions::read_version),
            aliases: Records::new(versions::read_alias),
            registry: Arc::default(),
        }
    }
}

impl State {
    pub(super) fn is_loaded(&self) -> bool {
        self.functions.is_listed
            && self.subscriptions.is_listed
            && self.event_types.is_listed
            && self.cors.is_listed
            && self.schedules.is_listed
            && self.secrets.is_listed
            && self.versions.is_listed
            && self.aliases.is_listed
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
            Kind::EventTypes => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.event_types.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_event_types(&mut registry, &changed);
            }
            Kind::Cors => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.cors.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                for space in spaces(CORS_PREFIX, &changed) {
                    let prefix = format!("{CORS_PREFIX}{space}/");
                    let all: Vec<_> = self.cors.under(&prefix).cloned().collect();
                    gauge("gateway_cors_total", &space, all.len());
                    registry.cors.set(space, all);
                }
            }
            Kind::Schedules => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.schedules.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_schedules(&mut registry, &changed);
            }
            Kind::Secrets => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.secrets.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_secrets(&mut registry, &changed);
                self.set_versions_of(&mut registry, &spaces(SECRETS_PREFIX, &changed));
            }
            Kind::Versions => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.versions.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_versions(&mut registry, &changed);
            }
            Kind::Aliases => {
                let changed = events
                    .into_iter()
                    .flat_map(|event| self.aliases.on_event(event));
                let changed: BTreeSet<String> = changed.collect();
                self.set_versions(&mut registry, &changed);
            }
        }
        registry.functions_revision = self.functions.revision;
        registry.subscriptions.revision = self.subscriptions.revision;
        registry.event_types_revision = self.event_types.revision;
        registry.cors.revision = self.cors.revision;
        registry.schedules_revision = self.schedules.revision;
        registry.secrets_revision = self.secrets.revision;
        registry.versions_revision = self.versions.revision;
        registry.aliases_revision = self.aliases.revision;
        registry.revision = self
            .functions
            .revision
            .max(self.subscriptions.revision)
            .max(self.event_types.revision)
            .max(self.cors.revision)
            .max(self.schedules.revision)
            .max(self.secrets.revision)
            .max(self.versions.revision)
            .max(self.aliases.revision);
        registry.is_loaded = self.is_loaded();
        self.registry = Arc::new(registry);
        metrics::histogram!("hearth_registry_rebuild_seconds", "records" => kind.name())
            .record(begun.elapsed());
    }

    pub(super) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.registry)
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let entries = self
            .functions
            .entries()
            .chain(self.subscriptions.entries())
            .chain(self.event_types.entries())
            .chain(self.cors.entries())
            .chain(self.schedules.entries())
            .chain(self.secrets.entries())
            .chain(self.versions.entries())
            .chain(self.aliases.entries());
        Snapshot {
            revision: self.registry.revision,
            entries: entries.collect(),
        }
    }

    /// Makes the functions of each space anew that has a changed one.
    fn set_functions(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        for space in spaces(FUNCTIONS_PREFIX, changed) {
            let prefix = format!("{FUNCTIONS_PREFIX}{space}/");
            let secrets = registry.secrets.get(&space);
            let registered = self.functions.under(&prefix);
            let functions: BTreeMap<_, _> = registered
                .map(|registered| {
                    let id = registered.function.function_id.clone();
                    let before = registry.function(&space, &id);
                    (id, with_secrets(registered, secrets, before))
                })
                .collect();
            gauge("gateway_functions_total", &space, functions.len());
            match functions.is_empty() {
                true => registry.functions.remove(&space),
                false => registry.functions.insert(space, Arc::new(functions)),
            };
        }
    }

    /// Makes the event types of each space anew that has a changed one.
    fn set_event_types(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        for space in spaces(EVENT_TYPES_PREFIX, changed) {
            let prefix = format!("{EVENT_TYPES_PREFIX}{space}/");
            let registered = self.event_types.under(&prefix);
            let event_types: BTreeMap<_, _> = registered
                .map(|registered| (registered.event_type.name.clone(), Arc::clone(registered)))
                .collect();
            gauge("gateway_eventtypes_total", &space, event_types.len());
            match event_types.is_empty() {
                true => registry.event_types.remove(&space),
                false => registry.event_types.insert(space, Arc::new(event_types)),
            };
        }
    }

    /// Makes the schedules of each space anew that has a changed one.
    fn set_schedules(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        for space in spaces(SCHEDULES_PREFIX, changed) {
            let prefix = format!("{SCHEDULES_PREFIX}{space}/");
            let registered = self.schedules.under(&prefix);
            let schedules: BTreeMap<_, _> = registered
                .map(|registered| {
                    (
                        registered.schedule.schedule_id.clone(),
                        Arc::clone(registered),
                    )
                })
                .collect();
            gauge("hearth_schedules", &space, schedules.len());
            match schedules.is_empty() {
                true => registry.schedules.remove(&space),
                false => registry.schedules.insert(space, Arc::new(schedules)),
            };
        }
    }

    /// Makes the secrets of each space anew that has a changed one, and the functions there: their keys follow from the versions.
    fn set_secrets(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        let mut functions = BTreeSet::new();
        for space in spaces(SECRETS_PREFIX, changed) {
            let prefix = format!("{SECRETS_PREFIX}{space}/");
            let registered = self.secrets.under(&prefix);
            let secrets: BTreeMap<_, _> = registered
                .map(|registered| (registered.secret.name.clone(), Arc::clone(registered)))
                .collect();
            gauge("hearth_secrets", &space, secrets.len());
            functions.insert(format!("{FUNCTIONS_PREFIX}{space}/"));
            match secrets.is_empty() {
                true => registry.secrets.remove(&space),
                false => registry.secrets.insert(space, Arc::new(secrets)),
            };
        }
        self.set_functions(registry, &functions);
    }

    /// Makes each group of subscriptions anew that has a changed one.
    fn set_subscriptions(&self, registry: &mut Registry, changed: &BTreeSet<String>) {
        let groups: BTreeSet<GroupKey> = changed
            .iter()
            .filter_map(|key| {
                let (space, key) = split(SUBSCRIPTIONS_PREFIX, key)?;
                GroupKey::of(&space, key)
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

/// Event Gateway's name and label, before its last versions renamed them; a space that has become empty says so.
pub(super) fn gauge(name: &'static str, space: &Space, count: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a count of records is small")]
    metrics::gauge!(name, "space" => space.to_string()).set(count as f64);
}

/// The spaces that have a changed record.
fn spaces(prefix: &str, changed: &BTreeSet<String>) -> BTreeSet<Space> {
    let spaces = changed.iter();
    spaces
        .filter_map(|key| Some(split(prefix, key)?.0))
        .collect()
}

/// Space and id in a key.
fn split<'a>(prefix: &str, key: &'a str) -> Option<(Space, &'a str)> {
    let (space, id) = key.strip_prefix(prefix)?.split_once('/')?;
    Some((space.parse().ok()?, id))
}

/// A function with the secrets that it names, as they are known. One that is as it was before is shared with the registry before.
pub(super) fn with_secrets(
    registered: &Arc<Registered>,
    secrets: Option<&Arc<BTreeMap<SecretName, Arc<RegisteredSecret>>>>,
    before: Option<&Arc<Registered>>,
) -> Arc<Registered> {
    let function = &registered.function;
    if function.secrets().is_empty() {
        return Arc::clone(registered);
    }
    let known = |name: &SecretName| secrets?.get(name);
    let named: BTreeSet<&SecretName> = function.secrets().iter().map(|one| &one.name).collect();
    let named: Vec<_> = named.into_iter().filter_map(known).cloned().collect();
    match before {
        Some(before)
            if Arc::ptr_eq(&before.function, function)
                && before.revision == registered.revision
                && before.secrets == named =>
        {
            Arc::clone(before)
        }
        _ => Arc::new(Registered {
            function: Arc::clone(function),
            key: function.instance_key(|name| Some(known(name)?.secret.version.as_str())),
            secrets: named,
            revision: registered.revision,
        }),
    }
}

/// Reads a function; one that can not be read runs nothing.
fn read_function(entry: &Entry) -> Option<Registered> {
    let function: Function = parsed(entry)?;
    if key(&function) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another function than its key");
        return None;
    }
    Some(Registered {
        key: function.instance_key(|_| None),
        secrets: Vec::new(),
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
    if own_id(&subscription).as_ref() != Some(&subscription.subscription_id)
        || subscription_key(&subscription) != entry.key
    {
        tracing::error!(key = %entry.key, "a record in the store names another subscription than its key");
        return None;
    }
    Some(Subscribed {
        subscription: Arc::new(subscription),
        revision: entry.revision,
        created: hidden.created.unwrap_or(entry.revision),
    })
}

/// The id that follows from what a subscription says; none when it is typed and has no method.
fn own_id(subscription: &Subscription) -> Option<SubscriptionId> {
    let Subscription {
        event,
        function_id,
        path,
        method,
        ..
    } = subscription;
    match subscription.mode {
        None => Some(SubscriptionId::of(event, *method, function_id, path)),
        Some(mode) => {
            let method = (*method)?;
            Some(SubscriptionId::of_typed(
                mode,
                event,
                function_id,
                path,
                method,
            ))
        }
    }
}

/// Reads an event type; for one that can not be read there are no authorizers, and so its subscriptions get nothing.
pub(crate) fn read_event_type(entry: &Entry) -> Option<RegisteredType> {
    let event_type: EventTypeRecord = parsed(entry)?;
    let key = event_type_key(event_type.space.as_str(), event_type.name.as_str());
    if key != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another event type than its key");
        return None;
    }
    Some(RegisteredType {
        event_type: Arc::new(event_type),
        revision: entry.revision,
    })
}

/// Reads a CORS configuration; one that can not be read allows nothing.
pub(crate) fn read_cors(entry: &Entry) -> Option<RegisteredCors> {
    let cors: CorsRecord = parsed(entry)?;
    let is_own = cors.cors_id == CorsId::of(cors.method, &cors.path);
    if !is_own || cors_key(cors.space.as_str(), cors.cors_id.as_str()) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another CORS configuration than its key");
        return None;
    }
    Some(RegisteredCors {
        cors: Arc::new(cors),
        revision: entry.revision,
    })
}

/// Reads a schedule; one that can not be read never fires.
pub(crate) fn read_schedule(entry: &Entry) -> Option<RegisteredSchedule> {
    let schedule: ScheduleRecord = parsed(entry)?;
    if schedule_key(schedule.space.as_str(), schedule.schedule_id.as_str()) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another schedule than its key");
        return None;
    }
    let plan = schedule
        .plan()
        .inspect_err(|error| tracing::error!(key = %entry.key, %error, "a schedule in the store can not be read"))
        .ok()?;
    Some(RegisteredSchedule {
        schedule: Arc::new(schedule),
        plan,
        revision: entry.revision,
    })
}

/// Reads a secret, sealed as it is; one that can not be read is none.
pub(crate) fn read_secret(entry: &Entry) -> Option<RegisteredSecret> {
    let secret: SecretRecord = parsed(entry)?;
    if secret_key(secret.space.as_str(), secret.name.as_str()) != entry.key {
        tracing::error!(key = %entry.key, "a record in the store names another secret than its key");
        return None;
    }
    Some(RegisteredSecret {
        secret: Arc::new(secret),
        revision: entry.revision,
    })
}

pub(super) fn parsed<'a, T: Deserialize<'a>>(entry: &'a Entry) -> Option<T> {
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
    let (space, key) = (&subscription.space, subscription.subscription_id.key());
    format!("{SUBSCRIPTIONS_PREFIX}{space}/{key}")
}

/// The key of a CORS configuration; those of a method begin with that of its name.
pub(crate) fn cors_key(space: &str, id: &str) -> String {
    format!("{CORS_PREFIX}{space}/{id}")
}

/// The key of a schedule's record.
pub(crate) fn schedule_key(space: &str, id: &str) -> String {
    format!("{SCHEDULES_PREFIX}{space}/{id}")
}

/// The key of a secret's record.
pub(crate) fn secret_key(space: &str, name: &str) -> String {
    format!("{SECRETS_PREFIX}{space}/{name}")
}

/// The key of an event type's record.
pub(crate) fn event_type_key(space: &str, name: &str) -> String {
    format!("{EVENT_TYPES_PREFIX}{space}/{name}")
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
