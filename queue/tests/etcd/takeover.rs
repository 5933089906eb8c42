//! Work of nodes that are gone, or that were silent for too long.

use queue::{Error, Outcome};

use super::*;

/// A node whose session lasts as short as etcd lets it.
fn short(name: &str) -> Options {
    Options {
        session_timeout: Duration::from_secs(2),
        ..options(name)
    }
}

/// Settles whatever comes until these are all done, on whichever node.
async fn finish(queues: &[&EtcdQueue], ids: &BTreeSet<DeliveryId>) -> Vec<Leased> {
    let mut all = Vec::new();
    until("all were delivered", async || {
        for queue in queues {
            for leased in queue.lease(MANY).await.unwrap() {
                let settled = queue.settle(&leased.lease, Outcome::Delivered).await;
                settled.unwrap();
                all.push(leased);
            }
        }
        names(&all).is_superset(ids)
    })
    .await;
    all
}

#[tokio::test]
async fn a_restarted_node_delivers_what_it_held() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let before = cluster.node("n1").await;
    let ids = enqueue(&before, 20).await;
    let leased = before.lease(MANY).await.unwrap();
    before
        .settle(&leased[0].lease, Outcome::Delivered)
        .await
        .unwrap();
    let mut left = ids.clone();
    left.remove(&leased[0].lease.id);
    // The end of it is told to etcd by then, and the one after it not.
    before.dead_letters(0, 1).await.unwrap();
    enqueue(&before, 1).await;
    drop(before);
    let after = cluster.node("n1").await;
    let mut came = Vec::new();
    until("what was left came", async || {
        came.extend(after.lease(MANY).await.unwrap());
        came.len() > left.len()
    })
    .await;
    assert!(names(&came).is_superset(&left));
    assert!(!names(&came).contains(&leased[0].lease.id));
    assert!(
        came.iter().all(|leased| leased.attempts == 1),
        "it may have run"
    );
}

/// As when a node dies after it queued the slot of a schedule, and before anybody knew: another one queues it again.
#[tokio::test]
async fn what_two_nodes_enqueued_is_there_once_for_who_takes_over() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let (dies, lives) = (cluster.node("n1").await, cluster.node("n2").await);
    let both = conformance::deliveries("f", 5);
    dies.enqueue(both.clone()).await.unwrap();
    enqueue(&dies, 1).await;
    lives.enqueue(both[1..].to_vec()).await.unwrap();
    drop(dies);
    cluster.deaths.dead("n1");
    until("it was taken over", async || lives.stats().waiting == 6).await;
    let leased = lives.lease(MANY).await.unwrap();
    assert_eq!((leased.len(), names(&leased).len()), (6, 6));
    for leased in &leased {
        let settled = lives.settle(&leased.lease, Outcome::Delivered).await;
        settled.unwrap();
    }
    // What ended is told to etcd by then.
    lives.dead_letters(0, 1).await.unwrap();
    drop(lives);
    let after = cluster.node("n2").await;
    enqueue(&after, 1).await;
    assert_eq!(after.lease(MANY).await.unwrap().len(), 1, "nothing is left");
}

/// Within 3 s of its death being known by gossip, and each by one of those that are left.
#[tokio::test]
async fn work_of_a_dead_node_is_taken_over() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let dies = cluster.node("n1").await;
    let (second, third) = (cluster.node("n2").await, cluster.node("n3").await);
    let ids = enqueue(&dies, 300).await;
    drop(dies);
    cluster.deaths.dead("n1");
    let known = Instant::now();
    until("it was taken over", async || {
        second.stats().waiting + third.stats().waiting == 300
    })
    .await;
    let took = known.elapsed();
    // The last sign of life was at most a second before its death, and 3 s without one are waited for.
    assert!(took < Duration::from_secs(6), "{took:?}");
    assert!(second.stats().waiting > 50 && third.stats().waiting > 50);
    let all = finish(&[&second, &third], &ids).await;
    assert_eq!(all.len(), 300);
    assert!(all.iter().all(|leased| leased.attempts == 1));
}

