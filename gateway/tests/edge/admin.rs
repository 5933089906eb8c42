//! The config API in Event Gateway's shape, status and diagnostics.

use std::sync::atomic::Ordering;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Call, Sandbox};

const ALL: &str = "/v1/spaces/default/functions";
const ONE: &str = "/v1/spaces/default/functions/f";
const RECORD: &str = r#"{"functionId":"f","type":"http","provider":{"url":"http://a.example/b"}}"#;

/// An error exactly as Event Gateway's clients know it.
fn is_error(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    let expected =
        serde_json::to_string(&json!({ "errors": [{ "message": message }] })).unwrap() + "\n";
    assert_eq!(answer.text(), expected);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.has_common_headers();
}

#[tokio::test]
async fn a_function_is_registered_read_replaced_and_deleted() {
    let sandbox = Sandbox::start();
    let record = r#"{"space":"default","functionId":"f","type":"http","provider":{"url":"http://a.example/b"}}"#;

    let created = sandbox.admin(Call::post(ALL, RECORD)).await;
    assert_eq!(
        (created.status, created.text()),
        (201, format!("{record}\n").as_str())
    );
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert_eq!(created.header("etag"), Some("\"1\""));
    created.has_common_headers();

    let read = sandbox.admin(Call::get(ONE)).await;
    assert_eq!(
        (read.status, read.text(), read.header("etag")),
        (200, created.text(), Some("\"1\""))
    );
    let list = sandbox.admin(Call::get(ALL)).await;
    assert_eq!(
        (list.status, list.text()),
        (200, format!("{{\"functions\":[{record}]}}\n").as_str())
    );

    let body = r#"{"functionId":"other","space":"other","type":"http","provider":{"url":"http://c.example"}}"#;
    let replaced = sandbox.admin(Call::new("PUT", ONE).body(body)).await;
    assert_eq!(
        (replaced.status, replaced.header("etag")),
        (200, Some("\"2\""))
    );
    assert_eq!(replaced.json()["functionId"], "f");
    assert_eq!(replaced.json()["space"], "default");
    assert_eq!(replaced.json()["provider"]["url"], "http://c.example");

    let deleted = sandbox.admin(Call::new("DELETE", ONE)).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.header("content-type"), Some("application/json"));
    is_error(
        &sandbox.admin(Call::get(ONE)).await,
        404,
        "Function \"f\" not found.",
    );
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"functions\":[]}\n"
    );
}

