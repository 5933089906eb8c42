//! What ended gives its room back, and what did not is kept.

use super::*;
use crate::backend::embedded::segment;

async fn deliver_all(queue: &EmbeddedQueue) {
    for leased in queue.lease(MANY).await.unwrap() {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
}

fn bytes(disk: &SimDisk) -> usize {
    let names = disk.segments().into_iter();
    names.map(|name| disk.content(&name).len()).sum()
}

fn large(function: &str, count: u32) -> Vec<Delivery> {
    let mut sent = conformance::deliveries(function, count);
    for delivery in &mut sent {
        delivery.event = Bytes::from(vec![b'x'; 700]);
    }
    sent
}

/// A few that wait for long, and dead letters, do not keep the files of all that came after them.
#[tokio::test]
async fn segments_are_released_and_what_lives_is_kept() {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let mut kept = large("late", 3);
    for late in &mut kept {
        late.not_before = Some(SystemTime::now() + Duration::from_secs(600));
    }
    queue.enqueue(kept.clone()).await.unwrap();
    let died = large("dies", 2);
    queue.enqueue(died.clone()).await.unwrap();
    for leased in queue.lease(MANY).await.unwrap() {
        queue.settle(&leased.lease, dead_letter()).await.unwrap();
    }
    let tried = large("tried", 1);
    queue.enqueue(tried.clone()).await.unwrap();
    let after = Duration::from_secs(600);
    for leased in queue.lease(MANY).await.unwrap() {
        let again = Outcome::Again {
            after,
            counts: true,
        };
        queue.settle(&leased.lease, again).await.unwrap();
    }
    for _ in 0..300 {
        queue.enqueue(large("f", 2)).await.unwrap();
        deliver_all(&queue).await;
    }
    drop(queue);
    assert!(bytes(&disk) < 40_000, "{} of 400,000", bytes(&disk));
    let first = disk.segments().remove(0);
    assert!(segment::number(&first) > Some(50), "{first}");
    for disk in [disk.after_kill(), disk.after_crash(7)] {
        let queue = open(&disk);
        assert_eq!((queue.stats().waiting, queue.stats().dead), (4, 2));
        assert!(queue.lease(MANY).await.unwrap().is_empty());
        let dead = queue.dead_letters(0, 10).await.unwrap();
        assert_eq!(dead.len(), 2);
        for (dead, sent) in dead.iter().zip(&died) {
            assert_eq!((dead.delivery.id, dead.attempts), (sent.id, 1));
            assert_eq!(dead.delivery.event, sent.event);
            assert_eq!(dead.answer, Bytes::from_static(b"no"));
        }
        for kept in kept.iter().chain(&tried) {
            assert_eq!(queue.cancel(kept.id).await, Ok(true));
        }
    }
}

/// A subscriber that is late keeps the event, once, not its neighbours.
#[tokio::test]
async fn one_of_many_deliveries_is_kept_whole() {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let event = Bytes::from(vec![b'e'; 2_000]);
    let mut batch = conformance::deliveries("f", 10);
    for delivery in &mut batch {
        delivery.event = event.clone();
    }
    batch[7].not_before = Some(SystemTime::now() + Duration::from_secs(600));
    queue.enqueue(batch.clone()).await.unwrap();
    deliver_all(&queue).await;
    for _ in 0..50 {
        queue.enqueue(large("f", 2)).await.unwrap();
        deliver_all(&queue).await;
    }
    drop(queue);
    assert!(bytes(&disk) < 30_000, "{}", bytes(&disk));
    let queue = open(&disk);
    assert_eq!(queue.stats().waiting, 1);
    assert_eq!(queue.cancel(batch[7].id).await, Ok(true));
}

#[tokio::test]
async fn a_bound_on_the_disk_holds() {
    let disk = SimDisk::default();
    let options = Options {
        disk_bytes_max: 20_000,
        ..Options::for_tests()
    };
    let queue = EmbeddedQueue::open_on(Arc::new(disk.clone()), options, Meters::none()).unwrap();
    let mut taken = 0;
    let full = loop {
        match queue.enqueue(large("f", 1)).await {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(full, Error::Full(Bound::Disk(20_000)));
    assert_eq!(queue.stats().waiting, taken);
    assert!(bytes(&disk) <= 20_100, "{}", bytes(&disk));
    deliver_all(&queue).await;
    // The files go as soon as the ends are on disk.
    for _ in 0..taken - 5 {
        enqueue_at_last(&queue, &large("f", 1)).await;
    }
}

/// The newest are kept, up to their number, their bytes and their age.
#[tokio::test]
async fn dead_letters_have_their_bounds() {
    let few = |len_max, bytes_max, age_max| Options {
        dead_len_max: len_max,
        dead_bytes_max: bytes_max,
        dead_age_max: age_max,
        ..Options::for_tests()
    };
    let hour = Duration::from_secs(3_600);
    for (options, kept) in [
        (few(3, 1 << 20, hour), 3),
        // Each counts for its event, its reason and some more.
        (few(100, 2_500, hour), 2),
        (few(100, 1 << 20, Duration::ZERO), 0),
    ] {
        let disk = SimDisk::default();
        let open = || EmbeddedQueue::open_on(Arc::new(disk.clone()), options, Meters::none());
        let queue = open().unwrap();
        let sent = large("f", 10);
        queue.enqueue(sent.clone()).await.unwrap();
        for leased in queue.lease(MANY).await.unwrap() {
            queue.settle(&leased.lease, dead_letter()).await.unwrap();
        }
        // Whoever looks for work finds what is too old.
        let old = async {
            while queue.stats().dead > kept {
                assert!(queue.lease(MANY).await.unwrap().is_empty());
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), old)
            .await
            .unwrap();
        drop(queue);
        let queue = open().unwrap();
        let dead = queue.dead_letters(0, 100).await.unwrap();
        let found: Vec<_> = dead.iter().map(|dead| dead.delivery.id).collect();
        let newest: Vec<_> = sent[10 - kept..].iter().map(|sent| sent.id).collect();
        assert_eq!(found, newest);
    }
}
