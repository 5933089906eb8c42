//! What every queue must do, whatever keeps its deliveries: the suite that runs over all of them.

#![allow(
    clippy::unwrap_used,
    reason = "this is test code, although it is built for the tests of other crates too"
)]

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, ExecutionId, Failure, Space, SubscriptionId};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Bound, Delivery, DeliveryId, Error, Lease, Leased, Limits, Origin, Outcome, Permits, Promise,
    Queue, Stats,
};

mod dead;

/// How long something that must happen may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a lease of a queue under test lasts.
const LEASE_TIMEOUT: Duration = Duration::from_millis(500);

/// As many permits as a test needs.
const MANY: Permits = Permits {
    free: 1_000,
    total: 1_000,
};

/// Runs the whole suite, each part over a queue of its own with these limits.
///
/// # Panics
/// When the queue does not conform.
pub async fn all<Q, F>(mut make: impl FnMut(Limits) -> F)
where
    Q: Queue,
    F: Future<Output = Q>,
{
    macro_rules! check {
        ($($part:path),* $(,)?) => {$({
            let queue = make(limits()).await;
            $part(&queue).await;
            books_balance(&queue).await;
        })*};
    }
    check!(
        leases_what_was_enqueued_once_and_in_order,
        leases_no_more_than_there_are_permits,
        serves_functions_in_turn,
        a_function_that_hangs_leaves_permits,
        a_full_queue_takes_nothing,
        an_end_is_taken_where_there_is_no_room,
        a_function_has_its_share_of_the_room,
        events_have_their_bound,
        what_is_settled_is_done_with,
        what_is_held_is_not_taken_twice,
        what_is_tried_again_comes_back_after_its_pause,
        what_waits_can_be_cancelled,
        a_lease_that_is_extended_lasts,
        a_lost_lease_settles_nothing,
        what_runs_can_be_cancelled,
        what_is_delayed_comes_no_sooner,
        dead::are_kept,
        dead::what_is_redriven_begins_anew,
        tells_when_there_is_something,
    );
    let queue = Arc::new(make(limits()).await);
    racing_leases_share_what_there_is(Arc::clone(&queue)).await;
    books_balance(&*queue).await;
}

/// The limits that the suite expects.
pub fn limits() -> Limits {
    Limits {
        len_max: 1_000,
        bytes_max: 1_000_000,
        function_share: 0.5,
        lease_timeout: LEASE_TIMEOUT,
    }
}

/// What a queue wrote down of its deliveries is what it has, whatever was done to it.
async fn books_balance(queue: &dyn Queue) {
    let audit = queue.audit().await.unwrap();
    assert_eq!(audit.drift(), 0, "{} and {} held", audit.books, audit.held);
    let stats = queue.stats();
    assert_eq!(audit.held, (stats.waiting + stats.leased) as u64);
    assert_eq!(queue.waiting_of(&Space::default_space()), stats.waiting);
}

/// Deliveries of one function.
pub fn deliveries(function: &str, count: u32) -> Vec<Delivery> {
    (0..count)
        .map(|ordinal| delivery(function, ordinal, 100))
        .collect()
}

fn delivery(function: &str, ordinal: u32, bytes: usize) -> Delivery {
    Delivery {
        id: DeliveryId::random(),
        event: Bytes::from(vec![b'x'; bytes]),
        space: Space::default_space(),
        function_id: function.parse().unwrap(),
        origin: match ordinal % 3 {
            0 => Origin::Subscription(SubscriptionId::from_url(&format!(
                "user.created,{function},%2F"
            ))),
            1 => Origin::Execution(ExecutionId::at(SystemTime::now())),
            _ => Origin::End(DeliveryId::random()),
        },
        ordinal,
        accepted_at: SystemTime::now(),
        not_before: None,
    }
}

fn failure() -> Failure {
    Failure::new(
        ErrorCode::FunctionFailed,
        Component::Function,
        Effect::Finished,
        "status 500",
    )
}

fn dead_letter() -> Outcome {
    Outcome::DeadLetter {
        reason: failure(),
        answer: Bytes::from_static(b"the answer"),
    }
}

/// How many dead letters a queue keeps of so many.
fn kept(queue: &dyn Queue, dead: usize) -> Stats {
    let dead = match queue.promise() {
        Promise::AtMostOnce => 0,
        Promise::AtLeastOnce => dead,
    };
    Stats {
        dead,
        ..Stats::default()
    }
}

