//! What every store must do, whatever is behind it: the suite that runs over all of them.

#![allow(
    clippy::unwrap_used,
    reason = "this is test code, although it is built for the tests of other crates too"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::{
    Change, Entry, Error, Listing, Precondition, Revision, Store, Transaction, Watch, WatchEvent,
    Write,
};

/// How long an event may take to arrive.
const PATIENCE: Duration = Duration::from_secs(20);

/// Runs the whole suite, each part over a store of its own.
///
/// # Panics
/// When the store does not conform.
pub async fn all<S, F>(mut make: impl FnMut() -> F)
where
    S: Store,
    F: Future<Output = S>,
{
    preconditions(&make().await).await;
    transactions_happen_wholly_or_not_at_all(&make().await).await;
    lists_by_prefix_at_one_revision(&make().await).await;
    lists_page_by_page(&make().await).await;
    watches_in_order_from_a_revision(&make().await).await;
    watches_only_its_prefix(&make().await).await;
    tells_removals(&make().await).await;
    of_racing_writers_one_wins(Arc::new(make().await)).await;
    loses_and_repeats_nothing_under_concurrent_writers(Arc::new(make().await)).await;
}

fn refused(outcome: Result<Revision, Error>, key: &str) {
    match outcome {
        Err(Error::Precondition { key: found }) => assert_eq!(found, key),
        other => panic!("expected a precondition of {key} to fail, got {other:?}"),
    }
}

async fn next(watch: &mut Watch) -> WatchEvent {
    timeout(PATIENCE, watch.recv())
        .await
        .expect("the watch says something in time")
        .expect("the watch goes on")
}

fn put(key: &str, value: &'static str) -> Write {
    Write::Put(key.to_owned(), Bytes::from_static(value.as_bytes()))
}

/// Only what begins with the prefix, and what was read before is left out of the next page.
pub async fn lists_page_by_page(store: &dyn Store) {
    for key in ["a/1", "b", "b/1", "b/2", "b/3", "b/4", "b0", "c/1"] {
        let value = Bytes::copy_from_slice(key.as_bytes());
        store.put(key, value, None).await.unwrap();
    }
    let list = async |after: Option<&str>, max| {
        let found = store.list_page("b/", after, max).await.unwrap();
        for entry in &found {
            assert_eq!(entry.key.as_bytes(), entry.value);
        }
        let keys: Vec<_> = found.into_iter().map(|entry| entry.key).collect();
        keys.join(" ")
    };
    assert_eq!(list(None, 9).await, "b/1 b/2 b/3 b/4");
    assert_eq!(list(None, 3).await, "b/1 b/2 b/3");
    assert_eq!(list(Some("b/3"), 3).await, "b/4");
    assert_eq!(list(Some("b/25"), 1).await, "b/3", "it need not be there");
    assert_eq!(list(Some("b/4"), 3).await, "");
    assert_eq!(
        list(Some("a/1"), 2).await,
        "b/1 b/2",
        "it may be before the prefix"
    );
    assert_eq!(list(Some("c/1"), 2).await, "", "or after it");
    assert_eq!(list(None, 0).await, "");
}

