//! The etcd store over real etcd servers, which are killed, stopped, wiped and compacted on the way.

#![allow(
    clippy::unwrap_used,
    reason = "test code, of which the lint exempts only the test functions themselves"
)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use config::Store;
use config::settings::{EtcdSettings, Secret};
use config::store::conformance::{self, Told};
use config::store::{
    Error, EtcdStore, Listing, Precondition, Revision, Transaction, Watch, WatchEvent, Write,
};
use protocol::{Effect, ErrorCode};
use tokio::time::{Instant, sleep, timeout};

use config::etcd::server::{Etcd, Proxy, settings};

mod tls;

const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(settings: &EtcdSettings) -> EtcdStore {
    EtcdStore::connect(settings, "test").await.unwrap()
}

async fn empty(store: &EtcdStore) -> Told {
    Told::new(store.list("").await.unwrap())
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        sleep(Duration::from_millis(20)).await;
    }
}

async fn next(watch: &mut Watch) -> WatchEvent {
    timeout(PATIENCE, watch.recv())
        .await
        .expect("the watch says something in time")
        .expect("the watch goes on")
}

#[tokio::test]
async fn conforms() {
    let etcd = Etcd::start().await;
    let settings = settings([etcd.url.clone()]);
    let clusters = AtomicU32::new(0);
    conformance::all(|| {
        let cluster = format!("cluster-{}", clusters.fetch_add(1, Ordering::Relaxed));
        let settings = settings.clone();
        async move { EtcdStore::connect(&settings, &cluster).await.unwrap() }
    })
    .await;
}

#[tokio::test]
async fn clusters_and_prefixes_do_not_see_each_other() {
    let etcd = Etcd::start().await;
    let one = settings([etcd.url.clone()]);
    let other_prefix = EtcdSettings {
        prefix: "else".into(),
        ..one.clone()
    };
    let store = EtcdStore::connect(&one, "a").await.unwrap();
    let others = [
        EtcdStore::connect(&one, "b").await.unwrap(),
        EtcdStore::connect(&one, "a0").await.unwrap(),
        EtcdStore::connect(&other_prefix, "a").await.unwrap(),
    ];
    let revision = store.put("k", "v".into(), None).await.unwrap();
    for other in &others {
        assert_eq!(other.get("k").await.unwrap(), None);
        assert_eq!(other.list("").await.unwrap().entries, []);
        other
            .put("k", "other".into(), Some(Precondition::Absent))
            .await
            .unwrap();
    }
    let mut watch = store.watch("", Revision(revision.0 - 1));
    let mut told = Told::new(Listing {
        entries: Vec::new(),
        revision: Revision(revision.0 - 1),
    });
    told.until(&mut watch, &["k"]).await;
    let last = store.put("l", "v".into(), None).await.unwrap();
    told.until(&mut watch, &["k", "l"]).await;
    assert_eq!(told.revisions, [revision, last]);
    let mut client = etcd.client().await;
    assert_eq!(
        client.get("hearth/a/k", None).await.unwrap().kvs()[0].value(),
        b"v"
    );
}

