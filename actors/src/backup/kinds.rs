//! The kinds of records that a configuration has, how each is checked, and the guards that come with it.

use accounts::records::{key, space, user};
use protocol::{
    Alias, CorsRecord, EventTypeRecord, Function, PublishedVersion, ScheduleRecord, SecretRecord,
    Subscription,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use crate::catalog::{
    NUMBERS_PREFIX, authorizes_key, fires_key, guards_of_subscription, needs_key, pins_key,
};
use crate::registry_cache::{
    ALIASES_PREFIX, CORS_PREFIX, EVENT_TYPES_PREFIX, FUNCTIONS_PREFIX, SCHEDULES_PREFIX,
    SECRETS_PREFIX, SUBSCRIPTIONS_PREFIX, VERSIONS_PREFIX,
};

/// The kinds of records, in the order that they are written in: what others name comes before them.
pub(super) const KINDS: [Kind; 13] = [
    Kind::account(user::PREFIX),
    Kind::account(user::EMAILS_PREFIX),
    Kind::account(key::PREFIX),
    Kind::of(space::PREFIX, is_object),
    Kind::of(SECRETS_PREFIX, is_secret),
    Kind::of(FUNCTIONS_PREFIX, reads::<Function>).guarded(of_function),
    Kind::of(NUMBERS_PREFIX, is_object),
    Kind::of(VERSIONS_PREFIX, reads::<PublishedVersion>).guarded(of_version),
    Kind::of(ALIASES_PREFIX, reads::<Alias>),
    Kind::of(EVENT_TYPES_PREFIX, reads::<EventTypeRecord>).guarded(of_event_type),
    Kind::of(SUBSCRIPTIONS_PREFIX, reads::<Subscription>).guarded(of_subscription),
    Kind::of(CORS_PREFIX, reads::<CorsRecord>),
    Kind::of(SCHEDULES_PREFIX, reads::<ScheduleRecord>).guarded(of_schedule),
];

/// One kind of records.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) prefix: &'static str,
    /// An account may be there before an import: that of the admin who makes it.
    is_account: bool,
    check: fn(&Value) -> Result<(), String>,
    /// The guards that move with a record.
    guards: fn(&Value) -> Vec<String>,
}

impl Kind {
    const fn of(prefix: &'static str, check: fn(&Value) -> Result<(), String>) -> Self {
        Self {
            prefix,
            is_account: false,
            check,
            guards: |_| Vec::new(),
        }
    }

    const fn guarded(self, guards: fn(&Value) -> Vec<String>) -> Self {
        Self { guards, ..self }
    }

    const fn account(prefix: &'static str) -> Self {
        Self {
            prefix,
            is_account: true,
            check: is_account,
            guards: |_| Vec::new(),
        }
    }
}

/// Whether a record is of a user's account.
pub(super) fn is_of_user(key: &str, value: &Value, user: &str) -> bool {
    let kind = KINDS.iter().find(|kind| key.starts_with(kind.prefix));
    if !kind.is_some_and(|kind| kind.is_account) {
        return false;
    }
    value.as_str() == Some(user) || key.split('/').nth(1) == Some(user)
}

pub(super) fn check(key: &str, value: &Value) -> Result<(), Error> {
    let wrong = |why: String| Error::Record {
        key: key.to_owned(),
        why,
    };
    let kind = KINDS.iter().find(|kind| key.starts_with(kind.prefix));
    let kind = kind.ok_or_else(|| {
        let known = KINDS.map(|kind| kind.prefix).join(", ");
        wrong(format!("its key begins with none of {known}"))
    })?;
    (kind.check)(value).map_err(wrong)?;
    let named = match (&value["space"], kind.prefix) {
        (Value::String(space), FUNCTIONS_PREFIX) => value["functionId"]
            .as_str()
            .map(|id| format!("{FUNCTIONS_PREFIX}{space}/{id}")),
        (Value::String(space), SECRETS_PREFIX) => value["name"]
            .as_str()
            .map(|name| format!("{SECRETS_PREFIX}{space}/{name}")),
        _ => None,
    };
    match named {
        Some(named) if named != key => Err(wrong(format!("it says that it is {named:?}"))),
        _ => Ok(()),
    }
}

pub(super) fn guards_of((key, value): (&String, &Value)) -> Vec<String> {
    let kind = KINDS.iter().find(|kind| key.starts_with(kind.prefix));
    kind.map_or_else(Vec::new, |kind| (kind.guards)(value))
}

fn of_function(value: &Value) -> Vec<String> {
    let read = Function::deserialize(value).ok();
    let needs = |function: &Function| {
        let secrets = function.secrets().iter();
        let keys = secrets.map(|used| needs_key(function.space.as_str(), used.name.as_str()));
        keys.collect()
    };
    read.as_ref().map_or_else(Vec::new, needs)
}

fn of_version(value: &Value) -> Vec<String> {
    let read = PublishedVersion::deserialize(value).ok();
    let function = read.map(|read| read.function);
    let pins = |function: &Function| {
        let secrets = function.secrets().iter();
        let keys = secrets.map(|used| pins_key(function.space.as_str(), used.name.as_str()));
        keys.collect()
    };
    function.as_ref().map_or_else(Vec::new, pins)
}

fn of_event_type(value: &Value) -> Vec<String> {
    let read = EventTypeRecord::deserialize(value).ok();
    let key = read.and_then(|read| {
        let authorizer = read.authorizer_id.as_ref()?;
        Some(authorizes_key(read.space.as_str(), authorizer.as_str()))
    });
    key.into_iter().collect()
}

fn of_subscription(value: &Value) -> Vec<String> {
    let read = Subscription::deserialize(value).ok();
    let guards = |read: &Subscription| guards_of_subscription(read).collect();
    read.as_ref().map_or_else(Vec::new, guards)
}

fn of_schedule(value: &Value) -> Vec<String> {
    let read = ScheduleRecord::deserialize(value).ok();
    let key = read.and_then(|read| {
        let function = read.function_id.as_ref()?;
        Some(fires_key(read.space.as_str(), function.as_str()))
    });
    key.into_iter().collect()
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    match T::deserialize(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// Said without what stands in it.
fn is_secret(value: &Value) -> Result<(), String> {
    let read = SecretRecord::deserialize(value);
    read.map(drop)
        .map_err(|_| "it is no secret as GET /v1/export writes them".to_owned())
}

fn is_object(value: &Value) -> Result<(), String> {
    match value {
        Value::Object(_) => Ok(()),
        other => Err(format!("it is {other}, expected an object")),
    }
}

/// A user or a key is an object; what finds a user by its email is the user's id.
fn is_account(value: &Value) -> Result<(), String> {
    match value {
        Value::Object(_) | Value::String(_) => Ok(()),
        other => Err(format!("it is {other}, expected an object or a user's id")),
    }
}