#[tokio::test]
async fn work_of_a_node_whose_death_nobody_sees_is_taken_over_when_its_session_ends() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let dies = cluster.node_with(short("n1")).await;
    let other = cluster.node("n2").await;
    let ids = enqueue(&dies, 10).await;
    drop(dies);
    finish(&[&other], &ids).await;
}

/// Others say that it is dead, and etcd hears it: it keeps what it holds.
#[tokio::test]
async fn a_node_that_etcd_hears_is_not_robbed() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let alive = cluster.node("n1").await;
    let other = cluster.node("n2").await;
    let ids = enqueue(&alive, 5).await;
    cluster.deaths.dead("n1");
    let leased = lease_all(&alive, &ids).await;
    // Longer than it would take to rob it.
    let begun = Instant::now();
    until("time passed", async || {
        begun.elapsed() > Duration::from_secs(4)
    })
    .await;
    assert_eq!(other.stats().waiting, 0);
    for leased in leased {
        alive
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
}

/// What it has on lease is lost, and what it says changes nothing; then it goes on with a new session.
#[tokio::test]
async fn a_node_whose_session_ended_settles_nothing() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let silent = cluster.node("n1").await;
    let other = cluster.node("n2").await;
    let ids = enqueue(&silent, 5).await;
    let leased = lease_all(&silent, &ids).await;
    let mut client = etcd.client().await;
    let all = etcd_client::GetOptions::new().with_prefix();
    let sessions = client
        .get("hearth/test/queue/session/", Some(all))
        .await
        .unwrap();
    let own = sessions.kvs().iter().find(|record| {
        let value = String::from_utf8_lossy(record.value());
        value.contains("n1")
    });
    client.lease_revoke(own.unwrap().lease()).await.unwrap();
    until("its leases are lost", async || {
        silent.extend(&leased[0].lease).await.is_err()
    })
    .await;
    for leased in &leased {
        let settled = silent.settle(&leased.lease, Outcome::Delivered).await;
        assert_eq!(settled, Err(Error::LeaseLost(leased.lease)));
    }
    let again = finish(&[&silent, &other], &ids).await;
    assert!(again.iter().all(|leased| leased.attempts == 1));
    until("it accepts again", async || {
        silent
            .enqueue(conformance::deliveries("f", 1))
            .await
            .is_ok()
    })
    .await;
}

/// It tells what ended, and what waits has cost no attempt; others have it at once.
#[tokio::test]
async fn a_node_that_ends_in_order_leaves_what_waits() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let leaves = cluster.node("n1").await;
    let stays = cluster.node("n2").await;
    let mut ids = enqueue(&leaves, 10).await;
    let mut leased = leaves.lease(MANY).await.unwrap();
    let (cut, tried) = (leased.pop().unwrap(), leased.pop().unwrap());
    let again = Outcome::Again {
        after: Duration::ZERO,
        counts: true,
    };
    leaves.settle(&tried.lease, again).await.unwrap();
    for leased in leased {
        ids.remove(&leased.lease.id);
        leaves
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    ids.extend(enqueue(&leaves, 1).await);
    leaves.close(Instant::now() + PATIENCE).await;
    let refused = leaves.enqueue(conformance::deliveries("f", 1)).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");
    let all = finish(&[&stays], &ids).await;
    assert_eq!(all.len(), 3);
    for leased in all {
        let ran = [cut.lease.id, tried.lease.id].contains(&leased.lease.id);
        assert_eq!(leased.attempts, u32::from(ran));
    }
    let mut client = etcd.client().await;
    until("nothing of it is left in etcd", async || {
        let all = etcd_client::GetOptions::new()
            .with_prefix()
            .with_keys_only();
        let left = client.get("hearth/test/queue/", Some(all)).await.unwrap();
        // The session and the name of the one that stays.
        left.kvs().len() == 2
    })
    .await;
}

