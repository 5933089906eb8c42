//! Who may call: Host, Origin, token, on each of the three ports.

use std::net::SocketAddr;

use config::settings::AuthMode;

use crate::support::{Call, Sandbox};

const CALL: &str = r#"{"function_name":"hello"}"#;

fn invoke() -> Call {
    Call::post("/invoke", CALL)
}

#[tokio::test]
async fn without_auth_only_loopback_hosts_are_served() {
    let sandbox = Sandbox::start();
    for (host, is_served) in [
        ("localhost", true),
        ("LOCALHOST:3000", true),
        ("a.localhost:3000", true),
        ("127.0.0.1", true),
        ("127.8.8.8:80", true),
        ("[::1]", true),
        ("[::1]:3000", true),
        ("evil.example", false),
        ("localhost.evil.example", false),
        ("127.0.0.1.evil.example", false),
        ("10.0.0.1", false),
        ("[::2]:3000", false),
        ("", false),
    ] {
        let functions = invoke()
            .header("host", host)
            .send(sandbox.addresses.functions)
            .await;
        assert_eq!(
            functions.status,
            if is_served { 200 } else { 403 },
            "{host:?}"
        );
        functions.has_common_headers();
        let config = Call::get("/v1/status")
            .header("host", host)
            .send(sandbox.addresses.config)
            .await;
        assert_eq!(config.status, if is_served { 200 } else { 403 }, "{host:?}");
        let events = Call::get("/")
            .header("host", host)
            .send(sandbox.addresses.events)
            .await;
        assert_eq!(
            events.status, 404,
            "the events API takes any host, {host:?}"
        );
    }
    let refused = invoke()
        .header("host", "evil.example")
        .send(sandbox.addresses.functions)
        .await;
    assert_eq!(refused.header("x-hearth-error"), Some("forbidden;gateway"));
    assert!(
        refused.json()["error"]
            .as_str()
            .unwrap()
            .contains("evil.example")
    );
}

#[tokio::test]
async fn a_second_host_does_not_slip_through() {
    let sandbox = Sandbox::start();
    let twice = invoke()
        .header("host", "localhost")
        .header("host", "evil.example");
    assert_ne!(twice.send(sandbox.addresses.functions).await.status, 200);
    let target = Call::post("http://evil.example/invoke", CALL);
    assert_eq!(target.send(sandbox.addresses.functions).await.status, 403);
    let target = Call::post("http://localhost/invoke", CALL);
    assert_eq!(target.send(sandbox.addresses.functions).await.status, 200);
}

fn own(address: SocketAddr, host: &str) -> String {
    format!("http://{host}:{}", address.port())
}

#[tokio::test]
async fn pages_call_only_from_own_and_listed_origins() {
    let sandbox =
        Sandbox::with(|settings| settings.auth.origins = vec!["https://Ops.example/".to_owned()]);
    let (functions, config) = (sandbox.addresses.functions, sandbox.addresses.config);
    for (origin, is_served) in [
        (own(functions, "127.0.0.1"), true),
        (own(functions, "localhost"), true),
        (own(config, "[::1]"), true),
        ("https://ops.example".to_owned(), true),
        ("http://ops.example".to_owned(), false),
        ("https://evil.example".to_owned(), false),
        (own(sandbox.addresses.events, "localhost"), false),
        ("http://localhost".to_owned(), false),
        ("null".to_owned(), false),
    ] {
        let status = if is_served { 200 } else { 403 };
        let invoked = invoke().header("origin", &origin).send(functions).await;
        assert_eq!(invoked.status, status, "{origin}");
        let expected = is_served.then_some(origin.as_str());
        assert_eq!(
            invoked.header("access-control-allow-origin"),
            expected,
            "{origin}"
        );
        assert_eq!(
            invoked.header("vary"),
            is_served.then_some("origin"),
            "{origin}"
        );
        let listed = Call::get("/v1/spaces/default/functions")
            .header("origin", &origin)
            .send(config)
            .await;
        assert_eq!(listed.status, status, "{origin}");
        let event = Call::get("/")
            .header("origin", &origin)
            .send(sandbox.addresses.events)
            .await;
        assert_eq!(
            event.status, 404,
            "events have rules of their own, {origin}"
        );
    }
    let twice = invoke()
        .header("origin", "https://ops.example")
        .header("origin", "https://evil.example");
    assert_eq!(twice.send(functions).await.status, 403);
    assert_eq!(sandbox.node.calls(), 4);
}

