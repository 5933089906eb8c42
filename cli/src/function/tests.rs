use serde_json::{Value, json};

use crate::testing::{Server, check_ok, parse, run_against};

const CREATED: &str = r#"{"space":"default","functionId":"hello","type":"container","provider":{"image":"hello:latest","digest":"sha256:00ff"}}"#;

fn refused(body: &str) -> Server {
    Server::new(&[("400 Bad Request", &[], body)])
}

/// Registers with the options and compares the record that was sent.
#[track_caller]
fn check_record(options: &str, expected: Value) {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let outcome = server.run(&format!("function register {options}"));
    assert_eq!(outcome.code, 0, "{options}: {}", outcome.err);
    let request = server.request();
    assert_eq!(request.line, "POST /v1/spaces/default/functions");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(
        serde_json::from_str::<Value>(&request.body).unwrap(),
        expected,
        "{options}"
    );
}

/// Registers with the options and expects that nothing is sent.
#[track_caller]
fn check_bad(options: &str, input: &str, expected: &str) {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let outcome = run_against(
        &server.url,
        &format!("function register {options}"),
        input,
        false,
    );
    assert_eq!(outcome.code, 64, "{options}");
    assert!(outcome.err.contains(expected), "{options}: {}", outcome.err);
    assert!(server.requests().is_empty());
}

#[test]
fn register_sends_only_what_was_set() {
    check_record(
        "hello --image hello:latest",
        json!({"space":"default","functionId":"hello","type":"container","provider":{"image":"hello:latest"}}),
    );
    check_record(
        "count --process --contract stdio --env A=1 --env B=x=y -- wc -w",
        json!({"space":"default","functionId":"count","type":"process","provider":
            {"command":["wc","-w"],"contract":"stdio","env":{"A":"1","B":"x=y"}}}),
    );
    check_record(
        "hook --url https://example.com/hook --timeout-ms 900",
        json!({"space":"default","functionId":"hook","type":"http","provider":{"url":"https://example.com/hook"},
            "limits":{"timeoutMs":900}}),
    );
}

#[test]
fn register_sends_every_option() {
    check_record(
        "f --image i --contract http --port 9000 --command serve fast --memory-mb 64 --cpus 0.5 --timeout-ms 1000 \
         --concurrency 8 --body-bytes 1024 --min 1 --max 4 --idle-seconds 30 --idempotent --read-only-root \
         --capability NET_BIND_SERVICE --capability CHOWN --no-network --event-format cloudevents-structured",
        json!({"space":"default","functionId":"f","type":"container",
            "provider":{"image":"i","contract":"http","port":9000,"command":["serve","fast"]},
            "limits":{"memoryMb":64,"cpus":0.5,"timeoutMs":1000,"concurrency":8,"bodyBytes":1024},
            "scaling":{"min":1,"max":4,"idleSeconds":30},
            "delivery":{"idempotent":true},
            "sandbox":{"readOnlyRoot":true,"capabilities":["NET_BIND_SERVICE","CHOWN"],"network":false},
            "eventFormat":"cloudevents-structured"}),
    );
}

#[test]
fn destinations_are_functions_event_types_and_urls() {
    for (options, delivery) in [
        (
            "--on-success function:g --on-failure event:order.failed",
            json!({ "onSuccess": { "function": "g" }, "onFailure": { "event": "order.failed" } }),
        ),
        (
            "--on-failure https://example.com/x?a=b",
            json!({ "onFailure": { "url": "https://example.com/x?a=b" } }),
        ),
    ] {
        check_record(
            &format!("f --image i {options}"),
            json!({"space":"default","functionId":"f","type":"container","provider":{"image":"i"},"delivery":delivery}),
        );
    }
    for wrong in ["g", "topic:g", "function:a␣b", "event:"] {
        let parsed = parse(&format!(
            "function register f --image i --on-failure {wrong}"
        ));
        assert!(parsed.is_err(), "{wrong}");
    }
    for (wrong, expected) in [
        ("event:a.*", "delivery.onFailure.event is"),
        ("http://", "delivery.onFailure.url is"),
    ] {
        check_bad(&format!("f --image i --on-failure {wrong}"), "", expected);
    }
}