/// What waits for longer than a second goes to a node with permits, and costs no attempt.
#[tokio::test]
async fn a_node_without_permits_leaves_what_waits_to_others() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let (busy, idle) = (cluster.node("n1").await, cluster.node("n2").await);
    let ids = enqueue(&busy, 300).await;
    let mut running = Vec::new();
    let took_all = busy.lease(Permits { free: 1, total: 1 }).await.unwrap();
    assert_eq!(took_all.len(), 1, "it has no permits left");
    running.extend(took_all);
    let mut left = ids.clone();
    for leased in &running {
        left.remove(&leased.lease.id);
    }
    let came = finish(&[&idle], &left).await;
    assert_eq!(names(&came), left, "each on one node");
    assert!(came.iter().all(|leased| leased.attempts == 0));
    assert_eq!(busy.stats().waiting, 0);
    for leased in running {
        let settled = busy.settle(&leased.lease, Outcome::Delivered).await;
        settled.unwrap();
    }
    let mut client = etcd.client().await;
    until("nothing is left in etcd", async || {
        let all = etcd_client::GetOptions::new()
            .with_prefix()
            .with_count_only();
        let held = client
            .get("hearth/test/queue/held/", Some(all.clone()))
            .await;
        let owners = client.get("hearth/test/queue/owner/", Some(all)).await;
        (held.unwrap().count(), owners.unwrap().count()) == (0, 2)
    })
    .await;
}

/// One of several deliveries of an event that ended is not made again by whoever takes the others over.
#[tokio::test]
async fn what_ended_is_not_repeated_for_the_sake_of_the_others() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let dies = cluster.node("n1").await;
    let event: Vec<Delivery> = conformance::deliveries("f", 200);
    let ids: BTreeSet<_> = event.iter().map(|delivery| delivery.id).collect();
    dies.enqueue(event).await.unwrap();
    let leased = lease_all(&dies, &ids).await;
    let mut left = ids.clone();
    for leased in &leased[..150] {
        left.remove(&leased.lease.id);
        dies.settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    let again = Outcome::Again {
        after: Duration::ZERO,
        counts: false,
    };
    dies.settle(&leased[160].lease, again).await.unwrap();
    // What comes later is told later.
    enqueue(&dies, 3).await;
    let mut client = etcd.client().await;
    until("all of it is told", async || {
        let all = etcd_client::GetOptions::new()
            .with_prefix()
            .with_count_only();
        let held = client
            .get("hearth/test/queue/held/", Some(all))
            .await
            .unwrap();
        held.count() == 1 + 151 + 3
    })
    .await;
    drop(dies);
    let after = cluster.node("n1").await;
    let mut came = Vec::new();
    until("what was left came", async || {
        came.extend(after.lease(MANY).await.unwrap());
        came.len() >= left.len() + 3
    })
    .await;
    came.retain(|leased| leased.delivery.ordinal > 0 || ids.contains(&leased.lease.id));
    assert_eq!(names(&came), left);
    for leased in came {
        let told = leased.delivery.ordinal != 160;
        assert!(
            told || leased.attempts == 1,
            "the one attempt did not count"
        );
    }
}

#[tokio::test]
async fn a_delivery_is_cancelled_through_any_node() {
    let etcd = Etcd::start().await;
    let cluster = Cluster::on(&etcd);
    let (holder, other, third) = (
        cluster.node("n1").await,
        cluster.node("n2").await,
        cluster.node("n3").await,
    );
    let event = conformance::deliveries("f", 3);
    holder.enqueue(event.clone()).await.unwrap();
    let leased = holder.lease(Permits { free: 4, total: 4 }).await.unwrap();
    let (running, waiting) = (leased[0].lease, event[1].id);
    assert_eq!(other.cancel(waiting).await, Ok(true));
    assert_eq!(third.cancel(waiting).await, Ok(false));
    assert_eq!(third.cancel(running.id).await, Ok(true));
    assert_eq!(
        holder.extend(&running).await,
        Err(Error::LeaseLost(running))
    );
    assert_eq!(other.cancel(DeliveryId::random()).await, Ok(false));
    assert_eq!(holder.stats().waiting, 1);
    let mut client = etcd.client().await;
    let all = etcd_client::GetOptions::new().with_prefix();
    let left = client
        .get("hearth/test/queue/cancel/", Some(all))
        .await
        .unwrap();
    assert_eq!(left.kvs().len(), 0, "no question is left");
}
