//! Schedules: what two nodes could decide differently, and how far one is when its record changes.

use futures_util::future::join_all;
use protocol::ScheduleRecord;

use super::*;
use crate::scheduler::progress::progress_key;

fn schedule(id: &str, more: &Value) -> ScheduleRecord {
    let mut body = json!({"scheduleId": id, "every": "30s", "eventType": "tick"});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    ScheduleRecord::parse("default", None, body.to_string().as_bytes()).unwrap()
}

#[tokio::test]
async fn a_space_has_no_more_schedules_than_it_may_whatever_nodes_are_asked() {
    let (mut one, mut other, _) = two_nodes().await;
    for node in [&mut one, &mut other] {
        node.catalog.schedules.per_space_max = 5;
    }
    let creates = (0..12).map(|number| {
        let node = if number % 2 == 0 { &one } else { &other };
        let id = format!("s{number}");
        node.catalog.create_schedule(schedule(&id, &json!({})))
    });
    let created = join_all(creates).await;
    let refused = created.iter().filter_map(|created| created.as_ref().err());
    let refused: Vec<String> = refused.map(ToString::to_string).collect();
    assert_eq!(refused.len(), 7, "{refused:?}");
    let expected = "space default has 5 schedules, the most it may have (schedules.per_space_max)";
    assert!(refused.iter().all(|error| error == expected), "{refused:?}");
    let all = one.catalog.schedules("default").await.unwrap();
    assert_eq!(all.len(), 5);
    let id = all[0].schedule.schedule_id.to_string();
    other
        .catalog
        .delete_schedule("default", &id, None)
        .await
        .unwrap();
    one.catalog
        .create_schedule(schedule("more", &json!({})))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_function_is_scheduled_or_deleted_never_both() {
    let (one, other, store) = two_nodes().await;
    for round in 0..40 {
        one.catalog.create(function("f")).await.unwrap();
        let (created, deleted) = tokio::join!(
            one.catalog
                .create_schedule(schedule("a", &json!({"functionId": "f"}))),
            other.catalog.delete("default", "f", None),
        );
        match (created, deleted) {
            (Ok(_), Err(Error::IsScheduled(_))) => {
                if round % 2 == 0 {
                    one.catalog
                        .delete_schedule("default", "a", None)
                        .await
                        .unwrap();
                } else {
                    let moved = schedule("a", &json!({}));
                    one.catalog.update_schedule(moved, None).await.unwrap();
                }
                other.catalog.delete("default", "f", None).await.unwrap();
                let _ = one.catalog.delete_schedule("default", "a", None).await;
            }
            (Err(Error::UnknownFunction(_)), Ok(())) => {}
            outcome => panic!("round {round}: {outcome:?}"),
        }
    }
    assert!(store.list("fires/").await.unwrap().entries.is_empty());
}

/// What was counted of a schedule holds while it is due at the same times.
#[tokio::test]
async fn a_schedule_begins_anew_when_it_is_due_at_other_times_or_was_off() {
    let (node, _, store) = two_nodes().await;
    let key = progress_key("default", "a");
    let fired = br#"{"untilMs":30000,"fired":{"slotMs":30000,"atMs":30001,"node":"n1"}}"#;
    node.catalog
        .create_schedule(schedule("a", &json!({})))
        .await
        .unwrap();
    for (more, goes_on) in [
        (json!({"data": 1, "metadata": {"a": "b"}}), true),
        (json!({"every": "30s", "missed": "once"}), true),
        (json!({"every": "60s"}), false),
        (json!({"every": "60s", "enabled": false}), true),
        (json!({"every": "60s", "enabled": false, "data": 2}), true),
        (json!({"every": "60s", "enabled": true}), false),
    ] {
        let value = bytes::Bytes::from_static(fired);
        store.put(&key, value, None).await.unwrap();
        let updated = node.catalog.update_schedule(schedule("a", &more), None);
        let progress = updated.await.unwrap().progress;
        let fired = progress.and_then(|progress| progress.fired);
        assert_eq!(
            fired.map(|fired| fired.slot_ms),
            goes_on.then_some(30_000),
            "{more}"
        );
        assert_eq!(store.get(&key).await.unwrap().is_some(), goes_on, "{more}");
    }
    node.catalog
        .delete_schedule("default", "a", None)
        .await
        .unwrap();
    assert!(store.get(&key).await.unwrap().is_none());
}

#[tokio::test]
async fn the_shortest_interval_is_a_setting() {
    let (mut node, ..) = two_nodes().await;
    node.catalog.schedules.interval_min = std::time::Duration::from_secs(60);
    for (more, expected) in [
        (
            json!({}),
            r#"every is "30s", expected at least 60s from slot to slot"#,
        ),
        (
            json!({"every": null, "cron": "*/30 * * * * *"}),
            r#"cron is "*/30 * * * * *", expected at least 60s"#,
        ),
        (
            json!({"every": null, "cron": "0,59 0 * * * *"}),
            r#"cron is "0,59 0 * * * *", expected at least 60s"#,
        ),
    ] {
        let created = node.catalog.create_schedule(schedule("a", &more)).await;
        let refused = message(created);
        assert!(refused.contains(expected), "{refused}");
    }
    let cron = json!({"every": null, "cron": "* * * * *"});
    node.catalog
        .create_schedule(schedule("a", &cron))
        .await
        .unwrap();
}
