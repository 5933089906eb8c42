use protocol::ScheduleRecord;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{member, members, node_id};
use crate::scheduler::progress::Fired;

const SECOND: u64 = 1000;
/// A moment that slots of any second fall on.
const T: u64 = 1_700_000_000 * SECOND;

fn registered(id: &str, more: &Value, revision: u64) -> Arc<RegisteredSchedule> {
    let mut record = json!({"scheduleId": id, "every": "1s", "eventType": "tick"});
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    let schedule = ScheduleRecord::parse("default", None, record.to_string().as_bytes()).unwrap();
    Arc::new(RegisteredSchedule {
        plan: schedule.plan().unwrap(),
        schedule: Arc::new(schedule),
        revision: Revision(revision),
    })
}

fn registry(of: &[&Arc<RegisteredSchedule>]) -> Registry {
    let mut registry = Registry {
        is_loaded: true,
        ..Registry::default()
    };
    for registered in of {
        let space = registry.schedules.entry(registered.schedule.space.clone());
        let id = registered.schedule.schedule_id.clone();
        Arc::make_mut(space.or_default()).insert(id, Arc::clone(registered));
    }
    registry
}

fn known(until_ms: u64, revision: u64) -> Known {
    Known {
        progress: Progress {
            until_ms,
            claim: None,
            fired: None,
        },
        revision: Revision(revision),
    }
}

fn claimed(slot_ms: u64, node: &str, generation: u64, revision: u64) -> Known {
    let mut known = known(slot_ms, revision);
    known.progress.claim = Some(Claim {
        node: node_id(node),
        generation: Generation(generation),
        at_ms: slot_ms,
    });
    known
}

/// A node that is alone and has one schedule; its progress is until `T`.
struct Alone {
    state: State,
    key: Key,
    begun: Instant,
}

impl Alone {
    fn new(more: &Value) -> Self {
        let settings = SchedulesSettings::default();
        let mut state = State::new(settings, node_id("n1"), Generation(5));
        state.on_registry(&registry(&[&registered("a", more, 1)]), T);
        let key: Key = "default/a".into();
        state.on_progress(&key, Some(known(T, 2)), T);
        let begun = Instant::now();
        Self { state, key, begun }
    }

    fn instant(&self, now_ms: u64) -> Instant {
        self.begun + Duration::from_millis(now_ms - T)
    }

    /// What is to be done at a moment.
    fn takes(&mut self, now_ms: u64) -> Vec<What> {
        let attempts = self.state.take(10, self.instant(now_ms), now_ms);
        attempts.into_iter().map(|attempt| attempt.what).collect()
    }

    fn ends(&mut self, ended: Ended, now_ms: u64) {
        let now = self.instant(now_ms);
        self.state.on_ended(&self.key.clone(), ended, now, now_ms);
    }

    /// When it is looked at next, in milliseconds after `now_ms`.
    fn sleeps(&self, now_ms: u64) -> Option<u64> {
        let now = self.instant(now_ms);
        let wake = self.state.wake(now, now_ms)?;
        Some(millis(wake.saturating_duration_since(now)))
    }
}

fn fire(slot_ms: u64) -> Vec<What> {
    vec![What::Fire { slot_ms }]
}

#[test]
fn a_slot_is_fired_when_it_is_due_and_no_slot_before_the_last_is_done() {
    let mut alone = Alone::new(&json!({}));
    assert_eq!(alone.sleeps(T + 100), Some(900));
    assert_eq!(alone.takes(T + 999), []);
    assert_eq!(alone.takes(T + 1001), fire(T + SECOND));
    assert_eq!(alone.takes(T + 2500), [], "the first one has not ended");
    assert_eq!(alone.sleeps(T + 2500), None);
    alone.ends(Ended::Stored(known(T + SECOND, 4)), T + 2500);
    assert_eq!(
        alone.takes(T + 2500),
        fire(T + 2 * SECOND),
        "late, and not too late"
    );
    alone.ends(Ended::Stored(known(T + 2 * SECOND, 6)), T + 2600);
    assert_eq!(alone.sleeps(T + 2600), Some(400));
}

