use serde_json::{Value, json};

use crate::testing::{Server, check_ok, run_against};

const CREATED: &str = r#"{"space":"default","subscriptionId":"http,GET,%2Fa","event":"http","functionId":"f","method":"GET","path":"/a"}"#;

/// Creates with the options and compares the record that was sent.
#[track_caller]
fn check_record(options: &str, expected: Value) {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let outcome = server.run(&format!("subscription create {options}"));
    check_ok(&outcome, "subscribed http,GET,%2Fa in space default\n");
    let request = server.request();
    assert_eq!(request.line, "POST /v1/spaces/default/subscriptions");
    assert_eq!(request.header("content-type"), Some("application/json"));
    let sent: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(sent, expected, "{options}");
}

/// Creates with the options and expects that nothing is sent.
#[track_caller]
fn check_bad(options: &str, input: &str, expected: &str) {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let line = format!("subscription create {options}");
    let outcome = run_against(&server.url, &line, input, false);
    assert_eq!(outcome.code, 64, "{options}");
    assert!(outcome.err.contains(expected), "{options}: {}", outcome.err);
    assert!(server.requests().is_empty());
}

#[test]
fn create_sends_only_what_was_set() {
    check_record(
        "user.created f",
        json!({"event": "user.created", "functionId": "f"}),
    );
    check_record(
        "http f --method get --path /a --cors",
        json!({"event": "http", "functionId": "f", "method": "GET", "path": "/a", "cors": {}}),
    );
    check_record(
        "http f --method GET --cors-origin http://a --cors-origin http://b --cors-credentials",
        json!({"event": "http", "functionId": "f", "method": "GET",
            "cors": {"origins": ["http://a", "http://b"], "allowCredentials": true}}),
    );
    check_record(
        "user.* f --filter source=/x --filter source=/y --filter type=t --metadata team=shop",
        json!({"event": "user.*", "functionId": "f", "metadata": {"team": "shop"},
            "filter": {"source": ["/x", "/y"], "type": ["t"]}}),
    );
    check_record(
        "order.placed f --type sync --path /orders",
        json!({"type": "sync", "eventType": "order.placed", "functionId": "f", "path": "/orders"}),
    );
    check_record(
        "http f --method GET --authorizer who",
        json!({"event": "http", "functionId": "f", "method": "GET", "authorizerId": "who"}),
    );
    check_record(
        "http.request f --type sync --authorizer who",
        json!({"type": "sync", "eventType": "http.request", "functionId": "f", "authorizerId": "who"}),
    );
    check_record(
        "user.created f --attempts 3 --max-age-seconds 60",
        json!({"event": "user.created", "functionId": "f", "delivery": {"attempts": 3, "maxAgeSeconds": 60}}),
    );
}

#[test]
fn what_can_not_be_is_not_sent() {
    check_bad(
        "http f",
        "",
        "Missing required fields (method, path) for HTTP event.",
    );
    check_bad("a␣b f", "", "'eventtype' tag");
    check_bad(
        "a f --attempts 0",
        "",
        "delivery.attempts is 0, expected 1 to 1000",
    );
    check_bad(
        "http f --method GET --attempts 3",
        "",
        "delivery is set, expected none: a client waits",
    );
    check_bad(
        "a f --authorizer who",
        "",
        "authorizerId is set, expected none: only requests are asked about",
    );
    check_bad("a f --cors", "", "'Subscription.CORS.Origins'");
    check_bad(
        "--file -",
        "[]",
        "the record in standard input is not a JSON object",
    );
}

#[test]
fn a_record_is_taken_from_a_file_as_it_is() {
    let server = Server::new(&[("201 Created", &[], CREATED)]);
    let body = r#"{"event":"http","newer":true}"#;
    let outcome = run_against(
        &server.url,
        "--json subscription create --file -",
        body,
        false,
    );
    check_ok(&outcome, &format!("{CREATED}\n"));
    assert_eq!(server.request().body, body);
}

#[test]
fn list_shows_a_line_for_each() {
    let asked = r#"{"space":"default","subscriptionId":"http,GET,%2Fb","event":"http","functionId":"f","method":"GET","path":"/b","authorizerId":"who"}"#;
    let unknown = r#"{"subscriptionId":"x,g,%2F","event":7,"authorizerId":"who"}"#;
    let listed = format!(r#"{{"subscriptions":[{CREATED},{asked},{unknown}]}}"#);
    let server = Server::new(&[("200 OK", &[], &listed)]);
    let outcome = server.run("subscription list");
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let lines: Vec<Vec<&str>> = outcome
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "SUBSCRIPTION",
            "EVENT",
            "METHOD",
            "PATH",
            "FUNCTION",
            "AUTHORIZER"
        ]
    );
    assert_eq!(lines[1], ["http,GET,%2Fa", "http", "GET", "/a", "f", "-"]);
    assert_eq!(lines[2], ["http,GET,%2Fb", "http", "GET", "/b", "f", "who"]);
    assert_eq!(lines[3], ["x,g,%2F", "-", "-", "-", "-", "who"]);
    assert_eq!(
        server.request().line,
        "GET /v1/spaces/default/subscriptions"
    );

    let server = Server::new(&[("200 OK", &[], r#"{"subscriptions":[]}"#)]);
    let outcome = server.run("subscription list");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, ""));
    assert!(
        outcome
            .err
            .contains("nothing is subscribed in space default"),
        "{}",
        outcome.err
    );
}

#[test]
fn an_id_goes_into_the_url_as_it_is() {
    let server = Server::new(&[("200 OK", &[], CREATED)]);
    let outcome = server.run("--json subscription get http,GET,%2Fa");
    check_ok(&outcome, &format!("{CREATED}\n"));
    let line = "/v1/spaces/default/subscriptions/http,GET,%2Fa";
    assert_eq!(server.request().line, format!("GET {line}"));

    let server = Server::new(&[("204 No Content", &[], "")]);
    let outcome = server.run("subscription delete http,GET,%2Fa");
    check_ok(&outcome, "deleted http,GET,%2Fa from space default\n");
    assert_eq!(server.request().line, format!("DELETE {line}"));

    let typed = "YXN5bmMsYSxmLCUyRixQT1NU";
    let server = Server::new(&[("204 No Content", &[], "")]);
    let outcome = server.run(&format!("subscription delete {typed}"));
    check_ok(&outcome, &format!("deleted {typed} from space default\n"));

    let server = Server::new(&[]);
    for id in ["http", "http,GET,/a", "a,b?", ".."] {
        let outcome = std::panic::catch_unwind(|| server.run(&format!("subscription get {id}")));
        assert!(outcome.is_err(), "{id} is refused by the command line");
    }
}
