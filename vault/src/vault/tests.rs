use config::store::MemoryStore;

use super::*;

const OLD: &str = "an old secret of these tests, long enough";
const NEW: &str = "a new secret of these tests, long enough";

fn vault(store: &Arc<dyn Store>, secrets: &[&str]) -> (Vault, watch::Sender<Keyring>) {
    let keyring = watch::Sender::new(Keyring::with(secrets));
    let vault = Vault::new(Arc::clone(store), "hearth", keyring.subscribe());
    (vault, keyring)
}

fn store() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new())
}

async fn opens(store: &Arc<dyn Store>, secrets: &[&str], sealed: &[u8]) -> bool {
    let (vault, _keyring) = vault(store, secrets);
    vault.open_record("a/record", sealed).await.is_ok()
}

#[tokio::test]
async fn nodes_that_begin_together_have_one_key() {
    let store = store();
    let vaults: Vec<_> = (0..8).map(|_| vault(&store, &[OLD]).0).collect();
    let keys = vaults.iter().map(|vault| vault.key());
    let keys = futures_util::future::join_all(keys).await;
    let keys: Vec<&DataKey> = keys.into_iter().map(Result::unwrap).collect();
    let sealed = keys[0].seal("a/record", b"x");
    assert!(
        keys.iter()
            .all(|key| key.open("a/record", &sealed).is_some())
    );
    let stored = store.get(RECORD).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&stored.value).contains(OLD));
}

#[tokio::test]
async fn a_node_with_another_secret_is_told_so() {
    let store = store();
    vault(&store, &[OLD]).0.key().await.unwrap();
    let error = vault(&store, &[NEW]).0.key().await.unwrap_err();
    assert!(error.to_string().contains("cluster.secret_file"), "{error}");
    let error = vault(&store, &[OLD]).0.open_record("a/record", b"").await;
    assert!(error.unwrap_err().to_string().contains("a/record"));
}

/// The steps of `hearth cluster rotate-secret`, as two nodes make them one after the other.
#[tokio::test]
async fn the_key_is_wrapped_anew_as_the_secrets_change() {
    let store = store();
    let (nodes, stop) = (
        [vault(&store, &[OLD]), vault(&store, &[OLD])],
        CancellationToken::new(),
    );
    let sealed = nodes[0].0.key().await.unwrap().seal("a/record", b"x");
    let tasks = tokio_util::task::TaskTracker::new();
    for (vault, _) in &nodes {
        tasks.spawn(vault.clone().keep_wrapped(stop.clone()));
    }
    for (secrets, old_opens, new_opens) in [
        (&[OLD, NEW][..], true, true),
        (&[NEW, OLD], true, true),
        (&[NEW], false, true),
    ] {
        for (_, keyring) in &nodes {
            keyring.send_replace(Keyring::with(secrets));
        }
        let is_done = async {
            while opens(&store, &[OLD], &sealed).await != old_opens
                || opens(&store, &[NEW], &sealed).await != new_opens
            {
                tokio::task::yield_now().await;
            }
        };
        time::timeout(Duration::from_secs(10), is_done)
            .await
            .expect("it is wrapped anew");
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
}

fn copying(
    store: &Arc<dyn Store>,
    secrets: &[&str],
    dir: &Path,
) -> (Vault, watch::Sender<Keyring>) {
    let keyring = watch::Sender::new(Keyring::with(secrets));
    let vault = Vault::with_copy(Arc::clone(store), "hearth", keyring.subscribe(), dir);
    (vault, keyring)
}

#[tokio::test]
async fn what_is_known_opens_after_a_start_without_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (known, unknowing) = (store(), store());
    let (first, _keyring) = copying(&known, &[OLD], dir.path());
    let sealed = first.key().await.unwrap().seal("a/record", b"x");
    first.wrap_anew().await.unwrap();
    let copy = std::fs::read_to_string(dir.path().join("vault.key")).unwrap();
    assert!(copy.contains("wraps") && !copy.contains(OLD));

    // A store that knows nothing of the key stands for one that does not answer: neither is asked.
    let (next, _keyring) = copying(&unknowing, &[OLD], dir.path());
    let opened = next.open_record("a/record", &sealed).await.unwrap();
    assert_eq!(opened.expose(), b"x");
    let derived = next.derive("a purpose").await.unwrap();
    assert_eq!(*derived, first.key().await.unwrap().derive("a purpose"));
    assert!(unknowing.get(RECORD).await.unwrap().is_none());
    let (stranger, _keyring) = copying(&unknowing, &[NEW], dir.path());
    assert!(stranger.open_record("a/record", &sealed).await.is_err());
}

#[tokio::test]
async fn the_key_of_another_cluster_opens_with_its_secret_only() {
    let (store, other) = (store(), store());
    let (theirs, _keyring) = vault(&store, &[OLD]);
    let sealed = theirs.key().await.unwrap().seal("a/record", b"x");
    let record = store.get(RECORD).await.unwrap().unwrap().value;
    let (ours, keyring) = vault(&other, &[NEW]);
    let refused = ours.open_key_of("hearth", &record).unwrap_err();
    assert!(refused.to_string().contains("further line"), "{refused}");
    keyring.send_replace(Keyring::with(&[NEW, OLD]));
    assert!(ours.open_key_of("elsewhere", &record).is_err());
    let key = ours.open_key_of("hearth", &record).unwrap();
    assert_eq!(key.open("a/record", &sealed).as_deref(), Some(&b"x"[..]));
}