#[test]
fn arguments_after_two_hyphens_replace_an_images_command() {
    check_record(
        "f --image i -- serve --port 80",
        json!({"space":"default","functionId":"f","type":"container",
            "provider":{"image":"i","command":["serve","--port","80"]}}),
    );
}

#[test]
fn register_says_what_it_did() {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let outcome = server.run("function register hello --image hello:latest");
    check_ok(
        &outcome,
        "registered hello in space default, image sha256:00ff\n",
    );
    let outcome = server.run("function register hello --image hello:latest --json");
    check_ok(&outcome, &format!("{CREATED}\n"));
}

#[test]
fn update_puts_the_record() {
    let server = Server::new(&[("200 OK", &[], CREATED)]);
    let outcome = server.run("--space team function register hello --image hello:latest --update");
    check_ok(&outcome, "updated hello in space team, image sha256:00ff\n");
    assert_eq!(server.request().line, "PUT /v1/spaces/team/functions/hello");
}

#[test]
fn register_and_update_hint_at_each_other() {
    let exists = r#"{"errors":[{"message":"Function \"hello\" already registered."}]}"#;
    let outcome = refused(exists).run("function register hello --image i");
    assert_eq!(outcome.code, 1);
    assert_eq!(
        outcome.err,
        "hearth: Function \"hello\" already registered.\nhint: --update replaces its record\n"
    );
    let missing = r#"{"errors":[{"message":"Function \"hello\" not found."}]}"#;
    let server = Server::new(&[("404 Not Found", &[], missing)]);
    let outcome = server.run("function register hello --image i --update");
    assert_eq!(outcome.code, 1);
    assert!(
        outcome.err.contains("leave out --update"),
        "{}",
        outcome.err
    );
    let image = r#"{"errors":[{"message":"image \"i\" not found"}]}"#;
    let server = Server::new(&[("404 Not Found", &[], image)]);
    let outcome = server.run("function register hello --image i --update");
    assert_eq!(outcome.err, "hearth: image \"i\" not found\n");
}

#[test]
fn register_refuses_a_bad_value_before_it_asks_the_node() {
    check_bad(
        "f --image i --concurrency 0",
        "",
        "limits.concurrency is 0, expected 1 to 10000",
    );
    check_bad(
        "f --image i --min 5 --max 2",
        "",
        "scaling.min is 5, expected 0 to 2",
    );
    check_bad("f --process", "", "--process needs a command");
    check_bad(
        "f",
        "",
        "give one of --image IMAGE, --process -- COMMAND, --url URL or --file FILE",
    );
    check_bad("f", "", "hearth function register f --image f:latest");
    check_bad(
        "f -- wc -w",
        "",
        "hearth function register f --process -- wc -w",
    );
    check_bad(
        "f --url not-a-url",
        "",
        "missing required fields for HTTP endpoint",
    );
}

#[test]
fn register_takes_exactly_one_source_and_only_its_options() {
    let check = |options: &str| {
        assert!(
            crate::testing::parse(&format!("function register {options}")).is_err(),
            "{options}"
        );
    };
    check("--image i");
    check("f --image i --url http://x");
    check("f --image i --process");
    check("f --url http://x --env A=1");
    check("f --url http://x -- serve");
    check("f --process --port 80 -- serve");
    check("f --file f.json --memory-mb 5");
    check("f --file f.json -- serve");
    check("f --image i --env A");
    check("f --image i --env =1");
    check("f --image i --contract grpc");
    check("f --image i --command a -- b");
}

