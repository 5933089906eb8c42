//! CORS configurations over the config API: section 12 of Event Gateway's behaviour.

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const ALL: &str = "/v1/spaces/default/cors";

async fn create(sandbox: &Sandbox, body: &Value) -> Answer {
    sandbox.admin(Call::post(ALL, body.to_string())).await
}

fn is_error(answer: &Answer, status: u16, message: &str) {
    let expected = json!({ "errors": [{ "message": message }] }).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    answer.has_common_headers();
}

/// Section 12: CORS as a resource per method and path.
#[tokio::test]
async fn a_configuration_is_created_read_listed_updated_and_deleted() {
    let sandbox = Sandbox::start();
    assert_eq!(
        sandbox.admin(Call::get(ALL)).await.text(),
        "{\"cors\":[]}\n"
    );
    let body = json!({"method": "GET", "path": "/users/:id", "allowedOrigins": ["http://a"], "metadata": {"k": "v"}});
    let record = r#"{"space":"default","corsId":"GET%2Fusers%2F:id","method":"GET","path":"/users/:id","allowedOrigins":["http://a"],"allowedMethods":["HEAD","GET","POST"],"allowedHeaders":["Origin","Accept","Content-Type"],"allowCredentials":false,"metadata":{"k":"v"}}"#;
    let one = format!("{ALL}/GET%2Fusers%2F:id");
    let created = create(&sandbox, &body).await;
    assert_eq!(
        (created.status, created.text()),
        (201, format!("{record}\n").as_str())
    );
    let exists = "CORS configuration \"GET%2Fusers%2F:id\" already exists.";
    is_error(&create(&sandbox, &body).await, 409, exists);
    let read = sandbox.admin(Call::get(&one)).await;
    assert_eq!((read.status, read.text()), (200, created.text()));
    assert_eq!(read.header("etag"), created.header("etag"));
    for (query, expected) in [("?metadata.k=v", record), ("?metadata.k=w", "")] {
        let list = sandbox.admin(Call::get(&format!("{ALL}{query}"))).await;
        assert_eq!(list.text(), format!("{{\"cors\":[{expected}]}}\n"));
    }
    let put = |body: &Value| Call::new("PUT", &one).body(body.to_string());
    let mut changed = created.json();
    changed["allowCredentials"] = json!(true);
    let updated = sandbox.admin(put(&changed)).await;
    assert_eq!((updated.status, updated.json()), (200, changed.clone()));
    let stale = put(&changed).header("if-match", created.header("etag").unwrap());
    let meanwhile = "CORS configuration \"GET%2Fusers%2F:id\" changed meanwhile.";
    is_error(&sandbox.admin(stale).await, 412, meanwhile);
    for (field, name, value) in [("Method", "method", "POST"), ("Path", "path", "/x")] {
        let mut body = changed.clone();
        body[name] = json!(value);
        let message =
            format!("Invalid update. '{field}' of existing CORS configuration cannot be updated.");
        is_error(&sandbox.admin(put(&body)).await, 400, &message);
    }
    assert_eq!(sandbox.admin(Call::new("DELETE", &one)).await.status, 204);
    let missing = "CORS configuration \"GET%2Fusers%2F:id\" not found.";
    for call in [Call::get(&one), Call::new("DELETE", &one), put(&changed)] {
        is_error(&sandbox.admin(call).await, 404, missing);
    }
}

/// Section 12: what does not validate; and paths that conflict, of which the original's later one had no effect.
#[tokio::test]
async fn what_does_not_validate_or_conflicts_is_400() {
    let sandbox = Sandbox::start();
    let invalid =
        |tail: &str| format!("CORS configuration doesn't validate. Validation error: {tail}");
    let tag = |field: &str, tag: &str| {
        invalid(&format!(
            "Key: 'CORS.{field}' Error:Field validation for '{field}' failed on the '{tag}' tag"
        ))
    };
    let methods = "eq=GET|eq=POST|eq=DELETE|eq=PUT|eq=PATCH|eq=HEAD|eq=OPTIONS";
    is_error(
        &create(&sandbox, &json!({"path": "/"})).await,
        400,
        &tag("Method", methods),
    );
    is_error(
        &create(&sandbox, &json!({"method": "GET"})).await,
        400,
        &tag("Path", "path"),
    );
    for body in ["{", "[]", r#"{"method":1}"#] {
        assert_eq!(
            sandbox.admin(Call::post(ALL, body)).await.status,
            400,
            "{body}"
        );
    }
    let cors = |method: &str, path: &str| json!({"method": method, "path": path});
    assert_eq!(create(&sandbox, &cors("GET", "/:a")).await.status, 201);
    let conflict = "CORS configuration path conflict: parameter with different name (\"a\") already defined: for route: /b";
    is_error(&create(&sandbox, &cors("GET", "/b")).await, 400, conflict);
    assert_eq!(create(&sandbox, &cors("POST", "/b")).await.status, 201);
}