/// Functions and ordinals of what was leased, in order.
fn named(leased: &[Leased]) -> Vec<(String, u32)> {
    leased
        .iter()
        .map(|leased| {
            (
                leased.delivery.function_id.to_string(),
                leased.delivery.ordinal,
            )
        })
        .collect()
}

async fn lost(queue: &dyn Queue, lease: &Lease, outcome: Outcome) {
    let settled = queue.settle(lease, outcome).await;
    assert!(
        matches!(settled, Err(Error::LeaseLost(found)) if found == *lease),
        "{settled:?}"
    );
}

/// Leases until something comes, as a loop does.
async fn next(queue: &dyn Queue) -> Vec<Leased> {
    let leased = async {
        loop {
            let leased = queue.lease(MANY).await.unwrap();
            if !leased.is_empty() {
                return leased;
            }
            queue.ready().await;
        }
    };
    timeout(PATIENCE, leased)
        .await
        .expect("there is something to lease in time")
}

/// Each delivery has one lease at a time, and those of a function come oldest first, whole.
pub async fn leases_what_was_enqueued_once_and_in_order(queue: &dyn Queue) {
    let sent = deliveries("f", 3);
    queue.enqueue(sent.clone()).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    assert_eq!(
        named(&leased),
        [("f".into(), 0), ("f".into(), 1), ("f".into(), 2)]
    );
    for (sent, leased) in sent.iter().zip(&leased) {
        let found = &leased.delivery;
        assert_eq!((found.id, leased.lease.id), (sent.id, sent.id));
        assert_eq!(found.event, sent.event);
        assert_eq!(found.space, sent.space);
        assert_eq!(found.origin, sent.origin);
        assert_eq!(leased.attempts, 0);
    }
    assert!(queue.lease(MANY).await.unwrap().is_empty());
    let stats = queue.stats();
    assert_eq!((stats.waiting, stats.waiting_bytes), (0, 0));
    assert_eq!(stats.leased, 3);
}

/// The number of leases is bounded by the caller.
pub async fn leases_no_more_than_there_are_permits(queue: &dyn Queue) {
    for function in 0..8 {
        queue
            .enqueue(deliveries(&format!("f{function}"), 1))
            .await
            .unwrap();
    }
    let permits = |free| Permits { free, total: 5 };
    assert_eq!(queue.lease(permits(0)).await.unwrap().len(), 0);
    assert_eq!(queue.lease(permits(5)).await.unwrap().len(), 5);
    assert_eq!(queue.lease(permits(1)).await.unwrap().len(), 1);
    assert_eq!(queue.stats().waiting, 2);
}

/// One with a long backlog does not make the next one wait for it.
pub async fn serves_functions_in_turn(queue: &dyn Queue) {
    queue.enqueue(deliveries("long", 4)).await.unwrap();
    queue.enqueue(deliveries("short", 1)).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    let order: Vec<_> = named(&leased)
        .into_iter()
        .map(|(function, _)| function)
        .collect();
    assert_eq!(order, ["long", "short", "long", "long", "long"]);
}

/// Whatever one function holds, the next one is served.
pub async fn a_function_that_hangs_leaves_permits(queue: &dyn Queue) {
    queue.enqueue(deliveries("hangs", 100)).await.unwrap();
    let mut permits = Permits {
        free: 20,
        total: 20,
    };
    let hanging = queue.lease(permits).await.unwrap();
    assert_eq!(hanging.len(), 5, "a quarter of the permits");
    permits.free -= hanging.len();
    assert!(queue.lease(permits).await.unwrap().is_empty());
    queue.enqueue(deliveries("healthy", 1)).await.unwrap();
    let healthy = queue.lease(permits).await.unwrap();
    assert_eq!(named(&healthy), [("healthy".into(), 0)]);
    // One that ends makes room for the next one of its function.
    queue
        .settle(&hanging[0].lease, Outcome::Delivered)
        .await
        .unwrap();
    let again = queue.lease(permits).await.unwrap();
    assert_eq!(named(&again), [("hangs".into(), 5)]);
}

/// All or nothing: of a batch that does not fit whole, nothing is taken.
pub async fn a_full_queue_takes_nothing(queue: &dyn Queue) {
    for function in 0..9 {
        queue
            .enqueue(deliveries(&format!("f{function}"), 111))
            .await
            .unwrap();
    }
    let batch = || [deliveries("a", 1), deliveries("b", 1)].concat();
    let before = queue.stats();
    assert_eq!(before.waiting, 999);
    let refused = queue.enqueue(batch()).await;
    assert_eq!(refused, Err(Error::Full(Bound::Len(1_000))));
    assert_eq!(queue.stats(), before);
    let leased = queue.lease(Permits { free: 1, total: 1 }).await.unwrap();
    queue.enqueue(batch()).await.unwrap();
    assert_eq!(queue.stats().waiting, 1_000);
    drop(leased);
}