#[tokio::test]
async fn what_was_compacted_is_told_as_a_whole() {
    let etcd = Etcd::start().await;
    let proxy = Proxy::to(&etcd).await;
    let direct = connect(&settings([etcd.url.clone()])).await;
    let store = connect(&settings([proxy.url.clone()])).await;
    let first = direct.put("a", "1".into(), None).await.unwrap();
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    direct.put("b", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a", "b"]).await;
    assert_eq!(told.resets, 0);

    // While the watch is cut off its place in history goes.
    proxy.cut();
    direct.delete("a", None).await.unwrap();
    let last = direct.put("c", "1".into(), None).await.unwrap();
    let mut client = etcd.client().await;
    client
        .compact(i64::try_from(last.0).unwrap(), None)
        .await
        .unwrap();
    proxy.heal();
    told.until(&mut watch, &["b", "c"]).await;
    assert_eq!(told.resets, 1);
    direct.put("d", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["b", "c", "d"]).await;
    assert_eq!(told.resets, 1);

    // So it is for a watch that begins in the past.
    let mut late = store.watch("", first);
    assert!(
        matches!(next(&mut late).await, WatchEvent::Reset(listing) if listing.entries.len() == 3)
    );
}

#[tokio::test]
async fn a_watch_goes_on_after_etcd_was_killed_and_restarted() {
    let mut etcd = Etcd::start().await;
    let store = connect(&settings([etcd.url.clone()])).await;
    store.put("a", "1".into(), None).await.unwrap();
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    let mut written = vec![store.put("b", "1".into(), None).await.unwrap()];
    told.until(&mut watch, &["a", "b"]).await;

    etcd.kill();
    let error = store.get("a").await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::StoreUnavailable, Effect::Refused),
        "{error}"
    );
    let error = store.put("c", "0".into(), None).await.unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::StoreUnavailable, Effect::Refused),
        "{error}"
    );
    assert!(error.to_string().contains(&etcd.url), "{error}");
    etcd.run();
    etcd.ready().await;
    written.push(store.put("c", "1".into(), None).await.unwrap());
    told.until(&mut watch, &["a", "b", "c"]).await;
    assert_eq!((told.resets, told.revisions), (0, written));
    until("the watch is fresh", async || {
        store.staleness() < Duration::from_secs(1)
    })
    .await;
    drop(watch);
    until("the watch has ended", async || {
        store.staleness() == Duration::ZERO
    })
    .await;
}

#[tokio::test]
async fn a_store_is_made_while_etcd_is_down() {
    let mut etcd = Etcd::down();
    let short = EtcdSettings {
        operation_timeout: Duration::from_millis(300),
        ..settings([etcd.url.clone()])
    };
    let begun = Instant::now();
    let store = connect(&short).await;
    let mut watch = store.watch("", Revision(0));
    let error = store.list("").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(error.code(), ErrorCode::StoreUnavailable);
    assert!(error.to_string().contains("refused"), "{error}");
    etcd.run();
    etcd.ready().await;
    until("a write succeeds", async || {
        store.put("a", "1".into(), None).await.is_ok()
    })
    .await;
    let mut told = Told::new(Listing {
        entries: Vec::new(),
        revision: Revision(0),
    });
    told.until(&mut watch, &["a"]).await;
}

