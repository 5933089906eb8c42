//! Subscriptions over the config API. Each test names the section of Event Gateway's behaviour that it holds.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const ALL: &str = "/v1/spaces/default/subscriptions";

/// An edge with the functions f and g.
async fn sandbox() -> Sandbox {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    sandbox.register("g").await;
    sandbox
}

async fn create(sandbox: &Sandbox, body: &Value) -> Answer {
    sandbox.admin(Call::post(ALL, body.to_string())).await
}

fn http(method: &str, path: &str) -> Value {
    json!({"event": "http", "functionId": "f", "method": method, "path": path})
}

/// An error exactly as Event Gateway's clients know it (section 2).
fn is_error(answer: &Answer, status: u16, message: &str) {
    let expected = json!({ "errors": [{ "message": message }] }).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.has_common_headers();
}

/// Section 4: the routes, statuses and the record's fields in their order.
#[tokio::test]
async fn a_subscription_is_created_read_listed_and_deleted() {
    let sandbox = sandbox().await;
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"subscriptions\":[]}\n"
    );
    let body = r#"{"space":"x","subscriptionId":"y","event":"http","functionId":"f","method":"get","path":"users/:id","cors":{"origins":["http://a"]},"more":1}"#;
    let record = concat!(
        r#"{"space":"default","subscriptionId":"http,GET,%2Fusers%2F:id","event":"http","functionId":"f","method":"GET","path":"/users/:id","#,
        r#""cors":{"origins":["http://a"],"methods":["HEAD","GET","POST"],"headers":["Origin","Accept","Content-Type"],"allowCredentials":false}}"#,
    );
    let one = format!("{ALL}/http,GET,%2Fusers%2F:id");

    let created = sandbox.admin(Call::post(ALL, body)).await;
    assert_eq!(
        (created.status, created.text()),
        (201, format!("{record}\n").as_str())
    );
    assert_eq!(created.header("content-type"), Some("application/json"));
    assert!(created.header("etag").is_some());
    created.has_common_headers();
    let read = sandbox.admin(Call::get(&one)).await;
    assert_eq!((read.status, read.text()), (200, created.text()));
    assert_eq!(read.header("etag"), created.header("etag"));
    let list = sandbox.admin(Call::get(ALL)).await;
    assert_eq!(
        (list.status, list.text()),
        (200, format!("{{\"subscriptions\":[{record}]}}\n").as_str())
    );

    let deleted = sandbox.admin(Call::new("DELETE", &one)).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    assert_eq!(deleted.header("content-type"), Some("application/json"));
    let missing = "Subscription \"http,GET,%2Fusers%2F:id\" not found.";
    is_error(&sandbox.admin(Call::get(&one)).await, 404, missing);
    is_error(
        &sandbox.admin(Call::new("DELETE", &one)).await,
        404,
        missing,
    );
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"subscriptions\":[]}\n"
    );
}

/// Section 4: how ids are made, and that they are used as they are.
#[tokio::test]
async fn ids_are_made_of_event_function_and_path() {
    let sandbox = sandbox().await;
    for (body, id) in [
        (http("POST", "/"), "http,POST,%2F"),
        (http("GET", "/a b/*rest"), "http,GET,%2Fa%20b%2F%2Arest"),
        (
            json!({"event": "http", "functionId": "g", "method": "PUT", "path": "/ü"}),
            "http,PUT,%2F%C3%BC",
        ),
        (
            json!({"event": "user.created", "functionId": "f"}),
            "user.created,f,%2F",
        ),
        (
            json!({"event": "user.created", "functionId": "g"}),
            "user.created,g,%2F",
        ),
        (
            json!({"event": "user.created", "functionId": "f", "path": "/x", "method": "GET"}),
            "user.created,f,%2Fx",
        ),
        (
            json!({"event": "invoke", "functionId": "f", "path": "a,b"}),
            "invoke,f,%2Fa%2Cb",
        ),
        (
            json!({"event": "user.*", "functionId": "f"}),
            "user.*,f,%2F",
        ),
    ] {
        let created = create(&sandbox, &body).await;
        assert_eq!(created.status, 201, "{body}: {created:?}");
        assert_eq!(created.json()["subscriptionId"], id);
        let one = format!("{ALL}/{id}");
        assert_eq!(sandbox.admin(Call::get(&one)).await.text(), created.text());
        assert_eq!(
            sandbox.admin(Call::new("DELETE", &one)).await.status,
            204,
            "{id}"
        );
    }
    // An id that is not escaped as ours are is another id; one without any escape is told as it is.
    for id in ["http,POST,%2f", "http,POST,", "plain", "a%2,f", "%ff"] {
        let message = format!("Subscription \"{id}\" not found.");
        is_error(
            &sandbox.admin(Call::get(&format!("{ALL}/{id}"))).await,
            404,
            &message,
        );
    }
}

