//! Section 6: what a request is, and in which order it is checked.

use super::*;

#[tokio::test]
async fn custom_events_are_posted_and_their_json_is_valid() {
    let sandbox = sandbox(&[("default", http("GET", "/", "f"))]);
    let post = |body: &str| Call::post("/", body);
    let json = "application/json";
    let named = |call: Call, name: &str| call.header("event", name).header("content-type", json);
    let only_post = "custom event can be emitted only with POST method";
    let malformed = "malformed JSON body";
    // Section 6: the method comes before the body, whatever the event is named.
    refused(&sandbox, named(Call::get("/"), "a"), 400, only_post).await;
    refused(
        &sandbox,
        named(Call::new("PUT", "/").body("{"), "invoke"),
        400,
        only_post,
    )
    .await;
    refused(
        &sandbox,
        named(Call::new("OPTIONS", "/"), "a"),
        400,
        only_post,
    )
    .await;
    // Section 6: JSON that is none, for every kind, also where nothing is subscribed.
    refused(&sandbox, named(post("{"), "a"), 400, malformed).await;
    refused(&sandbox, named(post("{"), "invoke"), 400, malformed).await;
    refused(&sandbox, named(post("{"), "gateway.x"), 400, malformed).await;
    refused(
        &sandbox,
        Call::post("/nowhere", "{").header("content-type", json),
        400,
        malformed,
    )
    .await;
    // Section 6: an empty header names nothing, so the request is an http event.
    refused(
        &sandbox,
        post("").header("event", ""),
        404,
        "resource not found",
    )
    .await;
    // Section 6: names of the gateway's own are taken and reach nobody; `http` reaches nobody either.
    for (name, status) in [
        ("gateway.event.received", 200),
        ("gateway.", 200),
        ("http", 202),
    ] {
        let answer = send(&sandbox, named(post("{}"), name)).await;
        assert_eq!((answer.status, answer.text()), (status, ""), "{name}");
    }
    assert_eq!(sandbox.node.calls(), 0);
}

#[tokio::test]
async fn http_events_are_routed_by_method_and_path() {
    let sandbox = sandbox(&[
        ("default", http("GET", "/", "f")),
        ("default", http("GET", "/a", "f")),
        ("default", http("POST", "/a", "g")),
        ("default", http("GET", "/users/:id", "f")),
        ("default", http("GET", "/users/:id/posts/:post", "g")),
        ("default", http("GET", "/files/*rest", "f")),
        ("default", http("GET", "/case/%41", "f")),
    ]);
    let none = Value::Null;
    let cases = [
        // (section, method, target, function, path, params)
        ("5 root", "GET", "/", "f", "/", none.clone()),
        ("5 static", "GET", "/a", "f", "/a", json!({})),
        ("5 method", "POST", "/a", "g", "/a", json!({})),
        (
            "5 parameter",
            "GET",
            "/users/1",
            "f",
            "/users/1",
            json!({"id": "1"}),
        ),
        (
            "5 empty parameter",
            "GET",
            "/users/",
            "f",
            "/users/",
            json!({"id": ""}),
        ),
        (
            "5 escaped parameter",
            "GET",
            "/users/a%2Fb",
            "f",
            "/users/a/b",
            json!({"id": "a%2Fb"}),
        ),
        (
            "5 parameters",
            "GET",
            "/users/1/posts/2",
            "g",
            "/users/1/posts/2",
            json!({"id": "1", "post": "2"}),
        ),
        (
            "5 wildcard",
            "GET",
            "/files/a/b%20c",
            "f",
            "/files/a/b c",
            json!({"rest": "a/b%20c"}),
        ),
        (
            "5 empty wildcard",
            "GET",
            "/files/",
            "f",
            "/files/",
            json!({"rest": ""}),
        ),
        (
            "5 dots are segments",
            "GET",
            "/files/../a",
            "f",
            "/files/../a",
            json!({"rest": "../a"}),
        ),
        (
            "5 escapes are bytes",
            "GET",
            "/case/%41",
            "f",
            "/case/A",
            json!({}),
        ),
    ];
    for (section, method, target, function, path, params) in cases {
        let answer = send(&sandbox, Call::new(method, target)).await;
        assert_eq!(answer.status, 200, "{section}: {answer:?}");
        assert_eq!(answer.header("x-function"), Some(function), "{section}");
        let data = &answer.json()["data"];
        assert_eq!(
            (&data["path"], &data["params"]),
            (&json!(path), &params),
            "{section}"
        );
    }
    for (section, method, target) in [
        ("5 other method", "PUT", "/a"),
        ("5 trailing slash", "GET", "/a/"),
        ("5 case", "GET", "/A"),
        ("5 no function here", "GET", "/users"),
        ("5 wildcard needs its slash", "GET", "/files"),
        ("5 one segment only", "GET", "/users/1/2"),
        ("5 no backtracking", "GET", "/users/1/posts"),
        ("5 escapes are not decoded", "GET", "/case/A"),
        ("5 empty segments count", "GET", "//a"),
        ("6 unknown method", "BREW", "/a"),
    ] {
        println!("{section}");
        refused(
            &sandbox,
            Call::new(method, target),
            404,
            "resource not found",
        )
        .await;
    }
    refused(
        &sandbox,
        Call::get("/a%zz"),
        400,
        "the path has a % that is no escape",
    )
    .await;
}

