//! Event types and typed subscriptions over the config API: section 12 of Event Gateway's behaviour.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const TYPES: &str = "/v1/spaces/default/eventtypes";
const SUBSCRIPTIONS: &str = "/v1/spaces/default/subscriptions";

/// An edge with the functions f and g.
async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    sandbox.register("g").await;
    sandbox
}

async fn post(sandbox: &Sandbox, path: &str, body: &Value) -> Answer {
    sandbox.admin(Call::post(path, body.to_string())).await
}

fn is_error(answer: &Answer, status: u16, message: &str) {
    let expected = json!({ "errors": [{ "message": message }] }).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.has_common_headers();
}

fn typed(mode: &str, event_type: &str, path: &str, method: &str) -> Value {
    json!({"type": mode, "eventType": event_type, "functionId": "f", "path": path, "method": method})
}

/// Section 12: event types as a resource: routes, statuses, and the record's fields in their order.
#[tokio::test]
async fn an_event_type_is_created_read_listed_updated_and_deleted() {
    let sandbox = sandbox().await;
    let none = "{\"eventTypes\":[]}\n";
    assert_eq!(sandbox.admin(Call::get(TYPES)).await.text(), none);
    let body = json!({"name": "user.created", "space": "x", "more": 1, "metadata": {"team": "a"}});
    let record = r#"{"space":"default","name":"user.created","metadata":{"team":"a"}}"#;
    let one = format!("{TYPES}/user.created");

    let created = post(&sandbox, TYPES, &body).await;
    assert_eq!(
        (created.status, created.text()),
        (201, format!("{record}\n").as_str())
    );
    assert_eq!(created.header("content-type"), Some("application/json"));
    created.has_common_headers();
    let exists = "Event Type \"user.created\" already exists.";
    is_error(&post(&sandbox, TYPES, &body).await, 409, exists);
    let read = sandbox.admin(Call::get(&one)).await;
    assert_eq!((read.status, read.text()), (200, created.text()));
    assert_eq!(read.header("etag"), created.header("etag"));

    post(&sandbox, TYPES, &json!({"name": "other"})).await;
    let list = sandbox.admin(Call::get(TYPES)).await;
    let expected =
        format!("{{\"eventTypes\":[{{\"space\":\"default\",\"name\":\"other\"}},{record}]}}\n");
    assert_eq!((list.status, list.text()), (200, expected.as_str()));
    let filtered = format!("{TYPES}?metadata.team=a");
    let list = sandbox.admin(Call::get(&filtered)).await;
    assert_eq!(list.text(), format!("{{\"eventTypes\":[{record}]}}\n"));

    // The name of an update is the one of the URL.
    let body = json!({"name": "x", "authorizerId": "g"}).to_string();
    let updated = sandbox.admin(Call::new("PUT", &one).body(&body)).await;
    let record = "{\"space\":\"default\",\"name\":\"user.created\",\"authorizerId\":\"g\"}\n";
    assert_eq!((updated.status, updated.text()), (200, record));
    let missing = sandbox
        .admin(Call::new("PUT", &format!("{TYPES}/x")).body("{}"))
        .await;
    is_error(&missing, 404, "Event Type \"x\" not found.");

    let deleted = sandbox.admin(Call::new("DELETE", &one)).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    for call in [Call::get(&one), Call::new("DELETE", &one)] {
        let missing = "Event Type \"user.created\" not found.";
        is_error(&sandbox.admin(call).await, 404, missing);
    }
}

#[tokio::test]
async fn an_event_type_changes_only_at_the_revision_that_is_asked_for() {
    let sandbox = sandbox().await;
    let created = post(&sandbox, TYPES, &json!({"name": "a"})).await;
    let tag = created.header("etag").unwrap();
    let one = format!("{TYPES}/a");
    let put = |tag: &str| Call::new("PUT", &one).header("if-match", tag).body("{}");
    assert_eq!(sandbox.admin(put(tag)).await.status, 200);
    let changed = "Event Type \"a\" changed meanwhile.";
    is_error(&sandbox.admin(put(tag)).await, 412, changed);
    let delete = Call::new("DELETE", &one).header("if-match", tag);
    is_error(&sandbox.admin(delete).await, 412, changed);
    sandbox.node.is_store_away.store(true, Ordering::SeqCst);
    let away = post(&sandbox, TYPES, &json!({"name": "b"})).await;
    assert_eq!(away.status, 503, "{away:?}");
}

