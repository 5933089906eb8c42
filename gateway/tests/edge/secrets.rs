//! Secrets: set and listed, and their values told to nobody.

use serde_json::{Value, json};

use crate::support::{Call, Sandbox};

const SECRETS: &str = "/v1/spaces/default/secrets";

async fn put(sandbox: &Sandbox, name: &str, body: &Value) -> (u16, Value) {
    let call = Call::new("PUT", &format!("{SECRETS}/{name}")).body(body.to_string());
    let answer = sandbox.admin(call).await;
    let told = serde_json::from_str(answer.text()).unwrap_or(Value::Null);
    (answer.status, told)
}

#[tokio::test]
async fn a_secret_is_set_listed_and_deleted() {
    let sandbox = Sandbox::start();
    let (status, made) = put(&sandbox, "db", &json!({"value": "hunter2"})).await;
    assert_eq!((status, &made["name"]), (201, &json!("db")), "{made}");
    let fields: Vec<_> = made.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        ["createdAt", "functions", "name", "updatedAt", "version"]
    );
    let (status, again) = put(&sandbox, "db", &json!({"base64": "aHVudGVyMg=="})).await;
    assert_eq!((status, &again["createdAt"]), (200, &made["createdAt"]));
    assert_ne!(again["version"], made["version"]);
    let list = sandbox.admin(Call::get(SECRETS)).await;
    let listed: Value = serde_json::from_str(list.text()).unwrap();
    assert_eq!(listed, json!({"secrets": [again]}));

    for (name, body, expected) in [
        ("db", json!({"value": ""}), "the value has 0 bytes"),
        ("db", json!({}), "both or none of value and base64"),
        (
            "a%2Fb",
            json!({"value": "x"}),
            "a secret's name has at most 128",
        ),
        ("..", json!({"value": "x"}), ""),
    ] {
        let (status, told) = put(&sandbox, name, &body).await;
        assert!(matches!(status, 400 | 404), "{name}: {told}");
        assert!(told.to_string().contains(expected), "{name}: {told}");
    }
    let one = format!("{SECRETS}/db");
    assert_eq!(sandbox.admin(Call::get(&one)).await.status, 405);
    let deleted = sandbox.admin(Call::new("DELETE", &one)).await;
    assert_eq!((deleted.status, deleted.body.len()), (204, 0));
    let gone = sandbox.admin(Call::new("DELETE", &one)).await;
    assert_eq!(gone.status, 404);
    let told = r#"{"errors":[{"message":"Secret \"db\" not found."}]}"#;
    assert_eq!(gone.text().trim_end(), told);
}
