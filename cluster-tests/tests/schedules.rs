//! Slots of schedules on real nodes: each once in the cluster, whoever dies, whatever the clocks say, and none without the store.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cluster_tests::{Does, Node, NodeOptions, Record, Sandbox, Webhook, outage, until};
use reqwest::Method;
use serde_json::{Value, json};

/// How long something may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// What makes a program see another time.
const FAKETIME: [&str; 2] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
];

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Registers the webhook, and schedules for it: id, interval in seconds, and what becomes of missed slots.
async fn schedule(sandbox: &Sandbox, hook: &Webhook, schedules: &[(&str, u64, &str)]) {
    sandbox.register(&Record::http("hook", hook.url())).await;
    let node = sandbox.node(0);
    for (id, seconds, missed) in schedules {
        let every = format!("{seconds}s");
        let record =
            json!({ "scheduleId": id, "every": every, "functionId": "hook", "missed": missed });
        let path = "/v1/spaces/default/schedules";
        let answer = node.config(Method::POST, path, Some(&record)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
}

/// How often each slot of a schedule came, by its moment.
fn slots(hook: &Webhook, id: &str) -> BTreeMap<i64, usize> {
    let mut slots = BTreeMap::new();
    for envelope in hook.envelopes() {
        let data = &envelope["data"];
        if data["scheduleId"] == id {
            let time = humantime::parse_rfc3339(data["time"].as_str().unwrap()).unwrap();
            let ms = time.duration_since(UNIX_EPOCH).unwrap().as_millis();
            *slots.entry(i64::try_from(ms).unwrap()).or_default() += 1;
        }
    }
    slots
}

/// Waits until so many slots came; none of them may come before its time.
async fn come(hook: &Webhook, id: &str, count: usize) {
    let what = format!("{count} slots of {id} came");
    until(&what, PATIENCE, || async {
        let slots = slots(hook, id);
        let early: Vec<_> = slots.keys().filter(|slot| **slot > now_ms()).collect();
        assert!(early.is_empty(), "before their time: {early:?}");
        slots.len() >= count
    })
    .await;
}

/// Each second has its slot, once.
fn once_a_second(slots: &BTreeMap<i64, usize>) {
    let (first, last) = (slots.keys().next().unwrap(), slots.keys().last().unwrap());
    let expected: BTreeMap<i64, usize> = (*first..=*last)
        .step_by(1000)
        .map(|slot| (slot, 1))
        .collect();
    assert_eq!(*slots, expected);
}

/// What a node says of the slot that was fired last: the moment, and the name of the node that did.
async fn last(node: &Node, id: &str) -> Option<(i64, String)> {
    let path = format!("/v1/spaces/default/schedules/{id}");
    let record = node.config(Method::GET, &path, None).await.json();
    let slot = humantime::parse_rfc3339(record["last"]["slot"].as_str()?).unwrap();
    let ms = slot.duration_since(UNIX_EPOCH).unwrap().as_millis();
    let name = record["last"]["node"].as_str()?.to_owned();
    Some((i64::try_from(ms).unwrap(), name))
}

/// Whether no delivery is in etcd any more.
async fn holds_nothing(sandbox: &Sandbox) -> bool {
    let all = sandbox.etcd().get_all("").await;
    !all.iter().any(|(key, _)| key.contains("/queue/held/"))
}

async fn is_settled(node: &Node) -> bool {
    let delivered = node.metric("hearth_deliveries_total", "outcome=\"delivered\"");
    let fired = node.metric("hearth_schedule_slots_total", "outcome=\"fired\"");
    delivered.await >= fired.await
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_is_fired_once_while_nodes_are_killed() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("")).await;
    schedule(&sandbox, &hook, &[("tick", 1, "skip")]).await;
    let mut alive = sandbox.nodes();
    for kills in 0..2 {
        come(&hook, "tick", slots(&hook, "tick").len() + 3).await;
        // Between two slots, when the one that fired last has heard that it was delivered: what it dies of is nobody's loss.
        let mut place = None;
        until(
            "a slot was fired and delivered just now",
            PATIENCE,
            || async {
                let fired = last(&alive[0], "tick").await;
                let Some((slot, name)) = fired else {
                    return false;
                };
                let node = sandbox.named(&name);
                let is_known = is_settled(&node).await && holds_nothing(&sandbox).await;
                is_known && now_ms() - slot < 500
            },
        )
        .await;
        if let Some((_, name)) = last(&alive[0], "tick").await {
            place = alive.iter().position(|node| node.name() == name);
        }
        let killed = alive.remove(place.unwrap());
        killed.kill9();
        come(&hook, "tick", slots(&hook, "tick").len() + 5).await;
        once_a_second(&slots(&hook, "tick"));
        let (_, by) = last(&alive[0], "tick").await.unwrap();
        assert_ne!(by, killed.name(), "{kills}");
    }
}

/// A node that dies while its slot is being delivered, or was not claimed to the end: nothing is lost, and what comes twice is known by
/// its id. What its queue had, its next start delivers.
#[tokio::test(flavor = "multi_thread")]
async fn no_slot_is_lost_whenever_a_node_is_killed() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer("")).await;
    let ids: Vec<String> = (0..6).map(|number| format!("tick{number}")).collect();
    let schedules: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, "skip")).collect();
    schedule(&sandbox, &hook, &schedules).await;
    for round in 0..6 {
        // All of them are due in the same moment: the first one that comes tells that a node is in the middle of it.
        come(&hook, &ids[0], slots(&hook, &ids[0]).len() + 1).await;
        let came = hook.envelopes().len();
        until("the next second begins", PATIENCE, || async {
            hook.envelopes().len() > came
        })
        .await;
        let killed = sandbox.node(round % 3);
        killed.kill9();
        let count = slots(&hook, &ids[0]).len() + 3;
        come(&hook, &ids[0], count).await;
        killed.restart();
        killed.wait_ready(PATIENCE).await;
    }
    for id in &ids {
        let first = *slots(&hook, id).keys().next().unwrap();
        let last = *slots(&hook, id).keys().last().unwrap();
        let what = format!("each second from {first} to {last} has its slot of {id}");
        until(&what, PATIENCE, || async {
            let slots = slots(&hook, id);
            (first..=last)
                .step_by(1000)
                .all(|slot| slots.contains_key(&slot))
        })
        .await;
    }
    let twice = hook.ids().values().filter(|times| **times > 1).count();
    let all = hook.ids().len();
    println!("{all} slots, {twice} of them more than once");
    assert!(twice < all / 4, "{twice} of {all} came more than once");
}

