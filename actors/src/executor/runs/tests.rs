use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;

fn runs(max: u32, budget: &Budget) -> Arc<Runs> {
    let key = InstanceKey::hash([b"key".as_slice()]);
    Runs::new(key, 100, max, 8, budget.clone(), Attention::default())
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

fn is_pending<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

#[tokio::test(start_paused = true)]
async fn who_waits_at_a_closed_function_looks_it_up_anew() {
    let runs = runs(1, &Budget::new(1000, 10));
    let _running = runs.permit(far()).await.unwrap();
    let mut waiting = pin!(runs.permit(far()));
    assert!(is_pending(waiting.as_mut()));
    runs.close();
    assert_eq!(waiting.await.unwrap_err(), WaitError::Closed);
    assert_eq!(runs.permit(far()).await.unwrap_err(), WaitError::Closed);
    assert_eq!(runs.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_a_permit_and_no_memory_asks_for_room() {
    let budget = Budget::new(100, 10);
    let others = budget.reserve(100).unwrap();
    let runs = runs(1, &budget);
    let mut waiting = pin!(runs.permit(far()));
    assert!(is_pending(waiting.as_mut()));
    assert!(runs.needs_room(), "its only permit is taken by the one that waits for memory");
    drop(others);
    let permit = waiting.await.unwrap();
    assert!(!runs.needs_room());
    drop(permit);
    assert_eq!(budget.used().instances, 0);
}

#[tokio::test(start_paused = true)]
async fn a_max_that_falls_and_rises_again_is_never_exceeded() {
    let runs = runs(3, &Budget::new(10_000, 100));
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(runs.permit(far()).await.unwrap());
    }
    runs.set_max(1);
    runs.set_max(3);
    assert!(is_pending(pin!(runs.permit(far()))), "three run already");
    drop(running.pop());
    running.push(runs.permit(far()).await.unwrap());
    runs.set_max(1);
    drop(running);
    let one = runs.permit(far()).await.unwrap();
    assert!(is_pending(pin!(runs.permit(far()))), "max is one now");
    drop(one);
    assert_eq!((runs.running(), runs.free()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn waiting_is_bounded_and_ends_in_time() {
    let runs = runs(1, &Budget::new(1000, 10));
    let _running = runs.permit(far()).await.unwrap();
    let until = Instant::now() + Duration::from_secs(2);
    let mut waits: Vec<_> = (0..8).map(|_| Box::pin(runs.permit(until))).collect();
    assert!(waits.iter_mut().all(|wait| is_pending(wait.as_mut())));
    assert_eq!(runs.permit(until).await.unwrap_err(), WaitError::Full);
    let last = waits.pop().unwrap();
    assert_eq!(last.await.unwrap_err(), WaitError::TimedOut);
    let mut first = waits.remove(0);
    assert!(matches!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(WaitError::TimedOut))));
}
