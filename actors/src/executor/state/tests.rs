use std::collections::HashSet;
use std::time::Duration;

use protocol::{Component, Effect, ErrorCode};
use serde_json::{Value, json};

use super::scale::STOP_PATIENCE;
use super::*;
use crate::executor::Checkout;
use crate::fixtures::{Echo, instance_id, journal, launched, registered, registry};

mod adoption;
mod order;

struct FakeElsewhere {
    instances: u32,
    is_home: bool,
}

impl Elsewhere for FakeElsewhere {
    fn instances(&self, _: InstanceKey) -> u32 {
        self.instances
    }

    fn is_home(&self, _: &Registered) -> bool {
        self.is_home
    }
}

const HOME: FakeElsewhere = FakeElsewhere {
    instances: 0,
    is_home: true,
};
const NOT_HOME: FakeElsewhere = FakeElsewhere {
    instances: 0,
    is_home: false,
};
const OWN: Generation = Generation(5);

/// A state, and who waits at its pools.
struct Bench {
    state: State,
    budget: Budget,
    now: Instant,
    waits: Vec<tokio::task::JoinHandle<Result<Checkout, super::super::WaitError>>>,
    tracker: tokio_util::task::TaskTracker,
    started: u32,
}

impl Bench {
    fn new(of: &[&Arc<Registered>]) -> Self {
        Self::with_budget(of, 100_000)
    }

    fn with_budget(of: &[&Arc<Registered>], memory_mb: u64) -> Self {
        let budget = Budget::new(memory_mb, 1000);
        let settings = ExecutorSettings {
            starts_max: 100,
            ..ExecutorSettings::default()
        };
        let means = Means {
            generation: OWN,
            settings,
            budget: budget.clone(),
            attention: Attention::default(),
            journal: journal(),
        };
        let state = State::new(means, &Pools::default());
        let tracker = tokio_util::task::TaskTracker::new();
        let mut bench = Self {
            state,
            budget,
            now: Instant::now(),
            waits: Vec::new(),
            tracker,
            started: 0,
        };
        bench.know(of);
        bench
    }

    fn know(&mut self, of: &[&Arc<Registered>]) -> Vec<Action> {
        self.state.on_registry(&registry(of), self.now)
    }

    fn pool(&self, of: &Registered) -> Arc<Pool> {
        Arc::clone(self.state.held[&of.key].pool.pool().unwrap())
    }

    async fn wait(&mut self, of: &Registered, count: usize) {
        let pool = self.pool(of);
        for _ in 0..count {
            let (pool, until) = (Arc::clone(&pool), self.now + Duration::from_secs(3600));
            self.waits.push(
                self.tracker
                    .spawn(async move { pool.checkout(until).await }),
            );
        }
        let expected = self.pool(of).status().waiters + count;
        while pool.status().waiters < expected {
            tokio::task::yield_now().await;
        }
    }

    fn attend(&mut self, of: &Registered, elsewhere: &FakeElsewhere) -> Vec<Action> {
        self.state.on_attention(of.key, self.now, elsewhere)
    }

    /// Finishes a start.
    fn started(&mut self, action: Action, result: Result<(), Failure>) -> Vec<Action> {
        let Action::Start {
            key, reservation, ..
        } = action
        else {
            panic!("no start: {action:?}")
        };
        self.started += 1;
        let result = result.map(|()| launched(&format!("started-{}", self.started)));
        self.state
            .on_started(key, result, reservation, self.now, &NOT_HOME)
    }

    /// Lets one instance come up as the pool's first.
    async fn up(&mut self, of: &Registered) -> Checkout {
        self.wait(of, 1).await;
        let start = only(self.attend(of, &NOT_HOME));
        assert!(self.started(start, Ok(())).is_empty());
        self.waits.pop().unwrap().await.unwrap().unwrap()
    }

