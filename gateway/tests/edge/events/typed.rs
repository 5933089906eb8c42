//! Section 12: events of typed subscriptions, as Event Gateway's last versions had them.

use std::collections::BTreeMap;

use actors::registry_cache::{RegisteredCors, RegisteredType};
use config::Revision;
use protocol::{CorsRecord, EventTypeRecord};
use queue::{Queue, Stats};

use super::*;
use crate::support::eventually;

pub(super) fn typed(
    mode: &str,
    event_type: &str,
    method: &str,
    path: &str,
    function: &str,
) -> (&'static str, Value) {
    let record = json!({"type": mode, "eventType": event_type, "method": method, "path": path, "functionId": function});
    ("default", record)
}

/// Lets a function of the space say who may emit an event type.
pub(super) fn authorize(sandbox: &Sandbox, event_type: &str, function: &str) {
    let record = json!({"name": event_type, "authorizerId": function}).to_string();
    let record = EventTypeRecord::parse("default", None, record.as_bytes()).unwrap();
    let (space, name) = (record.space.clone(), record.name.clone());
    let registered = RegisteredType {
        event_type: Arc::new(record),
        revision: Revision(1),
    };
    let types = BTreeMap::from([(name, Arc::new(registered))]);
    let mut registry = sandbox.node.registry.lock().unwrap();
    Arc::make_mut(&mut registry)
        .event_types
        .insert(space, Arc::new(types));
}

/// Gives the space these CORS configurations, in what the node knows.
fn configure_cors(sandbox: &Sandbox, records: &[Value]) {
    let registered = records.iter().map(|record| {
        let cors = CorsRecord::parse("default", record.to_string().as_bytes()).unwrap();
        let cors = Arc::new(cors);
        let revision = Revision(1);
        Arc::new(RegisteredCors { cors, revision })
    });
    let registered = registered.collect();
    let mut registry = sandbox.node.registry.lock().unwrap();
    let cors = &mut Arc::make_mut(&mut registry).cors;
    cors.set("default".parse().unwrap(), registered);
}

/// An event as `emit` of the SDK sends it.
fn emitted(event_type: &str, path: &str) -> Call {
    let event = json!({"eventID": "1", "eventType": event_type, "cloudEventsVersion": "0.1", "source": "/users", "contentType": "application/json", "data": {"n": 1}});
    Call::post(path, event.to_string()).header("content-type", "application/cloudevents+json")
}

pub(super) async fn delivered(sandbox: &Sandbox) {
    let queues = &sandbox.queues;
    eventually("everything is delivered", || {
        queues.custom.stats() == Stats::default() && queues.system.stats() == Stats::default()
    })
    .await;
}

/// The functions that were called, sorted.
pub(super) fn called(sandbox: &Sandbox) -> Vec<String> {
    let requests = sandbox.node.requests.lock().unwrap();
    let ids = requests
        .iter()
        .map(|request| request.function_id.to_string());
    let mut ids: Vec<_> = ids.collect();
    ids.sort();
    ids
}

/// What a function was called with: media type and payload.
pub(super) fn got(sandbox: &Sandbox, function: &str) -> Vec<(String, Value)> {
    let requests = sandbox.node.requests.lock().unwrap();
    let own = requests
        .iter()
        .filter(|request| request.function_id.as_str() == function);
    own.map(|request| {
        let payload = serde_json::from_slice(&request.payload).unwrap();
        (request.content_type.clone(), payload)
    })
    .collect()
}

