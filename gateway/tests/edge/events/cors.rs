//! Section 9: what web pages of other origins may do.

use super::*;

fn with_cors(method: &str, path: &str, cors: Value) -> (&'static str, Value) {
    let mut record = http(method, path, "f");
    record["cors"] = cors;
    ("default", record)
}

fn preflight(path: &str, origin: &str, method: &str, headers: &str) -> Call {
    let call = Call::new("OPTIONS", path).header("access-control-request-method", method);
    let call = match origin {
        "" => call,
        origin => call.header("origin", origin),
    };
    match headers {
        "" => call,
        headers => call.header("access-control-request-headers", headers),
    }
}

/// What an answer allows: origin, methods, headers, credentials.
fn allowed(answer: &Answer) -> [&str; 4] {
    ["origin", "methods", "headers", "credentials"].map(|name| {
        answer
            .header(&format!("access-control-allow-{name}"))
            .unwrap_or_default()
    })
}

fn subscribed() -> Sandbox {
    let strict = json!({"origins": ["http://a.example", "https://*.b.example"], "methods": ["GET", "PUT"], "headers": ["X-One"], "allowCredentials": true});
    sandbox(&[
        with_cors("GET", "/default", json!({})),
        with_cors("GET", "/strict", strict.clone()),
        with_cors("POST", "/strict", strict),
        ("default", http("GET", "/none", "f")),
        with_cors("OPTIONS", "/options", json!({})),
    ])
}

const REFUSED: [&str; 4] = [""; 4];

#[tokio::test]
async fn preflights_of_http_events_are_answered_by_the_gateway() {
    let sandbox = subscribed();
    let a = "http://a.example";
    let b = "https://x.b.example";
    for (section, call, expected) in [
        (
            "9 any origin",
            preflight("/default", a, "GET", ""),
            ["*", "GET", "", ""],
        ),
        (
            "9 default headers",
            preflight("/default", a, "GET", "accept, content-type"),
            ["*", "GET", "Accept, Content-Type", ""],
        ),
        (
            "9 other header",
            preflight("/default", a, "GET", "x-one"),
            REFUSED,
        ),
        ("9 no origin", preflight("/default", "", "GET", ""), REFUSED),
        (
            "9 listed origin",
            preflight("/strict", a, "GET", "x-one"),
            [a, "GET", "X-One", "true"],
        ),
        (
            "9 wildcard origin",
            preflight("/strict", b, "get", ""),
            [b, "GET", "", "true"],
        ),
        (
            "9 other origin",
            preflight("/strict", "http://evil.example", "GET", ""),
            REFUSED,
        ),
        (
            "9 method not listed",
            preflight("/strict", a, "POST", ""),
            REFUSED,
        ),
        (
            "9 OPTIONS always is",
            preflight("/options", a, "OPTIONS", ""),
            ["*", "OPTIONS", "", ""],
        ),
    ] {
        let answer = send(&sandbox, call).await;
        assert_eq!(
            (answer.status, answer.text()),
            (200, ""),
            "section {section}"
        );
        assert_eq!(allowed(&answer), expected, "section {section}");
        let vary = [
            "Origin",
            "Access-Control-Request-Method",
            "Access-Control-Request-Headers",
        ];
        assert_eq!(answer.all("vary"), vary, "section {section}");
    }
    assert_eq!(sandbox.node.calls(), 0, "no function is called");
    // Section 9: routed by the method that is asked for.
    refused(
        &sandbox,
        preflight("/strict", a, "DELETE", ""),
        404,
        "resource not found",
    )
    .await;
    refused(
        &sandbox,
        preflight("/nowhere", a, "GET", ""),
        404,
        "resource not found",
    )
    .await;
}

#[tokio::test]
async fn without_rules_a_preflight_goes_to_the_function() {
    let sandbox = subscribed();
    let answer = send(
        &sandbox,
        preflight("/none", "http://a.example", "GET", "x-one"),
    )
    .await;
    assert_eq!(answer.json()["data"]["method"], "OPTIONS");
    assert_eq!(allowed(&answer), REFUSED);
    // A plain OPTIONS request is no preflight.
    let plain = send(
        &sandbox,
        Call::new("OPTIONS", "/options").header("origin", "http://a"),
    )
    .await;
    assert_eq!(plain.json()["data"]["method"], "OPTIONS");
    assert_eq!((allowed(&plain), plain.header("vary")), (REFUSED, None));
}

#[tokio::test]
async fn other_requests_run_and_are_told_what_the_page_may_read() {
    let sandbox = subscribed();
    let from =
        |method: &str, path: &str, origin: &str| Call::new(method, path).header("origin", origin);
    let a = "http://a.example";
    for (section, call, expected) in [
        (
            "9 any origin",
            from("GET", "/default", a),
            ["*", "", "", ""],
        ),
        (
            "9 listed origin",
            from("GET", "/strict", a),
            [a, "", "", "true"],
        ),
        (
            "9 other origin",
            from("GET", "/strict", "http://b"),
            REFUSED,
        ),
        ("9 other method", from("POST", "/strict", a), REFUSED),
        ("9 no rules", from("GET", "/none", a), REFUSED),
    ] {
        let has_rules = section != "9 no rules";
        let answer = send(&sandbox, call).await;
        assert_eq!(
            answer.status, 200,
            "section {section}: the function runs in any case"
        );
        assert_eq!(allowed(&answer), expected, "section {section}");
        assert_eq!(
            answer.header("vary"),
            has_rules.then_some("Origin"),
            "section {section}"
        );
    }
    // A failure is no secret from a page that may read answers.
    sandbox.node.on_invoke(async |_| Err(function_error()));
    let answer = send(&sandbox, from("GET", "/strict", a)).await;
    assert_eq!(
        (answer.status, allowed(&answer)),
        (500, [a, "", "", "true"])
    );
}

#[tokio::test]
async fn custom_events_may_be_emitted_from_any_page() {
    let sandbox = subscribed();
    let a = "http://a.example";
    for (section, call, expected) in [
        (
            "6 preflight",
            preflight("/", a, "POST", "event"),
            [a, "POST", "Event", "true"],
        ),
        (
            "6 any header",
            preflight("/x", a, "POST", "x-one,event"),
            [a, "POST", "X-One, Event", "true"],
        ),
        (
            "9 method not listed",
            preflight("/", a, "TRACE", "event"),
            REFUSED,
        ),
    ] {
        let answer = send(&sandbox, call).await;
        assert_eq!(
            (answer.status, allowed(&answer)),
            (200, expected),
            "section {section}"
        );
    }
    let untrimmed = preflight("/", a, "POST", "x-one, event");
    refused(&sandbox, untrimmed, 404, "resource not found").await;
    let emit = Call::post("/", "{")
        .header("event", "a")
        .header("origin", a)
        .header("content-type", "application/json");
    let answer = send(&sandbox, emit).await;
    assert_eq!(
        (answer.status, allowed(&answer)),
        (400, [a, "", "", "true"]),
        "errors too"
    );
    let emit = Call::post("/", "")
        .header("event", "gateway.x")
        .header("origin", a);
    let answer = send(&sandbox, emit).await;
    assert_eq!(
        (answer.status, allowed(&answer)),
        (200, [a, "", "", "true"])
    );
    assert_eq!(answer.header("vary"), Some("Origin"));
}
