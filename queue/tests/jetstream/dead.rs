//! How many dead letters are kept: the latest, and what is dropped is counted.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use metrics::Counter;
use queue::backend::conformance;
use queue::backend::jetstream::{Meters, Options};
use queue::{DeliveryId, JetStreamQueue, Queue};

use super::nodes::dead_letter;
use super::server::Nats;
use super::{Unknown, next, options_of, patient, until};

/// Makes so many dead letters, one after the other; their names in that order.
async fn bury(queue: &JetStreamQueue, count: usize) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    for _ in 0..count {
        queue
            .enqueue(conformance::deliveries("f", 1))
            .await
            .unwrap();
        for leased in next(queue).await {
            queue.settle(&leased.lease, dead_letter()).await.unwrap();
            ids.push(leased.lease.id);
        }
    }
    ids
}

async fn listed(queue: &JetStreamQueue) -> Vec<DeliveryId> {
    let letters = queue.dead_letters(0, 1_000).await.unwrap();
    letters.iter().map(|letter| letter.delivery.id).collect()
}

/// Opens a queue that counts what it drops there.
async fn counting(options: Options, dropped: &Arc<AtomicU64>) -> JetStreamQueue {
    let meters = Meters {
        dropped: Counter::from_arc(Arc::clone(dropped)),
        ..Meters::none()
    };
    let opened = JetStreamQueue::open(options, Arc::new(Unknown), meters).await;
    opened.unwrap()
}

#[tokio::test]
async fn the_oldest_are_dropped_and_counted() {
    for (len_max, bytes_max, age_max, kept) in [
        (3, 1 << 30, 3_600_000, 3..=3),
        (1_000, 3_000, 3_600_000, 3..=8),
        (1_000, 1 << 30, 1, 0..=0),
    ] {
        let nats = Nats::start().await;
        let dropped = Arc::new(AtomicU64::new(0));
        let options = |node| {
            let mut options = patient(options_of(node, &nats.url(), "c"));
            options.dead_len_max = len_max;
            options.dead_bytes_max = bytes_max;
            options.dead_age_max = Duration::from_millis(age_max);
            options.settings.sweep_interval = Duration::from_millis(200);
            options
        };
        let one = counting(options("a"), &dropped).await;
        let other = counting(options("b"), &dropped).await;
        let ids = bury(&one, 20).await;
        until(
            "the latest are kept, and each other one is counted",
            async || {
                let (left, dropped) = (listed(&other).await, dropped.load(Ordering::Relaxed));
                kept.contains(&left.len())
                    && left == ids[ids.len() - left.len()..]
                    && u64::try_from(ids.len() - left.len()).unwrap() == dropped
                    && [&one, &other]
                        .iter()
                        .all(|queue| queue.stats().dead == left.len())
            },
        )
        .await;
    }
}

/// However quickly they come, none is gone without being counted: what has no room waits until there is some.
#[tokio::test]
async fn a_flood_of_dead_letters_is_counted_to_the_last() {
    let nats = Nats::start().await;
    let dropped = Arc::new(AtomicU64::new(0));
    let mut options = patient(options_of("a", &nats.url(), "c"));
    options.dead_len_max = 5;
    let queue = counting(options, &dropped).await;
    let sent = conformance::deliveries("f", 60);
    queue.enqueue(sent.clone()).await.unwrap();
    let mut leased = Vec::new();
    while leased.len() < sent.len() {
        leased.extend(next(&queue).await);
    }
    let settled = leased
        .iter()
        .map(|leased| queue.settle(&leased.lease, dead_letter()));
    join_all(settled).await.into_iter().for_each(Result::unwrap);
    until("five are left, and all others are counted", async || {
        listed(&queue).await.len() == 5 && dropped.load(Ordering::Relaxed) == 55
    })
    .await;
    let sent: BTreeSet<_> = sent.iter().map(|delivery| delivery.id).collect();
    assert!(listed(&queue).await.iter().all(|id| sent.contains(id)));
    assert_eq!(queue.stats().waiting + queue.stats().leased, 0);
}