    fn list(&mut self, found: Vec<Found>) -> Vec<Action> {
        let before = self.state.on_listing(Kind::Process);
        self.state.on_listing_ended(Kind::Process);
        self.state
            .on_listed(Kind::Process, found, &before, self.now, &NOT_HOME)
    }

    fn adopt(&mut self, action: Action, is_well: bool) -> Vec<Action> {
        let Action::Adopt { kind, found, .. } = action else {
            panic!("no adoption: {action:?}")
        };
        let result: Result<Arc<dyn providers::Invoke>, _> = if is_well {
            Ok(Arc::new(Echo))
        } else {
            Err(failure())
        };
        self.state.on_adopted(
            kind,
            &found,
            result,
            (self.now, SystemTime::now()),
            &NOT_HOME,
        )
    }
}

fn failure() -> Failure {
    Failure::new(
        ErrorCode::StartFailed,
        Component::Provider,
        Effect::Refused,
        "exit code 1",
    )
}

fn only(mut actions: Vec<Action>) -> Action {
    assert_eq!(actions.len(), 1, "{actions:?}");
    actions.remove(0)
}

fn starts(actions: &[Action]) -> usize {
    actions
        .iter()
        .filter(|action| matches!(action, Action::Start { .. }))
        .count()
}

fn stopped(actions: &[Action]) -> Vec<String> {
    let stopped = actions.iter().filter_map(|action| match action {
        Action::Stop { id, .. } => Some(id.to_string()),
        _ => None,
    });
    stopped.collect()
}

fn found(id: &str, of: &Registered, generation: Generation) -> Found {
    Found {
        id: instance_id(id),
        space: of.function.space.clone(),
        function_id: of.function.function_id.clone(),
        key: of.key,
        generation,
        is_adoptable: true,
        created_at: SystemTime::now(),
    }
}

fn function(more: Value) -> Arc<Registered> {
    registered("function", &more)
}

#[tokio::test(start_paused = true)]
async fn starts_as_many_as_those_who_wait_need() {
    // (waiters, concurrency, max, instances elsewhere) -> starts
    let check =
        async |waiters: usize, concurrency: u32, max: u32, instances: u32, expected: usize| {
            let of =
                function(json!({"limits": {"concurrency": concurrency}, "scaling": {"max": max}}));
            let mut bench = Bench::new(&[&of]);
            bench.wait(&of, waiters).await;
            let elsewhere = FakeElsewhere {
                instances,
                is_home: false,
            };
            let actions = bench.attend(&of, &elsewhere);
            assert_eq!(
                starts(&actions),
                expected,
                "{waiters} waiters, {concurrency} slots, max {max}"
            );
            assert_eq!(
                starts(&bench.attend(&of, &elsewhere)),
                0,
                "those that start are enough"
            );
        };
    check(1, 1, 10, 0, 1).await;
    check(50, 50, 10, 0, 1).await;
    check(51, 50, 10, 0, 2).await;
    check(50, 1, 10, 0, 10).await;
    check(5, 1, 3, 0, 3).await;
    check(5, 1, 5, 3, 2).await;
    // What peers are said to have may be gone: those who wait here get one.
    check(5, 1, 3, 3, 1).await;
    check(0, 1, 10, 0, 0).await;
}