/// Section 5: the label of a hosted domain stands before the path. Issue: it names the space as well, where there is one.
#[tokio::test]
async fn hosted_domains() {
    let sandbox = sandbox(&[
        ("default", http("GET", "/custom/test", "f")),
        ("other", http("GET", "/plain", "g")),
    ]);
    let at = |host: &str, path: &str| Call::get(path).header("host", host);
    let told = envelope(&sandbox, at("custom.slsgateway.com", "/test")).await;
    assert_eq!(told["data"]["path"], "/test");
    assert_eq!(told["data"]["host"], "custom.slsgateway.com");
    let told = envelope(&sandbox, at("custom.eventgateway-dev.io:4000", "/test")).await;
    assert_eq!(told["data"]["host"], "custom.eventgateway-dev.io:4000");
    let told = send(&sandbox, at("other.slsgateway.com", "/plain")).await;
    assert_eq!(told.header("x-space"), Some("other"));
    refused(
        &sandbox,
        at("custom.example.com", "/test"),
        404,
        "resource not found",
    )
    .await;
    refused(
        &sandbox,
        at("default.slsgateway.com", "/plain"),
        404,
        "resource not found",
    )
    .await;
}

/// Issue: the space of an http event.
#[tokio::test]
async fn the_space_of_an_http_event() {
    let sandbox = sandbox(&[
        ("other", http("GET", "/both", "g")),
        ("default", http("GET", "/both", "f")),
        ("other", http("GET", "/one", "g")),
    ]);
    let of = |path: &str, space: &str| Call::get(path).header("space", space);
    for (call, space) in [
        (Call::get("/both"), "other"),
        (Call::get("/one"), "other"),
        (of("/both", "default"), "default"),
        (of("/both", "other"), "other"),
        (of("/both", ""), "other"),
    ] {
        assert_eq!(send(&sandbox, call).await.header("x-space"), Some(space));
    }
    refused(&sandbox, of("/one", "default"), 404, "resource not found").await;
    let message = "Space header: a space has only letters, digits, '.', '-' and '_', got \"a b c\"";
    refused(&sandbox, of("/one", "a b c"), 400, message).await;
}

#[tokio::test]
async fn with_auth_an_http_event_without_a_space_is_of_the_default_one() {
    let sandbox =
        Sandbox::with(|settings| settings.auth.mode = config::settings::AuthMode::Required);
    subscribe(
        &sandbox,
        &[
            ("other", http("GET", "/both", "g")),
            ("default", http("GET", "/both", "f")),
            ("default", http("OPTIONS", "/options", "f")),
            ("other", http("GET", "/one", "g")),
            (
                "default",
                json!({"event": "http", "method": "GET", "path": "/page", "functionId": "f", "cors": {}}),
            ),
        ],
    );
    let with = |call: Call| call.header("authorization", "Bearer 0123456789abcdef");
    let answer = send(&sandbox, with(Call::get("/both"))).await;
    assert_eq!(answer.header("x-space"), Some("default"));
    let headers = &answer.json()["data"]["headers"];
    assert_eq!(
        headers.get("Authorization"),
        None,
        "the token is the node's"
    );
    refused(&sandbox, with(Call::get("/one")), 404, "resource not found").await;
    assert_eq!(send(&sandbox, Call::get("/both")).await.status, 401);
    // Browsers send no token with a preflight; one that a function would answer needs it all the same.
    let preflight = |path: &str| {
        Call::new("OPTIONS", path)
            .header("access-control-request-method", "GET")
            .header("origin", "http://a")
    };
    let answer = send(&sandbox, preflight("/page")).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (200, Some("*"))
    );
    assert_eq!(send(&sandbox, preflight("/both")).await.status, 401);
    // What only looks like a preflight is none.
    let empty = Call::new("OPTIONS", "/options").header("access-control-request-method", "");
    assert_eq!(send(&sandbox, empty).await.status, 401);
    assert_eq!(sandbox.node.calls(), 1);
}

#[tokio::test]
async fn a_node_that_knows_nothing_yet_says_so() {
    let sandbox = sandbox(&[]);
    *sandbox.node.registry.lock().unwrap() = Arc::default();
    let answer = send(&sandbox, Call::get("/")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(
        answer.header("x-hearth-error"),
        Some("store_unavailable;store")
    );
}
