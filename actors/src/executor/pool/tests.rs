use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use proptest::prelude::*;
use protocol::{Component, Effect, ErrorCode};

use super::*;
use crate::executor::Budget;
use crate::fixtures::{Echo, instance_id, journal};

fn pool(concurrency: u32, waiters_max: usize) -> Arc<Pool> {
    let key = InstanceKey::hash([b"key".as_slice()]);
    Pool::new(key, concurrency, waiters_max, Attention::default(), journal())
}

fn add(pool: &Arc<Pool>, id: &str, inherited: Option<(u32, Instant)>) {
    let reservation = Budget::new(1000, 1000).adopt(1);
    pool.add(instance_id(id), Arc::new(Echo), None, inherited, reservation);
}

fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}

#[derive(Debug, Clone)]
enum Op {
    Add,
    TryCheckout,
    Wait,
    GiveUp(usize),
    HandOver(usize),
    Finish(usize, bool),
    Drop(usize),
    DrainIfIdle(usize),
    Remove(usize),
    Close,
    Reopen,
    FailWaiters,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::Add),
        4 => Just(Op::TryCheckout),
        6 => Just(Op::Wait),
        2 => any::<usize>().prop_map(Op::GiveUp),
        3 => any::<usize>().prop_map(Op::HandOver),
        6 => (any::<usize>(), any::<bool>()).prop_map(|(index, is_healthy)| Op::Finish(index, is_healthy)),
        3 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::DrainIfIdle),
        1 => any::<usize>().prop_map(Op::Remove),
        1 => Just(Op::Close),
        1 => Just(Op::Reopen),
        1 => Just(Op::FailWaiters),
    ]
}

type Wait = Pin<Box<dyn Future<Output = Result<Checkout, WaitError>>>>;

struct Model {
    pool: Arc<Pool>,
    concurrency: u32,
    held: Vec<Checkout>,
    /// Those who wait, oldest first.
    waits: Vec<Wait>,
    added: u32,
    is_closed: bool,
}

impl Model {
    fn apply(&mut self, op: Op) {
        let pool = Arc::clone(&self.pool);
        match op {
            Op::Add => {
                self.added += 1;
                add(&pool, &format!("instance-{}", self.added), None);
            }
            Op::TryCheckout => self.held.extend(pool.try_checkout()),
            Op::Wait => {
                let until = far();
                self.waits.push(Box::pin(async move { pool.checkout(until).await }));
            }
            Op::GiveUp(index) => drop(take(&mut self.waits, index)),
            Op::HandOver(index) => {
                let count = self.held.len().max(1);
                if let Some(checkout) = self.held.get_mut(index % count) {
                    checkout.hand_over();
                }
            }
            Op::Finish(index, is_healthy) => {
                if let Some(checkout) = take(&mut self.held, index) {
                    checkout.finish(is_healthy);
                }
            }
            Op::Drop(index) => drop(take(&mut self.held, index)),
            Op::DrainIfIdle(index) => {
                if let Some(id) = take(&mut pool.instance_ids(), index) {
                    let is_busy = self.held.iter().any(|checkout| *checkout.instance_id() == id);
                    assert!(!(pool.drain_if_idle(&id) && is_busy), "a busy instance drained as idle");
                }
            }
            Op::Remove(index) => {
                if let Some(id) = take(&mut pool.instance_ids(), index) {
                    assert!(pool.remove(&id).is_some());
                }
            }
            Op::Close => {
                pool.close();
                self.is_closed = true;
            }
            Op::Reopen => {
                pool.reopen();
                self.is_closed = false;
            }
            Op::FailWaiters => pool.fail_waiters(&failure()),
        }
    }