/// Section 4: what does not validate, and section 12: the tail for a name rule, one line a field.
#[tokio::test]
async fn what_does_not_validate_is_400() {
    let sandbox = sandbox().await;
    let invalid = |tail: &str| format!("Subscription doesn't validate. Validation error: {tail}");
    let tag = |field: &str, tag: &str| {
        let last = field.rsplit('.').next().unwrap();
        format!(
            "Key: 'Subscription.{field}' Error:Field validation for '{last}' failed on the '{tag}' tag"
        )
    };
    let methods = "eq=GET|eq=POST|eq=DELETE|eq=PUT|eq=PATCH|eq=HEAD|eq=OPTIONS";
    for (body, tail) in [
        (
            json!({}),
            [tag("Event", "required"), tag("FunctionID", "required")].join("\n"),
        ),
        (
            json!({"event": "a b", "functionId": "f"}),
            tag("Event", "eventtype"),
        ),
        (
            json!({"event": "a", "functionId": "f", "method": "get"}),
            tag("Method", methods),
        ),
        (
            json!({"event": "http", "functionId": "f", "path": "/"}),
            "Missing required fields (method, path) for HTTP event.".to_owned(),
        ),
        (
            json!({"event": "http", "functionId": "f", "method": "GET", "cors": {"origins": []}}),
            tag("CORS.Origins", "min"),
        ),
        (
            json!({"event": "a", "functionId": "f", "cors": {}}),
            [
                tag("CORS.Origins", "min"),
                tag("CORS.Methods", "min"),
                tag("CORS.Headers", "min"),
            ]
            .join("\n"),
        ),
    ] {
        is_error(&create(&sandbox, &body).await, 400, &invalid(&tail));
    }
    let body = json!({"event": "a", "functionId": "f"}).to_string();
    let space = sandbox
        .admin(Call::post("/v1/spaces/ab/subscriptions", &body))
        .await;
    is_error(&space, 400, &invalid(&tag("Space", "min")));
    for body in ["{", "[]", r#"{"event":1}"#] {
        let answer = sandbox.admin(Call::post(ALL, body)).await;
        assert_eq!(answer.status, 400, "{body}");
        assert!(
            answer
                .text()
                .contains("Subscription doesn't validate. Validation error: "),
            "{answer:?}"
        );
    }
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"subscriptions\":[]}\n"
    );
}

/// Section 4: exists, then path conflict, then unknown function, all 400; section 5: the conflicts' words.
#[tokio::test]
async fn a_create_is_refused_in_the_order_of_its_checks() {
    let sandbox = sandbox().await;
    assert_eq!(create(&sandbox, &http("GET", "/:a")).await.status, 201);
    let unknown =
        |path: &str| json!({"event": "http", "functionId": "x", "method": "GET", "path": path});
    let exists = "Subscription \"http,GET,%2F:a\" already exists.";
    is_error(&create(&sandbox, &unknown("/:a")).await, 400, exists);
    let conflict = "Subscription path conflict: parameter with different name (\"a\") already defined: for route: /b";
    is_error(&create(&sandbox, &unknown("/b")).await, 400, conflict);
    is_error(
        &create(&sandbox, &unknown("/:a/b")).await,
        400,
        "Function \"x\" not found.",
    );
    is_error(
        &create(&sandbox, &json!({"event": "a", "functionId": "a b"})).await,
        400,
        "Function \"a b\" not found.",
    );
    // Another method is another tree; and so is another space, which has no function of that id.
    assert_eq!(create(&sandbox, &http("POST", "/b")).await.status, 201);
    let other = sandbox
        .admin(Call::post(
            "/v1/spaces/other/subscriptions",
            http("GET", "/b").to_string(),
        ))
        .await;
    is_error(&other, 400, "Function \"f\" not found.");
    // What failed reserved nothing.
    assert_eq!(create(&sandbox, &http("GET", "/:a/c")).await.status, 201);
    let ids = sandbox.admin(Call::get(ALL)).await.json()["subscriptions"]
        .as_array()
        .unwrap()
        .len();
    assert_eq!(ids, 3);
}