#[tokio::test(start_paused = true)]
async fn one_start_serves_all_its_slots() {
    let of = function(json!({"limits": {"concurrency": 50}}));
    let mut bench = Bench::new(&[&of]);
    bench.wait(&of, 50).await;
    let start = only(bench.attend(&of, &NOT_HOME));
    assert!(bench.started(start, Ok(())).is_empty());
    for wait in bench.waits.drain(..) {
        assert!(wait.await.unwrap().is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn min_is_kept_by_the_home_alone() {
    let of = function(json!({"scaling": {"min": 2, "idleSeconds": 1}}));
    let mut bench = Bench::new(&[&of]);
    assert_eq!(starts(&bench.state.on_sweep(bench.now, &NOT_HOME)), 0);
    let actions = bench.state.on_sweep(
        bench.now,
        &FakeElsewhere {
            instances: 1,
            is_home: true,
        },
    );
    assert_eq!(starts(&actions), 1, "a peer has the other");
    for action in actions
        .into_iter()
        .chain(bench.state.on_sweep(bench.now, &HOME))
    {
        bench.started(action, Ok(()));
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    let now = Instant::now();
    assert!(
        bench.state.on_sweep(now, &HOME).is_empty(),
        "min stays up though idle"
    );
    assert_eq!(
        stopped(&bench.state.on_sweep(now, &NOT_HOME)).len(),
        2,
        "elsewhere is the home now"
    );
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_dies_at_once_is_not_started_without_end() {
    let of = function(json!({"scaling": {"min": 1}}));
    let mut bench = Bench::new(&[&of]);
    let start = only(bench.state.on_sweep(bench.now, &HOME));
    bench.started(start, Ok(()));
    let actions = bench
        .state
        .on_gone(Kind::Process, &instance_id("started-1"), bench.now, &HOME);
    assert_eq!((stopped(&actions).len(), starts(&actions)), (1, 0));
    assert_eq!(starts(&bench.state.on_sweep(bench.now, &HOME)), 0);
    let later = bench.now + bench.state.means.settings.start_backoff;
    assert_eq!(starts(&bench.state.on_sweep(later, &HOME)), 1);
}

#[tokio::test(start_paused = true)]
async fn idle_instances_stop_after_idle_seconds() {
    let of = function(json!({"scaling": {"idleSeconds": 60}}));
    let mut bench = Bench::new(&[&of]);
    let checkout = bench.up(&of).await;
    tokio::time::advance(Duration::from_secs(100)).await;
    assert!(
        bench.state.on_sweep(Instant::now(), &NOT_HOME).is_empty(),
        "it is busy"
    );
    checkout.finish(true);
    let idle_since = Instant::now();
    assert!(
        bench
            .state
            .on_sweep(idle_since + Duration::from_secs(59), &NOT_HOME)
            .is_empty()
    );
    let actions = bench
        .state
        .on_sweep(idle_since + Duration::from_secs(60), &NOT_HOME);
    assert_eq!(stopped(&actions), ["started-1"]);
    assert_eq!(
        bench.budget.used().instances,
        1,
        "its share comes back when it is gone"
    );
    drop(actions);
    assert_eq!(bench.budget.used().instances, 0);
}

#[tokio::test(start_paused = true)]
async fn a_max_that_is_lowered_holds_for_what_is_idle() {
    let of = function(json!({"scaling": {"max": 3}}));
    let mut bench = Bench::new(&[&of]);
    bench.wait(&of, 3).await;
    for action in bench.attend(&of, &NOT_HOME) {
        bench.started(action, Ok(()));
    }
    let mut checkouts = Vec::new();
    for wait in bench.waits.drain(..) {
        checkouts.push(wait.await.unwrap().unwrap());
    }
    checkouts.truncate(2);
    bench.know(&[&function(json!({"scaling": {"max": 1}}))]);
    assert_eq!(
        stopped(&bench.state.on_sweep(bench.now, &NOT_HOME)).len(),
        1,
        "busy ones go on"
    );
    checkouts.truncate(1);
    assert_eq!(
        stopped(&bench.state.on_sweep(bench.now, &NOT_HOME)).len(),
        1
    );
    checkouts.clear();
    assert!(bench.state.on_sweep(bench.now, &NOT_HOME).is_empty());
}

#[tokio::test(start_paused = true)]
async fn failing_starts_are_told_and_put_off_longer_each_time() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    for (failures, pause_ms) in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]
        .into_iter()
        .enumerate()
    {
        bench.wait(&of, 1).await;
        let start = only(bench.attend(&of, &NOT_HOME));
        assert!(bench.started(start, Err(failure())).is_empty());
        let Err(super::super::WaitError::Failed(told)) = bench.waits.pop().unwrap().await.unwrap()
        else {
            panic!("the one who waited was not told")
        };
        assert_eq!(
            (told.code, told.retry_after_ms),
            (ErrorCode::StartFailed, Some(pause_ms)),
            "after {failures}"
        );
        // Who comes meanwhile is told at once, and nothing is started for it.
        bench.wait(&of, 1).await;
        bench.now += Duration::from_millis(pause_ms - 1);
        assert!(bench.attend(&of, &NOT_HOME).is_empty());
        assert!(bench.waits.pop().unwrap().await.unwrap().is_err());
        bench.now += Duration::from_millis(1);
    }
    assert_eq!(bench.budget.used().instances, 0);
    let checkout = bench.up(&of).await;
    assert_eq!(bench.state.held[&of.key].failures, 0);
    checkout.finish(true);
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_by_another_when_an_instance_dies() {
    let of = function(json!({"scaling": {"max": 1}}));
    let mut bench = Bench::new(&[&of]);
    let checkout = bench.up(&of).await;
    bench.wait(&of, 1).await;
    assert!(bench.attend(&of, &NOT_HOME).is_empty(), "max is reached");
    let actions = bench.state.on_gone(
        Kind::Process,
        &instance_id("started-1"),
        bench.now,
        &NOT_HOME,
    );
    assert_eq!((stopped(&actions).len(), starts(&actions)), (1, 1));
    assert!(
        bench
            .state
            .on_gone(
                Kind::Process,
                &instance_id("started-1"),
                bench.now,
                &NOT_HOME
            )
            .is_empty()
    );
    drop(checkout);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_function_never_mixes_old_and_new() {
    let (old, new) = (
        function(json!({})),
        function(json!({"limits": {"memoryMb": 64}})),
    );
    let mut bench = Bench::new(&[&old]);
    let running = bench.up(&old).await;
    bench.wait(&old, 1).await;
    let pending = only(bench.attend(&old, &NOT_HOME));
    assert!(
        stopped(&bench.know(&[&new])).is_empty(),
        "what runs goes on"
    );
    for wait in bench.waits.drain(..) {
        assert_eq!(
            wait.await.unwrap().unwrap_err(),
            super::super::WaitError::Closed,
            "looked up anew"
        );
    }
    assert_eq!(
        stopped(&bench.started(pending, Ok(()))),
        ["started-2"],
        "a start of the old one is too late"
    );
    assert!(bench.pool(&old).try_checkout().is_none());
    bench.wait(&new, 1).await;
    let Action::Start { key, .. } = only(bench.attend(&new, &NOT_HOME)) else {
        panic!("no start")
    };
    assert_eq!(key, new.key);
    running.finish(true);
    assert_eq!(stopped(&bench.attend(&old, &NOT_HOME)), ["started-1"]);
    bench.state.on_stopped(&instance_id("started-2"));
    bench.state.on_stopped(&instance_id("started-1"));
    assert!(!bench.state.pools().pools.contains_key(&old.key));
}

#[tokio::test(start_paused = true)]
async fn a_function_that_comes_back_takes_work_again() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    let running = bench.up(&of).await;
    bench.know(&[]);
    assert!(bench.pool(&of).try_checkout().is_none());
    bench.know(&[&of]);
    running.finish(true);
    assert!(
        bench.pool(&of).try_checkout().is_none(),
        "what drained goes on draining"
    );
    bench.wait(&of, 1).await;
    let actions = bench.attend(&of, &NOT_HOME);
    assert_eq!((stopped(&actions).len(), starts(&actions)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn what_idles_longest_makes_room_above_its_min() {
    let kept = registered("kept", &json!({"scaling": {"min": 1}}));
    let (idle, wanted) = (
        registered("idle", &json!({})),
        registered("wanted", &json!({})),
    );
    let mut bench = Bench::with_budget(&[&kept, &idle, &wanted], 256);
    bench.up(&kept).await.finish(true);
    tokio::time::advance(Duration::from_secs(1)).await;
    bench.now = Instant::now();
    bench.up(&idle).await.finish(true);
    bench.wait(&wanted, 1).await;
    let actions = bench.attend(&wanted, &NOT_HOME);
    assert_eq!(
        stopped(&actions),
        ["started-2"],
        "the older one is its function's min"
    );
    assert!(
        bench.attend(&wanted, &NOT_HOME).is_empty(),
        "room is on its way"
    );
    drop(actions);
    bench.state.on_stopped(&instance_id("started-2"));
    assert_eq!(starts(&bench.state.on_room(bench.now, &NOT_HOME)), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_can_not_be_stopped_does_not_keep_others_from_making_room() {
    let (stuck, idle, wanted) = (
        registered("stuck", &json!({})),
        registered("idle", &json!({})),
        registered("wanted", &json!({})),
    );
    let mut bench = Bench::with_budget(&[&stuck, &idle, &wanted], 256);
    bench.up(&stuck).await.finish(true);
    bench.up(&idle).await.finish(true);
    let stopping = bench.state.on_gone(
        Kind::Process,
        &instance_id("started-1"),
        bench.now,
        &NOT_HOME,
    );
    bench.wait(&wanted, 1).await;
    assert!(bench.attend(&wanted, &NOT_HOME).is_empty());
    bench.now += STOP_PATIENCE;
    assert_eq!(stopped(&bench.attend(&wanted, &NOT_HOME)), ["started-2"]);
    drop(stopping);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_stopped_for_one_that_never_fits() {
    let (idle, large) = (
        registered("idle", &json!({})),
        registered("large", &json!({"limits": {"memoryMb": 512}})),
    );
    let mut bench = Bench::with_budget(&[&idle, &large], 256);
    bench.up(&idle).await.finish(true);
    bench.wait(&large, 1).await;
    assert!(bench.attend(&large, &NOT_HOME).is_empty());
    let Err(super::super::WaitError::Failed(told)) = bench.waits.pop().unwrap().await.unwrap()
    else {
        panic!("it waits for room that can not come")
    };
    assert_eq!(told.code, ErrorCode::Overloaded);
}

#[tokio::test(start_paused = true)]
async fn a_drain_stops_what_is_idle_and_waits_for_the_rest() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    let running = bench.up(&of).await;
    bench.wait(&of, 1).await;
    let pending = only(bench.attend(&of, &NOT_HOME));
    assert!(bench.state.on_drain(bench.now).is_empty());
    assert_eq!(bench.state.remaining(), 2);
    assert_eq!(stopped(&bench.started(pending, Ok(()))), ["started-2"]);
    running.finish(true);
    assert_eq!(stopped(&bench.attend(&of, &NOT_HOME)), ["started-1"]);
    bench.state.on_stopped(&instance_id("started-1"));
    bench.state.on_stopped(&instance_id("started-2"));
    assert_eq!(bench.state.remaining(), 0);
    assert_eq!(
        stopped(&bench.list(vec![found("late", &of, Generation(4))])),
        ["late"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_restarted_executor_hears_a_pool_whose_notice_was_lost() {
    let of = function(json!({}));
    let mut bench = Bench::new(&[&of]);
    bench.wait(&of, 1).await;
    let lost: HashSet<InstanceKey> = bench.state.means.attention.next().await;
    assert!(lost.contains(&of.key));
    let restarted = State::new(bench.state.means.clone(), &bench.state.pools());
    bench.state = restarted;
    assert_eq!(starts(&bench.state.on_sweep(bench.now, &NOT_HOME)), 1);
    bench.wait(&of, 1).await;
    assert!(
        bench.state.means.attention.next().await.contains(&of.key),
        "it asks again"
    );
}