/// Section 12: a request hits one sync and many async subscriptions; without a sync one the answer is 202.
#[tokio::test]
async fn an_event_is_answered_by_one_and_queued_for_many() {
    let sandbox = sandbox(&[
        typed("sync", "a", "POST", "/:id", "f"),
        typed("async", "a", "POST", "/7", "g"),
        typed("async", "a", "POST", "/7", "pooled-envelope"),
        typed("async", "a", "PUT", "/7", "raw"),
        typed("async", "a", "POST", "/8", "raw"),
        typed("async", "b", "POST", "/7", "raw"),
        (
            "default",
            json!({"event": "a", "path": "/7", "functionId": "answers"}),
        ),
    ]);
    let answer = send(&sandbox, emitted("a", "/7")).await;
    assert_eq!(
        (answer.status, answer.header("x-function")),
        (200, Some("f")),
        "{answer:?}"
    );
    assert_eq!(answer.json()["eventType"], "a");
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["answers", "f", "g", "pooled-envelope"]);
    let answer = send(&sandbox, emitted("a", "/7/8")).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    let answer = send(&sandbox, emitted("nobody.hears", "/")).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
}

/// Section 12: functions get CloudEvents 0.1; those of other forms get theirs, and subscriptions with `event` their envelope.
#[tokio::test]
async fn each_subscription_gets_the_form_of_its_dialect() {
    let sandbox = sandbox(&[
        typed("async", "a", "POST", "/", "f"),
        typed("async", "a", "POST", "/", "structured"),
        ("default", json!({"event": "a", "functionId": "g"})),
    ]);
    send(&sandbox, emitted("a", "/")).await;
    delivered(&sandbox).await;
    let [(media_type, event)] = &got(&sandbox, "f")[..] else {
        panic!("{:?}", got(&sandbox, "f"));
    };
    assert_eq!(media_type, "application/cloudevents+json");
    let time = &event["eventTime"];
    assert_eq!(
        *event,
        json!({"eventType": "a", "cloudEventsVersion": "0.1", "source": "/users", "eventID": "1", "eventTime": time, "contentType": "application/json", "data": {"n": 1}})
    );
    assert_eq!(got(&sandbox, "structured")[0].1["specversion"], "1.0");
    let (media_type, envelope) = &got(&sandbox, "g")[0];
    assert_eq!(media_type, "application/json");
    assert_eq!(
        (&envelope["event"], &envelope["id"]),
        (&json!("a"), &json!("1"))
    );
}

/// Section 12: structured and binary mode, and the `Event` header, all become events.
#[tokio::test]
async fn events_come_in_three_ways() {
    let sandbox = sandbox(&[typed("sync", "a", "POST", "/", "f")]);
    let binary = Call::post("/", "a=1")
        .header("ce-eventtype", "a")
        .header("ce-cloudeventsversion", "0.1")
        .header("ce-source", "/users")
        .header("ce-eventid", "1")
        .header("ce-x-tenant", "t")
        .header("content-type", "application/x-www-form-urlencoded");
    let legacy = Call::post("/", r#"{"n":1}"#)
        .header("event", "a")
        .header("content-type", "application/json");
    let own = json!({"eventgateway": {"transformed": "true", "transformation-version": "0.1"}});
    for (call, data, extensions) in [
        (emitted("a", "/"), json!({"n": 1}), Value::Null),
        (binary, json!("a=1"), json!({"tenant": "t"})),
        (legacy, json!({"n": 1}), own),
    ] {
        let event = envelope(&sandbox, call).await;
        assert_eq!(
            (&event["eventType"], &event["cloudEventsVersion"]),
            (&json!("a"), &json!("0.1"))
        );
        assert_eq!(
            (&event["data"], &event["extensions"]),
            (&data, &extensions),
            "{event}"
        );
    }
    let invalid = Call::post("/", r#"{"eventType":"a"}"#)
        .header("content-type", "application/cloudevents+json");
    let answer = send(&sandbox, invalid).await;
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .contains("CloudEvent doesn't validate: Key: 'Event.CloudEventsVersion'"),
        "{answer:?}"
    );
}

/// Section 12: a method of the subscription's own. Where nobody is subscribed to the event, the request is what it was before.
#[tokio::test]
async fn events_come_with_any_method_that_is_subscribed_to() {
    let sandbox = sandbox(&[
        typed("sync", "a", "PUT", "/", "f"),
        typed("async", "b", "PUT", "/", "g"),
        ("default", http("PUT", "/", "answers")),
    ]);
    let put = |event_type: &str| {
        let event = json!({"eventID": "1", "eventType": event_type, "cloudEventsVersion": "0.1", "source": "/"});
        Call::new("PUT", "/")
            .body(event.to_string())
            .header("content-type", "application/cloudevents+json")
    };
    assert_eq!(
        send(&sandbox, put("a")).await.header("x-function"),
        Some("f")
    );
    let answer = send(&sandbox, put("b")).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["f", "g"]);
    // The body of an http event is handed to its function, which answers with it: no response object with a status.
    assert_eq!(send(&sandbox, put("c")).await.status, 200);
    assert_eq!(called(&sandbox), ["answers", "f", "g"]);
}