/// Section 12: what does not validate, and an authorizer that is no function of the space.
#[tokio::test]
async fn what_does_not_validate_is_400_and_stores_nothing() {
    let sandbox = sandbox().await;
    let invalid = |tail: &str| format!("Event Type doesn't validate. Validation error: {tail}");
    let tag = |tag: &str| {
        invalid(&format!(
            "Key: 'Type.Name' Error:Field validation for 'Name' failed on the '{tag}' tag"
        ))
    };
    for (body, message) in [
        (json!({}), tag("required")),
        (json!({"name": "a b"}), tag("eventType")),
        (
            json!({"name": "a", "authorizerId": "nobody"}),
            "Authorizer function doesn't exists.".to_owned(),
        ),
        (
            json!({"name": "a", "authorizerId": "no body"}),
            "Authorizer function doesn't exists.".to_owned(),
        ),
    ] {
        is_error(&post(&sandbox, TYPES, &body).await, 400, &message);
    }
    for body in [
        "{",
        "[]",
        r#"{"name":1}"#,
        r#"{"name":"a","metadata":{"b":1}}"#,
    ] {
        let answer = sandbox.admin(Call::post(TYPES, body)).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer.text().contains("Event Type doesn't validate."),
            "{answer:?}"
        );
    }
    let all = sandbox.admin(Call::get(TYPES)).await;
    assert_eq!(all.text(), "{\"eventTypes\":[]}\n");
}

