//! Custom events and system events: who gets them, and what happens when there is no room.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actors::invoker::Request;
use futures_util::future::pending;
use protocol::{Component, Effect, ErrorCode, Function, Subscription};
use queue::{Queue, Stats};
use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox, eventually, failed, replied};

/// Each number for itself: the subscription's, else the function's, else none, which leaves it to the node.
#[tokio::test]
async fn how_often_and_how_long_is_said_by_the_subscription_and_else_by_the_function() {
    let sandbox = Sandbox::start();
    let node: Arc<dyn gateway::Node> = Arc::new(sandbox.node.clone());
    let emitter = Arc::clone(&sandbox.queues.emitter);
    let deliver = gateway::Invocations::new(node, emitter, queue::Promise::AtLeastOnce);
    let check = |own: Value, functions: Value, expected: (Option<u32>, Option<u64>)| {
        let provider = json!({ "url": "http://a.example/" });
        let function = json!({ "space": "default", "functionId": "f", "type": "http", "provider": provider, "delivery": functions });
        let record = json!({ "event": "a", "functionId": "f", "delivery": own }).to_string();
        let subscription = Subscription::parse("default", record.as_bytes()).unwrap();
        let delivery = queue::Delivery {
            id: queue::DeliveryId::random(),
            event: bytes::Bytes::new(),
            space: subscription.space.clone(),
            function_id: subscription.function_id.clone(),
            origin: queue::Origin::Subscription(subscription.subscription_id.clone()),
            ordinal: 0,
            accepted_at: std::time::SystemTime::now(),
            not_before: None,
        };
        let function: Function = serde_json::from_value(function).unwrap();
        let registry = actors::scripted::registry([function], [subscription]);
        *sandbox.node.registry.lock().unwrap() = Arc::new(registry);
        let said = queue::Deliver::own_retry(&deliver, &delivery);
        let (attempts, seconds) = expected;
        assert_eq!(said.attempts_max, attempts, "{own} {functions}");
        let age = seconds.map(Duration::from_secs);
        assert_eq!(said.until_age, age, "{own} {functions}");
    };
    check(json!(null), json!(null), (None, None));
    check(json!({"attempts": 2}), json!(null), (Some(2), None));
    check(json!(null), json!({"attempts": 5}), (Some(5), None));
    check(
        json!({"attempts": 2}),
        json!({"attempts": 5, "maxAgeSeconds": 50}),
        (Some(2), Some(50)),
    );
    check(
        json!({"maxAgeSeconds": 20}),
        json!({"attempts": 5, "maxAgeSeconds": 50}),
        (Some(5), Some(20)),
    );
}

impl Sandbox {
    /// Registers webhooks and subscribes them: space, event, path, function, and what of the record is special.
    fn subscribe(&self, subscriptions: &[(&str, &str, &str, &str, Value)]) {
        let mut functions = BTreeSet::new();
        let mut records = Vec::new();
        for (space, event, path, function, more) in subscriptions {
            functions.insert((*space, *function));
            let mut record = json!({ "event": event, "functionId": function, "path": path });
            let more = more.as_object().cloned().unwrap_or_default();
            record.as_object_mut().unwrap().extend(more);
            let record = serde_json::to_vec(&record).unwrap();
            records.push(Subscription::parse(space, &record).unwrap());
        }
        let functions = functions.into_iter().map(|(space, id)| {
            let provider = json!({ "url": "http://a.example/" });
            let record =
                json!({ "space": space, "functionId": id, "type": "http", "provider": provider });
            serde_json::from_value::<Function>(record).unwrap()
        });
        let registry = actors::scripted::registry(functions, records);
        *self.node.registry.lock().unwrap() = Arc::new(registry);
    }

    async fn emit(&self, event: &str, path: &str, body: &str) -> Answer {
        self.send(event, path, body, &[]).await
    }

    async fn send(&self, event: &str, path: &str, body: &str, fields: &[(&str, &str)]) -> Answer {
        let mut call = Call::post(path, body)
            .header("event", event)
            .header("content-type", "application/json");
        for (name, value) in fields {
            call = call.header(name, value);
        }
        call.send(self.addresses.events).await
    }

    /// Waits until nothing waits and nothing runs.
    async fn delivered(&self) {
        let queues = &self.queues;
        eventually("everything is delivered", || {
            queues.custom.stats() == Stats::default() && queues.system.stats() == Stats::default()
        })
        .await;
    }