#[test]
fn what_was_missed_is_passed_over_or_fired_once() {
    let late = T + 60 * SECOND + 300;
    let mut skips = Alone::new(&json!({"missed": "skip"}));
    assert_eq!(skips.takes(late), []);
    assert_eq!(skips.sleeps(late), Some(700));
    assert_eq!(skips.takes(late + 700), fire(T + 61 * SECOND));

    let mut once = Alone::new(&json!({"missed": "once"}));
    assert_eq!(once.takes(late), fire(T + 60 * SECOND), "the last of them");
    once.ends(Ended::Stored(known(T + 60 * SECOND, 4)), late + 10);
    assert_eq!(once.takes(late + 10), []);
    assert_eq!(once.takes(late + 700), fire(T + 61 * SECOND));

    let mut in_time = Alone::new(&json!({"missed": "skip"}));
    let late = T + 11 * SECOND;
    assert_eq!(
        in_time.takes(late),
        fire(T + SECOND),
        "10 s late, schedules.late_max"
    );
}

#[test]
fn a_schedule_that_is_new_counts_from_when_it_is_known() {
    let mut alone = Alone::new(&json!({}));
    alone
        .state
        .on_progress(&alone.key.clone(), None, T + 5 * SECOND);
    assert_eq!(alone.takes(T + 6 * SECOND), [What::Begin(T + 5 * SECOND)]);
    alone.ends(Ended::Lost, T + 6 * SECOND);
    assert_eq!(
        alone.takes(T + 6 * SECOND + 100),
        [],
        "another was first: the watch will say"
    );
    let told = Some(known(T + 5 * SECOND, 9));
    alone
        .state
        .on_progress(&alone.key.clone(), told, T + 6 * SECOND + 150);
    assert_eq!(alone.takes(T + 6 * SECOND + 260), fire(T + 6 * SECOND));
}

#[test]
fn one_that_is_off_or_gone_is_not_fired() {
    for off in [
        registry(&[]),
        registry(&[&registered("a", &json!({"enabled": false}), 3)]),
    ] {
        let mut alone = Alone::new(&json!({}));
        alone.state.on_registry(&off, T + 10);
        assert!(alone.state.is_idle());
        assert_eq!(alone.takes(T + 5 * SECOND), []);
        assert_eq!(alone.sleeps(T + 5 * SECOND), None);
    }
}

#[test]
fn the_claim_of_a_node_that_is_gone_is_taken_over() {
    let alive = |generation| {
        let mut other = member("n2", &[]);
        other.generation = Generation(generation);
        other
    };
    let dead = || {
        let mut dead = alive(7);
        dead.is_alive = false;
        dead
    };
    let takeover = T + SECOND + 10 * SECOND;
    // Who claimed the slot of T + 1 s, what gossip knows, and from when on it is fired again.
    for (claim, of, from) in [
        (("n2", 7), vec![alive(7)], takeover),
        (("n2", 7), vec![], takeover),
        (("n2", 7), vec![dead()], T + SECOND),
        (("n2", 7), vec![alive(8)], T + SECOND),
        (("n1", 5), vec![], T + SECOND),
        (("n1", 4), vec![], T + SECOND),
    ] {
        let mut alone = Alone::new(&json!({}));
        let (node, generation) = claim;
        let told = Some(claimed(T + SECOND, node, generation, 3));
        alone.state.on_members(&members(of.clone()), T);
        alone
            .state
            .on_progress(&alone.key.clone(), told, T + SECOND);
        // By its rendezvous hash this node may be the second one, half a second later.
        let place = alone
            .state
            .entries
            .values()
            .map(|entry| alone.state.place(entry))
            .sum::<u64>();
        let from = from + place * 500;
        if from > T + SECOND {
            assert_eq!(alone.takes(from - 1), [], "{claim:?} {of:?}");
        }
        assert_eq!(alone.takes(from), fire(T + SECOND), "{claim:?} {of:?}");
    }
}

/// Each node comes half a second after the one before it, and every one has a turn.
#[test]
fn nodes_take_turns() {
    let names = ["n1", "n2", "n3"];
    let mut firsts = BTreeSet::new();
    for schedule in 0..20 {
        let id = format!("s{schedule}");
        let mut delays = Vec::new();
        for name in names {
            let mut state = State::new(SchedulesSettings::default(), node_id(name), Generation(1));
            let others = names.iter().filter(|other| **other != name);
            state.on_members(&members(others.map(|other| member(other, &[]))), T);
            state.on_registry(&registry(&[&registered(&id, &json!({}), 1)]), T);
            state.on_progress(&format!("default/{id}").into(), Some(known(T, 2)), T);
            let now = Instant::now();
            let delay = millis(state.wake(now, T).unwrap() - now) - SECOND;
            if delay == 0 {
                firsts.insert(name);
            }
            delays.push(delay);
        }
        delays.sort_unstable();
        assert_eq!(delays, [0, 500, 1000]);
    }
    assert_eq!(firsts.len(), 3);
}

