//! NATS is killed, or not there, or full.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use queue::backend::Bound;
use queue::{Delivery, DeliveryId, Error, Outcome, Stats};

use super::*;

/// What callers and functions saw.
#[derive(Debug, Default)]
struct Book {
    sent: BTreeSet<DeliveryId>,
    accepted: BTreeSet<DeliveryId>,
    delivered: BTreeMap<DeliveryId, usize>,
}

/// Of what was accepted nothing is lost by a server that is killed, again and again, while events come and go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_accepted_is_lost_when_nats_is_killed() {
    let mut nats = Nats::start().await;
    let queue = Arc::new(open(patient(options(&nats.url(), "c"))).await);
    let book = Arc::new(Mutex::new(Book::default()));
    let stop = tokio_util::sync::CancellationToken::new();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8_u32 {
        let (queue, book, stop) = (Arc::clone(&queue), Arc::clone(&book), stop.clone());
        callers.spawn(async move {
            while !stop.is_cancelled() {
                let batch = conformance::deliveries(&format!("f{caller}"), 1 + caller % 3);
                let ids: Vec<_> = batch.iter().map(|one| one.id).collect();
                book.lock().unwrap().sent.extend(&ids);
                match queue.enqueue(batch).await {
                    Ok(()) => book.lock().unwrap().accepted.extend(&ids),
                    // The pause of whoever was refused.
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
            }
        });
    }
    let deliver = |queue: Arc<JetStreamQueue>, book: Arc<Mutex<Book>>| async move {
        let few = Permits {
            free: 16,
            total: 32,
        };
        loop {
            let leased = queue.lease(few).await.unwrap();
            if leased.is_empty() {
                queue.ready().await;
            }
            let settling = leased.iter().map(|leased| {
                *book
                    .lock()
                    .unwrap()
                    .delivered
                    .entry(leased.lease.id)
                    .or_default() += 1;
                queue.settle(&leased.lease, Outcome::Delivered)
            });
            futures_util::future::join_all(settling).await;
        }
    };
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(deliver(Arc::clone(&queue), Arc::clone(&book)));
    for round in 1..=3 {
        let enough = 300 * round;
        until("some were accepted", async || {
            book.lock().unwrap().accepted.len() >= enough
        })
        .await;
        nats.kill();
        // For longer than a session lasts, in one of the rounds.
        sleep(Duration::from_millis(500 * round as u64)).await;
        nats.run();
    }
    until("more were accepted after the last restart", async || {
        book.lock().unwrap().accepted.len() >= 1_200
    })
    .await;
    stop.cancel();
    callers.join_all().await;
    until("all accepted came", async || {
        let book = book.lock().unwrap();
        book.accepted
            .iter()
            .all(|id| book.delivered.contains_key(id))
    })
    .await;
    until("nothing is left", async || {
        queue.stats() == Stats::default()
    })
    .await;
    let book = book.lock().unwrap();
    let never_sent = book.delivered.keys().find(|id| !book.sent.contains(*id));
    assert_eq!(never_sent, None);
    let (accepted, twice) = (
        book.accepted.len(),
        book.delivered.values().filter(|times| **times > 1).count(),
    );
    println!(
        "accepted {accepted}, delivered {}, of them more than once {twice}",
        book.delivered.len()
    );
}

/// A queue opens without NATS, refuses within its time and says what to do, and works when NATS is there.
#[tokio::test]
async fn a_queue_waits_for_nats() {
    let mut nats = Nats::down("");
    let queue = open(options(&nats.url(), "c")).await;
    let began = Instant::now();
    let refused = queue.enqueue(conformance::deliveries("f", 1)).await;
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    let Err(Error::Unavailable(why)) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        why.contains(&nats.url()) && why.contains("queue.jetstream.servers"),
        "{why}"
    );
    assert_eq!(queue.stats(), Stats::default());
    nats.run();
    until("it takes events", async || {
        queue.enqueue(conformance::deliveries("f", 1)).await.is_ok()
    })
    .await;
    let leased = next(&queue).await.remove(0);
    queue
        .settle(&leased.lease, Outcome::Delivered)
        .await
        .unwrap();
}

/// What ended while NATS was away is told when it is back.
#[tokio::test]
async fn an_end_during_an_outage_is_told_afterwards() {
    let mut nats = Nats::start().await;
    let queue = open(patient(options(&nats.url(), "c"))).await;
    queue
        .enqueue(conformance::deliveries("f", 2))
        .await
        .unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    nats.kill();
    for leased in &leased {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    nats.run();
    nats.ready().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    until("nothing is left in NATS", async || {
        let subject = "$JS.API.STREAM.INFO.hearth-c-held";
        let info = client.request(subject, "".into()).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        info["state"]["messages"] == 0
    })
    .await;
}

#[tokio::test]
async fn what_has_no_room_in_nats_is_refused() {
    let nats = Nats::start().await;
    let mut few = patient(options(&nats.url(), "c"));
    few.settings.len_max = 2;
    let queue = open(few).await;
    let batch = || conformance::deliveries("f", 3);
    queue.enqueue(batch()).await.unwrap();
    queue.enqueue(batch()).await.unwrap();
    let before = queue.stats();
    let refused = queue.enqueue(batch()).await;
    let Err(Error::Full(Bound::Storage(why))) = refused else {
        panic!("{refused:?}");
    };
    assert!(
        why.contains("queue.jetstream.len_max") && why.contains("hearth-c-held"),
        "{why}"
    );
    assert_eq!(queue.stats(), before);
    // What waits is told of although there is no room: part of a record, and then the end of it.
    for leased in queue.lease(MANY).await.unwrap().iter().take(4) {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    queue.enqueue(batch()).await.unwrap();
    let mut large = batch().remove(0);
    large.event = vec![0; 1 << 20].into();
    let refused = queue.enqueue(vec![Delivery { ..large }]).await;
    assert!(
        matches!(
            refused,
            Err(Error::TooLarge { .. } | Error::Full(Bound::Bytes(_)))
        ),
        "{refused:?}"
    );
}

/// A server that is killed forgets deletes of a moment before. What ended is not delivered again for that.
#[tokio::test]
async fn what_a_killed_server_brings_back_is_not_delivered_again() {
    let mut nats = Nats::start().await;
    let queue = open(patient(options(&nats.url(), "c"))).await;
    for function in ["one", "three"] {
        let count = if function == "one" { 1 } else { 3 };
        for _ in 0..20 {
            let batch = conformance::deliveries(function, count);
            queue.enqueue(batch).await.unwrap();
        }
    }
    let mut ended = 0;
    while ended < 80 {
        for leased in next(&queue).await {
            queue
                .settle(&leased.lease, Outcome::Delivered)
                .await
                .unwrap();
            ended += 1;
        }
    }
    nats.kill();
    nats.run();
    nats.ready().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    until(
        "nothing is left in NATS, and nothing of it runs",
        async || {
            assert_eq!(queue.lease(MANY).await.unwrap().len(), 0);
            let info = client.request("$JS.API.STREAM.INFO.hearth-c-held", "".into());
            let info = info.await.unwrap().payload;
            let info: serde_json::Value = serde_json::from_slice(&info).unwrap();
            info["state"]["messages"] == 0
        },
    )
    .await;
    assert_eq!(queue.stats(), Stats::default());
}