    /// `space/function event` of all calls, sorted.
    fn called(&self) -> Vec<String> {
        let requests = self.node.requests.lock().unwrap();
        let mut called: Vec<_> = requests
            .iter()
            .map(|request| {
                let event = envelope(request)["event"].clone();
                let event = event.as_str().unwrap().to_owned();
                format!("{}/{} {event}", request.space, request.function_id)
            })
            .collect();
        called.sort();
        called
    }

    /// What a function was called with.
    fn envelopes(&self, function: &str) -> Vec<Value> {
        let requests = self.node.requests.lock().unwrap();
        let own = requests
            .iter()
            .filter(|request| request.function_id.as_str() == function);
        own.map(envelope).collect()
    }
}

fn envelope(request: &Request) -> Value {
    serde_json::from_slice(&request.payload).unwrap()
}

fn none() -> Value {
    Value::Null
}

/// Section 8: each subscriber of the name and path is called, with the same event; a name or path that differs is another one.
#[tokio::test]
async fn an_event_is_delivered_to_each_subscriber_once() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[
        ("default", "user.created", "/", "mail", none()),
        ("default", "user.created", "/", "count", none()),
        ("other", "user.created", "/", "mail", none()),
        ("default", "user.created", "/users", "elsewhere", none()),
        ("default", "user.deleted", "/", "other", none()),
        ("default", "user.*", "/", "all", none()),
    ]);
    let answer = sandbox.emit("user.created", "/", r#"{"id": 7.0}"#).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    sandbox.delivered().await;
    let expected = [
        "default/all user.created",
        "default/count user.created",
        "default/mail user.created",
        "other/mail user.created",
    ];
    assert_eq!(sandbox.called(), expected);
    let all: Vec<_> = ["all", "count", "mail"]
        .iter()
        .flat_map(|name| sandbox.envelopes(name))
        .collect();
    assert!(all.iter().all(|one| *one == all[0]), "{all:?}");
    assert_eq!(all[0]["data"], json!({ "id": 7.0 }));
    assert_eq!(
        Some(all[0]["id"].as_str().unwrap()),
        answer.header("x-hearth-invocation")
    );
}

/// Sections 5 and 8: the path of an event is compared decoded, with the label of a hosted domain before it, and as text: it has neither
/// parameters nor wildcards.
#[tokio::test]
async fn the_path_of_an_event_is_compared_as_text() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[
        ("default", "a", "/", "root", none()),
        ("default", "a", "/a b/c", "decoded", none()),
        ("default", "a", "/:id", "colon", none()),
        ("default", "a", "/*rest", "star", none()),
        ("default", "a", "/shop/x", "hosted", none()),
    ]);
    for (host, path, function) in [
        ("localhost", "/", Some("root")),
        ("localhost", "/?x=1", Some("root")),
        ("localhost", "/a%20b/c", Some("decoded")),
        ("localhost", "/a%20b%2Fc", Some("decoded")),
        ("localhost", "/a%20b/c/", None),
        ("localhost", "/:id", Some("colon")),
        ("localhost", "/7", None),
        ("localhost", "/*rest", Some("star")),
        ("shop.slsgateway.com", "/x", Some("hosted")),
    ] {
        let answer = sandbox.send("a", path, "1", &[("host", host)]).await;
        assert_eq!(answer.status, 202, "{path}");
        sandbox.delivered().await;
        let called: Vec<_> = std::mem::take(&mut *sandbox.node.requests.lock().unwrap());
        let called: Vec<_> = called
            .iter()
            .map(|request| request.function_id.as_str())
            .collect();
        assert_eq!(called, Vec::from_iter(function), "{path}");
    }
}

/// DESIGN: a `Space` header confines an event; the original reached every space, and does so here without one.
#[tokio::test]
async fn a_space_header_confines_an_event() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[
        ("one", "a", "/", "f", none()),
        ("two", "a", "/", "f", none()),
    ]);
    let answer = sandbox.send("a", "/", "1", &[("space", "two")]).await;
    assert_eq!(answer.status, 202);
    sandbox.delivered().await;
    assert_eq!(sandbox.called(), ["two/f a"]);
}