/// Without the store nobody knows what others fire, so nobody does, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_fires_without_the_store_and_then_what_the_schedule_says() {
    let mut sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_SCHEDULES__LATE_MAX", "2s")
        .start()
        .await;
    let hook = Webhook::start(Does::Answer("")).await;
    schedule(
        &sandbox,
        &hook,
        &[
            ("tick", 1, "skip"),
            ("skips", 10, "skip"),
            ("once", 10, "once"),
        ],
    )
    .await;
    let before = begin(&hook).await;
    let killed = now_ms();
    sandbox.etcd().kill9();
    for node in sandbox.nodes() {
        until("the node says so", PATIENCE, || async {
            node.metric("hearth_schedule_failures_total", "reason=\"store\"")
                .await
                > 0.0
        })
        .await;
        until("what was fired is delivered", PATIENCE, || async {
            node.metric("gateway_events_backlog", "").await == 0.0
        })
        .await;
        assert!(
            node.log()
                .contains("schedules do not fire here: the config store"),
            "{}",
            node.log()
        );
    }
    let came = hook.envelopes().len();
    let missed = before + 10_000;
    last_until(missed + 2_500).await;
    assert_eq!(hook.envelopes().len(), came, "fired without the store");
    sandbox.etcd_mut().restart().await;
    missed_as_said(&hook, missed).await;
    // What ended while etcd was killed may have ended unheard, and is delivered once more: see promise 3.
    let unheard = killed - 2_000..killed + 1_000;
    for id in ["tick", "skips", "once"] {
        let slots = slots(&hook, id);
        let mut heard = slots.iter().filter(|(slot, _)| !unheard.contains(slot));
        assert!(heard.all(|(_, times)| *times == 1), "{id}: {slots:?}");
    }
}

/// The same for a node that is alone, and was away itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_fires_what_the_schedule_says() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_SCHEDULES__LATE_MAX", "2s")
        .start()
        .await;
    let hook = Webhook::start(Does::Answer("")).await;
    schedule(
        &sandbox,
        &hook,
        &[("skips", 10, "skip"), ("once", 10, "once")],
    )
    .await;
    let before = begin(&hook).await;
    let node = sandbox.node(0);
    until("all is settled", PATIENCE, || is_settled(&node)).await;
    node.kill9();
    let missed = before + 10_000;
    last_until(missed + 2_500).await;
    node.restart();
    missed_as_said(&hook, missed).await;
    until("the missed one is counted", PATIENCE, || async {
        node.metric("hearth_schedule_slots_total", "outcome=\"missed\"")
            .await
            == 1.0
    })
    .await;
    for id in ["skips", "once"] {
        let slots = slots(&hook, id);
        assert!(slots.values().all(|times| *times == 1), "{id}: {slots:?}");
    }
}

