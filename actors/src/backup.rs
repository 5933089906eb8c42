//! The whole configuration of a cluster as one document, and back into an empty one.
//!
//! It has what people made: functions, subscriptions, event types, CORS configurations, schedules, users, keys and what is set for spaces,
//! each record as the store has it. It has nothing that a cluster makes by itself: no sessions and signing keys, so whoever was logged in logs in
//! again; no guards, which the first change of what they guard makes; no queued events, executions and progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use config::Store;
use config::store::{self, Precondition, Transaction, Write};
use protocol::{
    Component, CorsRecord, Effect, ErrorCode, EventTypeRecord, Failure, Function, ScheduleRecord,
    Subscription,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::registry_cache::{
    CORS_PREFIX, EVENT_TYPES_PREFIX, FUNCTIONS_PREFIX, SCHEDULES_PREFIX, SUBSCRIPTIONS_PREFIX,
};

/// The kinds of records, in the order that they are written in: what others name comes before them.
const KINDS: [Kind; 9] = [
    Kind::account("users/"),
    Kind::account("emails/"),
    Kind::account("keys/"),
    Kind::of("spaces/", is_object),
    Kind::of(FUNCTIONS_PREFIX, reads::<Function>),
    Kind::of(EVENT_TYPES_PREFIX, reads::<EventTypeRecord>),
    Kind::of(SUBSCRIPTIONS_PREFIX, reads::<Subscription>),
    Kind::of(CORS_PREFIX, reads::<CorsRecord>),
    Kind::of(SCHEDULES_PREFIX, reads::<ScheduleRecord>),
];

/// Records that are read or written at once; etcd takes 128 in a transaction.
const AT_ONCE: usize = 100;

/// Records that are named in a refusal.
const NAMED_MAX: usize = 5;

/// All records of a configuration, by their keys in the store.
pub type Records = BTreeMap<String, Value>;

/// One kind of records.
#[derive(Debug, Clone, Copy)]
struct Kind {
    prefix: &'static str,
    /// An account may be there before an import: that of the admin who makes it.
    is_account: bool,
    check: fn(&Value) -> Result<(), String>,
}

/// Writes and reads configurations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Backup {
    store: Arc<dyn Store>,
}

/// Why a configuration can not be exported or imported.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A record of the document is none.
    #[error("record {key:?}: {why}")]
    Record {
        /// Its key.
        key: String,
        /// What is wrong with it, and what was expected.
        why: String,
    },
    /// The cluster has other records than the document.
    #[error(
        "the cluster is not empty: it has {count} records that the document does not have, or has otherwise, such as {}; import into a cluster without any", .named.join(", ")
    )]
    NotEmpty {
        /// How many there are.
        count: usize,
        /// Some of them.
        named: Vec<String>,
    },
    /// The store did not answer.
    #[error("{source}; {written} of {all} records were written: import the same document again")]
    Broken {
        /// What came back.
        source: store::Error,
        /// How many records were written before.
        written: usize,
        /// How many there are.
        all: usize,
    },
    /// The store did not answer, and nothing was written.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let (code, component, effect) = match &error {
            Error::Record { .. } => (
                ErrorCode::InvalidRequest,
                Component::Gateway,
                Effect::Refused,
            ),
            Error::NotEmpty { .. } => (ErrorCode::Conflict, Component::Gateway, Effect::Refused),
            Error::Broken { source, .. } => (source.code(), Component::Store, Effect::Interrupted),
            Error::Store(error) => (error.code(), Component::Store, error.effect()),
        };
        Self::new(code, component, effect, message)
    }
}

impl Kind {
    const fn of(prefix: &'static str, check: fn(&Value) -> Result<(), String>) -> Self {
        Self {
            prefix,
            is_account: false,
            check,
        }
    }

    const fn account(prefix: &'static str) -> Self {
        Self {
            prefix,
            is_account: true,
            check: is_account,
        }
    }
}

impl Backup {
    /// A backup of what is in this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Reads the whole configuration. What changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// When the store does not answer, or has a record that is no JSON.
    pub async fn export(&self) -> Result<Records, Error> {
        let mut records = Records::new();
        for kind in KINDS {
            let mut after: Option<String> = None;
            loop {
                let page = self
                    .store
                    .list_page(kind.prefix, after.as_deref(), AT_ONCE)
                    .await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                for entry in page {
                    let value = serde_json::from_slice(&entry.value);
                    let value = value.map_err(|error| Error::Record {
                        key: entry.key.clone(),
                        why: format!("it is no JSON: {error}"),
                    })?;
                    records.insert(entry.key, value);
                }
            }
        }
        Ok(records)
    }

    /// Writes a whole configuration into a cluster that has none, or a part of this very one: so what was broken off is made again. `own` is
    /// the user who does it, whose account may be there.
    ///
    /// # Errors
    /// When a record is none, the cluster has others, or the store does not answer; only in the last case something may have been written.
    pub async fn import(&self, records: &Records, own: Option<&str>) -> Result<usize, Error> {
        for (key, value) in records {
            check(key, value)?;
        }
        let there = self.export().await?;
        let is_other = |(key, value): &(&String, &Value)| {
            let is_same = records.get(*key) == Some(*value);
            !is_same && !own.is_some_and(|own| is_of_user(key, value, own))
        };
        let others: Vec<_> = there.iter().filter(is_other).collect();
        if !others.is_empty() {
            let named = others.iter().take(NAMED_MAX).map(|(key, _)| (*key).clone());
            return Err(Error::NotEmpty {
                count: others.len(),
                named: named.collect(),
            });
        }
        let kept: BTreeSet<&String> = there.keys().collect();
        let mut written = 0;
        for kind in KINDS {
            let new = records
                .iter()
                .filter(|(key, _)| key.starts_with(kind.prefix) && !kept.contains(key));
            let new: Vec<_> = new.collect();
            for batch in new.chunks(AT_ONCE / 2) {
                let committed = self.store.commit(transaction(batch)).await;
                committed.map_err(|source| Error::Broken {
                    source,
                    written,
                    all: records.len(),
                })?;
                written += batch.len();
            }
        }
        Ok(written)
    }
}