#[tokio::test]
async fn a_preflight_is_answered_for_allowed_origins() {
    let sandbox = Sandbox::with(|settings| {
        settings.auth.mode = AuthMode::Required;
        settings.auth.origins = vec!["https://ops.example".to_owned()];
    });
    let preflight = |origin: &str| {
        Call::new("OPTIONS", "/v1/spaces/default/functions/f")
            .header("origin", origin)
            .header("access-control-request-method", "PUT")
            .header("access-control-request-headers", "authorization")
    };
    let answer = preflight("https://ops.example")
        .send(sandbox.addresses.config)
        .await;
    assert_eq!(answer.status, 204);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://ops.example")
    );
    assert!(
        answer
            .header("access-control-allow-methods")
            .unwrap()
            .contains("PUT")
    );
    assert!(
        answer
            .header("access-control-allow-headers")
            .unwrap()
            .contains("authorization")
    );
    let answer = preflight("https://evil.example")
        .send(sandbox.addresses.config)
        .await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (403, None)
    );
}

#[tokio::test]
async fn with_auth_every_api_but_status_and_ready_needs_the_token() {
    let sandbox = Sandbox::with(|settings| settings.auth.mode = AuthMode::Required);
    let addresses = sandbox.addresses;
    for (authorization, is_served) in [
        (None, false),
        (Some("Bearer 0123456789abcdef"), true),
        (Some("bearer 0123456789abcdef"), true),
        (Some("Bearer 0123456789abcdeg"), false),
        (Some("Bearer 0123456789abcde"), false),
        (Some("Bearer "), false),
        (Some("Basic 0123456789abcdef"), false),
        (Some("0123456789abcdef"), false),
    ] {
        // The Host does not matter then.
        let with = |call: Call| match authorization {
            Some(value) => call
                .header("authorization", value)
                .header("host", "node.example"),
            None => call.header("host", "node.example"),
        };
        for (call, address, status) in [
            (invoke(), addresses.functions, 200),
            (Call::get("/"), addresses.functions, 200),
            (Call::get("/users"), addresses.events, 404),
            (
                Call::get("/v1/spaces/default/functions"),
                addresses.config,
                200,
            ),
            (Call::get("/v1/cluster"), addresses.config, 200),
            (Call::get("/metrics"), addresses.config, 200),
            (Call::get("/debug/actors"), addresses.config, 200),
        ] {
            let answer = with(call).send(address).await;
            assert_eq!(
                answer.status,
                if is_served { status } else { 401 },
                "{authorization:?}"
            );
            if !is_served {
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
                assert_eq!(
                    answer.header("x-hearth-error"),
                    Some("unauthorized;gateway")
                );
                answer.has_common_headers();
            }
        }
        for open in ["/v1/status", "/v1/ready"] {
            assert_eq!(
                with(Call::get(open)).send(addresses.config).await.status,
                200,
                "{open}"
            );
            let not_there = with(Call::get(open)).send(addresses.functions).await.status;
            assert_eq!(
                not_there,
                if is_served { 404 } else { 401 },
                "{open} is open on the config API only"
            );
        }
    }
}

#[tokio::test]
async fn with_auth_an_origin_must_still_be_known() {
    let sandbox = Sandbox::with(|settings| settings.auth.mode = AuthMode::Required);
    let call = invoke().header("authorization", "Bearer 0123456789abcdef");
    let foreign = call.clone().header("origin", "https://evil.example");
    assert_eq!(foreign.send(sandbox.addresses.functions).await.status, 403);
    let own = call.header("origin", &own(sandbox.addresses.config, "localhost"));
    assert_eq!(own.send(sandbox.addresses.functions).await.status, 200);
}

/// What is for programs is shown by no browser as a page, framed by none, and kept by none.
#[tokio::test]
async fn answers_tell_browsers_what_they_are_not() {
    let sandbox = Sandbox::start();
    let about = Call::get("/").send(sandbox.addresses.functions).await;
    let status = sandbox.admin(Call::get("/v1/status")).await;
    for answer in [&about, &status] {
        assert_eq!(answer.status, 200);
        for (name, value) in [
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("referrer-policy", "no-referrer"),
            ("cache-control", "no-store"),
            (
                "content-security-policy",
                "default-src 'none'; frame-ancestors 'none'",
            ),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    }
    let invoked = sandbox.invoke(r#"{"function_name":"hello"}"#).await;
    let refused = sandbox.invoke("{").await;
    let event = Call::get("/nowhere").send(sandbox.addresses.events).await;
    for (answer, expected) in [
        (&invoked, Some("nosniff")),
        (&refused, Some("nosniff")),
        (&event, None),
    ] {
        assert_eq!(answer.header("x-content-type-options"), expected);
        assert_eq!(answer.header("strict-transport-security"), None);
    }
}