/// The slot that both slow schedules have fired, soon after it.
async fn begin(hook: &Webhook) -> i64 {
    until("both have fired a slot", PATIENCE, || async {
        !slots(hook, "skips").is_empty() && !slots(hook, "once").is_empty()
    })
    .await;
    *slots(hook, "skips").keys().last().unwrap()
}

/// Lets an outage last until a moment.
async fn last_until(moment_ms: i64) {
    let left = u64::try_from(moment_ms - now_ms()).unwrap_or_default();
    outage(Duration::from_millis(left)).await;
}

/// A slot that was missed is fired late, once, by the schedule that wants it, and both go on with the next one.
async fn missed_as_said(hook: &Webhook, missed: i64) {
    until("the missed slot came late", PATIENCE, || async {
        slots(hook, "once").contains_key(&missed)
    })
    .await;
    let next = missed + 10_000;
    until("both go on", PATIENCE, || async {
        ["skips", "once"]
            .iter()
            .all(|id| slots(hook, id).contains_key(&next))
    })
    .await;
    assert!(!slots(hook, "skips").contains_key(&missed));
}

/// A node whose clock is an hour off goes by the clocks of the others, and says what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_off_by_an_hour_fires_nothing_early_and_nothing_twice() {
    let library = FAKETIME
        .into_iter()
        .find(|path| std::fs::exists(path).unwrap());
    let library = library.expect("libfaketime is installed: make deps");
    for (offset, how) in [("+1h", "ahead of"), ("-1h", "behind")] {
        let env = [
            ("LD_PRELOAD", library),
            ("FAKETIME", offset),
            // Only the wall clock is off.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ];
        let wrong = NodeOptions {
            env: env
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ..NodeOptions::default()
        };
        let sandbox = Sandbox::builder()
            .env("HEARTH_SCHEDULES__CLOCK_INTERVAL", "1s")
            .node(wrong)
            .nodes(2)
            .start()
            .await;
        let hook = Webhook::start(Does::Answer("")).await;
        // Of so many schedules each node is the first one for some: a third of them each, by hashes of its random id. Of 8 it would be
        // the first one of none in 4 runs of 100, of 32 in 2 runs of a million.
        let ids: Vec<String> = (0..32).map(|number| format!("tick{number}")).collect();
        let schedules: Vec<_> = ids.iter().map(|id| (id.as_str(), 1, "skip")).collect();
        schedule(&sandbox, &hook, &schedules).await;
        for id in &ids {
            come(&hook, id, 5).await;
            let slots = slots(&hook, id);
            once_a_second(&slots);
            let late = now_ms() - slots.keys().last().unwrap();
            assert!(late < 20_000, "{offset}: {id} is {late} ms late");
        }
        let node = sandbox.node(0);
        until("it says what is wrong", PATIENCE, || async {
            let skew = node.metric("hearth_clock_skew_seconds", "").await;
            (3590.0..3610.0).contains(&skew.abs())
        })
        .await;
        let told = format!("this node's clock is {how} the clocks of the other nodes");
        assert!(node.log().contains(&told), "{}", node.log());
        let fired = node
            .metric("hearth_schedule_slots_total", "outcome=\"fired\"")
            .await;
        assert!(fired > 0.0, "{offset}: it fires as well");
    }
}

/// The command and the API, on real nodes: what one node was told, all fire and show.
#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_made_on_one_node_and_shown_by_another() {
    let sandbox = Sandbox::processes(2).await;
    let hook = Webhook::start(Does::Answer("")).await;
    schedule(&sandbox, &hook, &[("tick", 1, "skip")]).await;
    come(&hook, "tick", 2).await;
    let path = "/v1/spaces/default/schedules/tick";
    let other = sandbox.node(1);
    until("the other node shows it", PATIENCE, || async {
        last(&other, "tick").await.is_some()
    })
    .await;
    let deleted = sandbox.node(0).config(Method::DELETE, path, None).await;
    assert_eq!(deleted.status, 204);
    let gone = other.config(Method::GET, path, None).await;
    assert_eq!(gone.status, 404, "{gone:?}");
    let left: Value = json!(sandbox.etcd().get_all("").await);
    assert!(!left.to_string().contains("scheduler/progress"), "{left}");
}