    /// Looks at all who wait; nobody may be served before one who waits longer.
    fn poll_all(&mut self) -> Result<(), TestCaseError> {
        let mut is_somebody_waiting = false;
        let mut index = 0;
        while index < self.waits.len() {
            match self.waits[index].as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => {
                    is_somebody_waiting = true;
                    index += 1;
                }
                Poll::Ready(result) => {
                    drop(self.waits.remove(index));
                    match result {
                        Ok(checkout) => {
                            prop_assert!(!is_somebody_waiting, "served before one who waits longer");
                            prop_assert!(!self.is_closed, "a closed pool gave a slot");
                            self.held.push(checkout);
                        }
                        Err(WaitError::Full) => prop_assert!(self.waits.len() >= WAITERS_MAX),
                        Err(WaitError::TimedOut) => prop_assert!(false, "nobody's time was up"),
                        Err(WaitError::Closed | WaitError::Failed(_)) => {}
                    }
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let mut busy: BTreeMap<InstanceId, u32> = BTreeMap::new();
        for checkout in &self.held {
            *busy.entry(checkout.instance_id().clone()).or_default() += 1;
        }
        let (status, seats) = (self.pool.status(), self.pool.seats());
        let mut free = 0;
        for seat in &seats {
            let held = busy.get(&seat.id).copied().unwrap_or(0);
            prop_assert_eq!(seat.busy, held, "slots in use and slots held differ");
            prop_assert!(held <= self.concurrency, "more calls than slots");
            free += if seat.is_open { self.concurrency - held } else { 0 };
        }
        prop_assert_eq!(status.up as usize, seats.len());
        prop_assert_eq!(status.waiters, self.waits.len());
        if self.is_closed {
            prop_assert!(self.waits.is_empty(), "somebody waits at a closed pool");
            prop_assert!(self.pool.try_checkout().is_none(), "a closed pool gave a slot");
            prop_assert_eq!(status.free_slots, 0);
        } else if self.waits.is_empty() {
            prop_assert_eq!(status.free_slots, free, "a slot was lost");
        } else {
            prop_assert_eq!(free, 0, "somebody waits although a slot is free");
        }
        Ok(())
    }
}

const WAITERS_MAX: usize = 4;

fn take<T>(of: &mut Vec<T>, index: usize) -> Option<T> {
    (!of.is_empty()).then(|| of.remove(index % of.len()))
}

fn failure() -> Failure {
    Failure::new(ErrorCode::StartFailed, Component::Provider, Effect::Refused, "no")
}

proptest! {
    #[test]
    fn slots_are_neither_lost_nor_given_twice(concurrency in 1..4u32, ops in prop::collection::vec(op(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let _entered = runtime.enter();
        let pool = pool(concurrency, WAITERS_MAX);
        let mut model =
            Model { pool, concurrency, held: Vec::new(), waits: Vec::new(), added: 0, is_closed: false };
        for op in ops {
            model.apply(op);
            model.poll_all()?;
            model.check()?;
        }
        model.held.clear();
        model.poll_all()?;
        model.apply(Op::Close);
        model.poll_all()?;
        prop_assert!(model.waits.is_empty(), "somebody waits for ever");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline() {
    let pool = pool(1, 8);
    let until = Instant::now() + Duration::from_secs(3);
    assert_eq!(pool.checkout(until).await.unwrap_err(), WaitError::TimedOut);
    assert_eq!(Instant::now(), until);
    assert_eq!(pool.status().waiters, 0);
}

#[tokio::test(start_paused = true)]
async fn slots_of_an_earlier_generation_come_free_in_time() {
    let pool = pool(2, 8);
    let until = Instant::now() + Duration::from_secs(5);
    add(&pool, "adopted", Some((1, until)));
    let first = pool.try_checkout().expect("the other slot is free");
    assert!(pool.try_checkout().is_none(), "a call of an earlier generation may hold it");
    tokio::time::sleep_until(until).await;
    let second = pool.try_checkout().expect("that call's time is over");
    assert_eq!(pool.status().busy, 2);
    drop((first, second));
}

#[tokio::test(start_paused = true)]
async fn who_gave_up_leaves_no_place_taken() {
    let pool = pool(1, 1);
    let until = Instant::now() + Duration::from_secs(5);
    add(&pool, "adopted", Some((1, until)));
    let mut gave_up = Box::pin(pool.checkout(far()));
    assert!(gave_up.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(!pool.may_wait());
    drop(gave_up);
    assert!(pool.may_wait(), "the queue is empty again");
    tokio::time::sleep_until(until).await;
    let mut gave_up = Box::pin(pool.checkout(far()));
    drop(gave_up.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    drop(gave_up);
    assert!(pool.try_checkout().is_some(), "a slot is free and nobody waits");
}

#[tokio::test(start_paused = true)]
async fn a_payload_handed_over_and_dropped_makes_an_instance_suspect() {
    let pool = pool(1, 8);
    add(&pool, "first", None);
    drop(pool.try_checkout().unwrap());
    let mut checkout = pool.try_checkout().expect("nothing ran there, so it is as it was");
    checkout.hand_over();
    drop(checkout);
    assert!(pool.try_checkout().is_none(), "nobody knows what it does");
    assert_eq!(pool.status().open, 0);
}