#[tokio::test]
async fn refusals_are_worded_as_event_gateway_words_them() {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    is_error(
        &sandbox.admin(Call::post(ALL, RECORD)).await,
        400,
        "Function \"f\" already registered.",
    );
    let missing = "/v1/spaces/default/functions/g";
    is_error(
        &sandbox.admin(Call::get(missing)).await,
        404,
        "Function \"g\" not found.",
    );
    is_error(
        &sandbox.admin(Call::new("DELETE", missing)).await,
        404,
        "Function \"g\" not found.",
    );
    is_error(
        &sandbox.admin(Call::new("PUT", missing).body(RECORD)).await,
        404,
        "Function \"g\" not found.",
    );
    let invalid = "Function doesn't validate. Validation error: provider configuration not set";
    is_error(&sandbox.admin(Call::post(ALL, "{}")).await, 400, invalid);
    is_error(
        &sandbox.admin(Call::new("PUT", missing).body("{}")).await,
        400,
        invalid,
    );
    let name = "Function doesn't validate. Validation error: Key: 'Function.Space' Error:Field validation for \
                'Space' failed on the 'min' tag";
    is_error(
        &sandbox
            .admin(Call::post("/v1/spaces/ab/functions", RECORD))
            .await,
        400,
        name,
    );
    let broken = sandbox.admin(Call::post(ALL, "{")).await;
    assert_eq!(broken.status, 400);
    assert!(broken.text().contains("EOF while parsing"), "{broken:?}");
    // A name no function can have is one that is not there; only create and update say that it is wrong.
    is_error(
        &sandbox
            .admin(Call::get("/v1/spaces/x/functions/a%20b"))
            .await,
        404,
        "Function \"a b\" not found.",
    );
    assert_eq!(
        sandbox
            .admin(Call::get("/v1/spaces/x/functions"))
            .await
            .text(),
        "{\"functions\":[]}\n"
    );
    assert_eq!(
        sandbox
            .admin(Call::get("/v1/spaces/default/functions/%ff"))
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn a_change_may_name_the_revision_it_is_made_of() {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    let put = |tags: &str| Call::new("PUT", ONE).body(RECORD).header("if-match", tags);
    for (tags, status) in [
        ("\"9\"", 412),
        ("W/\"1\"", 412),
        ("1", 412),
        ("\"x\", \"7\"", 412),
        ("\"1\"", 200),
        ("\"1\"", 412),
        ("\"1\", \"2\"", 200),
        ("*", 200),
    ] {
        assert_eq!(sandbox.admin(put(tags)).await.status, status, "{tags}");
    }
    is_error(
        &sandbox.admin(put("\"1\"")).await,
        412,
        "Function \"f\" changed meanwhile.",
    );
    let delete = |tag: &str| Call::new("DELETE", ONE).header("if-match", tag);
    assert_eq!(sandbox.admin(delete("\"1\"")).await.status, 412);
    assert_eq!(sandbox.admin(delete("\"4\"")).await.status, 204);
}

#[tokio::test]
async fn what_can_not_be_run_or_stored_is_not_registered() {
    let sandbox = Sandbox::start();
    let with = |provider: &str| Call::post(ALL, format!(r#"{{"functionId":"f",{provider}}}"#));
    let image = |name: &str| {
        with(&format!(
            r#""type":"container","provider":{{"image":"{name}"}}"#
        ))
    };
    is_error(
        &sandbox.admin(image("missing")).await,
        404,
        "provider.image: image was not found",
    );
    let unknown = sandbox.admin(image("unknown")).await;
    is_error(&unknown, 503, "provider.image: image was not found");
    assert_eq!(unknown.header("retry-after"), Some("1"));
    let process = sandbox
        .admin(with(r#""type":"process","provider":{"command":["x"]}"#))
        .await;
    is_error(
        &process,
        403,
        "type process is off: no node of the cluster was started with --allow-process",
    );
    sandbox.node.is_store_away.store(true, Ordering::SeqCst);
    for call in [
        Call::post(ALL, RECORD),
        Call::new("PUT", ONE).body(RECORD),
        Call::new("DELETE", ONE),
    ] {
        let answer = sandbox.admin(call).await;
        is_error(
            &answer,
            503,
            "the config store can not be reached: etcd is away",
        );
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(
            answer.header("x-hearth-error"),
            Some("store_unavailable;store")
        );
    }
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.status,
        200,
        "reads go on"
    );
}

#[tokio::test]
async fn unknown_routes_and_methods_are_plain_text() {
    let sandbox = Sandbox::start();
    for path in [
        "/",
        "/v1",
        "/v1/nothing",
        "//v1/status",
        "/debug/actors/router/kill",
    ] {
        let answer = sandbox.admin(Call::get(path)).await;
        assert_eq!(
            (answer.status, answer.text()),
            (404, "404 page not found\n"),
            "{path}"
        );
        assert_eq!(
            answer.header("content-type"),
            Some("text/plain; charset=utf-8")
        );
        answer.has_common_headers();
    }
    for (method, path, allow) in [
        ("PATCH", ONE, "GET,HEAD,PUT,DELETE"),
        ("DELETE", ALL, "GET,HEAD,POST"),
        ("OPTIONS", ALL, "GET,HEAD,POST"),
        ("POST", "/v1/status", "GET,HEAD"),
    ] {
        let answer = sandbox.admin(Call::new(method, path)).await;
        assert_eq!(
            (answer.status, answer.text()),
            (405, "Method Not Allowed\n"),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
        answer.has_common_headers();
    }
}

#[tokio::test]
async fn a_superfluous_slash_is_redirected() {
    let sandbox = Sandbox::start();
    for (method, path, status, target) in [
        ("GET", "/v1/spaces/default/functions/", 301, ALL),
        (
            "GET",
            "/v1/spaces/default/functions/f/?x=1",
            301,
            "/v1/spaces/default/functions/f?x=1",
        ),
        ("GET", "/v1/status/", 301, "/v1/status"),
        ("POST", "/v1/spaces/default/functions/", 307, ALL),
    ] {
        let answer = sandbox.admin(Call::new(method, path)).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(target)),
            "{method} {path}"
        );
        answer.has_common_headers();
    }
}

#[tokio::test]
async fn output_is_streamed_line_by_line() {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    let logs = format!("{ONE}/logs");
    let answer = sandbox.admin(Call::get(&logs)).await;
    assert_eq!(
        (answer.status, answer.text()),
        (200, "{\"line\":\"f one\"}\n{\"line\":\"two\"}\n")
    );
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    answer.has_common_headers();
    assert_eq!(
        sandbox
            .admin(Call::get(&format!("{logs}?follow=false")))
            .await
            .status,
        200
    );
    for query in ["?follow=maybe", "?follow=", "?follow"] {
        let answer = sandbox.admin(Call::get(&format!("{logs}{query}"))).await;
        assert_eq!(answer.status, 400, "{query}");
        assert!(answer.text().contains("follow"), "{answer:?}");
    }
    let unknown = sandbox
        .admin(Call::get("/v1/spaces/default/functions/g/logs"))
        .await;
    is_error(&unknown, 404, "Function \"g\" not found.");
}

#[tokio::test]
async fn following_output_ends_when_the_node_shuts_down() {
    let mut sandbox = Sandbox::start();
    sandbox.register("f").await;
    let mut stream = TcpStream::connect(sandbox.addresses.config).await.unwrap();
    let call = Call::get(&format!("{ONE}/logs?follow=true"));
    stream.write_all(&call.bytes()).await.unwrap();
    // The head is there, so the answer is under way.
    stream.readable().await.unwrap();
    assert!(
        sandbox.finish(crate::support::PATIENCE).await,
        "all connections ended by themselves"
    );
    let answer = Answer::read_to_end(&mut stream).await;
    assert_eq!(answer.text(), "{\"line\":\"f one\"}\n{\"line\":\"two\"}\n");
}

#[tokio::test]
async fn status_ready_cluster_and_metrics() {
    let sandbox = Sandbox::start();
    let status = sandbox.admin(Call::get("/v1/status")).await;
    assert_eq!((status.status, status.body.len()), (200, 0));
    let ready = sandbox.admin(Call::get("/v1/ready")).await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({ "ready": true }))
    );
    assert_eq!(
        sandbox.admin(Call::get("/v1/cluster")).await.json()["revision"],
        7
    );
    assert_eq!(
        sandbox.admin(Call::get("/debug/actors")).await.json(),
        json!({ "actors": [] })
    );
    let metrics = sandbox.admin(Call::get("/metrics")).await;
    assert_eq!((metrics.status, metrics.text()), (200, "hearth_up 1\n"));
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4")
    );

    sandbox.node.is_draining.store(true, Ordering::SeqCst);
    let ready = sandbox.admin(Call::get("/v1/ready")).await;
    assert_eq!(
        (ready.status, ready.json()),
        (
            503,
            json!({ "ready": false, "why": "the node is draining" })
        )
    );
    assert_eq!(ready.header("x-hearth-error"), Some("draining;gateway"));
    assert_eq!(sandbox.admin(Call::get("/v1/status")).await.status, 200);
}

#[tokio::test]
async fn a_route_is_explained() {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    let route = sandbox.admin(Call::get("/debug/route?function=f")).await;
    assert_eq!(
        (route.status, route.json()["choice"].as_str()),
        (200, Some("cold"))
    );
    assert_eq!(
        sandbox
            .admin(Call::get("/debug/route?space=default&function=f"))
            .await
            .status,
        200
    );
    is_error(
        &sandbox.admin(Call::get("/debug/route?function=g")).await,
        404,
        "Function \"g\" not found.",
    );
    assert_eq!(
        sandbox
            .admin(Call::get("/debug/route?space=other&function=f"))
            .await
            .status,
        404
    );
    for query in ["", "?space=default", "?function=", "?function=f&space=a"] {
        assert_eq!(
            sandbox
                .admin(Call::get(&format!("/debug/route{query}")))
                .await
                .status,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn actors_are_killed_only_where_a_setting_allows_it() {
    let sandbox = Sandbox::start();
    let kill = |name: &str| Call::new("POST", &format!("/debug/actors/{name}/kill"));
    assert_eq!(sandbox.admin(kill("router")).await.status, 404);
    let sandbox = Sandbox::with(|settings| settings.node.debug_kill = true);
    assert_eq!(sandbox.admin(kill("router")).await.status, 204);
    is_error(
        &sandbox.admin(kill("nobody")).await,
        404,
        "actor \"nobody\" not found",
    );
}