/// Section 12: plain requests are events of the type `http.request`. Section 6 stays: an unknown path is 404.
#[tokio::test]
async fn plain_requests_are_answered_and_queued() {
    let sandbox = sandbox(&[
        typed("sync", "http.request", "POST", "/users/:id", "f"),
        typed("async", "http.request", "POST", "/users/7", "g"),
        typed("async", "http.request", "GET", "/log", "g"),
        ("default", http("GET", "/old", "g")),
    ]);
    let call = Call::post("/users/7?q=1", "a=%201")
        .header("content-type", "application/x-www-form-urlencoded");
    let event = envelope(&sandbox, call).await;
    assert_eq!(
        (&event["eventType"], &event["contentType"]),
        (&json!("http.request"), &json!("application/json"))
    );
    let data = &event["data"];
    assert_eq!(data["params"], json!({"id": "7"}));
    assert_eq!(
        (&data["body"], &data["query"]["q"]),
        (&json!("a=%201"), &json!(["1"]))
    );
    assert_eq!(
        (&data["method"], &data["path"]),
        (&json!("POST"), &json!("/users/7"))
    );
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["f", "g"]);
    let answer = send(&sandbox, Call::get("/log")).await;
    assert_eq!((answer.status, answer.text()), (202, ""));
    delivered(&sandbox).await;
    let queued = &got(&sandbox, "g")[1].1;
    assert_eq!(
        (&queued["eventType"], &queued["data"]["path"]),
        (&json!("http.request"), &json!("/log"))
    );
    for call in [Call::get("/users/7"), Call::get("/nowhere")] {
        refused(&sandbox, call, 404, "resource not found").await;
    }
    assert_eq!(envelope(&sandbox, Call::get("/old")).await["event"], "http");
    // Without a CORS configuration a page is told nothing, and the function is not called.
    let preflight = Call::new("OPTIONS", "/users/7")
        .header("origin", "http://a.example")
        .header("access-control-request-method", "POST");
    let answer = send(&sandbox, preflight).await;
    assert_eq!(
        (answer.status, answer.header("access-control-allow-origin")),
        (202, None)
    );
    assert_eq!(called(&sandbox).len(), 4);
}