/// What ended must be told, however much waits.
pub async fn an_end_is_taken_where_there_is_no_room(queue: &dyn Queue) {
    queue.enqueue(deliveries("greedy", 500)).await.unwrap();
    queue.enqueue(deliveries("other", 500)).await.unwrap();
    let end = Delivery {
        origin: Origin::End(DeliveryId::random()),
        ..delivery("greedy", 0, 100)
    };
    queue.enqueue(vec![end]).await.unwrap();
    assert_eq!(queue.stats().waiting, 1_001);
    let refused = queue.enqueue(deliveries("third", 1)).await;
    assert_eq!(refused, Err(Error::Full(Bound::Len(1_000))));
}

/// One function can not take all the room.
pub async fn a_function_has_its_share_of_the_room(queue: &dyn Queue) {
    queue.enqueue(deliveries("greedy", 500)).await.unwrap();
    let refused = queue.enqueue(deliveries("greedy", 1)).await;
    let bound = Bound::Function("greedy".parse().unwrap());
    assert_eq!(refused, Err(Error::Full(bound)));
    queue.enqueue(deliveries("other", 1)).await.unwrap();
}

/// Large events are bounded by their bytes.
pub async fn events_have_their_bound(queue: &dyn Queue) {
    queue
        .enqueue(vec![delivery("large", 0, 900_000)])
        .await
        .unwrap();
    let refused = queue.enqueue(vec![delivery("other", 0, 200_000)]).await;
    assert_eq!(refused, Err(Error::Full(Bound::Bytes(1_000_000))));
    queue.enqueue(deliveries("other", 1)).await.unwrap();
    assert_eq!(queue.lease(MANY).await.unwrap().len(), 2);
    assert_eq!(queue.stats().waiting_bytes, 0);
    queue
        .enqueue(vec![delivery("other", 0, 200_000)])
        .await
        .unwrap();
}

/// What is held is not taken twice, whether it waits or runs.
pub async fn what_is_held_is_not_taken_twice(queue: &dyn Queue) {
    if queue.promise() == Promise::AtMostOnce {
        return;
    }
    let held = deliveries("a", 3);
    let (first, second) = tokio::join!(queue.enqueue(held.clone()), queue.enqueue(held.clone()));
    first.and(second).unwrap();
    queue.enqueue(held.clone()).await.unwrap();
    let more = [held.clone(), deliveries("b", 1)].concat();
    queue.enqueue(more.clone()).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    let names: HashSet<_> = leased.iter().map(|leased| leased.lease.id).collect();
    let expected: HashSet<_> = more.iter().map(|delivery| delivery.id).collect();
    assert_eq!((leased.len(), names), (4, expected));
    queue.enqueue(more.clone()).await.unwrap();
    assert!(queue.lease(MANY).await.unwrap().is_empty(), "it runs");
    for leased in &leased {
        let settled = queue.settle(&leased.lease, Outcome::Delivered).await;
        settled.unwrap();
    }
    assert!(queue.lease(MANY).await.unwrap().is_empty());
    assert_eq!(queue.stats(), Stats::default());
}

/// Delivered and dead-lettered deliveries are not leased again, and are settled once.
pub async fn what_is_settled_is_done_with(queue: &dyn Queue) {
    queue.enqueue(deliveries("f", 2)).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap();
    let outcomes = [Outcome::Delivered, dead_letter()];
    for (leased, outcome) in leased.iter().zip(outcomes) {
        queue.settle(&leased.lease, outcome).await.unwrap();
        lost(queue, &leased.lease, Outcome::Delivered).await;
        assert!(queue.extend(&leased.lease).await.is_err());
    }
    assert_eq!(queue.stats(), kept(queue, 1));
    sleep(2 * LEASE_TIMEOUT).await;
    assert!(queue.lease(MANY).await.unwrap().is_empty());
}

