//! What the HTTP APIs take and refuse, and how they say it.

use cluster_tests::api::{function_path, send};
use cluster_tests::{Answer, Record, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};

/// Where functions are registered.
const FUNCTIONS: &str = "/v1/spaces/default/functions";

#[tokio::test(flavor = "multi_thread")]
async fn invoke_answers_as_documented() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    sandbox
        .register(&Record::process("hello", "hello").body_bytes(1_000))
        .await;
    sandbox
        .register(&Record::command("text", ["/bin/echo", "plain"]).stdio())
        .await;
    let node = sandbox.node(0);

    let answer = node.invoke("hello", json!({ "name": "Ada" })).await;
    let body = answer.json();
    assert_eq!(body["message"], "Function invoked successfully");
    assert_eq!(body["result"]["hello"], "Ada");
    assert_eq!(
        body.as_object().map(serde_json::Map::len),
        Some(2),
        "{body}"
    );
    let text = node.invoke("text", json!(null)).await;
    assert_eq!(text.result().as_str().map(str::trim), Some("plain"));
    let in_space = node
        .invoke_raw(r#"{"function_name":"hello","space":"default"}"#)
        .await;
    assert!(in_space.is_ok(), "{in_space:?}");

    let refused = async |body: &str, status: u16, code: &str| {
        let answer = node.invoke_raw(body.to_owned()).await;
        assert_eq!(answer.status, status, "{body} was answered {answer:?}");
        check_invoke_error(&answer, code);
        answer
    };
    refused("", 400, "invalid_request").await;
    refused("{", 400, "invalid_request").await;
    refused("[]", 400, "invalid_request").await;
    refused("\"hello\"", 400, "invalid_request").await;
    refused("{}", 400, "invalid_request").await;
    refused(r#"{"payload":1}"#, 400, "invalid_request").await;
    refused(r#"{"function_name":7}"#, 400, "invalid_request").await;
    refused(r#"{"function_name":null}"#, 400, "invalid_request").await;
    refused(
        r#"{"function_name":"hello","space":7}"#,
        400,
        "invalid_request",
    )
    .await;
    refused(
        r#"{"function_name":"hello","payload":nope}"#,
        400,
        "invalid_request",
    )
    .await;
    let missing = refused(r#"{"function_name":"nobody"}"#, 404, "function_not_found").await;
    assert_eq!(missing.json()["error"], "Function not found");
    refused(
        r#"{"function_name":"hello","space":"elsewhere"}"#,
        404,
        "function_not_found",
    )
    .await;
    let over_own = json!({ "function_name": "hello", "payload": "x".repeat(1_001) });
    refused(&over_own.to_string(), 413, "payload_too_large").await;
    let over_all = json!({ "function_name": "hello", "payload": "x".repeat(7 << 20) });
    refused(&over_all.to_string(), 413, "payload_too_large").await;

    let get = send(node.request(Method::GET, &node.functions_url("/invoke")))
        .await
        .expect("an answer");
    assert_eq!(get.status, 405, "{get:?}");
    let nowhere = send(node.request(Method::GET, &node.functions_url("/nowhere")))
        .await
        .expect("an answer");
    assert_eq!(nowhere.status, 404, "{nowhere:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_kept_in_event_gateways_shape() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let node = sandbox.node(0);
    let path = function_path("hook");
    let hook = Record::http("hook", "http://127.0.0.1:9/").json().clone();
    let stored = json!({
        "space": "default", "functionId": "hook", "type": "http",
        "provider": { "url": "http://127.0.0.1:9/" },
    });

    let empty = node.config(Method::GET, FUNCTIONS, None).await;
    assert_eq!(
        (empty.status, empty.json()),
        (200, json!({ "functions": [] }))
    );
    let created = node.config(Method::POST, FUNCTIONS, Some(&hook)).await;
    assert_eq!((created.status, created.json()), (201, stored.clone()));
    let again = node.config(Method::POST, FUNCTIONS, Some(&hook)).await;
    assert_eq!(
        (again.status, message(&again)),
        (400, r#"Function "hook" already registered."#.to_owned())
    );
    let read = node.config(Method::GET, &path, None).await;
    assert_eq!((read.status, read.json()), (200, stored.clone()));
    let listed = node.config(Method::GET, FUNCTIONS, None).await;
    assert_eq!(listed.json(), json!({ "functions": [stored] }));
    let elsewhere = node
        .config(Method::GET, "/v1/spaces/other/functions", None)
        .await;
    assert_eq!(elsewhere.json(), json!({ "functions": [] }));

    let changed = Record::http("ignored", "http://127.0.0.1:9/changed")
        .json()
        .clone();
    let updated = node.config(Method::PUT, &path, Some(&changed)).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    assert_eq!(
        updated.json()["functionId"],
        "hook",
        "the path names the function: {updated:?}"
    );
    assert_eq!(
        updated.json()["provider"]["url"],
        "http://127.0.0.1:9/changed"
    );
    let unknown = node
        .config(Method::PUT, &function_path("nobody"), Some(&changed))
        .await;
    assert_eq!(
        (unknown.status, message(&unknown)),
        (404, r#"Function "nobody" not found."#.to_owned())
    );

    let deleted = node.config(Method::DELETE, &path, None).await;
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    let gone = node.config(Method::GET, &path, None).await;
    assert_eq!(
        (gone.status, message(&gone)),
        (404, r#"Function "hook" not found."#.to_owned())
    );
    let twice = node.config(Method::DELETE, &path, None).await;
    assert_eq!(
        (twice.status, message(&twice)),
        (404, r#"Function "hook" not found."#.to_owned())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_wrong_is_refused_with_what_is_wrong() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let node = sandbox.node(0);
    let refused = async |record: Value, part: &str| {
        let answer = node.config(Method::POST, FUNCTIONS, Some(&record)).await;
        assert_eq!(answer.status, 400, "{record} was answered {answer:?}");
        assert!(
            message(&answer).contains(part),
            "{record}: {part:?} is not in {:?}",
            message(&answer)
        );
    };
    let process = |more: Value| {
        let mut record =
            json!({ "functionId": "f", "type": "process", "provider": { "command": ["true"] } });
        for (name, value) in more.as_object().expect("an object") {
            record[name] = value.clone();
        }
        record
    };

    refused(
        json!({ "functionId": "f" }),
        "provider configuration not set",
    )
    .await;
    refused(
        json!({ "functionId": "f", "type": "magic", "provider": {} }),
        "provider magic not supported",
    )
    .await;
    refused(json!({ "functionId": "f", "type": "http" }), "").await;
    refused(
        json!({ "functionId": "f", "type": "http", "provider": null }),
        "",
    )
    .await;
    refused(
        json!({ "functionId": "f", "type": "http", "provider": {} }),
        "missing required fields for HTTP endpoint",
    )
    .await;
    refused(
        json!({ "functionId": "a b", "type": "http", "provider": { "url": "http://h/" } }),
        "functionid",
    )
    .await;
    refused(
        json!({ "type": "http", "provider": { "url": "http://h/" } }),
        "required",
    )
    .await;
    refused(process(json!({ "provider": {} })), "command").await;
    refused(process(json!({ "provider": { "command": [] } })), "command").await;
    refused(
        process(json!({ "provider": { "command": ["true"], "comand": [] } })),
        "comand",
    )
    .await;
    refused(
        process(json!({ "provider": { "command": ["true"], "contract": "smoke" } })),
        "contract",
    )
    .await;
    refused(process(json!({ "surprise": 1 })), "surprise").await;
    refused(
        process(json!({ "limits": { "concurrency": 0 } })),
        "concurrency",
    )
    .await;
    refused(process(json!({ "limits": { "memoryMb": -1 } })), "memoryMb").await;
    refused(
        process(json!({ "limits": { "timeoutMs": 0 } })),
        "timeoutMs",
    )
    .await;
    refused(process(json!({ "scaling": { "min": 3, "max": 2 } })), "m").await;

    let answer = node.config(Method::GET, FUNCTIONS, None).await;
    assert_eq!(
        answer.json(),
        json!({ "functions": [] }),
        "nothing of it was stored"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_body_is_refused_by_the_config_api() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let node = sandbox.node(0);
    for body in ["", "{", "[]", "7"] {
        let request = node
            .request(Method::POST, &node.config_url(FUNCTIONS))
            .body(body);
        let answer = send(request).await.expect("an answer");
        assert_eq!(answer.status, 400, "{body:?} was answered {answer:?}");
        assert!(
            message(&answer).starts_with("Function doesn't validate."),
            "{answer:?}"
        );
    }
    let large = "x".repeat(8 << 20);
    let answer = send(
        node.request(Method::POST, &node.config_url(FUNCTIONS))
            .body(large),
    )
    .await;
    assert_eq!(answer.expect("an answer").status, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_function_needs_the_setting_that_allows_it() {
    let denied = cluster_tests::NodeOptions {
        is_process_denied: true,
        ..Default::default()
    };
    let sandbox = Sandbox::builder().node(denied).embedded().start().await;
    let record = Record::process("hello", "hello").json().clone();
    let answer = sandbox
        .node(0)
        .config(Method::POST, FUNCTIONS, Some(&record))
        .await;
    assert!(matches!(answer.status, 400 | 403), "{answer:?}");
    assert!(message(&answer).contains("process"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_nobody_has_is_refused_by_name() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .containers()
        .env("HEARTH_DOCKER__RESOLVE_TIMEOUT", "2s")
        .start()
        .await;
    let record = json!({
        "functionId": "f", "type": "container", "provider": { "image": "localhost:9/no/such-image:1" },
    });
    let answer = sandbox
        .node(0)
        .config(Method::POST, FUNCTIONS, Some(&record))
        .await;
    assert_eq!(answer.status, 404, "{answer:?}");
    assert!(message(&answer).contains("no/such-image"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_record_shows_what_its_tag_resolved_to() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .containers()
        .start()
        .await;
    sandbox.register(&Record::container("hello", "hello")).await;
    let stored = sandbox.stored("hello").await;
    let digest = stored["provider"]["digest"].as_str();
    assert!(
        digest.is_some_and(|digest| digest.starts_with("sha256:") || digest.contains("@sha256:")),
        "{stored}"
    );
    assert_eq!(stored["provider"]["image"], "hearth-example-hello:latest");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_in_without_the_token() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .auth_required()
        .start()
        .await;
    sandbox.register(&Record::process("hello", "hello")).await;
    let node = sandbox.node(0);
    assert!(
        node.invoke("hello", json!({})).await.is_ok(),
        "with the token"
    );

    let body = json!({ "function_name": "hello" });
    let ask = async |method: Method, url: String, token: Option<&str>| {
        let mut request = sandbox.client().request(method, url).json(&body);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        send(request).await.expect("an answer")
    };
    for token in [None, Some("wrong"), Some("")] {
        let invoke = ask(Method::POST, node.functions_url("/invoke"), token).await;
        assert_eq!(invoke.status, 401, "{invoke:?}");
        check_invoke_error(&invoke, "unauthorized");
        let paths = [
            FUNCTIONS,
            "/v1/cluster",
            "/metrics",
            "/debug/actors",
            "/debug/route?space=default&function=hello",
        ];
        for path in paths {
            let answer = ask(Method::GET, node.config_url(path), token).await;
            assert_eq!(answer.status, 401, "{path}: {answer:?}");
        }
        let deleted = ask(
            Method::DELETE,
            node.config_url(&function_path("hello")),
            token,
        )
        .await;
        assert_eq!(deleted.status, 401, "{deleted:?}");
        assert_eq!(
            ask(Method::GET, node.config_url("/v1/status"), token)
                .await
                .status,
            200
        );
        assert_eq!(
            ask(Method::GET, node.config_url("/v1/ready"), token)
                .await
                .status,
            200
        );
    }
    assert!(
        node.invoke("hello", json!({})).await.is_ok(),
        "it is still there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_page_can_not_register_code() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_AUTH__ORIGINS", r#"["https://console.example"]"#)
        .start()
        .await;
    let node = sandbox.node(0);
    let own = node.functions_url("");
    let cases = [
        ("host", "evil.example", 403),
        ("host", "evil.example:3000", 403),
        ("host", "localhost.evil.example", 403),
        ("host", "127.0.0.1.evil.example", 403),
        ("host", "localhost", 200),
        ("host", "[::1]:4001", 200),
        ("host", "127.0.0.1:1", 200),
        ("origin", "http://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://localhost:8000", 403),
        ("origin", "https://console.example", 200),
        ("origin", own.as_str(), 200),
    ];
    for (header, value, status) in cases {
        let config = node
            .request(Method::GET, &node.config_url(FUNCTIONS))
            .header(header, value);
        let answer = send(config).await.expect("an answer");
        assert_eq!(
            answer.status, status,
            "{header}: {value} on the config API: {answer:?}"
        );

        let invoke = node
            .request(Method::POST, &node.functions_url("/invoke"))
            .header(header, value);
        let answer = send(invoke.body(r#"{"function_name":"nobody"}"#))
            .await
            .expect("an answer");
        let expected = if status == 200 { 404 } else { status };
        assert_eq!(
            answer.status, expected,
            "{header}: {value} on the functions API: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_metrics_are_there() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;
    let node = sandbox.node(0);

    let status = node.config(Method::GET, "/v1/status", None).await;
    assert_eq!((status.status, status.body.as_str()), (200, ""));
    let metrics = node.config(Method::GET, "/metrics", None).await;
    assert!(
        metrics.body.lines().any(|line| line.starts_with("hearth_")),
        "{}",
        metrics.body
    );
    let actors = node.actors().await.expect("actors").actors;
    let names: Vec<_> = actors.iter().map(|actor| actor.name.as_str()).collect();
    assert_eq!(
        names,
        ["supervisor", "registry_cache", "executor", "router"]
    );
    assert!(
        actors.iter().all(|actor| actor.status == "running"),
        "{actors:#?}"
    );
    let route = node.route("hello").await.expect("a route");
    assert_eq!(route.choice, "local", "{route:?}");
    assert!(!route.why.is_empty(), "{route:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_output_of_a_function_can_be_read_and_followed() {
    let sandbox = Sandbox::processes(1).await;
    let record = Record::command(
        "speaks",
        ["/bin/sh", "-c", "read word; echo heard $word >&2"],
    )
    .stdio();
    sandbox.register(&record).await;
    let node = sandbox.node(0);
    assert!(node.invoke("speaks", json!(1)).await.is_ok());

    let path = format!("{}/logs", function_path("speaks"));
    cluster_tests::until(
        "the line is kept",
        std::time::Duration::from_secs(5),
        || async {
            node.config(Method::GET, &path, None)
                .await
                .body
                .contains("heard 1")
        },
    )
    .await;
    let followed = node
        .request(
            Method::GET,
            &node.config_url(&format!("{path}?follow=true")),
        )
        .send()
        .await;
    let mut followed = followed.expect("an answer");
    assert!(node.invoke("speaks", json!(2)).await.is_ok());
    let mut text = String::new();
    while !text.contains("heard 2") {
        let chunk =
            tokio::time::timeout(std::time::Duration::from_secs(10), followed.chunk()).await;
        let chunk = chunk.unwrap_or_else(|_| panic!("the next line does not come; so far: {text}"));
        let chunk = chunk
            .expect("the stream goes on")
            .expect("the stream does not end by itself");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }

    let deleted = (node.config(Method::DELETE, &function_path("speaks"), None)).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    let end = async { while followed.chunk().await.is_ok_and(|chunk| chunk.is_some()) {} };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), end).await;
    assert!(ended.is_ok(), "who followed is told of the end");
    sandbox.register(&record).await;
    let logs = node.config(Method::GET, &path, None).await;
    assert_eq!((logs.status, logs.body.as_str()), (200, ""), "{logs:?}");
}

/// The one message of an error of the config API.
#[track_caller]
fn message(answer: &Answer) -> String {
    let body = answer.json();
    let errors = body["errors"]
        .as_array()
        .unwrap_or_else(|| panic!("no errors in {answer:?}"));
    assert_eq!(errors.len(), 1, "{answer:?}");
    assert_eq!(
        body.as_object().map(serde_json::Map::len),
        Some(1),
        "{answer:?}"
    );
    errors[0]["message"]
        .as_str()
        .unwrap_or_else(|| panic!("no message in {answer:?}"))
        .to_owned()
}

/// An error of `/invoke` has its five fields and the headers that go with them.
#[track_caller]
fn check_invoke_error(answer: &Answer, code: &str) {
    let body = answer.json();
    assert_eq!(body["code"], code, "{answer:?}");
    assert_eq!(answer.error.as_deref(), Some(code), "{answer:?}");
    assert_eq!(
        body["component"].as_str(),
        answer.component.as_deref(),
        "{answer:?}"
    );
    assert!(
        body["error"]
            .as_str()
            .is_some_and(|error| !error.is_empty()),
        "{answer:?}"
    );
    assert!(body["node"].is_string(), "{answer:?}");
    assert_eq!(
        body["invocation"].as_str(),
        answer.invocation.as_deref(),
        "{answer:?}"
    );
    assert!(answer.invocation.is_some(), "{answer:?}");
}