/// Section 12: the authorizer of an event type.
#[tokio::test]
async fn an_authorizer_is_asked_before_delivery() {
    let sandbox = sandbox(&[
        typed("sync", "a", "POST", "/", "f"),
        typed("async", "a", "POST", "/", "g"),
        (
            "default",
            json!({"event": "a", "functionId": "pooled-envelope"}),
        ),
    ]);
    authorize(&sandbox, "a", "answers");
    let refuses = [
        r#"{"error":{"message":"no"}}"#,
        r#"{"error":{"message":"no"},"authorization":{"principalId":"me"}}"#,
        "{}",
        r#"{"authorization":null}"#,
        r#"{"authorization":{}}"#,
        "no JSON",
        "",
    ];
    for said in refuses {
        sandbox.node.on_invoke(move |request: Request| async move {
            match request.function_id.as_str() {
                "answers" => Ok(replied(None, said)),
                _ => Ok(replied(None, "{}")),
            }
        });
        let message = "Authorization of event type \"a\" failed. Please check logs.";
        refused(&sandbox, emitted("a", "/"), 403, message).await;
        delivered(&sandbox).await;
    }
    sandbox.node.on_invoke(
        async |request: Request| match request.function_id.as_str() {
            "answers" => Err(function_error()),
            _ => Ok(replied(None, "{}")),
        },
    );
    assert_eq!(send(&sandbox, emitted("a", "/")).await.status, 403);
    delivered(&sandbox).await;
    // Each request asked once, and what needs no event type was not kept from anybody.
    let asked = got(&sandbox, "answers");
    assert_eq!(asked.len(), refuses.len() + 1);
    assert_eq!(got(&sandbox, "pooled-envelope").len(), asked.len());
    assert_eq!(called(&sandbox).len(), 2 * asked.len());
    let (media_type, question) = &asked[0];
    assert_eq!(media_type, "application/cloudevents+json");
    assert_eq!(question["event"]["eventType"], "a");
    let request = &question["request"];
    assert_eq!(
        (&request["method"], &request["path"]),
        (&json!("POST"), &json!("/"))
    );
    assert_eq!(
        request["headers"]["Content-Type"],
        "application/cloudevents+json"
    );
    assert_eq!(request["body"]["eventID"], "1");

    sandbox.node.on_invoke(async |request: Request| {
        let said = r#"{"authorization":{"principalId":"me","context":{"a":"b"}},"error":null}"#;
        match request.function_id.as_str() {
            "answers" => Ok(replied(None, said)),
            _ => Ok(replied(None, "{}")),
        }
    });
    assert_eq!(send(&sandbox, emitted("a", "/")).await.status, 200);
    delivered(&sandbox).await;
    let authorization = json!({"principalId": "me", "context": {"a": "b"}});
    for function in ["f", "g"] {
        let (_, event) = &got(&sandbox, function)[0];
        assert_eq!(
            event["extensions"]["eventgateway"]["authorization"], authorization,
            "{function}"
        );
    }
}

/// Section 12: system events have new names for typed subscriptions, and whoever emits one is refused.
#[tokio::test]
async fn system_events_are_told_by_their_new_names() {
    let sandbox = sandbox(&[
        typed("async", "eventgateway.event.received", "POST", "/", "g"),
        typed("async", "eventgateway.function.invoked", "POST", "/", "g"),
        typed("sync", "a", "POST", "/x", "f"),
    ]);
    send(&sandbox, emitted("a", "/x")).await;
    delivered(&sandbox).await;
    let mut told = got(&sandbox, "g");
    told.sort_by_key(|(_, event)| event["eventType"].to_string());
    let names: Vec<_> = told
        .iter()
        .map(|(_, event)| event["eventType"].clone())
        .collect();
    assert_eq!(
        names,
        [
            "eventgateway.event.received",
            "eventgateway.function.invoked"
        ]
    );
    for (_, event) in &told {
        assert_eq!(event["data"]["event"]["eventType"], "a", "{event}");
    }
    for call in [
        emitted("eventgateway.event.received", "/"),
        Call::post("/", "1").header("event", "eventgateway.x"),
    ] {
        let answer = send(&sandbox, call).await;
        assert_eq!(answer.status, 400, "{answer:?}");
    }
    delivered(&sandbox).await;
    assert_eq!(got(&sandbox, "g").len(), 2);
}

/// Spaces and filters hold for typed subscriptions too, and one that answers can not answer a batch.
#[tokio::test]
async fn spaces_filters_and_batches() {
    let filtered = |source: &str, function: &str| {
        let (space, mut record) = typed("async", "a", "POST", "/", function);
        record["filter"] = json!({"source": source});
        (space, record)
    };
    let (_, elsewhere) = typed("async", "a", "POST", "/", "g");
    let sandbox = sandbox(&[
        filtered("/users", "f"),
        filtered("/other", "pooled-envelope"),
        ("other", elsewhere),
        typed("sync", "b", "POST", "/", "f"),
    ]);
    send(&sandbox, emitted("a", "/").header("space", "default")).await;
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["f"]);
    send(&sandbox, emitted("a", "/")).await;
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["f", "f", "g"]);
    let batch = json!([{"specversion": "1.0", "id": "1", "source": "/", "type": "b"}]).to_string();
    let batch = Call::post("/", batch).header("content-type", "application/cloudevents-batch+json");
    let why = "an event of the type b is answered by its function and can not come in a batch";
    refused(&sandbox, batch, 400, why).await;
}