/// Absent, present and at a revision, for puts and deletes.
pub async fn preconditions(store: &dyn Store) {
    refused(
        store
            .put("k", "v".into(), Some(Precondition::Present))
            .await,
        "k",
    );
    refused(store.delete("k", Some(Precondition::Present)).await, "k");
    refused(
        store
            .put("k", "v".into(), Some(Precondition::At(Revision(1))))
            .await,
        "k",
    );
    assert_eq!(store.get("k").await.unwrap(), None);

    let first = store
        .put("k", "1".into(), Some(Precondition::Absent))
        .await
        .unwrap();
    refused(
        store.put("k", "2".into(), Some(Precondition::Absent)).await,
        "k",
    );
    assert_eq!(
        store.get("k").await.unwrap(),
        Some(Entry {
            key: "k".into(),
            value: "1".into(),
            revision: first
        })
    );

    let second = store
        .put("k", "2".into(), Some(Precondition::At(first)))
        .await
        .unwrap();
    assert!(second > first);
    refused(
        store
            .put("k", "3".into(), Some(Precondition::At(first)))
            .await,
        "k",
    );
    refused(store.delete("k", Some(Precondition::At(first))).await, "k");
    let third = store
        .put("k", "3".into(), Some(Precondition::Present))
        .await
        .unwrap();
    let fourth = store.put("k", "4".into(), None).await.unwrap();
    assert!(fourth > third && third > second);
    let gone = store
        .delete("k", Some(Precondition::At(fourth)))
        .await
        .unwrap();
    assert!(gone > fourth);
    assert_eq!(store.get("k").await.unwrap(), None);
    store.delete("k", None).await.unwrap();
    let again = store
        .put("k", "5".into(), Some(Precondition::Absent))
        .await
        .unwrap();
    assert!(again > gone);
    // A value may be empty, and anything.
    let bytes = Bytes::from_static(&[0, 255, 10]);
    store.put("k", bytes.clone(), None).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, bytes);
    store.put("k", Bytes::new(), None).await.unwrap();
    assert_eq!(store.get("k").await.unwrap().unwrap().value, Bytes::new());
}

/// Several keys change together at one revision; one precondition that does not hold keeps all from changing.
pub async fn transactions_happen_wholly_or_not_at_all(store: &dyn Store) {
    let first = store.put("a", "1".into(), None).await.unwrap();
    let outcome = store
        .commit(Transaction {
            preconditions: vec![
                ("a".into(), Precondition::At(first)),
                ("c".into(), Precondition::Present),
            ],
            writes: vec![put("a", "2"), put("b", "2")],
        })
        .await;
    refused(outcome, "c");
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, first);
    assert_eq!(store.get("b").await.unwrap(), None);

    let mut watch = store.watch("", first);
    let second = store
        .commit(Transaction {
            preconditions: vec![
                ("a".into(), Precondition::At(first)),
                ("c".into(), Precondition::Absent),
            ],
            writes: vec![put("c", "2"), Write::Delete("a".into()), put("b", "2")],
        })
        .await
        .unwrap();
    let listing = store.list("").await.unwrap();
    let found: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.revision))
        .collect();
    assert_eq!(found, [("b", second), ("c", second)]);
    let entry = |key: &str| {
        Change::Put(Entry {
            key: key.into(),
            value: "2".into(),
            revision: second,
        })
    };
    let changes = vec![Change::Deleted("a".into()), entry("b"), entry("c")];
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Changes {
            revision: second,
            changes
        }
    );
}

/// A listing has the records under its prefix, by key, and the revision as of which they are complete.
pub async fn lists_by_prefix_at_one_revision(store: &dyn Store) {
    assert_eq!(store.list("f/").await.unwrap().entries, []);
    for key in ["f/b", "f", "f/a", "f0", "g/a", "f/\u{e9}", "f/c/d"] {
        store.put(key, key.to_owned().into(), None).await.unwrap();
    }
    let listing = store.list("f/").await.unwrap();
    let keys: Vec<_> = listing
        .entries
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    assert_eq!(keys, ["f/a", "f/b", "f/c/d", "f/\u{e9}"]);
    assert!(
        listing
            .entries
            .iter()
            .all(|entry| entry.value == entry.key.as_bytes() && entry.revision <= listing.revision)
    );
    assert_eq!(store.list("").await.unwrap().entries.len(), 7);
    // Many records come whole, however they are fetched.
    for index in 0..1200 {
        let writes = vec![Write::Put(
            format!("many/{index:04}"),
            Bytes::from(index.to_string()),
        )];
        store
            .commit(Transaction {
                preconditions: Vec::new(),
                writes,
            })
            .await
            .unwrap();
    }
    let listing = store.list("many/").await.unwrap();
    assert_eq!(listing.entries.len(), 1200);
    assert!(
        listing
            .entries
            .windows(2)
            .all(|pair| pair[0].key < pair[1].key)
    );
    // A watch from a listing's revision hears what came after it, and nothing it had.
    let mut watch = store.watch("many/", listing.revision);
    let revision = store.put("many/0007", "new".into(), None).await.unwrap();
    assert!(
        matches!(next(&mut watch).await, WatchEvent::Changes { revision: found, .. } if found == revision)
    );
}

