//! A hundred thousand deliveries that wait.

use std::collections::BTreeMap;

use super::*;

const DELIVERIES: u32 = 100_000;
const FUNCTIONS: u32 = 10;
const BATCH: u32 = 250;

/// They take little memory, survive a restart, and are delivered in turn between functions.
#[tokio::test]
async fn a_backlog_is_cheap_and_drained_fairly() {
    let directory = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options {
            segment_bytes: 16 << 20,
            cache_bytes: 1 << 20,
            ..Options::for_tests()
        };
        EmbeddedQueue::open(directory.path(), options, Meters::none()).unwrap()
    };
    let queue = open();
    for batch in 0..DELIVERIES / BATCH {
        // The first function has half of all.
        let function = match batch % 2 {
            0 => 0,
            _ => 1 + (batch / 2) % (FUNCTIONS - 1),
        };
        let sent = conformance::deliveries(&format!("f{function}"), BATCH);
        queue.enqueue(sent).await.unwrap();
    }
    assert_memory_is_small(&queue);
    drop(queue);
    let queue = open();
    assert_eq!(queue.stats().waiting, DELIVERIES as usize);
    assert_memory_is_small(&queue);
    let permits = Permits {
        free: 100,
        total: 100,
    };
    let mut served: BTreeMap<String, u32> = BTreeMap::new();
    let mut all = 0;
    while queue.stats().waiting > 0 {
        let leased = queue.lease(permits).await.unwrap();
        if leased.is_empty() {
            // The disk is behind: nothing is leased until it has caught up.
            let caught_up = tokio::time::timeout(Duration::from_secs(60), queue.ready());
            caught_up.await.expect("the writer writes");
            continue;
        }
        for leased in leased {
            let function = leased.delivery.function_id.to_string();
            *served.entry(function).or_default() += 1;
            queue
                .settle(&leased.lease, Outcome::Delivered)
                .await
                .unwrap();
            all += 1;
        }
        if all <= 20_000 {
            // As long as each has a backlog, none is served more than its turns.
            let most = served.values().max().unwrap();
            let least = served.values().min().unwrap();
            assert_eq!(served.len(), FUNCTIONS as usize);
            assert!(most - least <= 25, "{served:?}");
        }
    }
    assert_eq!(all, DELIVERIES);
    assert_eq!(queue.stats(), Stats::default());
    let left = queue.shared.index().turns.memory_bytes();
    assert!(left < 500_000, "{left} bytes for nothing");
    drop(queue);
    assert_eq!(open().stats(), Stats::default());
}

fn assert_memory_is_small(queue: &EmbeddedQueue) {
    let index = queue.shared.index();
    let bytes = index.turns.memory_bytes() / DELIVERIES as usize;
    assert!(bytes < 300, "{bytes} bytes for each delivery");
}