/// Section 12: CORS as a resource per method and path. A subscription's own `cors` comes before it, and without either custom events
/// may be emitted from anywhere, as section 9 has it.
#[tokio::test]
async fn pages_are_told_what_a_cors_configuration_says() {
    let mut own = http("GET", "/own", "f");
    own["cors"] = json!({"origins": ["http://own.example"]});
    let sandbox = sandbox(&[
        typed("sync", "http.request", "GET", "/users/:id", "f"),
        typed("async", "a", "POST", "/emit", "g"),
        ("default", own),
        ("default", http("GET", "/plain", "f")),
    ]);
    let records = [
        ("GET", "/users/:id"),
        ("POST", "/emit"),
        ("GET", "/own"),
        ("GET", "/plain"),
    ];
    let records = records.map(|(method, path)| {
        json!({"method": method, "path": path, "allowedOrigins": ["http://a.example"], "allowedMethods": [method]})
    });
    configure_cors(&sandbox, &records);
    let preflight = |path: &str, method: &str, origin: &str, headers: &str| {
        Call::new("OPTIONS", path)
            .header("origin", origin)
            .header("access-control-request-method", method)
            .header("access-control-request-headers", headers)
    };
    let a = "http://a.example";
    for (call, status, expected) in [
        (preflight("/users/7", "GET", a, ""), 200, Some(a)),
        (
            preflight("/users/7", "GET", "http://b.example", ""),
            200,
            None,
        ),
        (preflight("/emit", "POST", a, "content-type"), 200, Some(a)),
        (
            preflight("/emit", "POST", "http://b.example", "event"),
            200,
            None,
        ),
        (
            preflight("/elsewhere", "POST", "http://b.example", "event"),
            200,
            Some("http://b.example"),
        ),
        (preflight("/own", "GET", a, ""), 200, None),
        (
            preflight("/own", "GET", "http://own.example", ""),
            200,
            Some("http://own.example"),
        ),
        (preflight("/plain", "GET", a, ""), 200, Some(a)),
        (Call::get("/users/7").header("origin", a), 200, Some(a)),
        (
            Call::get("/users/7").header("origin", "http://b.example"),
            200,
            None,
        ),
        (emitted("a", "/emit").header("origin", a), 202, Some(a)),
        (
            emitted("a", "/emit").header("origin", "http://b.example"),
            202,
            None,
        ),
        (emitted("a", "/").header("origin", a), 202, Some(a)),
    ] {
        let answer = send(&sandbox, call).await;
        assert_eq!(
            (answer.status, answer.header("access-control-allow-origin")),
            (status, expected),
            "{answer:?}"
        );
    }
    // Only the two plain requests ran the function.
    delivered(&sandbox).await;
    let ran = called(&sandbox);
    assert_eq!(ran.iter().filter(|id| *id == "f").count(), 2, "{ran:?}");
}

/// Section 5: of a hosted domain the label stands before the path, for typed subscriptions as for others.
#[tokio::test]
async fn hosted_domains_have_their_label_before_the_path() {
    let sandbox = sandbox(&[
        typed("sync", "a", "POST", "/shop/:id", "f"),
        typed("async", "a", "POST", "/shop/7", "g"),
        typed("sync", "http.request", "GET", "/shop/users", "f"),
    ]);
    let hosted = |call: Call| call.header("host", "shop.slsgateway.com");
    for call in [hosted(emitted("a", "/7")), hosted(Call::get("/users"))] {
        let answer = send(&sandbox, call).await;
        assert_eq!(
            (answer.status, answer.header("x-function")),
            (200, Some("f"))
        );
    }
    delivered(&sandbox).await;
    assert_eq!(called(&sandbox), ["f", "f", "g"]);
}