/// The pause is kept, the next lease has a higher epoch, and the first one is worth nothing then.
pub async fn what_is_tried_again_comes_back_after_its_pause(queue: &dyn Queue) {
    queue.enqueue(deliveries("f", 1)).await.unwrap();
    let first = queue.lease(MANY).await.unwrap().remove(0);
    let (began, after) = (Instant::now(), Duration::from_millis(300));
    queue
        .settle(
            &first.lease,
            Outcome::Again {
                after,
                counts: true,
            },
        )
        .await
        .unwrap();
    assert!(queue.lease(MANY).await.unwrap().is_empty());
    assert_eq!(queue.stats().waiting, 1);
    let second = next(queue).await.remove(0);
    assert!(began.elapsed() >= after, "{:?}", began.elapsed());
    assert_eq!(second.lease.id, first.lease.id);
    assert!(second.lease.epoch > first.lease.epoch);
    assert_eq!(second.attempts, 1);
    assert!(second.age >= after, "{:?}", second.age);
    lost(queue, &first.lease, Outcome::Delivered).await;
    let uncounted = Outcome::Again {
        after: Duration::ZERO,
        counts: false,
    };
    queue.settle(&second.lease, uncounted).await.unwrap();
    let third = next(queue).await.remove(0);
    assert_eq!(third.attempts, 1, "the second one does not count");
    queue
        .settle(&third.lease, Outcome::Delivered)
        .await
        .unwrap();
    assert_eq!(queue.stats(), Stats::default());
}

/// Waiting, with or without a pause, it is taken back; done with, it is not.
pub async fn what_waits_can_be_cancelled(queue: &dyn Queue) {
    let sent = deliveries("f", 3);
    queue.enqueue(sent.clone()).await.unwrap();
    assert_eq!(queue.cancel(sent[1].id).await, Ok(true));
    assert_eq!(queue.cancel(sent[1].id).await, Ok(false));
    let leased = queue.lease(MANY).await.unwrap();
    assert_eq!(named(&leased), [("f".into(), 0), ("f".into(), 2)]);
    let again = Outcome::Again {
        after: Duration::from_millis(1),
        counts: true,
    };
    queue.settle(&leased[0].lease, again).await.unwrap();
    assert_eq!(queue.cancel(sent[0].id).await, Ok(true));
    queue
        .settle(&leased[1].lease, Outcome::Delivered)
        .await
        .unwrap();
    assert_eq!(queue.cancel(sent[2].id).await, Ok(false));
    assert_eq!(queue.cancel(DeliveryId::random()).await, Ok(false));
    sleep(Duration::from_millis(20)).await;
    assert!(queue.lease(MANY).await.unwrap().is_empty());
    assert_eq!(queue.stats(), Stats::default());
}

/// Whoever has it on lease loses that, and its function may have another one.
pub async fn what_runs_can_be_cancelled(queue: &dyn Queue) {
    let sent = deliveries("f", 3);
    queue.enqueue(sent.clone()).await.unwrap();
    let few = Permits { free: 8, total: 8 };
    let leased = queue.lease(few).await.unwrap();
    assert_eq!(named(&leased), [("f".into(), 0), ("f".into(), 1)]);
    let running = leased[0].lease;
    assert_eq!(queue.cancel(running.id).await, Ok(true));
    assert_eq!(queue.cancel(running.id).await, Ok(false));
    assert_eq!(queue.extend(&running).await, Err(Error::LeaseLost(running)));
    for outcome in [Outcome::Delivered, dead_letter()] {
        lost(queue, &running, outcome).await;
    }
    assert_eq!(named(&next(queue).await), [("f".into(), 2)]);
    assert_eq!((queue.stats().leased, queue.stats().waiting), (2, 0));
}

/// It counts as waiting meanwhile, can be cancelled, and is told of when its time has come.
pub async fn what_is_delayed_comes_no_sooner(queue: &dyn Queue) {
    let delay = Duration::from_millis(300);
    let (began, made) = (Instant::now(), SystemTime::now());
    let delayed = |function, delay| Delivery {
        not_before: Some(SystemTime::now() + delay),
        ..delivery(function, 0, 100)
    };
    let cancelled = delayed("f", delay);
    let batch = vec![
        delayed("f", delay),
        cancelled.clone(),
        delayed("late", Duration::from_secs(3_600)),
        Delivery {
            not_before: Some(SystemTime::UNIX_EPOCH),
            ..delivery("past", 0, 100)
        },
    ];
    queue.enqueue(batch).await.unwrap();
    // So much of the delay passed before the queue knew of it, by a clock that is never paused.
    let passed = made.elapsed().unwrap() + Duration::from_millis(1);
    assert_eq!(queue.stats().waiting, 4);
    assert_eq!(queue.cancel(cancelled.id).await, Ok(true));
    assert_eq!(named(&next(queue).await), [("past".into(), 0)]);
    assert_eq!(named(&next(queue).await), [("f".into(), 0)]);
    assert!(began.elapsed() + passed >= delay, "{:?}", began.elapsed());
    assert_eq!(queue.stats().waiting, 1);
}