/// A watch tells all commits after its revision, old and new, in order.
pub async fn watches_in_order_from_a_revision(store: &dyn Store) {
    let start = store.put("k", "0".into(), None).await.unwrap();
    let mut written = Vec::new();
    for index in 1..5_u8 {
        written.push(
            store
                .put("k", index.to_string().into(), None)
                .await
                .unwrap(),
        );
    }
    let mut watch = store.watch("k", start);
    let mut late = store.watch("k", written[2]);
    for index in 5..9_u8 {
        written.push(
            store
                .put("k", index.to_string().into(), None)
                .await
                .unwrap(),
        );
    }
    for (index, revision) in written.iter().enumerate() {
        let entry = Entry {
            key: "k".into(),
            value: (index + 1).to_string().into(),
            revision: *revision,
        };
        let expected = WatchEvent::Changes {
            revision: *revision,
            changes: vec![Change::Put(entry)],
        };
        assert_eq!(next(&mut watch).await, expected);
        if index > 2 {
            assert_eq!(next(&mut late).await, expected);
        }
    }
}

/// Changes elsewhere are not told, nor do they look like a gap.
pub async fn watches_only_its_prefix(store: &dyn Store) {
    let start = store.put("a/1", "".into(), None).await.unwrap();
    let mut watch = store.watch("a/", start);
    store.put("a", "".into(), None).await.unwrap();
    store.put("b/1", "".into(), None).await.unwrap();
    store
        .commit(Transaction {
            preconditions: Vec::new(),
            writes: vec![put("b/2", ""), put("a0", "")],
        })
        .await
        .unwrap();
    let last = store
        .commit(Transaction {
            preconditions: Vec::new(),
            writes: vec![put("b/2", "x"), put("a/2", "x")],
        })
        .await
        .unwrap();
    let entry = Entry {
        key: "a/2".into(),
        value: "x".into(),
        revision: last,
    };
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Changes {
            revision: last,
            changes: vec![Change::Put(entry)]
        }
    );
}

/// A removal is told once, and removing what is not there not at all.
pub async fn tells_removals(store: &dyn Store) {
    let start = store.put("k", "1".into(), None).await.unwrap();
    let mut watch = store.watch("k", start);
    let gone = store.delete("k", None).await.unwrap();
    store.delete("k", None).await.unwrap();
    let back = store.put("k", "2".into(), None).await.unwrap();
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Changes {
            revision: gone,
            changes: vec![Change::Deleted("k".into())]
        }
    );
    let entry = Entry {
        key: "k".into(),
        value: "2".into(),
        revision: back,
    };
    assert_eq!(
        next(&mut watch).await,
        WatchEvent::Changes {
            revision: back,
            changes: vec![Change::Put(entry)]
        }
    );
}

/// Of several writers with the same precondition exactly one succeeds, and the record is that one's.
pub async fn of_racing_writers_one_wins<S: Store>(store: Arc<S>) {
    for round in 0..10 {
        let key = format!("race/{round}");
        let race = async |precondition: Precondition| {
            let writers = (0..8).map(|writer| {
                let (store, key) = (Arc::clone(&store), key.clone());
                async move {
                    store
                        .put(
                            &key,
                            Bytes::from(format!("{precondition:?} {writer}")),
                            Some(precondition),
                        )
                        .await
                }
            });
            let outcomes = futures_util::future::join_all(writers).await;
            let won: Vec<_> = outcomes
                .iter()
                .enumerate()
                .filter(|(_, outcome)| outcome.is_ok())
                .collect();
            assert_eq!(won.len(), 1, "{outcomes:?}");
            let (writer, outcome) = won[0];
            let entry = store.get(&key).await.unwrap().unwrap();
            assert_eq!(entry.value, format!("{precondition:?} {writer}"));
            assert_eq!(&entry.revision, outcome.as_ref().unwrap());
            entry.revision
        };
        let first = race(Precondition::Absent).await;
        race(Precondition::At(first)).await;
    }
}