#[tokio::test]
async fn a_filter_keeps_events_from_its_subscriber() {
    let sandbox = Sandbox::start();
    let filter = |value: Value| json!({ "filter": value });
    sandbox.subscribe(&[
        ("default", "a", "/", "eu", filter(json!({ "region": "eu" }))),
        (
            "default",
            "a",
            "/",
            "us",
            filter(json!({ "region": ["us", "ca"] })),
        ),
        (
            "default",
            "a",
            "/",
            "typed",
            filter(json!({ "type": "a", "source": "/shop" })),
        ),
    ]);
    for region in ["eu", "ca", "jp"] {
        let call = Call::post("/", "{}")
            .header("ce-specversion", "1.0")
            .header("ce-id", region)
            .header("ce-source", "/shop")
            .header("ce-type", "a")
            .header("ce-region", region)
            .header("content-type", "application/json");
        assert_eq!(call.send(sandbox.addresses.events).await.status, 202);
    }
    sandbox.delivered().await;
    let ids = |function: &str| {
        let all = sandbox.envelopes(function);
        let mut ids: Vec<_> = all
            .iter()
            .map(|one| one["id"].as_str().unwrap().to_owned())
            .collect();
        ids.sort();
        ids
    };
    assert_eq!(ids("eu"), ["eu"]);
    assert_eq!(ids("us"), ["ca"]);
    assert_eq!(ids("typed"), ["ca", "eu", "jp"]);
}

/// Section 8: 202 with no subscribers; the names `http` and those of the gateway reach nobody.
#[tokio::test]
async fn an_event_that_nobody_hears_is_accepted() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[
        ("default", "gateway.event.received", "/users", "spy", none()),
        ("default", "gateway.*", "/users", "spy", none()),
        (
            "default",
            "http",
            "/users",
            "page",
            json!({ "method": "POST" }),
        ),
        ("default", "*", "/users", "all", none()),
    ]);
    for (event, path, expected) in [
        ("nobody", "/", 202),
        ("http", "/users", 202),
        ("gateway.event.received", "/users", 200),
        ("gateway.anything", "/users", 200),
    ] {
        let answer = sandbox.emit(event, path, "1").await;
        assert_eq!((answer.status, answer.text()), (expected, ""), "{event}");
    }
    sandbox.delivered().await;
    assert_eq!(sandbox.called(), Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_knows_no_subscriptions_yet_accepts_nothing() {
    let sandbox = Sandbox::start();
    *sandbox.node.registry.lock().unwrap() = Arc::default();
    let answer = sandbox.emit("a", "/", "1").await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(
        answer.header("x-hearth-error"),
        Some("store_unavailable;store")
    );
}

/// DESIGN: a full queue answers 503 and never drops; of a batch all or nothing is taken.
#[tokio::test]
async fn a_full_queue_answers_503() {
    let sandbox = Sandbox::with(|settings| {
        settings.queue.len_max = 3;
        settings.queue.function_share = 1.0;
        settings.queue.permits = 1;
    });
    sandbox.node.on_invoke(|_| pending());
    sandbox.subscribe(&[
        ("default", "a", "/", "hangs", none()),
        ("default", "both", "/", "hangs", none()),
        ("default", "both", "/", "other", none()),
    ]);
    assert_eq!(sandbox.emit("a", "/", "1").await.status, 202);
    eventually("the first one runs", || sandbox.node.calls() == 1).await;
    for _ in 0..2 {
        assert_eq!(sandbox.emit("a", "/", "1").await.status, 202);
    }
    let refused = sandbox.emit("both", "/", "1").await;
    assert_eq!(refused.status, 503);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("x-hearth-error"), Some("overloaded;queue"));
    let message = "the queue is full: 3 deliveries wait on this node (queue.len_max)";
    assert_eq!(
        refused.json(),
        json!({ "errors": [{ "message": message }] })
    );
    assert_eq!(sandbox.queues.custom.stats().waiting, 2);

    let event =
        |kind: &str| json!({ "specversion": "1.0", "id": kind, "source": "/", "type": kind });
    let batch = json!([event("a"), event("a")]).to_string();
    let batch = Call::post("/", batch).header("content-type", "application/cloudevents-batch+json");
    assert_eq!(batch.send(sandbox.addresses.events).await.status, 503);
    assert_eq!(sandbox.queues.custom.stats().waiting, 2);
    let nobody = sandbox.emit("nobody", "/", "1").await;
    assert_eq!(nobody.status, 202, "what nobody hears needs no room");
}

