use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::store::{Precondition, WatchEvent, conformance};

#[tokio::test]
async fn conforms() {
    let dir = tempfile::tempdir().unwrap();
    let mut stores = 0;
    conformance::all(|| {
        stores += 1;
        let path = dir.path().join(format!("{stores}/store.redb"));
        async move { EmbeddedStore::open(path).unwrap() }
    })
    .await;
}

#[tokio::test]
async fn records_and_revisions_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/store.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    store.put("a", "1".into(), None).await.unwrap();
    let second = store
        .put("b", "2".into(), Some(Precondition::Absent))
        .await
        .unwrap();
    let last = store.delete("a", None).await.unwrap();
    drop(store);

    let store = EmbeddedStore::open(&path).unwrap();
    let listing = store.list("").await.unwrap();
    assert_eq!(listing.revision, last);
    assert_eq!(
        listing.entries,
        [Entry {
            key: "b".into(),
            value: "2".into(),
            revision: second
        }]
    );
    // A watch that had seen everything goes on; one that had not is told everything.
    let mut current = store.watch("", last);
    let mut behind = store.watch("", second);
    let next = store.put("c", "3".into(), None).await.unwrap();
    assert!(next > last);
    assert!(
        matches!(current.recv().await, Some(WatchEvent::Changes { revision, .. }) if revision == next)
    );
    assert!(
        matches!(behind.recv().await, Some(WatchEvent::Reset(listing)) if listing.revision >= last)
    );
}

#[tokio::test]
async fn a_file_that_is_open_elsewhere_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let _store = EmbeddedStore::open(&path).unwrap();
    let error = EmbeddedStore::open(&path).unwrap_err();
    assert!(
        matches!(
            &error,
            Error::Unavailable {
                effect: Effect::Refused,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("another process has it open"),
        "{error}"
    );
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("store.redb");
    let store = EmbeddedStore::open(&whole).unwrap();
    for index in 0..50 {
        store
            .put(&format!("key-{index}"), vec![b'v'; 200].into(), None)
            .await
            .unwrap();
    }
    drop(store);
    let mut bytes = std::fs::read(&whole).unwrap();
    let check = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = EmbeddedStore::open(&path).expect_err(name);
        assert!(matches!(&error, Error::Damaged { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{error}");
    };
    check(
        "text",
        b"this is not a store, but it is long enough to be read as one"
            .repeat(100)
            .as_slice(),
    );
    check("half", &bytes[..bytes.len() / 2]);
    let start = bytes
        .windows(100)
        .position(|window| window == [b'v'; 100])
        .unwrap();
    bytes[start + 10] ^= 1;
    check("changed", &bytes);
}

/// Where the child of the test below writes.
const CHILD_STORE: &str = "STORE_TO_WRITE_UNTIL_KILLED";

/// Runs itself again as a child, which writes and says what was acknowledged until it is killed.
#[test]
fn what_was_acknowledged_survives_kill_9() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    if let Some(path) = std::env::var_os(CHILD_STORE) {
        return runtime.block_on(write_for_ever(Path::new(&path)));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "store::embedded::tests::what_was_acknowledged_survives_kill_9",
            "--nocapture",
        ])
        .env(CHILD_STORE, &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    for line in BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
    {
        if let Some(index) = line.strip_prefix("acknowledged ") {
            acknowledged = index.parse::<u64>().unwrap();
            if acknowledged == 20 {
                child.kill().unwrap();
            }
        }
    }
    child.wait().unwrap();
    assert!(acknowledged >= 20);
    runtime.block_on(async {
        let store = EmbeddedStore::open(&path).unwrap();
        let count = store.list("key-").await.unwrap().entries.len() as u64;
        // One more may have been written and not yet told.
        assert!(
            count == acknowledged + 1 || count == acknowledged + 2,
            "{count} records after {acknowledged}"
        );
    });
}

async fn write_for_ever(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    for index in 0_u64.. {
        let key = format!("key-{index}");
        let value = index.to_string().into();
        store
            .put(&key, value, Some(Precondition::Absent))
            .await
            .unwrap();
        println!("\nacknowledged {index}");
    }
}