/// Section 5: what may stand beside what, each with its words.
#[tokio::test]
async fn paths_conflict_by_the_rules() {
    let sandbox = sandbox().await;
    for (there, path, why) in [
        (
            "/a/x",
            "/a/:x",
            Some("static route already defined for route: /a/:x"),
        ),
        (
            "/b/:x",
            "/b/*y",
            Some("wildcard with different name (\"x\") already defined: for route: /b/*y"),
        ),
        (
            "/c/*x",
            "/c/y",
            Some("wildcard with different name (\"x\") already defined: for route: /c/y"),
        ),
        (
            "/d/x",
            "/d/*y",
            Some("wildcard with different name (\"\") already defined: for route: /d/*y"),
        ),
        ("/e", "/f/*x/y", Some("wildcard must be the last parameter")),
        ("/g/:name", "/g/:name/:id", None),
        ("/h", "/h/i", None),
        ("/j", "/j/*rest", None),
        ("/k", "/k/", None),
    ] {
        assert_eq!(
            create(&sandbox, &http("GET", there)).await.status,
            201,
            "{there}"
        );
        let answer = create(&sandbox, &http("GET", path)).await;
        match why {
            Some(why) => is_error(&answer, 400, &format!("Subscription path conflict: {why}")),
            None => assert_eq!(answer.status, 201, "{path}: {answer:?}"),
        }
    }
    assert_eq!(
        create(&sandbox, &http("GET", "/")).await.status,
        201,
        "/ conflicts with itself only"
    );
    // Custom events have no tree.
    for path in ["/:a", "/:b", "/*c"] {
        let custom = json!({"event": "a", "functionId": "f", "path": path});
        assert_eq!(create(&sandbox, &custom).await.status, 201, "{path}");
    }
}

/// Section 3: a function in use is not deleted; subscriptions of other spaces do not count.
#[tokio::test]
async fn a_function_in_use_is_not_deleted() {
    let sandbox = sandbox().await;
    let function = "/v1/spaces/default/functions/f";
    create(&sandbox, &json!({"event": "a", "functionId": "f"})).await;
    let in_use = "Function cannot be deleted because it's subscribed to a least one event.";
    is_error(
        &sandbox.admin(Call::new("DELETE", function)).await,
        400,
        in_use,
    );
    let other = r#"{"functionId":"f","type":"http","provider":{"url":"http://a.example/b"}}"#;
    sandbox
        .admin(Call::post("/v1/spaces/other/functions", other))
        .await;
    assert_eq!(
        sandbox
            .admin(Call::new("DELETE", "/v1/spaces/other/functions/f"))
            .await
            .status,
        204
    );
    sandbox
        .admin(Call::new("DELETE", &format!("{ALL}/a,f,%2F")))
        .await;
    assert_eq!(
        sandbox.admin(Call::new("DELETE", function)).await.status,
        204
    );
}