/// Section 12: the record of a subscription, its id, and that an id is used as it is.
#[tokio::test]
async fn a_typed_subscription_is_created_read_updated_and_deleted() {
    let sandbox = sandbox().await;
    for name in ["user.created", "http.request"] {
        post(&sandbox, TYPES, &json!({"name": name})).await;
    }
    for (body, id, record) in [
        (
            json!({"type": "async", "eventType": "user.created", "functionId": "f"}),
            "YXN5bmMsdXNlci5jcmVhdGVkLGYsJTJGLFBPU1Q",
            r#""type":"async","eventType":"user.created","functionId":"f","path":"/","method":"POST""#,
        ),
        (
            typed("sync", "http.request", "users/:id", "get"),
            "c3luYyxodHRwLnJlcXVlc3QsJTJGdXNlcnMlMkY6aWQsR0VU",
            r#""type":"sync","eventType":"http.request","functionId":"f","path":"/users/:id","method":"GET""#,
        ),
    ] {
        let record = format!(r#"{{"space":"default","subscriptionId":"{id}",{record}}}"#);
        let created = post(&sandbox, SUBSCRIPTIONS, &body).await;
        assert_eq!(
            (created.status, created.text()),
            (201, format!("{record}\n").as_str())
        );
        let exists = format!("Subscription \"{id}\" already exists.");
        is_error(&post(&sandbox, SUBSCRIPTIONS, &body).await, 409, &exists);
        let one = format!("{SUBSCRIPTIONS}/{id}");
        let read = sandbox.admin(Call::get(&one)).await;
        assert_eq!((read.status, read.text()), (200, created.text()));
        assert_eq!(read.header("etag"), created.header("etag"));
        let list = sandbox.admin(Call::get(SUBSCRIPTIONS)).await;
        assert_eq!(list.text(), format!("{{\"subscriptions\":[{record}]}}\n"));

        let mut body = created.json();
        body["metadata"] = json!({"k": "v"});
        let put = |body: &Value| Call::new("PUT", &one).body(body.to_string());
        let updated = sandbox.admin(put(&body)).await;
        assert_eq!((updated.status, updated.json()), (200, body.clone()));
        for (field, name, value) in [
            ("Type", "type", json!("x")),
            ("EventType", "eventType", json!("other")),
            ("FunctionID", "functionId", json!("g")),
            ("Path", "path", json!("/x")),
            ("Method", "method", json!("PUT")),
        ] {
            let mut body = body.clone();
            body[name] = match (name, body["type"].as_str()) {
                ("type", Some("sync")) => json!("async"),
                ("type", _) => json!("sync"),
                _ => value,
            };
            let fixed =
                format!("Invalid update. '{field}' of existing subscription cannot be updated.");
            is_error(&sandbox.admin(put(&body)).await, 400, &fixed);
        }
        assert_eq!(sandbox.admin(Call::new("DELETE", &one)).await.status, 204);
        let missing = format!("Subscription \"{id}\" not found.");
        is_error(&sandbox.admin(Call::get(&one)).await, 404, &missing);
        is_error(&sandbox.admin(put(&body)).await, 404, &missing);
    }
}

/// Section 12: the order of a create's checks: exists, path conflict, event type, function; and the scope of conflicts: space, method
/// and event type, of sync subscriptions alone.
#[tokio::test]
async fn a_create_is_refused_in_the_order_of_its_checks() {
    let sandbox = sandbox().await;
    let create = |body: Value| {
        let sandbox = &sandbox;
        async move { post(sandbox, SUBSCRIPTIONS, &body).await }
    };
    let unknown = "Event Type \"a\" not found.";
    is_error(
        &create(typed("sync", "a", "/:x", "POST")).await,
        400,
        unknown,
    );
    for name in ["a", "b", "http.request"] {
        post(&sandbox, TYPES, &json!({"name": name})).await;
    }
    assert_eq!(create(typed("sync", "a", "/:x", "POST")).await.status, 201);
    let conflict = "Subscription path conflict: parameter with different name (\"x\") already defined: for route: /y";
    let mut nobody = typed("sync", "a", "/y", "POST");
    nobody["functionId"] = json!("nobody");
    is_error(&create(nobody.clone()).await, 400, conflict);
    nobody["path"] = json!("/:x/y");
    is_error(&create(nobody).await, 400, "Function \"nobody\" not found.");
    for (mode, event_type, method) in [
        ("sync", "a", "PUT"),
        ("sync", "b", "POST"),
        ("sync", "http.request", "POST"),
        ("async", "a", "POST"),
    ] {
        let created = create(typed(mode, event_type, "/y", method)).await;
        assert_eq!(
            created.status, 201,
            "{mode} {event_type} {method}: {created:?}"
        );
    }
    // An http subscription and a sync one to http.request would take the same requests.
    let http = json!({"event": "http", "functionId": "f", "method": "POST", "path": "/y"});
    let route = "Subscription path conflict: route /y conflicts with existing route";
    is_error(&create(http.clone()).await, 400, route);
    let get = json!({"event": "http", "functionId": "f", "method": "GET", "path": "/y"});
    assert_eq!(create(get).await.status, 201);
    is_error(
        &create(typed("sync", "http.request", "/y", "GET")).await,
        400,
        route,
    );
    let beside = "Subscription path conflict: static route already defined for route: /:z";
    is_error(
        &create(typed("sync", "http.request", "/:z", "GET")).await,
        400,
        beside,
    );
    // What could not be created is not there.
    let one = format!("{SUBSCRIPTIONS}/http,POST,%2Fy");
    let missing = "Subscription \"http,POST,%2Fy\" not found.";
    is_error(&sandbox.admin(Call::get(&one)).await, 404, missing);
    is_error(
        &sandbox.admin(Call::new("DELETE", &one)).await,
        404,
        missing,
    );
    is_error(
        &sandbox
            .admin(Call::new("PUT", &one).body(http.to_string()))
            .await,
        404,
        missing,
    );
}

/// Section 12: an event type in use, and a function that is an authorizer, are not deleted. Subscriptions with `event` need no type.
#[tokio::test]
async fn what_is_in_use_is_not_deleted() {
    let sandbox = sandbox().await;
    let custom = json!({"event": "a", "functionId": "f"});
    assert_eq!(post(&sandbox, SUBSCRIPTIONS, &custom).await.status, 201);
    post(&sandbox, TYPES, &json!({"name": "a", "authorizerId": "g"})).await;
    let created = post(&sandbox, SUBSCRIPTIONS, &typed("async", "a", "/", "POST")).await;
    let id = created.json()["subscriptionId"]
        .as_str()
        .unwrap()
        .to_owned();
    let delete = |path: String| {
        let sandbox = &sandbox;
        async move { sandbox.admin(Call::new("DELETE", &path)).await }
    };
    let in_use = "Event type cannot be deleted because there are subscriptions using it.";
    is_error(&delete(format!("{TYPES}/a")).await, 400, in_use);
    let authorizes =
        "Function g cannot be deleted because is used as an authorizer for a event type.";
    let function = "/v1/spaces/default/functions/g";
    is_error(&delete(function.to_owned()).await, 400, authorizes);
    assert_eq!(delete(format!("{SUBSCRIPTIONS}/{id}")).await.status, 204);
    assert_eq!(delete(format!("{TYPES}/a")).await.status, 204);
    assert_eq!(delete(function.to_owned()).await.status, 204);
}

/// Both dialects stand in one list, each record in its own; routes without a space tell typed ones by their own ids.
#[tokio::test]
async fn a_list_shows_each_record_in_its_dialect() {
    let sandbox = sandbox().await;
    post(&sandbox, TYPES, &json!({"name": "a"})).await;
    let custom = post(
        &sandbox,
        SUBSCRIPTIONS,
        &json!({"event": "a", "functionId": "f"}),
    )
    .await;
    let typed = post(&sandbox, SUBSCRIPTIONS, &typed("async", "a", "/", "POST")).await;
    let list = sandbox.admin(Call::get(SUBSCRIPTIONS)).await.json();
    assert_eq!(list["subscriptions"], json!([custom.json(), typed.json()]));
    let list = sandbox.admin(Call::get("/v1/subscriptions")).await.json();
    let id = typed.json()["subscriptionId"].clone();
    assert_eq!(list["subscriptions"][0]["subscriptionId"], "a-f");
    assert_eq!(list["subscriptions"][1]["subscriptionId"], id);
    let one = format!("/v1/subscriptions/{}", id.as_str().unwrap());
    assert_eq!(sandbox.admin(Call::new("DELETE", &one)).await.status, 204);
}
