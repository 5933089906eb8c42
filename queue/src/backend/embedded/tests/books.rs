//! What the books say, and what an audit finds when something is not where it should be.

use std::fs;

use super::*;

async fn drift(queue: &EmbeddedQueue) -> i64 {
    queue.audit().await.unwrap().drift()
}

async fn count(queue: &EmbeddedQueue, change: Change) -> u64 {
    queue.audit().await.unwrap().books.count(change)
}

#[tokio::test]
async fn each_end_is_written_down_as_what_it_is() {
    let disk = SimDisk::default();
    let queue = open(&disk);
    queue
        .enqueue(conformance::deliveries("f", 7))
        .await
        .unwrap();
    let again = Outcome::Again {
        after: Duration::ZERO,
        counts: true,
    };
    let outcomes = [
        (Outcome::Delivered, Change::Delivered),
        (Outcome::Void, Change::Void),
        (Outcome::Failed, Change::Failed),
        (dead_letter(), Change::DeadLettered),
        (again, Change::Retried),
    ];
    let leased = queue.lease(MANY).await.unwrap();
    for (leased, (outcome, change)) in leased.iter().zip(outcomes) {
        queue.settle(&leased.lease, outcome).await.unwrap();
        assert_eq!(count(&queue, change).await, 1, "{change:?}");
        assert_eq!(drift(&queue).await, 0, "{change:?}");
    }
    let died = queue.dead_letters(0, 1).await.unwrap().remove(0);
    assert!(queue.redrive(died.delivery.id).await.unwrap());
    assert!(queue.cancel(leased[5].lease.id).await.unwrap());
    let audit = queue.audit().await.unwrap();
    let said = "accepted 7, redriven 1, retried 1, delivered 1, dead_lettered 1, failed 1, void 1, cancelled 1";
    assert_eq!(audit.books.to_string(), said);
    assert_eq!((audit.held, audit.drift()), (3, 0));
    drop(queue);
    let audit = open(&disk).audit().await.unwrap();
    assert_eq!(audit.books.to_string(), "found 3");
    assert_eq!((audit.held, audit.drift()), (3, 0));
}

/// What a bug would do: the delivery is gone, and nobody wrote that down.
#[tokio::test]
async fn what_is_forgotten_in_memory_is_missed() {
    let queue = open(&SimDisk::default());
    let sent = conformance::deliveries("f", 3);
    queue.enqueue(sent.clone()).await.unwrap();
    assert_eq!(drift(&queue).await, 0);
    {
        let mut index = queue.shared.index();
        index.turns.interrupt(sent[0].id);
    }
    // It is there, and will never have its turn.
    assert_eq!(drift(&queue).await, 1);
    queue.shared.index().remove(sent[0].id);
    assert_eq!(drift(&queue).await, 1);
    assert_eq!(waiting(&queue).await.len(), 2);
    assert_eq!(drift(&queue).await, 1);
}

#[tokio::test]
async fn what_is_gone_from_the_disk_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let queue = on_files(directory.path(), Options::for_tests().limits);
    for _ in 0..40 {
        let batch = conformance::deliveries("f", 1);
        queue.enqueue(batch).await.unwrap();
    }
    assert_eq!(drift(&queue).await, 0);
    let first = directory.path().join(segment::file_name(1));
    let bytes = fs::read(&first).unwrap();
    fs::write(&first, &bytes[..bytes.len() / 2]).unwrap();
    let cut = drift(&queue).await;
    assert!((1..40).contains(&cut), "{cut} in one of several files");
    fs::remove_file(&first).unwrap();
    assert_eq!(drift(&queue).await, cut);
    fs::write(&first, &bytes).unwrap();
    assert_eq!(drift(&queue).await, 0);
}
