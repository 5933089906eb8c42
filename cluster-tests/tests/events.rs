//! Events on every node: what is subscribed through one is served by all, wherever the function is warm.

use std::time::Duration;

use cluster_tests::{Answer, Does, Node, Record, Sandbox, Webhook, api, until};
use futures_util::future::join_all;
use reqwest::{Method, RequestBuilder};
use serde_json::json;

/// How long after a subscription was accepted every node serves it.
const SERVED_WITHIN: Duration = Duration::from_millis(500);

fn request(node: &Node, method: Method, path: &str) -> RequestBuilder {
    node.request(method, &node.events_url(path))
}

async fn send(node: &Node, request: RequestBuilder) -> Answer {
    let answered = api::send(request).await;
    answered.unwrap_or_else(|lost| panic!("{} did not answer: {lost:?}", node.name()))
}

/// Waits until a node serves a path, at most as long as it may take.
async fn served(node: &Node, path: &str) {
    let what = format!("{} serves {path}", node.name());
    until(&what, SERVED_WITHIN, || async {
        send(node, request(node, Method::GET, path)).await.status != 404
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_events_land_on_the_warm_instance_of_a_peer() {
    let sandbox = Sandbox::processes(3).await;
    let (first, home) = sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;
    for path in ["/hello/:name", "/files/*name"] {
        let subscription =
            json!({"event": "http", "method": "GET", "path": path, "functionId": "hello"});
        sandbox.node(0).subscribe(&subscription).await;
    }
    for node in sandbox.nodes() {
        served(&node, "/hello/Ada").await;
        let answer = send(&node, request(&node, Method::GET, "/hello/Ada?x=1")).await;
        let told = answer.json();
        assert_eq!(told["hello"], "Ada", "a path parameter: {answer:?}");
        assert_eq!(told["instance"], json!(first.instance()), "{answer:?}");
        let route = match node.name() == home.name() {
            true => "local",
            false => "forwarded",
        };
        let ran = [
            answer.node.as_deref(),
            answer.start.as_deref(),
            answer.route.as_deref(),
        ];
        assert_eq!(ran, [Some(home.name()), Some("warm"), Some(route)]);

        let answer = send(&node, request(&node, Method::GET, "/files/a%2Fb/c")).await;
        assert_eq!(answer.json()["hello"], "a%2Fb/c", "a wildcard: {answer:?}");
        let answer = send(&node, request(&node, Method::POST, "/hello/Ada")).await;
        assert_eq!(answer.status, 404, "{answer:?}");
    }
}

/// A function with a method, a path and a status of its own answers alike on every node.
#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_whole_over_the_hop() {
    let sandbox = Sandbox::processes(2).await;
    let record = Record::command("echo", [env!("CARGO_BIN_EXE_echo")]).event_format("raw");
    let (_, home) = sandbox.register_warm(&record, json!({})).await;
    for method in ["PUT", "HEAD"] {
        let subscription =
            json!({"event": "http", "method": method, "path": "/e/*rest", "functionId": "echo"});
        sandbox.node(0).subscribe(&subscription).await;
    }
    for node in sandbox.nodes() {
        let put = || {
            let put = request(&node, Method::PUT, "/e/a%20b?c=d");
            put.header("x-mine", "7")
                .header("host", "a.example")
                .body("bytes")
        };
        until(
            "the node serves the subscription",
            SERVED_WITHIN,
            || async { send(&node, put()).await.status != 404 },
        )
        .await;
        let response = put().send().await.unwrap();
        assert_eq!(response.status(), 418);
        assert_eq!(response.headers()["x-hearth-node"], home.name());
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"]);
        let told = response.text().await.unwrap();
        assert_eq!(told, "PUT /e/a%20b?c=d 7 a.example bytes");
        // The length that the body would have, as the function said it.
        let expected = format!(
            "HEAD /e/x  {} ",
            node.events_url("").trim_start_matches("http://")
        );
        let expected = expected.len().to_string();
        let head = request(&node, Method::HEAD, "/e/x").send().await.unwrap();
        let length = &head.headers()["content-length"];
        assert_eq!(head.status(), 418);
        assert_eq!(length.to_str().unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_call_against_another_node() {
    let sandbox = Sandbox::processes(3).await;
    let (first, _) = sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;
    let [one, two, three] = [0, 1, 2].map(|place| sandbox.node(place));
    let invoke = json!({"event": "invoke", "path": "/run", "functionId": "hello"});
    one.subscribe(&invoke).await;
    let page = json!({"event": "http", "method": "GET", "path": "/page", "functionId": "hello", "cors": {"origins": ["http://a.example"]}});
    two.subscribe(&page).await;
    for node in sandbox.nodes() {
        served(&node, "/page").await;
    }

    let invoke = |node: &Node, path: &str| {
        let invoke = request(node, Method::POST, path);
        invoke
            .header("event", "invoke")
            .header("function-id", "hello")
            .json(&json!({"name": "Ada"}))
    };
    let answer = send(&three, invoke(&three, "/run")).await;
    assert_eq!(
        (answer.status, answer.json()["hello"].as_str()),
        (200, Some("Ada"))
    );
    assert_eq!(answer.json()["instance"], json!(first.instance()));
    let answer = send(&two, invoke(&two, "/other")).await;
    assert_eq!(answer.status, 404, "{answer:?}");

    let preflight = |origin: &str| {
        let preflight =
            request(&three, Method::OPTIONS, "/page").header("origin", origin.to_owned());
        preflight
            .header("access-control-request-method", "GET")
            .send()
    };
    let allowed = "access-control-allow-origin";
    let answer = preflight("http://a.example").await.unwrap();
    assert_eq!(answer.headers()[allowed], "http://a.example");
    let answer = preflight("http://b.example").await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers().get(allowed)),
        (200, None)
    );
    let answer = request(&one, Method::GET, "/page")
        .header("origin", "http://a.example")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()[allowed]),
        (200, &"http://a.example".parse().unwrap())
    );
}

/// More requests hang in one webhook than it has slots on a node, and the others do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_that_hangs_delays_no_other() {
    let sandbox = Sandbox::processes(2).await;
    let [healthy, hanging] = [
        Webhook::start(Does::Answer(r#"{"body": "ran"}"#)).await,
        Webhook::start(Does::Hang).await,
    ];
    for (id, hook) in [("healthy", &healthy), ("hanging", &hanging)] {
        let record = Record::http(id, hook.url()).timeout_ms(60_000);
        sandbox.register(&record).await;
        let path = format!("/{id}");
        let subscription =
            json!({"event": "http", "method": "GET", "path": path, "functionId": id});
        sandbox.subscribe(&subscription).await;
    }
    let node = sandbox.node(0);
    let hung = join_all((0..300).map(|_| request(&node, Method::GET, "/hanging").send()));
    let served = async {
        let what = "all slots of the webhook are taken";
        until(what, Duration::from_secs(20), || async {
            hanging.envelopes().len() == 256
        })
        .await;
        for node in sandbox.nodes().iter().cycle().take(100) {
            let answer = node.http_event(Method::GET, "/healthy").await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "ran"));
        }
    };
    tokio::select! {
        () = served => {}
        answers = hung => panic!("the requests that hang have ended: {answers:?}"),
    }
}

