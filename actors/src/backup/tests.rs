use config::Keyring;
use config::store::MemoryStore;
use protocol::SecretRecord;
use serde_json::json;
use tokio::sync::watch;
use vault::Plain;

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
        refused.contains("not empty: it has 1 records") && refused.contains("functions/default/c"),
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