/// A delivery that takes longer than a lease keeps it by extending it.
pub async fn a_lease_that_is_extended_lasts(queue: &dyn Queue) {
    queue.enqueue(deliveries("f", 1)).await.unwrap();
    let leased = queue.lease(MANY).await.unwrap().remove(0);
    for _ in 0..6 {
        sleep(LEASE_TIMEOUT / 3).await;
        assert!(queue.lease(MANY).await.unwrap().is_empty());
        queue.extend(&leased.lease).await.unwrap();
    }
    queue
        .settle(&leased.lease, Outcome::Delivered)
        .await
        .unwrap();
}

/// What becomes of a delivery whose lease was not extended, and that whoever had it can not change that.
pub async fn a_lost_lease_settles_nothing(queue: &dyn Queue) {
    queue.enqueue(deliveries("f", 1)).await.unwrap();
    let first = queue.lease(MANY).await.unwrap().remove(0);
    sleep(LEASE_TIMEOUT + Duration::from_millis(50)).await;
    let second = match queue.promise() {
        Promise::AtMostOnce => {
            assert!(queue.lease(MANY).await.unwrap().is_empty());
            None
        }
        Promise::AtLeastOnce => {
            let second = next(queue).await.remove(0);
            assert_eq!(second.lease.id, first.lease.id);
            assert!(second.lease.epoch > first.lease.epoch);
            Some(second)
        }
    };
    assert!(queue.extend(&first.lease).await.is_err());
    let again = Outcome::Again {
        after: Duration::ZERO,
        counts: true,
    };
    for outcome in [Outcome::Delivered, again, dead_letter()] {
        lost(queue, &first.lease, outcome).await;
    }
    if let Some(second) = second {
        queue
            .settle(&second.lease, Outcome::Delivered)
            .await
            .unwrap();
    }
    assert_eq!(queue.stats(), Stats::default());
}

/// Whoever waits is woken by an event, and one that came before it waits is not missed.
pub async fn tells_when_there_is_something(queue: &dyn Queue) {
    queue.enqueue(deliveries("f", 1)).await.unwrap();
    timeout(PATIENCE, queue.ready())
        .await
        .expect("an event from before is told");
    assert_eq!(queue.lease(MANY).await.unwrap().len(), 1);
    let (came, ()) = tokio::join!(timeout(PATIENCE, next(queue)), async {
        sleep(Duration::from_millis(5)).await;
        queue.enqueue(deliveries("f", 1)).await.unwrap();
    });
    assert_eq!(came.expect("an event is told").len(), 1);
}

/// Of racing leases each delivery belongs to one.
pub async fn racing_leases_share_what_there_is<Q: Queue>(queue: Arc<Q>) {
    for function in 0..10 {
        queue
            .enqueue(deliveries(&format!("f{function}"), 20))
            .await
            .unwrap();
    }
    let lease = |_| {
        let queue = Arc::clone(&queue);
        async move {
            let mut epochs = Vec::new();
            let permits = Permits {
                free: 7,
                total: 1_000,
            };
            loop {
                let leased = queue.lease(permits).await.unwrap();
                if leased.is_empty() {
                    return epochs;
                }
                for leased in leased {
                    epochs.push(leased.lease);
                    queue
                        .settle(&leased.lease, Outcome::Delivered)
                        .await
                        .unwrap();
                }
                tokio::task::yield_now().await;
            }
        }
    };
    let all = futures_all((0..8).map(lease)).await;
    let ids: HashSet<DeliveryId> = all.iter().map(|lease| lease.id).collect();
    let epochs: BTreeSet<u64> = all.iter().map(|lease| lease.epoch).collect();
    assert_eq!((all.len(), ids.len()), (200, 200));
    assert!(!epochs.is_empty());
    assert_eq!(queue.stats(), Stats::default());
}

/// Runs all at the same time and joins what they return.
async fn futures_all<F>(futures: impl Iterator<Item = F>) -> Vec<Lease>
where
    F: Future<Output = Vec<Lease>> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for future in futures {
        tasks.spawn(future);
    }
    tasks.join_all().await.into_iter().flatten().collect()
}