#[tokio::test]
async fn a_stopped_server_is_noticed() {
    let etcd = Etcd::start().await;
    let short = EtcdSettings {
        operation_timeout: Duration::from_secs(1),
        ..settings([etcd.url.clone()])
    };
    let store = connect(&short).await;
    store.put("a", "1".into(), None).await.unwrap();
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    store.put("b", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a", "b"]).await;

    etcd.stop();
    for write in [false, true] {
        let begun = Instant::now();
        let error = match write {
            true => store.put("a", "2".into(), None).await.unwrap_err(),
            false => store.get("a").await.unwrap_err(),
        };
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(error.code(), ErrorCode::StoreUnavailable);
        // The write reached the server's socket, and happens when it goes on.
        assert_eq!(
            error.effect(),
            if write {
                Effect::Interrupted
            } else {
                Effect::Refused
            },
            "{error}"
        );
    }
    until("the silence shows", async || {
        store.staleness() > Duration::from_millis(1500)
    })
    .await;
    etcd.go_on();
    until("a write succeeds", async || {
        store.put("c", "1".into(), None).await.is_ok()
    })
    .await;
    told.until(&mut watch, &["a", "b", "c"]).await;
    assert_eq!(told.resets, 0);
}

#[tokio::test]
async fn a_watch_leaves_a_stopped_member_for_another() {
    let members = Etcd::start_three().await;
    let all = settings(members.iter().map(|member| member.url.clone()));
    let store = connect(&all).await;
    store.put("a", "1".into(), None).await.unwrap();
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    store.put("b", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a", "b"]).await;

    // The one it has been following.
    members[0].stop();
    let others = connect(&settings(
        members[1..].iter().map(|member| member.url.clone()),
    ))
    .await;
    let begun = Instant::now();
    others.put("c", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a", "b", "c"]).await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    store
        .put("d", "1".into(), Some(Precondition::Absent))
        .await
        .unwrap();
    told.until(&mut watch, &["a", "b", "c", "d"]).await;
    assert_eq!(told.resets, 0);
    members[0].go_on();
}

#[tokio::test]
async fn with_one_of_three_members_killed_every_operation_succeeds() {
    let mut members = Etcd::start_three().await;
    let store = connect(&settings(members.iter().map(|member| member.url.clone()))).await;
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    let mut written = Vec::new();
    // One of the three led.
    for (killed, member) in members.iter_mut().enumerate() {
        member.kill();
        for index in 0..15 {
            let key = format!("{killed}/{index}");
            let first = store
                .put(&key, "1".into(), Some(Precondition::Absent))
                .await
                .unwrap();
            let second = store
                .put(&key, "2".into(), Some(Precondition::At(first)))
                .await
                .unwrap();
            let third = store.put(&key, "3".into(), None).await.unwrap();
            assert_eq!(store.get(&key).await.unwrap().unwrap().revision, third);
            assert_eq!(
                store
                    .list(&format!("{killed}/"))
                    .await
                    .unwrap()
                    .entries
                    .len(),
                1
            );
            let gone = store
                .delete(&key, Some(Precondition::At(third)))
                .await
                .unwrap();
            written.extend([first, second, third, gone]);
        }
        member.run();
        member.ready().await;
    }
    let last = *written.last().unwrap();
    while told.revision < last {
        told.hear(next(&mut watch).await);
    }
    assert_eq!((told.resets, told.revisions), (0, written));
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_done_once_and_reported_as_done() {
    let etcd = Etcd::start().await;
    let direct = connect(&settings([etcd.url.clone()])).await;
    let mut told = empty(&direct).await;
    let mut watch = direct.watch("", told.revision);
    let mut written = Vec::new();
    for (index, guard) in [
        Some(Precondition::Absent),
        None,
        Some(Precondition::Present),
    ]
    .into_iter()
    .enumerate()
    {
        // The first endpoint of each store loses its answers; by the second it finds out what happened.
        let proxy = Proxy::to(&etcd).await;
        let store = connect(&settings([proxy.url.clone(), etcd.url.clone()])).await;
        assert_eq!(store.get("k").await.unwrap().is_some(), index > 0);
        proxy.lose_answers();
        let revision = store
            .put("k", index.to_string().into(), guard)
            .await
            .unwrap();
        let entry = direct.get("k").await.unwrap().unwrap();
        assert_eq!(
            (entry.revision, entry.value),
            (revision, index.to_string().into())
        );
        written.push(revision);
    }
    // A conflict is still told as one.
    let proxy = Proxy::to(&etcd).await;
    let store = connect(&settings([proxy.url.clone(), etcd.url.clone()])).await;
    store.get("k").await.unwrap();
    proxy.lose_answers();
    let error = store
        .put("k", "x".into(), Some(Precondition::Absent))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::Precondition { key } if key == "k"),
        "{error}"
    );
    // And a removal.
    let proxy = Proxy::to(&etcd).await;
    let store = connect(&settings([proxy.url.clone(), etcd.url.clone()])).await;
    store.get("k").await.unwrap();
    proxy.lose_answers();
    written.push(
        store
            .delete("k", Some(Precondition::Present))
            .await
            .unwrap(),
    );
    let last = *written.last().unwrap();
    while told.revision < last {
        told.hear(next(&mut watch).await);
    }
    assert_eq!(told.revisions, written);
}

#[tokio::test]
async fn an_etcd_that_lost_its_data_is_noticed() {
    let mut etcd = Etcd::start().await;
    let store = connect(&settings([etcd.url.clone()])).await;
    for index in 0..20 {
        store
            .put(&format!("k{index}"), "1".into(), None)
            .await
            .unwrap();
    }
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    store.put("k", "1".into(), None).await.unwrap();
    while told.revisions.is_empty() {
        told.hear(next(&mut watch).await);
    }
    etcd.kill();
    etcd.wipe();
    etcd.run();
    etcd.ready().await;
    told.until(&mut watch, &[]).await;
    assert_eq!(told.resets, 1);
    store.put("new", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["new"]).await;
    assert_eq!(told.resets, 1);
}

#[tokio::test]
async fn a_large_backlog_comes_whole() {
    let etcd = Etcd::start().await;
    let store = connect(&settings([etcd.url.clone()])).await;
    let start = store.put("start", "".into(), None).await.unwrap();
    // Larger than etcd puts into one message: one commit comes in fragments.
    let value = vec![b'v'; 200_000];
    let mut written = Vec::new();
    for round in 0..5 {
        let writes = (0..6)
            .map(|index| {
                Write::Put(
                    format!("k{index}"),
                    [value.as_slice(), &[round]].concat().into(),
                )
            })
            .collect();
        written.push(
            store
                .commit(Transaction {
                    preconditions: Vec::new(),
                    writes,
                })
                .await
                .unwrap(),
        );
    }
    let mut watch = store.watch("", start);
    for revision in written {
        match next(&mut watch).await {
            WatchEvent::Changes {
                revision: found,
                changes,
            } => assert_eq!((found, changes.len()), (revision, 6)),
            WatchEvent::Reset(_) => panic!("nothing was lost"),
        }
    }
}

#[tokio::test]
async fn users_and_passwords_work_and_an_expired_token_is_renewed() {
    let mut etcd = Etcd::start().await;
    let mut admin = etcd.client().await;
    admin
        .user_add("root", "secret of root", None)
        .await
        .unwrap();
    admin.role_add("root").await.unwrap();
    admin.user_grant_role("root", "root").await.unwrap();
    admin.user_add("hearth", "password", None).await.unwrap();
    admin.role_add("hearth").await.unwrap();
    let permission = etcd_client::Permission::read_write("hearth/test/").with_prefix();
    admin
        .role_grant_permission("hearth", permission)
        .await
        .unwrap();
    admin.user_grant_role("hearth", "hearth").await.unwrap();
    admin.auth_enable().await.unwrap();

    let open = settings([etcd.url.clone()]);
    let error = connect(&open)
        .await
        .put("k", "v".into(), None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.effect()),
        (ErrorCode::StoreUnavailable, Effect::Refused),
        "{error}"
    );
    let wrong = EtcdSettings {
        user: Some("hearth".into()),
        password: Some(Secret::new("wrong")),
        ..open.clone()
    };
    let error = connect(&wrong).await.get("k").await.unwrap_err();
    assert!(
        error.to_string().contains("authentication failed") && !error.to_string().contains("wrong"),
        "{error}"
    );

    let right = EtcdSettings {
        user: Some("hearth".into()),
        password: Some(Secret::new("password")),
        ..open
    };
    let store = connect(&right).await;
    let mut told = empty(&store).await;
    let mut watch = store.watch("", told.revision);
    store.put("a", "1".into(), None).await.unwrap();
    told.until(&mut watch, &["a"]).await;
    // Tokens do not survive a restart of the server.
    etcd.kill();
    etcd.run();
    until("a write succeeds", async || {
        store.put("b", "1".into(), None).await.is_ok()
    })
    .await;
    told.until(&mut watch, &["a", "b"]).await;
    assert_eq!(told.resets, 0);
    // A user's rights end at its cluster.
    let other = EtcdStore::connect(&right, "other").await.unwrap();
    let error = other.put("a", "1".into(), None).await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
    assert_eq!(error.effect(), Effect::Refused);
}