#[test]
fn a_record_from_a_file_is_sent_as_it_is() {
    let record = r#"{"functionId": "hello", "type":"brandnew", "x": 1.0}"#;
    let server = Server::new(&[("201 Created", &[], r#"{"functionId":"hello"}"#)]);
    let outcome = run_against(&server.url, "function register --file -", record, false);
    check_ok(&outcome, "registered hello in space default\n");
    assert_eq!(server.request().body, record);
}

#[test]
fn a_record_from_a_file_may_get_its_id_from_the_command_line() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(
        file.path(),
        r#"{"type":"http","provider":{"url":"http://x"}}"#,
    )
    .unwrap();
    let server = Server::new(&[("200 OK", &[], CREATED)]);
    let outcome = server.run(&format!(
        "function register hello --update --file {}",
        file.path().display()
    ));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let request = server.request();
    assert_eq!(request.line, "PUT /v1/spaces/default/functions/hello");
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(
        body,
        json!({"functionId":"hello","type":"http","provider":{"url":"http://x"}})
    );
}

#[test]
fn a_file_without_a_record_is_bad_input() {
    check_bad("--file -", "{", "standard input is not JSON");
    check_bad("--file -", "[]", "is not a JSON object");
    check_bad("--file -", "{}", "has no functionId");
    check_bad(
        "--file -",
        r#"{"functionId":7}"#,
        "functionId in standard input is 7",
    );
    check_bad("--file -", r#"{"functionId":"a/b"}"#, "letters, digits");
    check_bad(
        "other --file -",
        r#"{"functionId":"hello"}"#,
        "is of \"hello\", not of \"other\"",
    );
    check_bad("--file /does/not/exist", "", "cannot read /does/not/exist");
}

#[test]
fn list_prints_a_line_for_each_function_and_keeps_unknown_types() {
    let body = r#"{"functions":[
        {"space":"default","functionId":"stream","type":"awskinesis","provider":{"streamName":"s"}},
        {"space":"default","functionId":"hook","type":"http","provider":{"url":"http://x"}},
        {"space":"default","functionId":"hello","type":"container","provider":{"image":"hello:1"},
         "limits":{"concurrency":16},"scaling":{"min":1}}]}"#;
    let server = Server::new(&[("200 OK", &[], body)]);
    let outcome = server.run("function list");
    assert_eq!(server.request().line, "GET /v1/spaces/default/functions");
    check_ok(
        &outcome,
        r#"FUNCTION  TYPE        CONTRACT  SLOTS  MIN-MAX  MEMORY   TIMEOUT  RUNS
hello     container   http      16     1-10     128 MiB  30s      hello:1
hook      http        -         256    -        -        5s       http://x
stream    awskinesis  -         -      -        -        -        {"streamName":"s"}
"#,
    );
}

#[test]
fn an_empty_list_prints_nothing_to_a_pipe() {
    let outcome =
        Server::new(&[("200 OK", &[], r#"{"functions":[]}"#)]).run("function list --space team");
    check_ok(&outcome, "");
    assert!(
        outcome
            .err
            .contains("no function is registered in space team"),
        "{}",
        outcome.err
    );
}

#[test]
fn get_prints_the_record_laid_out_for_a_human_only() {
    let server = Server::new(&[("200 OK", &[], r#"{"b":1,"a":2}"#)]);
    check_ok(&server.run("function get hello"), "{\"b\":1,\"a\":2}\n");
    assert_eq!(
        server.request().line,
        "GET /v1/spaces/default/functions/hello"
    );
    let outcome = run_against(&server.url, "function get hello", "", true);
    check_ok(&outcome, "{\n  \"b\": 1,\n  \"a\": 2\n}\n");
}

#[test]
fn delete_says_what_it_deleted_and_fails_for_what_is_not_there() {
    let server = Server::new(&[("204 No Content", &[], "")]);
    check_ok(
        &server.run("function delete hello"),
        "deleted hello from space default\n",
    );
    assert_eq!(
        server.request().line,
        "DELETE /v1/spaces/default/functions/hello"
    );
    check_ok(&server.run("function delete hello --json"), "");
    let missing = r#"{"errors":[{"message":"Function \"hello\" not found."}]}"#;
    let outcome = Server::new(&[("404 Not Found", &[], missing)]).run("function delete hello");
    assert_eq!(
        (outcome.code, outcome.err.as_str()),
        (1, "hearth: Function \"hello\" not found.\n")
    );
}
