use serde_json::{Value, json};

use crate::testing::{Server, check_ok};

const RECORD: &str = r#"{"space":"default","scheduleId":"a","cron":"0 3 * * *","timeZone":"Europe/Berlin","eventType":"e","data":{"n":1.10},"missed":"skip","enabled":true,"next":"2026-01-01T02:00:00.000Z","last":{"slot":"2025-12-31T02:00:00.000Z","at":"2025-12-31T02:00:00.004Z","node":"n2"}}"#;

#[track_caller]
fn check_created(options: &str, expected: &Value) {
    let server = Server::new(&[("201 Created", &[], RECORD)]);
    let outcome = server.run(&format!("schedule create a {options}"));
    check_ok(
        &outcome,
        "created a in space default, next at 2026-01-01T02:00:00.000Z\n",
    );
    let request = server.request();
    assert_eq!(request.line, "POST /v1/spaces/default/schedules");
    let sent: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(sent, *expected, "{options}");
}

#[test]
fn create_sends_only_what_was_set() {
    check_created(
        "--every 30s --function f",
        &json!({"scheduleId": "a", "every": "30s", "functionId": "f"}),
    );
    check_created(
        "--cron 0␣3␣*␣*␣* --time-zone Europe/Berlin --event e --missed once --disabled --metadata k=v --data {\"n\":1}",
        &json!({
            "scheduleId": "a", "cron": "0 3 * * *", "timeZone": "Europe/Berlin", "eventType": "e", "missed": "once",
            "enabled": false, "metadata": {"k": "v"}, "data": {"n": 1},
        }),
    );
}

#[track_caller]
fn check_refused(options: &str, expected: &str) {
    let server = Server::new(&[]);
    let outcome = server.run(&format!("schedule create a {options}"));
    assert_eq!(outcome.code, 64, "{options}");
    assert!(outcome.err.contains(expected), "{options}: {}", outcome.err);
}

#[test]
fn a_mistake_is_told_without_a_node() {
    check_refused("--cron 61␣*␣*␣*␣* --event e", "cron is \"61 * * * *\"");
    check_refused(
        "--cron 0␣3␣*␣*␣* --time-zone Berlin --event e",
        "timeZone is \"Berlin\"",
    );
    check_refused("--every 10ms --event e", "every is \"10ms\"");
    check_refused(
        "--every 1s --event e --data {",
        "--data is \"{\", expected JSON",
    );
}

#[test]
fn an_update_replaces_and_says_how_to_create() {
    let server = Server::new(&[("200 OK", &[], RECORD)]);
    let outcome = server.run("schedule create a --every 1s --event e --update");
    assert!(
        outcome.out.starts_with("updated a in space default"),
        "{}",
        outcome.out
    );
    assert_eq!(server.request().line, "PUT /v1/spaces/default/schedules/a");
    let refused = r#"{"errors":[{"message":"Schedule \"a\" not found."}]}"#;
    let server = Server::new(&[("404 Not Found", &[], refused)]);
    let outcome = server.run("schedule create a --every 1s --event e --update");
    assert!(
        outcome.err.contains("leave out --update"),
        "{}",
        outcome.err
    );
    let refused = r#"{"errors":[{"message":"Schedule \"a\" already exists."}]}"#;
    let server = Server::new(&[("409 Conflict", &[], refused)]);
    let outcome = server.run("schedule create a --every 1s --event e");
    assert!(outcome.err.contains("--update replaces"), "{}", outcome.err);
}

#[test]
fn schedules_are_listed_read_switched_and_deleted() {
    let off = r#"{"scheduleId":"b","every":"30s","functionId":"f","enabled":false}"#;
    let listed = format!(r#"{{"schedules":[{RECORD},{off}]}}"#);
    let server = Server::new(&[("200 OK", &[], &listed)]);
    let outcome = server.run("schedule list");
    let lines: Vec<&str> = outcome.out.lines().collect();
    assert!(
        lines[1]
            .starts_with("a         0 3 * * * Europe/Berlin  event e     2026-01-01T02:00:00.000Z"),
        "{}",
        outcome.out
    );
    assert!(
        lines[1].ends_with("2025-12-31T02:00:00.000Z  n2"),
        "{}",
        outcome.out
    );
    assert!(
        lines[2].starts_with("b         every 30s"),
        "{}",
        outcome.out
    );
    assert!(lines[2].contains("function f  disabled"), "{}", outcome.out);

    let line = "/v1/spaces/default/schedules/a";
    let server = Server::new(&[("200 OK", &[], RECORD)]);
    let outcome = server.run("schedule get a");
    assert_eq!(outcome.code, 0);
    assert_eq!(server.request().line, format!("GET {line}"));

    let server = Server::new(&[("204 No Content", &[], "")]);
    check_ok(
        &server.run("schedule delete a"),
        "deleted a from space default\n",
    );
    assert_eq!(server.request().line, format!("DELETE {line}"));

    let server = Server::new(&[("200 OK", &[], r#"{"schedules":[]}"#)]);
    let outcome = server.run("schedule list");
    assert!(outcome.err.contains("has no schedules"), "{}", outcome.err);
}

/// What is written is what was read, if it is still the same there.
#[test]
fn a_schedule_is_disabled_as_it_was_read() {
    let server = Server::new(&[
        ("200 OK", &["etag: \"7\""], RECORD),
        ("200 OK", &[], RECORD),
    ]);
    check_ok(
        &server.run("schedule disable a"),
        "disabled a in space default\n",
    );
    let request = server.requests().pop().unwrap();
    assert_eq!(request.line, "PUT /v1/spaces/default/schedules/a");
    assert_eq!(request.header("if-match"), Some("\"7\""));
    assert!(
        request.body.contains(r#""data":{"n":1.10}"#),
        "{}",
        request.body
    );
    assert!(
        request.body.contains(r#""enabled":false"#),
        "{}",
        request.body
    );
}
