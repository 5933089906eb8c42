//! Dead letters.

use super::*;

/// With their reason and last answer, in pages, until they are purged.
pub(super) async fn are_kept(queue: &dyn Queue) {
    if queue.promise() == Promise::AtMostOnce {
        assert!(queue.dead_letters(0, 10).await.unwrap().is_empty());
        return;
    }
    let sent = deliveries("f", 5);
    queue.enqueue(sent.clone()).await.unwrap();
    for leased in queue.lease(MANY).await.unwrap() {
        queue.settle(&leased.lease, dead_letter()).await.unwrap();
    }
    assert_eq!(queue.stats(), kept(queue, 5));
    let mut all = Vec::new();
    let mut last = 0;
    loop {
        let page = queue.dead_letters(last, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(dead) = page.last() else { break };
        last = dead.position;
        all.extend(page);
    }
    let ids = |delivery: &Delivery| delivery.id;
    let found: Vec<_> = all.iter().map(|dead| dead.delivery.id).collect();
    assert_eq!(found, sent.iter().map(ids).collect::<Vec<_>>());
    let dead = queue.dead_letter(sent[3].id).await.unwrap().unwrap();
    assert_eq!(dead.delivery.event, sent[3].event);
    assert_eq!(dead.delivery.ordinal, 3);
    assert_eq!(dead.reason, failure());
    assert_eq!(dead.answer, Bytes::from_static(b"the answer"));
    assert_eq!(dead.attempts, 1);
    assert!(dead.died_at.elapsed().unwrap() < PATIENCE);
    assert_eq!(queue.purge(sent[3].id).await, Ok(true));
    assert_eq!(queue.purge(sent[3].id).await, Ok(false));
    assert!(queue.dead_letter(sent[3].id).await.unwrap().is_none());
    assert_eq!(queue.cancel(sent[2].id).await, Ok(false), "it is over");
    assert_eq!(queue.stats(), kept(queue, 4));
    assert!(queue.lease(MANY).await.unwrap().is_empty());
}

/// It waits as if it were new, and ends as any other.
pub(super) async fn what_is_redriven_begins_anew(queue: &dyn Queue) {
    let sent = deliveries("f", 1);
    let id = sent[0].id;
    assert_eq!(queue.redrive(id).await, Ok(false));
    if queue.promise() == Promise::AtMostOnce {
        return;
    }
    queue.enqueue(sent).await.unwrap();
    assert_eq!(queue.redrive(id).await, Ok(false), "it waits");
    let first = next(queue).await.remove(0).lease;
    assert_eq!(queue.redrive(id).await, Ok(false), "it runs");
    queue.settle(&first, dead_letter()).await.unwrap();
    sleep(Duration::from_millis(20)).await;
    let redriven = Instant::now();
    assert_eq!(queue.redrive(id).await, Ok(true));
    assert_eq!(queue.redrive(id).await, Ok(false));
    assert_eq!(queue.stats().dead, 0);
    let again = next(queue).await.remove(0);
    assert_eq!((again.lease.id, again.attempts), (id, 0));
    assert!(again.age <= redriven.elapsed() + Duration::from_millis(5));
    assert!(again.lease.epoch > first.epoch);
    lost(queue, &first, Outcome::Delivered).await;
    queue
        .settle(&again.lease, Outcome::Delivered)
        .await
        .unwrap();
    assert_eq!(queue.stats(), Stats::default());
}