/// Section 10, corrected: `invoking` and `invoked` with the function's answer, `invocationFailed` with the reason, and none of
/// them about the delivery of a system event.
#[tokio::test]
async fn calls_are_told_to_subscribers_of_system_events_without_a_loop() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[
        ("default", "a", "/here", "f", none()),
        ("default", "b", "/here", "broken", none()),
        (
            "watch",
            "gateway.function.invoking",
            "/",
            "invoking",
            none(),
        ),
        ("watch", "gateway.function.invoked", "/", "invoked", none()),
        (
            "watch",
            "gateway.function.invocationFailed",
            "/",
            "failures",
            none(),
        ),
        (
            "watch",
            "gateway.function.invoked",
            "/here",
            "elsewhere",
            none(),
        ),
    ]);
    sandbox.node.on_invoke(|request: Request| async move {
        match request.function_id.as_str() {
            "broken" => Err(failed(
                ErrorCode::FunctionFailed,
                Component::Function,
                Effect::Finished,
            )),
            _ => Ok(replied(None, "the answer")),
        }
    });
    sandbox.emit("a", "/here", "1").await;
    sandbox.emit("b", "/here", "2").await;
    sandbox.delivered().await;
    let expected = [
        "default/broken b",
        "default/f a",
        "watch/failures gateway.function.invocationFailed",
        "watch/invoked gateway.function.invoked",
        "watch/invoking gateway.function.invoking",
        "watch/invoking gateway.function.invoking",
    ];
    assert_eq!(sandbox.called(), expected);
    let about = |function: &str| sandbox.envelopes(function).remove(0);
    let invoked = about("invoked");
    assert_eq!(invoked["dataType"], "application/json");
    let data = &invoked["data"];
    assert_eq!(data["space"], "default");
    assert_eq!(data["functionId"], "f");
    assert_eq!(data["event"], about("f"), "the full envelope");
    assert_eq!(data["result"], "dGhlIGFuc3dlcg==", "the answer in base64");
    let failures = about("failures");
    assert_eq!(failures["data"]["error"], "the reason");
    assert_eq!(failures["data"]["event"], about("broken"));
    let told: BTreeSet<_> = sandbox
        .envelopes("invoking")
        .iter()
        .map(|told| told["data"]["functionId"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(told, BTreeSet::from(["broken".to_owned(), "f".to_owned()]));
}

/// Section 10, corrected: system events wait apart. Their subscriber hangs, their lane is full, and custom events go on.
#[tokio::test]
async fn system_events_crowd_out_nothing() {
    let sandbox = Sandbox::with(|settings| {
        settings.queue.system_len_max = 2;
        settings.queue.system_permits = 1;
        settings.queue.len_max = 2;
    });
    sandbox.subscribe(&[
        ("default", "a", "/", "f", none()),
        ("default", "gateway.function.invoking", "/", "hangs", none()),
    ]);
    sandbox.node.on_invoke(|request: Request| async move {
        if request.function_id.as_str() == "hangs" {
            pending::<()>().await;
        }
        Ok(replied(None, ""))
    });
    for _ in 0..50 {
        assert_eq!(sandbox.emit("a", "/", "1").await.status, 202);
        eventually("it is delivered", || {
            sandbox.queues.custom.stats() == Stats::default()
        })
        .await;
    }
    assert_eq!(sandbox.envelopes("f").len(), 50);
    assert_eq!(sandbox.envelopes("hangs").len(), 1);
    assert!(sandbox.queues.system.stats().waiting <= 2);
}

/// From the answer to the start of the function on an idle node: woken, not polled. The bound is far above what it takes, and
/// far below any interval.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_starts_at_once() {
    let sandbox = Sandbox::start();
    sandbox.subscribe(&[("default", "a", "/", "f", none())]);
    let mut waits = Vec::new();
    for number in 1..=20 {
        sandbox.emit("a", "/", "1").await;
        let answered = tokio::time::Instant::now();
        eventually("it starts", || sandbox.node.calls() == number).await;
        waits.push(answered.elapsed());
    }
    waits.sort();
    assert!(waits[10] < Duration::from_millis(100), "{waits:?}");
}