/// Writes records that are not there.
fn transaction(batch: &[(&String, &Value)]) -> Transaction {
    let absent = |(key, _): &(&String, &Value)| ((*key).clone(), Precondition::Absent);
    let put = |(key, value): &(&String, &Value)| {
        Write::Put((*key).clone(), value.to_string().into_bytes().into())
    };
    Transaction {
        preconditions: batch.iter().map(absent).collect(),
        writes: batch.iter().map(put).collect(),
    }
}

/// Whether a record is of a user's account.
fn is_of_user(key: &str, value: &Value, user: &str) -> bool {
    let kind = KINDS.iter().find(|kind| key.starts_with(kind.prefix));
    if !kind.is_some_and(|kind| kind.is_account) {
        return false;
    }
    value.as_str() == Some(user) || key.split('/').nth(1) == Some(user)
}

fn check(key: &str, value: &Value) -> Result<(), Error> {
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
        _ => None,
    };
    match named {
        Some(named) if named != key => Err(wrong(format!("it says that it is {named:?}"))),
        _ => Ok(()),
    }
}

fn reads<T: DeserializeOwned>(value: &Value) -> Result<(), String> {
    match T::deserialize(value) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
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

#[cfg(test)]
mod tests {
    use config::store::MemoryStore;
    use serde_json::json;

    use super::*;

    fn document() -> Records {
        let hook = |id: &str| json!({"space": "default", "functionId": id, "type": "http", "provider": {"url": "http://127.0.0.1:1/"}});
        Records::from([
            ("functions/default/a".to_owned(), hook("a")),
            ("functions/default/b".to_owned(), hook("b")),
            (
                "users/1".to_owned(),
                json!({"email": "a@example.com", "password": "$argon2id$.."}),
            ),
            ("emails/ff".to_owned(), json!("1")),
            ("spaces/team".to_owned(), json!({"events": "open"})),
        ])
    }

    fn backup() -> Backup {
        Backup::new(Arc::new(MemoryStore::new()))
    }

    #[tokio::test]
    async fn what_is_exported_is_imported_into_an_empty_cluster_and_only_there() {
        let (one, other) = (backup(), backup());
        assert_eq!(one.export().await.unwrap(), Records::new());
        assert_eq!(one.import(&document(), None).await.unwrap(), 5);
        // What no configuration has is left out.
        for key in ["sessions/1/2", "signing/1", "uses/default/a"] {
            one.store.put(key, "{}".into(), None).await.unwrap();
        }
        let exported = one.export().await.unwrap();
        assert_eq!(exported, document());
        assert_eq!(other.import(&exported, None).await.unwrap(), 5);
        assert_eq!(other.export().await.unwrap(), exported);
        // Once more is nothing to do, and so is what was broken off.
        assert_eq!(other.import(&exported, None).await.unwrap(), 0);
        other
            .store
            .delete("functions/default/b", None)
            .await
            .unwrap();
        assert_eq!(other.import(&exported, None).await.unwrap(), 1);
        other
            .store
            .put("functions/default/c", "{}".into(), None)
            .await
            .unwrap();
        let refused = other.import(&exported, None).await.unwrap_err().to_string();
        assert!(
            refused.contains("not empty: it has 1 records")
                && refused.contains("functions/default/c"),
            "{refused}"
        );
    }

    #[tokio::test]
    async fn the_account_of_the_admin_who_imports_may_be_there() {
        let backup = backup();
        let account = [
            ("users/9", "{}"),
            ("emails/00", "\"9\""),
            ("keys/9/1", "{}"),
        ];
        for (key, value) in account {
            backup.store.put(key, value.into(), None).await.unwrap();
        }
        assert!(backup.import(&document(), None).await.is_err());
        assert!(backup.import(&document(), Some("8")).await.is_err());
        assert_eq!(backup.import(&document(), Some("9")).await.unwrap(), 5);
        assert_eq!(backup.export().await.unwrap().len(), 8);
    }

    #[tokio::test]
    async fn what_is_no_record_is_named_and_nothing_is_written() {
        let backup = backup();
        for (key, value, why) in [
            ("sessions/1/2", json!({}), "begins with none of users/"),
            (
                "functions/default/x",
                json!({"space": "default"}),
                "missing field",
            ),
            (
                "functions/default/x",
                document()["functions/default/a"].clone(),
                "it says that it is \"functions/default/a\"",
            ),
            ("spaces/team", json!(7), "expected an object"),
            ("users/2", json!(null), "expected an object"),
        ] {
            let mut records = document();
            records.insert(key.to_owned(), value);
            let refused = backup.import(&records, None).await.unwrap_err().to_string();
            assert!(refused.contains(key) && refused.contains(why), "{refused}");
            assert!(backup.export().await.unwrap().is_empty());
        }
    }
}
