//! The routes without a space, in the shapes of the time before spaces (section 11).

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const FUNCTIONS: &str = "/v1/functions";
const SUBSCRIPTIONS: &str = "/v1/subscriptions";

fn is_error(answer: &Answer, status: u16, message: &str) {
    let expected = json!({ "error": message }).to_string() + "\n";
    assert_eq!((answer.status, answer.text()), (status, expected.as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.has_common_headers();
}

async fn post(sandbox: &Sandbox, path: &str, body: &Value) -> Answer {
    sandbox.admin(Call::post(path, body.to_string())).await
}

#[tokio::test]
async fn functions_have_their_type_inside_the_provider() {
    let sandbox = Sandbox::start();
    let hook = json!({"functionId": "f", "provider": {"type": "http", "url": "http://a.example"}});
    let created = post(&sandbox, FUNCTIONS, &hook).await;
    assert_eq!((created.status, created.json()), (200, hook.clone()));
    let lambda = json!({"functionId": "l", "provider": {"type": "awslambda", "arn": "a", "region": "eu",
        "awsAccessKeyID": "id", "awsSecretAccessKey": "key"}});
    assert_eq!(post(&sandbox, FUNCTIONS, &lambda).await.json(), lambda);
    assert_eq!(
        sandbox.admin(Call::get("/v1/functions/l")).await.json(),
        lambda
    );
    let list = sandbox.admin(Call::get(FUNCTIONS)).await.json();
    assert_eq!(list, json!({"functions": [hook, lambda]}));
    // They are those of the space `default`.
    let same = sandbox
        .admin(Call::get("/v1/spaces/default/functions/l"))
        .await
        .json();
    assert_eq!(
        (&same["type"], &same["provider"]["awsAccessKeyId"]),
        (&json!("awslambda"), &json!("id"))
    );
    // Their newer shape is read as well.
    let newer = json!({"functionId": "n", "type": "http", "provider": {"url": "http://a.example"}});
    assert_eq!(
        post(&sandbox, FUNCTIONS, &newer).await.json()["provider"]["type"],
        "http"
    );

    let put = |id: &str, body: &Value| {
        Call::new("PUT", &format!("{FUNCTIONS}/{id}")).body(body.to_string())
    };
    assert_eq!(sandbox.admin(put("f", &hook)).await.status, 200);
    assert_eq!(
        sandbox
            .admin(Call::new("DELETE", "/v1/functions/f"))
            .await
            .status,
        204
    );
    let missing = "Function \"f\" not found.";
    is_error(
        &sandbox.admin(Call::get("/v1/functions/f")).await,
        404,
        missing,
    );
    is_error(
        &sandbox.admin(Call::new("DELETE", "/v1/functions/f")).await,
        404,
        missing,
    );
    is_error(&sandbox.admin(put("f", &json!({}))).await, 404, missing);
}

#[tokio::test]
async fn errors_are_worded_as_they_were() {
    let sandbox = Sandbox::start();
    let hook = json!({"functionId": "f", "provider": {"type": "http", "url": "http://a.example"}});
    post(&sandbox, FUNCTIONS, &hook).await;
    is_error(
        &post(&sandbox, FUNCTIONS, &hook).await,
        400,
        "Function \"f\" already registered.",
    );
    let tail = "Function doesn't validate. Validation error: \"missing required fields for HTTP endpoint\"";
    let bad = json!({"functionId": "g", "provider": {"type": "http"}});
    is_error(&post(&sandbox, FUNCTIONS, &bad).await, 400, tail);
    for path in [FUNCTIONS, SUBSCRIPTIONS] {
        let answer = sandbox.admin(Call::post(path, "{")).await;
        let message = answer.json()["error"].as_str().unwrap().to_owned();
        assert_eq!(answer.status, 400);
        assert!(
            message.starts_with("Malformed JSON payload: ") && message.ends_with('.'),
            "{message}"
        );
    }
    let unknown = json!({"event": "a", "functionId": "x"});
    is_error(
        &post(&sandbox, SUBSCRIPTIONS, &unknown).await,
        400,
        "Function \"x\" not found.",
    );
    let tail = "Subscription doesn't validate. Validation error: \"Missing required fields (method, path) for HTTP event.\"";
    let bad = json!({"event": "http", "functionId": "f"});
    is_error(&post(&sandbox, SUBSCRIPTIONS, &bad).await, 400, tail);
}

#[tokio::test]
async fn subscriptions_have_the_ids_they_had() {
    let sandbox = Sandbox::start();
    sandbox.register("f").await;
    let custom = json!({"event": "user.created", "functionId": "f"});
    let mut expected = custom.clone();
    expected["subscriptionId"] = "user.created-f".into();
    let created = post(&sandbox, SUBSCRIPTIONS, &custom).await;
    assert_eq!((created.status, created.json()), (200, expected.clone()));
    let exits = "Subscription \"user.created-f\" already exits.";
    is_error(&post(&sandbox, SUBSCRIPTIONS, &custom).await, 400, exits);

    let http = json!({"event": "http", "functionId": "f", "method": "GET", "path": "/users"});
    let mut http_record = http.clone();
    http_record["subscriptionId"] = "http-GET-%2Fusers".into();
    assert_eq!(
        post(&sandbox, SUBSCRIPTIONS, &http).await.json(),
        http_record
    );
    let list = sandbox.admin(Call::get(SUBSCRIPTIONS)).await.json();
    assert_eq!(list, json!({"subscriptions": [http_record, expected]}));
    let same = "/v1/spaces/default/subscriptions/http,GET,%2Fusers";
    assert_eq!(sandbox.admin(Call::get(same)).await.status, 200);

    let one = |id: &str| format!("{SUBSCRIPTIONS}/{id}");
    assert_eq!(
        sandbox
            .admin(Call::get(&one("user.created-f")))
            .await
            .status,
        405
    );
    let in_use = sandbox.admin(Call::new("DELETE", "/v1/functions/f")).await;
    is_error(
        &in_use,
        400,
        "Function cannot be deleted because it's subscribed to a least one event.",
    );
    for id in ["http-GET-%2Fusers", "user.created-f"] {
        assert_eq!(
            sandbox.admin(Call::new("DELETE", &one(id))).await.status,
            204,
            "{id}"
        );
        let missing = format!("Subscription \"{id}\" not found.");
        is_error(
            &sandbox.admin(Call::new("DELETE", &one(id))).await,
            404,
            &missing,
        );
    }
}
