use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure};

use super::*;
use crate::backend::conformance;

mod backlog;
mod books;
mod crash;
mod damage;
mod faults;
mod kill;
mod sim;
mod space;

use sim::{Fault, SimDisk};

fn open(disk: &SimDisk) -> EmbeddedQueue {
    try_open(disk).unwrap_or_else(|error| panic!("{error}"))
}

fn try_open(disk: &SimDisk) -> Result<EmbeddedQueue, OpenError> {
    EmbeddedQueue::open_on(Arc::new(disk.clone()), Options::for_tests(), Meters::none())
}

const MANY: Permits = Permits {
    free: 1_000_000,
    total: 1_000_000,
};

fn dead_letter() -> Outcome {
    Outcome::DeadLetter {
        reason: Failure::new(
            ErrorCode::FunctionFailed,
            Component::Function,
            Effect::Finished,
            "status 500",
        ),
        answer: Bytes::from_static(b"no"),
    }
}

/// The names of all that can be leased.
async fn waiting(queue: &EmbeddedQueue) -> BTreeSet<DeliveryId> {
    let leased = queue.lease(MANY).await.unwrap();
    leased.iter().map(|leased| leased.lease.id).collect()
}

fn names(deliveries: &[Delivery]) -> BTreeSet<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

/// Enqueues when there is room again: within a second or so.
async fn enqueue_at_last(queue: &EmbeddedQueue, deliveries: &[Delivery]) {
    let enqueued = async {
        while queue.enqueue(deliveries.to_vec()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), enqueued)
        .await
        .expect("there is room again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let directory = tempfile::tempdir().unwrap();
    let mut count = 0;
    conformance::all(|limits| {
        count += 1;
        let path = directory.path().join(count.to_string());
        async move { on_files(&path, limits) }
    })
    .await;
}

fn on_files(path: &Path, limits: Limits) -> EmbeddedQueue {
    let options = Options {
        limits,
        ..Options::for_tests()
    };
    EmbeddedQueue::open(path, options, Meters::none()).unwrap()
}

#[tokio::test]
async fn a_second_process_is_kept_out() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue");
    let first = on_files(&path, Options::for_tests().limits);
    let second = EmbeddedQueue::open(&path, Options::for_tests(), Meters::none());
    assert!(matches!(second, Err(OpenError::InUse(found)) if found == path));
    first
        .enqueue(conformance::deliveries("f", 1))
        .await
        .unwrap();
    drop(first);
    assert_eq!(
        on_files(&path, Options::for_tests().limits).stats().waiting,
        1
    );
}

/// After a kill all is as it was, but for leases: what was leased waits again, its attempts counted.
#[tokio::test]
async fn a_restart_forgets_nothing() {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let sent = conformance::deliveries("f", 6);
    queue.enqueue(sent.clone()).await.unwrap();
    let late = Delivery {
        not_before: Some(SystemTime::now() + Duration::from_secs(600)),
        ..conformance::deliveries("late", 1).remove(0)
    };
    queue.enqueue(vec![late.clone()]).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    let again = |seconds| Outcome::Again {
        after: Duration::from_secs(seconds),
        counts: true,
    };
    let outcomes = [
        Some(Outcome::Delivered),
        Some(dead_letter()),
        Some(again(600)),
        Some(again(0)),
        None,
    ];
    for (leased, outcome) in leased.iter().zip(outcomes) {
        if let Some(outcome) = outcome {
            queue.settle(&leased.lease, outcome).await.unwrap();
        }
    }
    assert_eq!(queue.cancel(sent[5].id).await, Ok(true));
    drop(queue);
    let queue = open(&disk.after_kill());
    let stats = queue.stats();
    assert_eq!((stats.waiting, stats.leased, stats.dead), (4, 0, 1));
    let found = queue.lease(MANY).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|leased| (leased.lease.id, leased.attempts))
        .collect();
    assert_eq!(found, [(sent[3].id, 1), (sent[4].id, 1)]);
    for old in &leased {
        assert!(queue.settle(&old.lease, Outcome::Delivered).await.is_err());
    }
    let dead = queue.dead_letters(0, 10).await.unwrap();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].delivery.id, dead[0].attempts), (sent[1].id, 1));
    assert_eq!(dead[0].delivery.event, sent[1].event);
    assert_eq!(queue.redrive(sent[1].id).await, Ok(true));
    assert_eq!(waiting(&queue).await, BTreeSet::from([sent[1].id]));
    // What waits for its time can still be told apart from what is gone.
    assert_eq!(queue.cancel(late.id).await, Ok(true));
    assert_eq!(queue.cancel(sent[2].id).await, Ok(true));
    assert_eq!(queue.cancel(sent[0].id).await, Ok(false));
}

/// Whoever comes while the disk is busy shares the next sync.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_a_sync() {
    let disk = SimDisk::default();
    let queue = Arc::new(open(&disk));
    let before = disk.syncs();
    disk.hold_syncs(true);
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..64 {
        let queue = Arc::clone(&queue);
        let deliveries = conformance::deliveries(&format!("f{caller}"), 1);
        callers.spawn(async move { queue.enqueue(deliveries).await });
    }
    // They have their room as soon as they are on their way.
    while queue.stats().waiting < 64 {
        tokio::task::yield_now().await;
    }
    assert!(
        queue.lease(MANY).await.unwrap().is_empty(),
        "none is on disk"
    );
    disk.hold_syncs(false);
    while let Some(enqueued) = callers.join_next().await {
        assert_eq!(enqueued.unwrap(), Ok(()));
    }
    // The first one, those that came meanwhile, and what a new segment needs.
    let syncs = disk.syncs() - before;
    assert!(
        syncs <= 2 + 2 * disk.segments().len() as u64,
        "{syncs} syncs"
    );
    assert_eq!(waiting(&queue).await.len(), 64);
}

/// The deliveries of an event have it once on disk.
#[tokio::test]
async fn an_event_is_written_once() {
    let disk = SimDisk::default();
    let queue = open(&disk);
    let event = Bytes::from(vec![b'x'; 50_000]);
    let mut sent = conformance::deliveries("f", 20);
    for delivery in &mut sent {
        delivery.event = event.clone();
    }
    queue.enqueue(sent.clone()).await.unwrap();
    drop(queue);
    let bytes: usize = disk
        .segments()
        .iter()
        .map(|name| disk.content(name).len())
        .sum();
    assert!(bytes < 60_000, "{bytes}");
    let queue = open(&disk.after_kill());
    for leased in queue.lease(MANY).await.unwrap() {
        assert_eq!(leased.delivery.event, event);
    }
}
