//! The whole configuration of a cluster as one document, and back into an empty one.
//!
//! It has what people made: functions, subscriptions, event types, CORS configurations, schedules, users, keys and what is set for spaces,
//! each record as the store has it. It has nothing that a cluster makes by itself: no sessions and signing keys, so whoever was logged in logs in
//! again; no guards, which an import makes; no queued events, executions and progress.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use accounts::records::{key, space, user};
use config::Store;
use config::store::{self, Entry, Precondition, Transaction, Write};
use protocol::{
    Alias, Component, CorsRecord, Effect, ErrorCode, EventTypeRecord, Failure, Function,
    PublishedVersion, ScheduleRecord, SecretRecord, Subscription,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vault::{Plain, Vault};

use crate::catalog::{
    NUMBERS_PREFIX, authorizes_key, fires_key, guards_of_subscription, needs_key, pins_key,
};
use crate::registry_cache::{
    ALIASES_PREFIX, CORS_PREFIX, EVENT_TYPES_PREFIX, FUNCTIONS_PREFIX, SCHEDULES_PREFIX,
    SECRETS_PREFIX, SUBSCRIPTIONS_PREFIX, VERSIONS_PREFIX,
};

/// The kinds of records, in the order that they are written in: what others name comes before them.
const KINDS: [Kind; 13] = [
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
    /// The guards that move with a record.
    guards: fn(&Value) -> Vec<String>,
}

/// Writes and reads configurations; cheap to clone.
#[derive(Debug, Clone)]
pub struct Backup {
    store: Arc<dyn Store>,
    vault: Vault,
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
    /// A secret of the document can not be opened, or not be sealed for this cluster.
    #[error("record {key:?}: {source}")]
    Secret {
        /// Its key.
        key: String,
        /// Why.
        source: vault::Error,
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
            Error::Secret { source, .. } => (source.code(), Component::Store, source.effect()),
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

impl Backup {
    /// A backup of what is in this store, whose secrets this vault seals.
    pub fn new(store: Arc<dyn Store>, vault: Vault) -> Self {
        Self { store, vault }
    }

    /// Reads the whole configuration. What changes meanwhile may be in it or not.
    ///
    /// # Errors
    /// When the store does not answer, or has a record that is no JSON.
    pub async fn export(&self) -> Result<Records, Error> {
        let mut records = self.read().await?;
        if records.keys().any(|key| key.starts_with(SECRETS_PREFIX))
            && let Some(entry) = self.store.get(vault::RECORD).await?
        {
            // What opens the secrets, itself sealed with the cluster's secret.
            records.insert(entry.key.clone(), parsed(&entry)?);
        }
        Ok(records)
    }

    async fn read(&self) -> Result<Records, Error> {
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
                    let value = parsed(&entry)?;
                    records.insert(entry.key, value);
                }
            }
        }
        Ok(records)
    }

    /// Writes a whole configuration into a cluster that has none, or a part of this very one: so what was broken off is made again. `own` is
    /// the user who does it, whose account may be there. Secrets are opened with the data key of the cluster that the document is of, `from`, and
    /// sealed anew with this one's.
    ///
    /// # Errors
    /// When a record is none, a secret can not be opened, the cluster has others, or the store does not answer; only in the last case something may
    /// have been written.
    pub async fn import(
        &self,
        records: &Records,
        from: &str,
        own: Option<&str>,
    ) -> Result<usize, Error> {
        let mut records = records.clone();
        let theirs = records.remove(vault::RECORD);
        for (key, value) in &records {
            check(key, value)?;
        }
        let there = self.read().await?;
        self.seal_anew(&mut records, theirs.as_ref(), from, &there)
            .await?;
        let records = &records;
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
        // Last, so that whoever has seen a guard has seen what it guards; those of an import that was broken off, too.
        let guards: BTreeSet<String> = records.iter().flat_map(guards_of).collect();
        let guards: Vec<_> = guards.into_iter().collect();
        for batch in guards.chunks(AT_ONCE) {
            let moved = batch.iter().cloned();
            let transaction = Transaction {
                writes: moved.map(|key| Write::Put(key, "{}".into())).collect(),
                ..Transaction::default()
            };
            let committed = self.store.commit(transaction).await;
            committed.map_err(|source| Error::Broken {
                source,
                written,
                all: records.len(),
            })?;
        }
        Ok(written)
    }

    /// Seals the secrets of a document of another cluster for this one. What is there already in the same version is left as it is.
    async fn seal_anew(
        &self,
        records: &mut Records,
        theirs: Option<&Value>,
        from: &str,
        there: &Records,
    ) -> Result<(), Error> {
        let mut their_key = None;
        for (key, value) in records
            .iter_mut()
            .filter(|(key, _)| key.starts_with(SECRETS_PREFIX))
        {
            if let Some(own) = there
                .get(key)
                .filter(|own| own["version"] == value["version"])
            {
                *value = own.clone();
                continue;
            }
            let refused = |source| Error::Secret {
                key: key.clone(),
                source,
            };
            if their_key.is_none() {
                let record = theirs.map(Value::to_string).ok_or_else(|| Error::Record {
                    key: key.clone(),
                    why: format!("the document has no {}, which opens it", vault::RECORD),
                })?;
                let opened = self.vault.open_key_of(from, record.as_bytes());
                their_key = Some(opened.map_err(refused)?);
            }
            let altered = || {
                refused(vault::Error::Altered {
                    record: key.clone(),
                })
            };
            let mut secret = SecretRecord::deserialize(&*value).map_err(|_| altered())?;
            let sealed = secret.sealed().ok_or_else(altered)?;
            let opened = their_key
                .as_ref()
                .and_then(|their| their.open(key, &sealed));
            let opened = Plain::from(opened.ok_or_else(altered)?);
            let own_key = self.vault.key().await.map_err(refused)?;
            secret.set_sealed(&own_key.seal(key, opened.expose()));
            *value = serde_json::to_value(&secret).expect("a record has string keys only");
        }
        Ok(())
    }
}