/// Watches follow while many write: each ends with exactly what the store has, having heard every commit once, in order.
pub async fn loses_and_repeats_nothing_under_concurrent_writers<S: Store>(store: Arc<S>) {
    let start = store.put("w/start", "".into(), None).await.unwrap();
    let before = store.list("w/").await.unwrap();
    let mut watches: Vec<_> = (0..3).map(|_| store.watch("w/", start)).collect();
    let writers = (0..8).map(|writer| {
        let store = Arc::clone(&store);
        async move {
            let mut revisions = Vec::new();
            for index in 0..30 {
                let key = format!("w/{}", (writer * 7 + index) % 11);
                let outcome = match index % 5 {
                    4 => store.delete(&key, Some(Precondition::Present)).await,
                    _ => {
                        store
                            .put(&key, Bytes::from(format!("{writer} {index}")), None)
                            .await
                    }
                };
                match outcome {
                    Ok(revision) => revisions.push(revision),
                    Err(Error::Precondition { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            revisions
        }
    });
    let revisions = futures_util::future::join_all(writers).await;
    let mut revisions: Vec<_> = revisions.into_iter().flatten().collect();
    revisions.sort_unstable();
    assert!(
        revisions.windows(2).all(|pair| pair[0] < pair[1]),
        "two commits have the same revision"
    );
    let last = *revisions.last().expect("something was written");
    let after = store.list("w/").await.unwrap();
    for watch in &mut watches {
        let mut told = Told::new(before.clone());
        while told.revision < last {
            told.hear(next(watch).await);
        }
        assert_eq!(told.revisions, revisions);
        assert_eq!(
            told.entries.into_values().collect::<Vec<_>>(),
            after.entries
        );
    }
}

/// What a watch has told so far, applied to a listing; checks that nothing comes twice or out of order.
#[derive(Debug, Clone)]
pub struct Told {
    /// The records as told.
    pub entries: BTreeMap<String, Entry>,
    /// The revision they stand at.
    pub revision: Revision,
    /// The revisions of the commits that were told one by one.
    pub revisions: Vec<Revision>,
    /// How often everything was told anew.
    pub resets: usize,
}

impl Told {
    /// Begins with a listing.
    pub fn new(listing: Listing) -> Self {
        Self {
            entries: listing
                .entries
                .into_iter()
                .map(|entry| (entry.key.clone(), entry))
                .collect(),
            revision: listing.revision,
            revisions: Vec::new(),
            resets: 0,
        }
    }

    /// Applies an event.
    ///
    /// # Panics
    /// When it is out of order.
    pub fn hear(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::Changes { revision, changes } => {
                assert!(
                    revision > self.revision,
                    "{revision:?} after {:?}",
                    self.revision
                );
                assert!(!changes.is_empty());
                assert!(
                    changes.windows(2).all(|pair| pair[0].key() < pair[1].key()),
                    "{changes:?}"
                );
                self.revision = revision;
                self.revisions.push(revision);
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            assert_eq!(entry.revision, revision);
                            self.entries.insert(entry.key.clone(), entry);
                        }
                        Change::Deleted(key) => {
                            assert!(
                                self.entries.remove(&key).is_some(),
                                "{key} was removed before it was there"
                            );
                        }
                    }
                }
            }
            WatchEvent::Reset(listing) => {
                let Self {
                    entries, revision, ..
                } = Self::new(listing);
                self.entries = entries;
                self.revision = revision;
                self.resets += 1;
            }
        }
    }

    /// Hears a watch until its records are those given.
    ///
    /// # Panics
    /// When they are not in time.
    pub async fn until(&mut self, watch: &mut Watch, keys: &[&str]) {
        let whole = async {
            while !self
                .entries
                .keys()
                .map(String::as_str)
                .eq(keys.iter().copied())
            {
                let event = watch.recv().await.expect("the watch goes on");
                self.hear(event);
            }
        };
        let done = timeout(PATIENCE, whole).await;
        assert!(
            done.is_ok(),
            "expected {keys:?} in time, have {:?}",
            self.entries.keys()
        );
    }
}
