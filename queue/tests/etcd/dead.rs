//! Dead letters of a cluster.

use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure};
use queue::Outcome;

use super::*;

async fn bury(queue: &EtcdQueue, count: u32) -> BTreeSet<DeliveryId> {
    let ids = enqueue(queue, count).await;
    for leased in lease_all(queue, &ids).await {
        let (code, component) = (ErrorCode::FunctionFailed, Component::Function);
        let reason = Failure::new(code, component, Effect::Finished, "status 404");
        let answer = Bytes::from_static(b"no such order");
        let outcome = Outcome::DeadLetter { reason, answer };
        queue.settle(&leased.lease, outcome).await.unwrap();
    }
    ids
}

async fn listed(queue: &EtcdQueue) -> BTreeSet<DeliveryId> {
    let all = queue.dead_letters(0, 10_000).await.unwrap();
    all.iter().map(|dead| dead.delivery.id).collect()
}

/// Whoever is asked lists them all, and redrives and purges what another node buried.
#[tokio::test]
async fn every_node_has_the_same() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let (one, other) = (cluster.node("n1").await, cluster.node("n2").await);
    let mut ids = bury(&one, 40).await;
    ids.extend(bury(&other, 40).await);
    // What is buried is told at once, and not waited for; who lists waits for its own.
    listed(&one).await;
    assert_eq!(listed(&other).await, ids);
    assert_eq!(listed(&one).await, ids);
    until("both count them", async || {
        one.stats().dead == 80 && other.stats().dead == 80
    })
    .await;

    let of_one = *ids.first().unwrap();
    let of_other = *ids.last().unwrap();
    for (id, queue) in [(of_one, &other), (of_other, &one)] {
        let dead = queue.dead_letter(id).await.unwrap().unwrap();
        assert_eq!(dead.answer, Bytes::from_static(b"no such order"));
        assert_eq!(queue.redrive(id).await, Ok(true));
        assert_eq!(names(&lease_all(queue, &[id].into()).await), [id].into());
        ids.remove(&id);
    }
    let purged = *ids.first().unwrap();
    let (first, second) = tokio::join!(one.purge(purged), other.purge(purged));
    assert!(first.unwrap() ^ second.unwrap(), "one of them did it");
    ids.remove(&purged);
    assert_eq!(listed(&other).await, ids);
    assert_eq!(one.redrive(purged).await, Ok(false));
}

/// Two nodes bury in the same microsecond: no page ends between the two.
#[tokio::test]
async fn none_of_one_position_is_passed_over() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let queue = cluster.node("n1").await;
    let ids = bury(&queue, 6).await;
    let letters = queue.dead_letters(0, 10).await.unwrap();
    // The third and the fourth one get the position of the second.
    let same = letters[1].position;
    let mut client = etcd.client().await;
    let prefix = "hearth/test/queue/dead/";
    for letter in &letters[2..4] {
        let under = format!("{prefix}{:016x}.", letter.position);
        let all = etcd_client::GetOptions::new().with_prefix();
        let found = client.get(under.as_str(), Some(all)).await.unwrap();
        let found = &found.kvs()[0];
        let key = found.key_str().unwrap();
        let moved = key.replace(&under, &format!("{prefix}{same:016x}."));
        client.put(moved, found.value(), None).await.unwrap();
        client.delete(key, None).await.unwrap();
    }
    for (max, pages) in [
        (1, [1, 3, 1, 1].as_slice()),
        (2, &[4, 2]),
        (3, &[4, 2]),
        (4, &[4, 2]),
        (5, &[5, 1]),
        (6, &[6]),
    ] {
        let (mut after, mut found) = (0, Vec::new());
        for len in pages {
            let page = queue.dead_letters(after, max).await.unwrap();
            assert_eq!(page.len(), *len, "of {pages:?}");
            after = page.last().unwrap().position;
            found.extend(page.iter().map(|dead| dead.delivery.id));
        }
        assert_eq!(found.len(), 6);
        assert_eq!(BTreeSet::from_iter(found), ids);
        assert!(queue.dead_letters(after, max).await.unwrap().is_empty());
    }
}

/// Two nodes that redrive the same one at once make one delivery of it.
#[tokio::test]
async fn one_is_redriven_once() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let (one, other) = (cluster.node("n1").await, cluster.node("n2").await);
    for id in bury(&one, 10).await {
        let (first, second) = tokio::join!(one.redrive(id), other.redrive(id));
        assert!(first.unwrap() ^ second.unwrap());
    }
    assert_eq!(one.stats().waiting + other.stats().waiting, 10);
}

#[tokio::test]
async fn the_oldest_are_dropped() {
    for (len_max, bytes_max, age_max, kept) in [
        (3, u64::MAX, 3_600_000, 3),
        (1_000, 3_000, 3_600_000, 7),
        (1_000, u64::MAX, 1, 0),
    ] {
        let etcd = Etcd::start().await;
        let cluster = Cluster::on(&etcd);
        let options = Options {
            dead_len_max: len_max,
            dead_bytes_max: bytes_max,
            dead_age_max: Duration::from_millis(age_max),
            ..options("n1")
        };
        let queue = cluster.node_with(options).await;
        let ids = bury(&queue, 20).await;
        until("they are dropped", async || {
            queue.stats().dead == kept && listed(&queue).await.len() == kept
        })
        .await;
        assert!(listed(&queue).await.is_subset(&ids));
        let mut client = etcd.client().await;
        let all = etcd_client::GetOptions::new()
            .with_prefix()
            .with_count_only();
        let names = client
            .get("hearth/test/queue/dead-name/", Some(all))
            .await
            .unwrap();
        assert_eq!(usize::try_from(names.count()).unwrap(), kept);
    }
}