/// Section 7: of a webhook's answers 500 alone is a failure, and else only its body counts.
#[tokio::test(flavor = "multi_thread")]
async fn of_a_webhooks_statuses_only_500_is_a_failure() {
    let sandbox = Sandbox::processes(2).await;
    let made = r#"{"statusCode": 201, "body": "made"}"#;
    let failed = "{\"errors\":[{\"message\":\"Function call failed. Please check logs.\"}]}\n";
    for (number, (does, expected)) in [
        (Does::Answer(made), (201, "made")),
        (Does::AnswerWith("202 Accepted", made), (201, "made")),
        (Does::AnswerWith("404 Not Found", made), (201, "made")),
        (Does::AnswerWith("503 Busy", made), (201, "made")),
        (Does::AnswerWith("500 Broken", made), (500, failed)),
    ]
    .into_iter()
    .enumerate()
    {
        let hook = Webhook::start(does).await;
        let (id, path) = (format!("hook{number}"), format!("/{number}"));
        sandbox.register(&Record::http(&id, hook.url())).await;
        let subscription =
            json!({"event": "http", "method": "GET", "path": path, "functionId": id});
        sandbox.subscribe(&subscription).await;
        for node in sandbox.nodes() {
            let answer = node.http_event(Method::GET, &path).await;
            assert_eq!((answer.status, answer.body.as_str()), expected, "{does:?}");
        }
        drop(hook);
        let answer = sandbox.node(0).http_event(Method::GET, &path).await;
        assert_eq!((answer.status, answer.body.as_str()), (500, failed));
    }
}

/// Section 1: what a webhook takes unless its record says otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_has_five_seconds() {
    let sandbox = Sandbox::processes(1).await;
    let hook = Webhook::start(Does::Hang).await;
    sandbox.register(&Record::http("hook", hook.url())).await;
    let subscription =
        json!({"event": "http", "method": "GET", "path": "/a", "functionId": "hook"});
    sandbox.subscribe(&subscription).await;
    let answer = sandbox.node(0).http_event(Method::GET, "/a").await;
    assert_eq!(answer.status, 500, "{answer:?}");
    assert_eq!(answer.error.as_deref(), Some("deadline_exceeded"));
    let five = Duration::from_secs(5)..Duration::from_secs(15);
    assert!(five.contains(&answer.elapsed), "{answer:?}");
}