/// Section 12: what an update may change.
#[tokio::test]
async fn an_update_changes_settings_and_no_identity() {
    let sandbox = sandbox().await;
    create(&sandbox, &http("GET", "/a")).await;
    let one = format!("{ALL}/http,GET,%2Fa");
    let put = |body: &Value| Call::new("PUT", &one).body(body.to_string());
    for (field, body) in [
        ("Event", json!({"event": "b", "functionId": "f"})),
        (
            "FunctionID",
            json!({"event": "http", "functionId": "g", "method": "GET", "path": "/a"}),
        ),
        ("Path", http("GET", "/b")),
        ("Method", http("POST", "/a")),
    ] {
        let message =
            format!("Invalid update. '{field}' of existing subscription cannot be updated.");
        is_error(&sandbox.admin(put(&body)).await, 400, &message);
    }
    let mut body = http("get", "a");
    body["cors"] = json!({"origins": ["http://a"]});
    let updated = sandbox.admin(put(&body)).await;
    assert_eq!(updated.status, 200, "{updated:?}");
    assert_eq!(updated.json()["cors"]["origins"], json!(["http://a"]));
    assert_eq!(sandbox.admin(Call::get(&one)).await.text(), updated.text());
    let missing =
        Call::new("PUT", &format!("{ALL}/a,f,%2F")).body(r#"{"event":"a","functionId":"f"}"#);
    is_error(
        &sandbox.admin(missing).await,
        404,
        "Subscription \"a,f,%2F\" not found.",
    );
    let invalid = sandbox
        .admin(Call::new("PUT", &format!("{ALL}/a,f,%2F")).body("{}"))
        .await;
    assert_eq!(invalid.status, 400, "validation comes first");

    let tag = updated.header("etag").unwrap().to_owned();
    let put = |tag: &str| put(&body).header("if-match", tag);
    assert_eq!(sandbox.admin(put("\"1\"")).await.status, 412);
    let again = sandbox.admin(put(&tag)).await;
    assert_eq!(again.status, 200);
    is_error(
        &sandbox.admin(put(&tag)).await,
        412,
        "Subscription \"http,GET,%2Fa\" changed meanwhile.",
    );
    let delete = |tag: &str| Call::new("DELETE", &one).header("if-match", tag);
    assert_eq!(sandbox.admin(delete(&tag)).await.status, 412);
    let tag = again.header("etag").unwrap();
    assert_eq!(sandbox.admin(delete(tag)).await.status, 204);
}

/// What is queued may say how, in both dialects, and an update says it anew.
#[tokio::test]
async fn a_subscription_says_how_its_events_are_delivered() {
    let sandbox = sandbox().await;
    let body = json!({"event": "a", "functionId": "f", "delivery": {"attempts": 3}});
    let created = create(&sandbox, &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    assert_eq!(created.json()["delivery"], json!({"attempts": 3}));
    let one = format!("{ALL}/a,f,%2F");
    for (delivery, shown) in [
        (
            json!({"attempts": 2, "maxAgeSeconds": 60}),
            json!({"attempts": 2, "maxAgeSeconds": 60}),
        ),
        (json!(null), Value::Null),
    ] {
        let body = json!({"event": "a", "functionId": "f", "delivery": delivery});
        let updated = sandbox.admin(Call::new("PUT", &one).body(body.to_string()));
        assert_eq!(updated.await.status, 200);
        let read = sandbox.admin(Call::get(&one)).await.json();
        assert_eq!(read["delivery"], shown, "{read}");
    }
    let mut waits = http("GET", "/waits");
    waits["delivery"] = json!({"attempts": 3});
    is_error(
        &create(&sandbox, &waits).await,
        400,
        "Subscription doesn't validate. Validation error: delivery is set, expected none: a client waits for the function's answer, so nothing is queued",
    );
}

/// Section 12: metadata on records, and the lists' filter; and the list of spaces.
#[tokio::test]
async fn lists_are_filtered_by_metadata() {
    let sandbox = sandbox().await;
    for (event, metadata) in [
        ("a", json!({"team": "x", "env": "dev"})),
        ("b", json!({"team": "y"})),
        ("c", json!(null)),
    ] {
        let body = json!({"event": event, "functionId": "f", "metadata": metadata});
        let created = create(&sandbox, &body).await;
        assert_eq!(created.status, 201);
        assert_eq!(created.json()["metadata"], metadata);
    }
    let function = r#"{"functionId":"h","type":"http","provider":{"url":"http://a.example"},"metadata":{"team":"x"}}"#;
    sandbox
        .admin(Call::post("/v1/spaces/default/functions", function))
        .await;
    for (query, expected) in [
        ("", json!(["a", "b", "c"])),
        ("?metadata.team=x", json!(["a"])),
        ("?metadata.team=x&metadata.env=prod", json!([])),
        ("?metadata.team=x&metadata.env=dev&other=1", json!(["a"])),
        ("?metadata.team=", json!([])),
    ] {
        let list = sandbox
            .admin(Call::get(&format!("{ALL}{query}")))
            .await
            .json();
        let events: Vec<_> = list["subscriptions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["event"].clone())
            .collect();
        assert_eq!(json!(events), expected, "{query}");
    }
    let list = sandbox
        .admin(Call::get("/v1/spaces/default/functions?metadata.team=x"))
        .await
        .json();
    assert_eq!(list["functions"].as_array().unwrap().len(), 1);
    assert_eq!(list["functions"][0]["functionId"], "h");
    let spaces = sandbox.admin(Call::get("/v1/spaces")).await;
    assert_eq!(
        (spaces.status, spaces.text()),
        (200, "{\"spaces\":[\"default\"]}\n")
    );
}

/// Section 2: other methods and slashes; and what a store that is away answers.
#[tokio::test]
async fn other_methods_slashes_and_a_store_that_is_away() {
    let sandbox = sandbox().await;
    let one = format!("{ALL}/a,f,%2F");
    for (method, path, allow) in [
        ("PUT", ALL, "GET,HEAD,POST"),
        ("OPTIONS", ALL, "GET,HEAD,POST"),
        ("POST", one.as_str(), "GET,HEAD,PUT,DELETE"),
        ("POST", "/v1/spaces", "GET,HEAD"),
    ] {
        let answer = sandbox.admin(Call::new(method, path)).await;
        assert_eq!(
            (answer.status, answer.text()),
            (405, "Method Not Allowed\n"),
            "{method} {path}"
        );
        assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
    }
    let slash = sandbox.admin(Call::get(&format!("{one}/"))).await;
    assert_eq!(
        (slash.status, slash.header("location")),
        (301, Some(one.as_str()))
    );
    create(&sandbox, &json!({"event": "a", "functionId": "f"})).await;
    sandbox.node.is_store_away.store(true, Ordering::SeqCst);
    let body = json!({"event": "a", "functionId": "f"}).to_string();
    for call in [
        Call::post(ALL, &body),
        Call::new("PUT", &one).body(&body),
        Call::new("DELETE", &one),
    ] {
        let away = "the config store can not be reached: etcd is away";
        is_error(&sandbox.admin(call).await, 503, away);
    }
    assert_eq!(
        sandbox.admin(Call::get(&one)).await.status,
        200,
        "reads go on"
    );
}

/// An authorizer is validated, shown in both dialects where it is set, replaced with the record, and not deleted while it is named.
#[tokio::test]
async fn a_subscription_to_requests_may_name_an_authorizer() {
    let sandbox = sandbox().await;
    let types = "/v1/spaces/default/eventtypes";
    let body = json!({"name": "http.request"}).to_string();
    assert_eq!(sandbox.admin(Call::post(types, body)).await.status, 201);
    let wrong = "Subscription doesn't validate. Validation error: authorizerId is set, expected none: only requests are asked about, which are the event http, and this is a";
    let unknown = "authorizerId is \"nobody\", expected a function that is registered in the space";
    for (record, message) in [
        (
            json!({"event": "a", "functionId": "f", "authorizerId": "g"}),
            wrong,
        ),
        (
            json!({"event": "http", "method": "GET", "functionId": "f", "authorizerId": "nobody"}),
            unknown,
        ),
        (
            json!({"type": "sync", "eventType": "http.request", "functionId": "f", "authorizerId": "nobody"}),
            unknown,
        ),
    ] {
        is_error(&create(&sandbox, &record).await, 400, message);
    }
    let list = sandbox.admin(Call::get(ALL)).await;
    assert_eq!(list.json(), json!({"subscriptions": []}), "nothing is left");

    sandbox.register("who").await;
    let in_use = |id: &str| {
        format!(
            "Function {id} cannot be deleted because it's used as an authorizer for subscription "
        )
    };
    for mut record in [
        http("GET", "/a"),
        json!({"type": "sync", "eventType": "http.request", "functionId": "f", "path": "/b"}),
    ] {
        record["authorizerId"] = json!("who");
        let created = create(&sandbox, &record).await;
        assert_eq!(created.status, 201, "{created:?}");
        let stored = created.json();
        assert_eq!(stored["authorizerId"], "who");
        let id = stored["subscriptionId"].as_str().unwrap();
        let one = format!("{ALL}/{id}");
        assert_eq!(sandbox.admin(Call::get(&one)).await.json(), stored);
        let listed = sandbox.admin(Call::get(ALL)).await.json();
        assert_eq!(listed["subscriptions"][0], stored);
        let delete = |id: &str| Call::new("DELETE", &format!("/v1/spaces/default/functions/{id}"));
        let refused = in_use("who") + id + ".";
        is_error(&sandbox.admin(delete("who")).await, 400, &refused);

        // What was read and is sent back stays as it is; without an authorizer there is none any more.
        let put = |record: &Value| Call::new("PUT", &one).body(record.to_string());
        assert_eq!(sandbox.admin(put(&stored)).await.json(), stored);
        record["authorizerId"] = json!("nobody");
        is_error(&sandbox.admin(put(&record)).await, 400, unknown);
        record["authorizerId"] = json!("g");
        let updated = sandbox.admin(put(&record)).await;
        assert_eq!(updated.json()["authorizerId"], "g");
        let refused = in_use("g") + id + ".";
        is_error(&sandbox.admin(delete("g")).await, 400, &refused);
        assert_eq!(sandbox.admin(delete("who")).await.status, 204);
        sandbox.register("who").await;
        record["authorizerId"] = Value::Null;
        let updated = sandbox.admin(put(&record)).await;
        assert!(updated.json().get("authorizerId").is_none(), "{updated:?}");
        assert_eq!(sandbox.admin(delete("g")).await.status, 204);
        sandbox.register("g").await;
        let gone = sandbox.admin(Call::new("DELETE", &one)).await;
        assert_eq!(gone.status, 204);
    }
}
