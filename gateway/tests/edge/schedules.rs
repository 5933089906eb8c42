//! Schedules over the config API, and what becomes of their slots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actors::registry_cache::RegisteredType;
use actors::scheduler::{Fire, Slot};
use config::Revision;
use gateway::Scheduled;
use protocol::{ErrorCode, EventTypeRecord, Function, ScheduleRecord, Subscription};
use queue::{Queue, Stats};
use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox, eventually};

const SCHEDULES: &str = "/v1/spaces/default/schedules";

async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    sandbox.register("g").await;
    sandbox
}

async fn post(sandbox: &Sandbox, body: &Value) -> Answer {
    let call = Call::post(SCHEDULES, body.to_string());
    sandbox.admin(call).await
}

fn is_error(answer: &Answer, status: u16, message: &str) {
    let expected = json!({ "errors": [{ "message": message }] }).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    answer.has_common_headers();
}

/// The record without what the clock changes.
fn record(answer: &Answer) -> Value {
    let mut record: Value = serde_json::from_str(answer.text()).unwrap();
    record.as_object_mut().unwrap().remove("next");
    record
}

#[tokio::test]
async fn a_schedule_is_created_read_listed_updated_and_deleted() {
    let sandbox = sandbox().await;
    let none = "{\"schedules\":[]}\n";
    assert_eq!(sandbox.admin(Call::get(SCHEDULES)).await.text(), none);
    let sent = json!({
        "scheduleId": "nightly", "cron": "0 3 * * *", "timeZone": "Europe/Berlin", "eventType": "report.due",
        "data": {"n": 1}, "missed": "once", "metadata": {"team": "a"},
    });
    let created = post(&sandbox, &sent).await;
    assert_eq!(created.status, 201, "{}", created.text());
    created.has_common_headers();
    let expected = json!({
        "space": "default", "scheduleId": "nightly", "cron": "0 3 * * *", "timeZone": "Europe/Berlin",
        "eventType": "report.due", "data": {"n": 1}, "missed": "once", "enabled": true, "metadata": {"team": "a"},
    });
    assert_eq!(record(&created), expected);
    let next: Value = serde_json::from_str(created.text()).unwrap();
    let next = next["next"].as_str().unwrap().to_owned();
    assert!(
        next.ends_with("T01:00:00.000Z") || next.ends_with("T02:00:00.000Z"),
        "{next}"
    );

    let one = format!("{SCHEDULES}/nightly");
    let read = sandbox.admin(Call::get(&one)).await;
    assert_eq!((read.status, read.text()), (200, created.text()));
    assert_eq!(read.header("etag"), created.header("etag"));
    is_error(
        &post(&sandbox, &sent).await,
        409,
        "Schedule \"nightly\" already exists.",
    );

    post(
        &sandbox,
        &json!({"scheduleId": "poll", "every": "30s", "functionId": "f"}),
    )
    .await;
    let list = sandbox.admin(Call::get(SCHEDULES)).await;
    let list: Value = serde_json::from_str(list.text()).unwrap();
    let ids: Vec<_> = list["schedules"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["scheduleId"])
        .collect();
    assert_eq!(ids, ["nightly", "poll"]);
    let filtered = sandbox
        .admin(Call::get(&format!("{SCHEDULES}?metadata.team=a")))
        .await;
    let filtered: Value = serde_json::from_str(filtered.text()).unwrap();
    assert_eq!(filtered["schedules"].as_array().unwrap().len(), 1);

    // What was read can be sent back; the id is the one of the URL.
    let tag = read.header("etag").unwrap().to_owned();
    let put = |body: &str| Call::new("PUT", &one).body(body);
    let updated = sandbox
        .admin(put(read.text()).header("if-match", &tag))
        .await;
    assert_eq!((updated.status, record(&updated)), (200, expected));
    let stale = sandbox
        .admin(put(read.text()).header("if-match", &tag))
        .await;
    is_error(&stale, 412, "Schedule \"nightly\" changed meanwhile.");
    let off = sandbox
        .admin(put(r#"{"every":"1h","functionId":"g","enabled":false}"#))
        .await;
    let expected = json!({"space": "default", "scheduleId": "nightly", "every": "1h", "functionId": "g", "missed": "skip", "enabled": false});
    assert_eq!(
        (
            off.status,
            serde_json::from_str::<Value>(off.text()).unwrap()
        ),
        (200, expected)
    );

    let deleted = sandbox.admin(Call::new("DELETE", &one)).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    for call in [
        Call::get(&one),
        Call::new("DELETE", &one),
        put(r#"{"every":"1h","functionId":"g"}"#),
    ] {
        is_error(
            &sandbox.admin(call).await,
            404,
            "Schedule \"nightly\" not found.",
        );
    }
}

#[tokio::test]
async fn what_is_wrong_is_named_and_nothing_is_stored() {
    let sandbox = sandbox().await;
    for (body, expected) in [
        (
            json!({"scheduleId": "a", "every": "1s"}),
            "eventType is missing, expected the type of the event that is emitted, or functionId, the function that gets it",
        ),
        (
            json!({"scheduleId": "a", "every": "10ms", "functionId": "f"}),
            "every is \"10ms\", expected whole seconds, 1s to 366days, such as 30s or 1h 30m",
        ),
        (
            json!({"scheduleId": "a", "cron": "0 3 * * *", "timeZone": "Berlin", "functionId": "f"}),
            "timeZone is \"Berlin\", expected an IANA name such as Europe/Berlin",
        ),
        (
            json!({"scheduleId": "a", "cron": "0 0 31 2 *", "functionId": "f"}),
            "cron is \"0 0 31 2 *\", expected one that comes once more",
        ),
        (
            json!({"scheduleId": "a", "every": "1s", "functionId": "f", "data": "x".repeat(70_000)}),
            "data has 70002 bytes, expected at most 65536 (schedules.data_max)",
        ),
    ] {
        let answer = post(&sandbox, &body).await;
        let expected = format!("Schedule doesn't validate. Validation error: {expected}");
        is_error(&answer, 400, &expected);
    }
    let missing = json!({"scheduleId": "a", "every": "1s", "functionId": "missing"});
    is_error(
        &post(&sandbox, &missing).await,
        400,
        "Function \"missing\" not found.",
    );
    assert_eq!(
        sandbox.admin(Call::get(SCHEDULES)).await.text(),
        "{\"schedules\":[]}\n"
    );
    let broken = sandbox.admin(Call::post(SCHEDULES, "{")).await;
    assert_eq!(broken.status, 400);
    let method = sandbox.admin(Call::new("PATCH", SCHEDULES)).await;
    assert_eq!(method.status, 405);

    sandbox.node.is_store_away.store(true, Ordering::SeqCst);
    let away = post(
        &sandbox,
        &json!({"scheduleId": "a", "every": "1s", "functionId": "f"}),
    )
    .await;
    assert_eq!(away.status, 503, "{}", away.text());
}

/// A function goes when no schedule is for it any more.
#[tokio::test]
async fn a_function_is_scheduled_or_deleted_never_both() {
    let sandbox = sandbox().await;
    post(
        &sandbox,
        &json!({"scheduleId": "a", "every": "1h", "functionId": "f"}),
    )
    .await;
    let delete = |id: &str| Call::new("DELETE", &format!("/v1/spaces/default/functions/{id}"));
    let in_use = "Function cannot be deleted because schedule a is for it.";
    is_error(&sandbox.admin(delete("f")).await, 400, in_use);
    let one = format!("{SCHEDULES}/a");
    let moved = Call::new("PUT", &one).body(r#"{"every":"1h","functionId":"g"}"#);
    assert_eq!(sandbox.admin(moved).await.status, 200);
    assert_eq!(sandbox.admin(delete("f")).await.status, 204);
    let in_use = "Function cannot be deleted because schedule a is for it.";
    is_error(&sandbox.admin(delete("g")).await, 400, in_use);
    assert_eq!(sandbox.admin(Call::new("DELETE", &one)).await.status, 204);
    assert_eq!(sandbox.admin(delete("g")).await.status, 204);
}

fn slot(more: &Value) -> Slot {
    let mut record = json!({"scheduleId": "a", "every": "1s"});
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    let schedule = ScheduleRecord::parse("default", None, record.to_string().as_bytes()).unwrap();
    Slot {
        schedule: Arc::new(schedule),
        slot_ms: 1_700_000_000_000,
    }
}

/// Lets the node know the functions f and g, these subscriptions, and the event type `tock`, which f must let pass.
fn know(sandbox: &Sandbox, subscriptions: &[Value]) {
    let functions = ["f", "g"].map(|id| {
        let provider = json!({ "url": "http://a.example/" });
        let record =
            json!({"space": "default", "functionId": id, "type": "http", "provider": provider});
        serde_json::from_value::<Function>(record).unwrap()
    });
    let subscriptions = subscriptions.iter().map(|record| {
        let record = record.to_string();
        Subscription::parse("default", record.as_bytes()).unwrap()
    });
    let mut registry = actors::scripted::registry(functions, subscriptions);
    let record =
        EventTypeRecord::parse("default", None, br#"{"name":"tock","authorizerId":"f"}"#).unwrap();
    let registered = RegisteredType {
        event_type: Arc::new(record.clone()),
        revision: Revision(1),
    };
    let types = BTreeMap::from([(record.name, Arc::new(registered))]);
    registry.event_types.insert(record.space, Arc::new(types));
    *sandbox.node.registry.lock().unwrap() = Arc::new(registry);
}

/// The functions that a slot calls, sorted.
async fn called(sandbox: &Sandbox, slot: &Slot) -> Vec<String> {
    let before = sandbox.node.calls();
    let fires = Scheduled::new(Arc::clone(&sandbox.queues.emitter));
    fires.fire(slot).await.unwrap();
    eventually("everything is delivered", || {
        sandbox.queues.custom.stats() == Stats::default()
    })
    .await;
    let requests = sandbox.node.requests.lock().unwrap();
    let ids = requests[before..]
        .iter()
        .map(|request| request.function_id.to_string());
    let mut ids: Vec<_> = ids.collect();
    ids.sort();
    ids
}

/// The function gets one event, whose time is the slot, and whose id is the same whoever fires it.
#[tokio::test]
async fn a_slot_is_an_event_for_its_function() {
    let sandbox = Sandbox::start();
    know(&sandbox, &[]);
    let one = slot(&json!({"functionId": "f", "data": {"n": 1}}));
    assert_eq!(called(&sandbox, &one).await, ["f"]);
    let other = slot(&json!({"functionId": "f", "eventType": "wake"}));
    assert_eq!(called(&sandbox, &other).await, ["f"]);
    let requests = sandbox.node.requests.lock().unwrap();
    let events: Vec<Value> = requests
        .iter()
        .map(|request| serde_json::from_slice(&request.payload).unwrap())
        .collect();
    assert_eq!(events[0]["id"], events[1]["id"]);
    assert_eq!(events[0]["id"], one.schedule.event_id(one.slot_ms).as_str());
    assert_eq!(
        (&events[0]["event"], &events[0]["data"]),
        (&json!("hearth.schedule.fired"), &json!({"n": 1}))
    );
    // What it says when nothing was said.
    let expected = json!({"scheduleId": "a", "time": "2023-11-14T22:13:20.000Z"});
    assert_eq!(
        (&events[1]["event"], &events[1]["data"]),
        (&json!("wake"), &expected)
    );
}

/// As if a client had emitted it to `/`; but what an authorizer must let pass has no request to show it.
#[tokio::test]
async fn a_slot_is_an_event_for_those_who_subscribed() {
    let sandbox = Sandbox::start();
    let typed = |name: &str, function: &str| json!({"type": "async", "eventType": name, "functionId": function, "path": "/", "method": "POST"});
    know(
        &sandbox,
        &[
            json!({"event": "tick", "functionId": "f"}),
            json!({"event": "tick.*", "functionId": "g"}),
            json!({"event": "tick", "functionId": "g", "path": "/elsewhere"}),
            typed("tick", "g"),
            typed("tock", "f"),
        ],
    );
    let cases: [(&str, &[&str]); 4] = [
        ("tick", &["f", "g"]),
        ("tick.tock", &["g"]),
        ("tock", &[]),
        ("silence", &[]),
    ];
    for (event_type, expected) in cases {
        let slot = slot(&json!({"eventType": event_type}));
        assert_eq!(called(&sandbox, &slot).await, expected, "{event_type}");
    }
}

/// A node that can not say who subscribed, or has no room, has not fired it.
#[tokio::test]
async fn what_can_not_be_queued_is_not_fired() {
    let sandbox = Sandbox::with(|settings| settings.queue.len_max = 1);
    let fires = Scheduled::new(Arc::clone(&sandbox.queues.emitter));
    *sandbox.node.registry.lock().unwrap() = Arc::default();
    let tick = slot(&json!({"eventType": "tick"}));
    let refused = fires.fire(&tick).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::StoreUnavailable);
    know(
        &sandbox,
        &[
            json!({"event": "tick", "functionId": "f"}),
            json!({"event": "tick", "functionId": "g"}),
        ],
    );
    let refused = fires.fire(&tick).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Overloaded);
    assert_eq!(sandbox.node.calls(), 0);
}