#[test]
fn while_the_store_is_away_one_asks_for_all_and_less_and_less_often() {
    let mut alone = Alone::new(&json!({}));
    let more: Vec<_> = (0..5)
        .map(|n| registered(&format!("s{n}"), &json!({}), 1))
        .collect();
    alone
        .state
        .on_registry(&registry(&more.iter().collect::<Vec<_>>()), T);
    for n in 0..5 {
        alone
            .state
            .on_progress(&format!("default/s{n}").into(), Some(known(T, 2)), T);
    }
    let mut now_ms = T + SECOND;
    let first = alone.state.take(10, alone.instant(now_ms), now_ms);
    assert_eq!(first.len(), 5);
    for attempt in first {
        alone
            .state
            .on_ended(&attempt.key, Ended::Away, alone.instant(now_ms), now_ms);
    }
    for _ in 0..3 {
        let pause = alone.sleeps(now_ms).unwrap();
        assert!((250..=2000).contains(&pause), "{pause}");
        now_ms += pause;
        let one = alone.state.take(10, alone.instant(now_ms), now_ms);
        assert_eq!(one.len(), 1);
        assert_eq!(alone.takes(now_ms), [], "the one has not ended");
        alone
            .state
            .on_ended(&one[0].key, Ended::Away, alone.instant(now_ms), now_ms);
    }
    now_ms += 2000;
    let one = alone.state.take(10, alone.instant(now_ms), now_ms);
    alone.state.on_ended(
        &one[0].key,
        Ended::Stored(known(T + SECOND, 9)),
        alone.instant(now_ms),
        now_ms,
    );
    assert_eq!(alone.takes(now_ms).len(), 5);
}

#[test]
fn what_is_queued_already_is_only_noted_when_the_store_is_back() {
    let mut alone = Alone::new(&json!({}));
    assert_eq!(alone.takes(T + SECOND), fire(T + SECOND));
    let slot_ms = T + SECOND;
    let known = claimed(slot_ms, "n1", 5, 3);
    alone.ends(Ended::Queued { known, slot_ms }, T + SECOND);
    assert_eq!(alone.takes(T + SECOND + 10), []);
    assert_eq!(alone.takes(T + SECOND + 250), [What::Settle { slot_ms }]);
    alone.ends(Ended::Away, T + SECOND + 250);
    assert_eq!(alone.takes(T + SECOND + 750), [What::Settle { slot_ms }]);
    let mut settled = super::tests::known(slot_ms, 4);
    settled.progress.fired = Some(Fired {
        slot_ms,
        at_ms: slot_ms,
        node: "n1".into(),
    });
    alone.ends(Ended::Stored(settled), T + SECOND + 760);
    assert_eq!(alone.takes(T + 2 * SECOND), fire(T + 2 * SECOND));
}

#[test]
fn a_queue_that_refuses_is_asked_less_and_less_often_and_others_may_be_first() {
    let mut alone = Alone::new(&json!({}));
    let mut now_ms = T + SECOND;
    for (round, pause) in [1000, 2000, 4000].into_iter().enumerate() {
        assert_eq!(alone.takes(now_ms), fire(T + SECOND), "{round}");
        let undone = known(T, 10 + round as u64);
        alone.ends(Ended::Refused(Some(undone)), now_ms);
        assert_eq!(alone.takes(now_ms + pause - 1), [], "{round}");
        now_ms += pause;
    }
    alone
        .state
        .on_progress(&alone.key.clone(), Some(known(T + SECOND, 99)), now_ms);
    assert_eq!(
        alone.takes(now_ms),
        fire(T + 2 * SECOND),
        "another one has fired it"
    );
}

#[test]
fn what_the_watch_says_late_is_passed_over() {
    let mut alone = Alone::new(&json!({}));
    assert_eq!(alone.takes(T + SECOND), fire(T + SECOND));
    alone.ends(Ended::Stored(known(T + SECOND, 4)), T + SECOND);
    let told = Some(claimed(T + SECOND, "n1", 5, 3));
    alone
        .state
        .on_progress(&alone.key.clone(), told, T + SECOND);
    assert_eq!(alone.takes(T + SECOND), []);
    assert_eq!(alone.takes(T + 2 * SECOND), fire(T + 2 * SECOND));
}

#[test]
fn slots_are_counted_up_to_a_bound() {
    let plan = registered("a", &json!({}), 1).plan.clone();
    for (before, expected) in [
        (T + SECOND, 0),
        (T + 3 * SECOND, 2),
        (T + 900 * SECOND, 100),
    ] {
        assert_eq!(slots_between(&plan, T, before, 100), expected);
    }
}
