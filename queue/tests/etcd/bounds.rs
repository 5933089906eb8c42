//! What the queue takes, and when etcd is too full for it.

use bytes::Bytes;
use queue::Error;
use queue::backend::Bound;

use super::*;

fn large(bytes: usize) -> Vec<Delivery> {
    let mut one = conformance::deliveries("f", 1);
    one[0].event = Bytes::from(vec![b'x'; bytes]);
    one
}

#[tokio::test]
async fn what_etcd_would_not_take_is_refused_before() {
    let etcd = Etcd::start().await;
    let queue = Cluster::on(&etcd).node("n1").await;
    let refused = queue.enqueue(large(1 << 20)).await;
    assert!(
        matches!(refused, Err(Error::TooLarge { .. })),
        "{refused:?}"
    );
    // As large as may be, several at once.
    let largest = || queue.enqueue(large((1 << 20) - 1_000));
    let (a, b, c) = tokio::join!(largest(), largest(), largest());
    a.and(b).and(c).unwrap();
    assert_eq!(queue.lease(MANY).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_cluster_has_a_bound() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let small = |name| Options {
        cluster_bytes_max: 1_000_000,
        ..options(name)
    };
    let one = cluster.node_with(small("n1")).await;
    let other = cluster.node_with(small("n2")).await;
    one.enqueue(large(600_000)).await.unwrap();
    until("the other one knows of it", async || {
        let refused = other.enqueue(large(500_000)).await;
        let full = Err(Error::Full(Bound::Cluster(1_000_000)));
        if refused == Ok(()) {
            let lease = other.lease(MANY).await.unwrap()[0].lease;
            let outcome = queue::Outcome::Delivered;
            other.settle(&lease, outcome).await.unwrap();
        }
        refused == full
    })
    .await;
    other.enqueue(large(100_000)).await.unwrap();
}

/// Nothing is accepted long before etcd would refuse everything, and then it is again.
#[tokio::test]
async fn a_full_etcd_is_spared() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let options = Options {
        storage_max: 16 << 20,
        ..options("n1")
    };
    let queue = cluster.node_with(options).await;
    let mut client = etcd.client().await;
    for number in 0..9 {
        let value = vec![b'v'; 1_000_000];
        client
            .put(format!("filler/{number}"), value, None)
            .await
            .unwrap();
    }
    until("it is refused", async || {
        let refused = queue.enqueue(large(10)).await;
        matches!(refused, Err(Error::Full(Bound::Storage(_))))
    })
    .await;
    let all = etcd_client::DeleteOptions::new().with_prefix();
    let deleted = client.delete("filler/", Some(all)).await.unwrap();
    let revision = deleted.header().unwrap().revision();
    let physical = etcd_client::CompactionOptions::new().with_physical();
    client.compact(revision, Some(physical)).await.unwrap();
    until("it is accepted", async || {
        // etcd counts what was freed when it writes the next time.
        client.put("filler/small", "x", None).await.unwrap();
        queue.enqueue(large(10)).await.is_ok()
    })
    .await;
}

/// Many callers share a transaction: there are far fewer of these than of events.
#[tokio::test(flavor = "multi_thread")]
async fn callers_share_transactions() {
    let etcd = Etcd::start().await;
    let queue = Arc::new(Cluster::on(&etcd).node("n1").await);
    let mut client = etcd.client().await;
    let before = client
        .get("x", None)
        .await
        .unwrap()
        .header()
        .unwrap()
        .revision();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let queue = Arc::clone(&queue);
        callers.spawn(async move { enqueue(&queue, 20).await });
    }
    let ids: BTreeSet<_> = callers.join_all().await.into_iter().flatten().collect();
    let after = client
        .get("x", None)
        .await
        .unwrap()
        .header()
        .unwrap()
        .revision();
    assert!(
        after - before < 400,
        "{} transactions for 1,280 events",
        after - before
    );
    lease_all(&queue, &ids).await;
}

/// Old history goes, and what is there stays.
#[tokio::test]
async fn old_history_is_compacted() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let options = Options {
        compact_after: Duration::from_secs(1),
        ..options("n1")
    };
    let queue = cluster.node_with(options).await;
    let ids = enqueue(&queue, 5).await;
    let mut client = etcd.client().await;
    let now = client
        .get("x", None)
        .await
        .unwrap()
        .header()
        .unwrap()
        .revision();
    until("what was is gone", async || {
        // Something has to happen for a revision to be old.
        client.put("x", "y", None).await.unwrap();
        let then = etcd_client::GetOptions::new().with_revision(now);
        client.get("x", Some(then)).await.is_err()
    })
    .await;
    lease_all(&queue, &ids).await;
}
