//! An etcd that is killed, hangs, or is not there.

use config::etcd::server::Proxy;
use protocol::Effect;
use queue::{Error, Outcome};

use super::*;

fn one() -> Vec<Delivery> {
    conformance::deliveries("f", 1)
}

#[tokio::test]
async fn what_was_accepted_survives_a_killed_etcd() {
    let mut etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let queue = cluster.node("n1").await;
    let mut ids = enqueue(&queue, 50).await;
    let leased = queue.lease(Permits { free: 8, total: 8 }).await.unwrap();
    etcd.kill();
    let begun = Instant::now();
    let unknown = one();
    let unknown_id = unknown[0].id;
    let refused = queue.enqueue(unknown).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(refused.code(), protocol::ErrorCode::StoreUnavailable);
    // That one was on its way on a connection that broke, and may be taken when etcd is back; this one is not.
    let refused = queue.enqueue(one()).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::Refused, "{refused}");
    // What it has goes on meanwhile, and is told when etcd is back.
    for leased in leased {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
        ids.remove(&leased.lease.id);
    }
    etcd.run();
    until("events are accepted again", async || {
        let more = one();
        let id = more[0].id;
        let is_accepted = queue.enqueue(more).await.is_ok();
        if is_accepted {
            ids.insert(id);
        }
        is_accepted
    })
    .await;
    let mut came = BTreeSet::new();
    until("all came that were accepted", async || {
        came.extend(names(&queue.lease(MANY).await.unwrap()));
        came.is_superset(&ids)
    })
    .await;
    came.remove(&unknown_id);
    assert_eq!(came, ids);
}

/// Nobody is told that it was taken, and nobody that it was surely not.
#[tokio::test]
async fn an_etcd_that_hangs_is_told_within_the_timeout() {
    let etcd = Etcd::start().await;
    let mut cluster = Cluster::on(&etcd);
    cluster.settings.operation_timeout = Duration::from_secs(1);
    let queue = cluster
        .node_with(Options {
            operation_timeout: Duration::from_secs(1),
            ..options("n1")
        })
        .await;
    let ids = enqueue(&queue, 5).await;
    etcd.stop();
    let may_be = one();
    let hung = may_be[0].id;
    let begun = Instant::now();
    let answer = queue.enqueue(may_be).await.unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    assert!(matches!(answer, Error::MayBeTaken(_)), "{answer}");
    assert_eq!(answer.effect(), Effect::Interrupted);
    let begun = Instant::now();
    let answer = queue.enqueue(one()).await.unwrap_err();
    assert_eq!(answer.effect(), Effect::Refused, "{answer}");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "it is known by now"
    );
    etcd.go_on();
    until("events are accepted again", async || {
        queue.enqueue(one()).await.is_ok()
    })
    .await;
    let mut came = BTreeSet::new();
    until("all came that were accepted", async || {
        came.extend(names(&queue.lease(MANY).await.unwrap()));
        came.len() >= ids.len() + 2
    })
    .await;
    assert!(came.is_superset(&ids));
    // It had reached etcd by then, so it was taken: once.
    assert!(
        came.contains(&hung) && came.len() == ids.len() + 2,
        "{came:?}"
    );
}

/// A transaction whose answer is lost is done once, and told as done.
#[tokio::test]
async fn a_lost_answer_is_found_again() {
    let etcd = Etcd::start().await;
    let proxy = Proxy::to(&etcd).await;
    let mut cluster = Cluster::on(&etcd);
    cluster.settings = settings([proxy.url.clone(), etcd.url.clone()]);
    let queue = cluster.node("n1").await;
    let mut ids = enqueue(&queue, 3).await;
    proxy.lose_answers();
    ids.extend(enqueue(&queue, 3).await);
    let leased = lease_all(&queue, &ids).await;
    assert_eq!(leased.len(), 6);
    let mut client = etcd.client().await;
    let all = etcd_client::GetOptions::new()
        .with_prefix()
        .with_count_only();
    let held = client
        .get("hearth/test/queue/held/", Some(all))
        .await
        .unwrap();
    assert_eq!(held.count(), 6);
}

/// A node that etcd does not hear for longer than its session delivers nothing more, and begins anew.
#[tokio::test]
async fn a_node_that_is_cut_off_gives_up_what_it_has() {
    let etcd = Etcd::start().await;
    let proxy = Proxy::to(&etcd).await;
    let mut cluster = Cluster::on(&etcd);
    let other = cluster.node("n2").await;
    cluster.settings = EtcdSettings {
        operation_timeout: Duration::from_millis(500),
        ..settings([proxy.url.clone()])
    };
    let cut = cluster
        .node_with(Options {
            session_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_millis(500),
            ..options("n1")
        })
        .await;
    let ids = enqueue(&cut, 10).await;
    let leased = lease_all(&cut, &ids).await;
    proxy.cut();
    until("its leases are lost", async || {
        cut.extend(&leased[0].lease).await.is_err()
    })
    .await;
    let settled = cut.settle(&leased[0].lease, Outcome::Delivered).await;
    assert_eq!(settled, Err(Error::LeaseLost(leased[0].lease)));
    assert!(cut.lease(MANY).await.unwrap().is_empty());
    let refused = cut.enqueue(one()).await.unwrap_err();
    assert_eq!(refused.effect(), Effect::Refused, "{refused}");
    let taken = lease_all(&other, &ids).await;
    assert!(taken.iter().all(|leased| leased.attempts == 1));
    proxy.heal();
    until("it accepts again", async || {
        cut.enqueue(one()).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_queue_is_opened_while_etcd_is_down() {
    let mut etcd = Etcd::down();
    let cluster = Cluster::on(&etcd);
    let queue = cluster.node("n1").await;
    let refused = queue.enqueue(one()).await.unwrap_err();
    assert!(matches!(refused, Error::Unavailable(_)), "{refused}");
    etcd.run();
    until("events are accepted", async || {
        queue.enqueue(one()).await.is_ok()
    })
    .await;
}
