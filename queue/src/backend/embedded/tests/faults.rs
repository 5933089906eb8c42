//! Disks that say no, for a while.

use super::*;

fn unavailable(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Unavailable(_)))
}

/// What finds no room is refused, for good; what is there is delivered meanwhile; and when there is room all goes on.
async fn an_outage(fault: Fault) {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let sent = conformance::deliveries("f", 10);
    queue.enqueue(sent.clone()).await.unwrap();
    disk.set_fault(Some(fault));
    let refused = queue.enqueue(conformance::deliveries("refused", 3)).await;
    assert!(unavailable(&refused), "{refused:?}");
    assert_eq!(queue.stats().waiting, 10, "its room is free again");
    let leased = queue.lease(MANY).await.unwrap();
    assert_eq!(leased.len(), 10);
    for leased in &leased[..4] {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    queue.settle(&leased[4].lease, dead_letter()).await.unwrap();
    let dead = queue.dead_letters(0, 10).await.unwrap();
    assert_eq!(dead.len(), 1, "it can be looked at before it is on disk");
    assert!(queue.cancel(sent[5].id).await.is_err(), "it may come back");
    let refused = queue.enqueue(conformance::deliveries("refused", 1)).await;
    assert!(unavailable(&refused), "{refused:?}");
    // Killed now, it makes more deliveries than it must, and none that it refused.
    let killed = disk.after_kill();
    let found = waiting(&open(&killed)).await;
    assert!(found.is_subset(&names(&sent)), "{found:?}");
    disk.set_fault(None);
    let later = conformance::deliveries("later", 1);
    enqueue_at_last(&queue, &later).await;
    assert_eq!(waiting(&queue).await, names(&later));
    drop(queue);
    // What happened while nothing could be written is not forgotten.
    for disk in [disk.after_kill(), disk.after_crash(1)] {
        let queue = open(&disk);
        assert_eq!(queue.stats().dead, 1);
        let mut left = names(&sent[6..]);
        left.extend(names(&later));
        assert_eq!(waiting(&queue).await, left);
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    an_outage(Fault::Full).await;
}

#[tokio::test]
async fn a_disk_that_does_not_sync_refuses_and_recovers() {
    an_outage(Fault::NoSync).await;
}

/// A disk that the queue itself filled: what it holds is delivered, and that makes room.
#[tokio::test]
async fn a_queue_that_filled_its_disk_comes_out_of_it() {
    let disk = SimDisk::default();
    disk.set_capacity((1 << 20) + 30_000);
    let mut queue = open(&disk);
    let mut taken = BTreeSet::new();
    for round in 0..3 {
        let refused = loop {
            let mut sent = conformance::deliveries("f", 3);
            for delivery in &mut sent {
                delivery.event = Bytes::from(vec![b'x'; 500]);
            }
            match queue.enqueue(sent.clone()).await {
                Ok(()) => taken.extend(names(&sent)),
                error => break error,
            }
        };
        assert!(unavailable(&refused), "{refused:?}");
        assert!(taken.len() > 20, "{}", taken.len());
        if round == 1 {
            drop(queue);
            queue = open(&disk);
        }
        for leased in queue.lease(MANY).await.unwrap() {
            assert!(
                taken.remove(&leased.lease.id),
                "it was refused, or has ended"
            );
            queue
                .settle(&leased.lease, Outcome::Delivered)
                .await
                .unwrap();
        }
        assert!(taken.is_empty(), "{taken:?}");
        let first = conformance::deliveries("f", 1);
        enqueue_at_last(&queue, &first).await;
        taken.extend(names(&first));
    }
}

/// A start on a full disk is a start: what is there is delivered, and nothing else is taken.
#[tokio::test]
async fn a_full_disk_does_not_keep_a_node_from_starting() {
    let disk = SimDisk::default();
    let sent = conformance::deliveries("f", 3);
    open(&disk).enqueue(sent.clone()).await.unwrap();
    disk.forget_reserve();
    disk.set_capacity(2_000);
    let queue = open(&disk);
    let refused = queue.enqueue(conformance::deliveries("f", 1)).await;
    assert!(unavailable(&refused), "{refused:?}");
    for leased in queue.lease(MANY).await.unwrap() {
        queue
            .settle(&leased.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    drop(queue);
    assert_eq!(open(&disk).stats(), Stats::default());
    disk.set_capacity(10_000_000);
    enqueue_at_last(&open(&disk), &sent).await;
}

/// What no queue would take is told apart from what does not fit now.
#[tokio::test]
async fn a_batch_has_its_bound() {
    let queue = open(&SimDisk::default());
    let mut sent = conformance::deliveries("f", 1);
    sent[0].event = Bytes::from(vec![0; BATCH_BYTES_MAX]);
    let refused = queue.enqueue(sent).await.unwrap_err();
    assert!(matches!(refused, Error::TooLarge { max, .. } if max == BATCH_BYTES_MAX));
    assert_eq!(refused.code(), ErrorCode::PayloadTooLarge);
    assert_eq!(queue.stats(), Stats::default());
}

/// Whatever operation fails, once: it costs one answer at most, and no delivery.
#[tokio::test]
async fn any_operation_may_fail() {
    let mut failures = 0;
    for at in 1.. {
        let disk = SimDisk::default();
        let queue = open(&disk);
        let fails_at = disk.operations() + at;
        disk.set_fault(Some(Fault::FailAt(fails_at)));
        let (mut taken, mut delivered) = (BTreeSet::new(), BTreeSet::new());
        let mut refused = 0;
        for round in 0..12 {
            let sent = conformance::deliveries(&format!("f{round}"), 3);
            match queue.enqueue(sent.clone()).await {
                Ok(()) => taken.extend(names(&sent)),
                Err(Error::Unavailable(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            let few = Permits { free: 2, total: 2 };
            for leased in queue.lease(few).await.unwrap() {
                assert!(taken.remove(&leased.lease.id), "it was refused");
                delivered.insert(leased.lease.id);
                queue
                    .settle(&leased.lease, Outcome::Delivered)
                    .await
                    .unwrap();
            }
        }
        let has_failed = disk.operations() >= fails_at;
        drop(queue);
        assert!(refused <= 1, "operation {at}: {refused}");
        for disk in [disk.after_kill(), disk.after_crash(at)] {
            let mut found = waiting(&open(&disk)).await;
            if !has_failed {
                // It is the end of the queue that fails: what was delivered last may be delivered once more.
                found.retain(|id| !delivered.contains(id));
            }
            assert_eq!(found, taken, "operation {at}");
        }
        failures += refused;
        if disk.operations() < fails_at {
            break;
        }
    }
    assert!(failures > 10, "{failures}");
}

/// A delivery that can not be read is left alone, and keeps nobody else.
#[tokio::test]
async fn what_can_not_be_read_keeps_nobody() {
    let disk = SimDisk::default();
    let queue = EmbeddedQueue::open_on(
        Arc::new(disk.clone()),
        Options {
            cache_bytes: 0,
            ..Options::for_tests()
        },
        Meters::none(),
    )
    .unwrap();
    let (bad, good) = (
        conformance::deliveries("bad", 1),
        conformance::deliveries("good", 1),
    );
    queue.enqueue(bad.clone()).await.unwrap();
    let name = disk.segments().remove(0);
    let mut bytes = disk.content(&name);
    bytes[60] ^= 1;
    disk.replace(&name, bytes);
    queue.enqueue(good.clone()).await.unwrap();
    assert_eq!(waiting(&queue).await, names(&good));
    assert_eq!((queue.stats().waiting, queue.stats().leased), (1, 1));
}
