//! What the books of a node say, and what an audit finds when something is not in etcd that should be.

use etcd_client::GetOptions;
use queue::backend::Change;
use queue::{Audit, Outcome};

use super::*;

async fn audit(queue: &EtcdQueue) -> Audit {
    queue.audit().await.unwrap()
}

/// Deletes what nodes hold under this name, but for so many of the first keys.
async fn delete_held(etcd: &Etcd, spared: usize) {
    let mut client = etcd.client().await;
    let all = GetOptions::new().with_prefix().with_keys_only();
    let found = client.get("", Some(all)).await.unwrap();
    let keys = found.kvs().iter().map(|record| record.key_str().unwrap());
    let held: Vec<_> = keys.filter(|key| key.contains("/held/")).collect();
    assert!(held.len() > spared, "{held:?}");
    for key in &held[spared..] {
        client.delete(*key, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_key_that_was_deleted_by_hand_is_missed() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let node = cluster.node("n1").await;
    enqueue(&node, 5).await;
    let three = conformance::deliveries("f", 3);
    node.enqueue(three).await.unwrap();
    assert_eq!(
        (audit(&node).await.held, audit(&node).await.drift()),
        (8, 0)
    );
    // The last batch has three deliveries.
    delete_held(&etcd, 4).await;
    let found = audit(&node).await;
    assert_eq!((found.held, found.drift()), (4, 4), "{}", found.books);
    // What is missing is in memory, and is delivered as long as the node lives.
    for leased in node.lease(MANY).await.unwrap() {
        let settled = node.settle(&leased.lease, Outcome::Delivered).await;
        settled.unwrap();
    }
    let found = audit(&node).await;
    assert_eq!((found.held, found.drift()), (0, 0), "{}", found.books);
}

#[tokio::test]
async fn what_changes_its_node_is_in_the_books_of_both() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let first = cluster.node("n1").await;
    let ids = enqueue(&first, 4).await;
    let leased = lease_all(&first, &ids).await;
    let second = cluster.node("n2").await;
    // Its session ends, and it begins another one when it sees that.
    let mut client = etcd.client().await;
    let all = GetOptions::new().with_prefix();
    let found = client.get("", Some(all)).await.unwrap();
    let of_first = found.kvs().iter().find(|record| {
        let key = record.key_str().unwrap();
        key.contains("/session/") && String::from_utf8_lossy(record.value()).contains("n1")
    });
    let key = of_first.unwrap().key().to_vec();
    client.delete(key, None).await.unwrap();
    until("it is lost to the first one", async || {
        first.stats().leased == 0
    })
    .await;
    let settled = first.settle(&leased[0].lease, Outcome::Delivered).await;
    assert!(settled.is_err());
    until("all are held by one of them", async || {
        let (one, other) = (first.audit().await, second.audit().await);
        [one, other]
            .into_iter()
            .flatten()
            .map(|audit| audit.held)
            .sum::<u64>()
            == 4
    })
    .await;
    let (one, other) = (audit(&first).await, audit(&second).await);
    assert_eq!(
        (one.drift(), other.drift()),
        (0, 0),
        "{} | {}",
        one.books,
        other.books
    );
    assert_eq!(one.books.count(Change::Accepted), 4);
    assert_eq!(one.books.count(Change::GivenUp), 4);
    let taken = |audit: &Audit| audit.books.count(Change::TakenOver);
    assert_eq!(taken(&one) + taken(&other), 4);
}