fn parsed(entry: &Entry) -> Result<Value, Error> {
    serde_json::from_slice(&entry.value).map_err(|error| Error::Record {
        key: entry.key.clone(),
        why: format!("it is no JSON: {error}"),
    })
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

fn guards_of((key, value): (&String, &Value)) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use config::Keyring;
    use config::store::MemoryStore;
    use serde_json::json;
    use tokio::sync::watch;

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
        {
            let store = Arc::new(MemoryStore::new()) as Arc<dyn Store>;
            Backup::new(Arc::clone(&store), crate::testing::vault(&store))
        }
    }

    #[tokio::test]
    async fn what_is_exported_is_imported_into_an_empty_cluster_and_only_there() {
        let (one, other) = (backup(), backup());
        assert_eq!(one.export().await.unwrap(), Records::new());
        assert_eq!(one.import(&document(), "test", None).await.unwrap(), 5);
        // What no configuration has is left out.
        for key in ["sessions/1/2", "signing/1", "uses/default/a"] {
            one.store.put(key, "{}".into(), None).await.unwrap();
        }
        let exported = one.export().await.unwrap();
        assert_eq!(exported, document());
        assert_eq!(other.import(&exported, "test", None).await.unwrap(), 5);
        assert_eq!(other.export().await.unwrap(), exported);
        // Once more is nothing to do, and so is what was broken off.
        assert_eq!(other.import(&exported, "test", None).await.unwrap(), 0);
        other
            .store
            .delete("functions/default/b", None)
            .await
            .unwrap();
        assert_eq!(other.import(&exported, "test", None).await.unwrap(), 1);
        other
            .store
            .put("functions/default/c", "{}".into(), None)
            .await
            .unwrap();
        let refused = other
            .import(&exported, "test", None)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            refused.contains("not empty: it has 1 records")
                && refused.contains("functions/default/c"),
            "{refused}"
        );
    }

    /// An empty cluster with these secrets of its own.
    fn with_secrets(secrets: &[&str]) -> (Backup, watch::Sender<Keyring>) {
        let store = Arc::new(MemoryStore::new()) as Arc<dyn Store>;
        let keyring = watch::Sender::new(Keyring::with(secrets));
        let vault = Vault::new(Arc::clone(&store), "theirs", keyring.subscribe());
        (Backup::new(store, vault), keyring)
    }

    async fn put_secret(backup: &Backup, version: &str, value: &[u8]) {
        let key = "secrets/default/db";
        let mut secret = SecretRecord {
            space: "default".parse().unwrap(),
            name: "db".parse().unwrap(),
            version: version.to_owned(),
            sealed: String::new(),
            created_at_ms: 1,
            updated_at_ms: 1,
        };
        secret.set_sealed(&backup.vault.key().await.unwrap().seal(key, value));
        let value = serde_json::to_vec(&secret).unwrap();
        backup.store.put(key, value.into(), None).await.unwrap();
    }

    async fn opened(backup: &Backup) -> Plain {
        let key = "secrets/default/db";
        let entry = backup.store.get(key).await.unwrap().unwrap();
        let secret: SecretRecord = serde_json::from_slice(&entry.value).unwrap();
        let sealed = secret.sealed().unwrap();
        backup.vault.open_record(key, &sealed).await.unwrap()
    }

    #[tokio::test]
    async fn secrets_are_sealed_anew_or_nothing_is_imported() {
        const OLD: &str = "the secret of their cluster, long enough";
        const NEW: &str = "the secret of this cluster, long enough";
        let (from, _keyring) = with_secrets(&[OLD]);
        put_secret(&from, "1", b"hunter2").await;
        from.import(&document(), "theirs", None).await.unwrap_err();
        let exported = from.export().await.unwrap();
        assert!(exported.contains_key(vault::RECORD));
        assert!(
            !serde_json::to_string(&exported)
                .unwrap()
                .contains("hunter2")
        );
        assert_eq!(from.import(&exported, "theirs", None).await.unwrap(), 0);

        let (into, keyring) = with_secrets(&[NEW]);
        let refused = into.import(&exported, "theirs", None).await.unwrap_err();
        let told = refused.to_string();
        assert!(
            told.contains("secrets/default/db") && told.contains("further line"),
            "{told}"
        );
        assert!(into.read().await.unwrap().is_empty());
        let mut without = exported.clone();
        without.remove(vault::RECORD);
        let refused = into.import(&without, "theirs", None).await.unwrap_err();
        assert!(refused.to_string().contains("has no vault/key"));

        keyring.send_replace(Keyring::with(&[NEW, OLD]));
        assert_eq!(into.import(&exported, "theirs", None).await.unwrap(), 1);
        // Its own key opens it now, and the old cluster's secret is needed no more.
        keyring.send_replace(Keyring::with(&[NEW]));
        assert_eq!(opened(&into).await.expose(), b"hunter2");
        assert_ne!(into.read().await.unwrap(), from.read().await.unwrap());
        assert_eq!(into.import(&exported, "theirs", None).await.unwrap(), 0);
        put_secret(&into, "2", b"other").await;
        keyring.send_replace(Keyring::with(&[NEW, OLD]));
        let refused = into.import(&exported, "theirs", None).await.unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
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
        assert!(backup.import(&document(), "test", None).await.is_err());
        assert!(backup.import(&document(), "test", Some("8")).await.is_err());
        assert_eq!(
            backup.import(&document(), "test", Some("9")).await.unwrap(),
            5
        );
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
            let refused = backup
                .import(&records, "test", None)
                .await
                .unwrap_err()
                .to_string();
            assert!(refused.contains(key) && refused.contains(why), "{refused}");
            assert!(backup.export().await.unwrap().is_empty());
        }
    }
}
