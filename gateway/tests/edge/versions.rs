//! Versions and aliases over the config API.

use serde_json::{Value, json};

use crate::support::{Answer, Call, Sandbox};

const FUNCTION: &str = "/v1/spaces/default/functions/f";

async fn send(sandbox: &Sandbox, method: &str, below: &str, body: &str) -> Answer {
    let call = Call::new(method, &format!("{FUNCTION}/{below}")).body(body);
    sandbox.admin(call).await
}

fn read(answer: &Answer) -> Value {
    serde_json::from_str(answer.text()).unwrap()
}

async fn register(sandbox: &Sandbox, url: &str) {
    let record = json!({"functionId": "f", "type": "http", "provider": {"url": url}});
    let call = Call::new("PUT", FUNCTION).body(record.to_string());
    if sandbox.admin(call).await.status == 404 {
        let all = Call::new("POST", "/v1/spaces/default/functions");
        let made = sandbox.admin(all.body(record.to_string())).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
}

#[tokio::test]
async fn versions_are_published_read_and_deleted() {
    let sandbox = Sandbox::start();
    let missing = send(&sandbox, "POST", "versions", "").await;
    assert_eq!(missing.status, 404, "{}", missing.text());
    register(&sandbox, "http://a.example").await;
    let first = send(&sandbox, "POST", "versions", "").await;
    assert_eq!(first.status, 201, "{}", first.text());
    let again = send(&sandbox, "POST", "versions", r#"{"description":"x"}"#).await;
    assert_eq!((again.status, read(&again)), (200, read(&first)));
    register(&sandbox, "http://b.example").await;
    let second = send(&sandbox, "POST", "versions", r#"{"description":"x"}"#).await;
    let version = read(&second);
    assert_eq!((second.status, &version["version"]), (201, &json!(2)));
    assert_eq!(version["description"], "x");
    assert_eq!(version["function"]["version"], 2);
    assert_eq!(version["function"]["provider"]["url"], "http://b.example");
    let latest = read(&sandbox.admin(Call::get(FUNCTION)).await);
    assert_eq!(latest.get("version"), None, "the record itself has none");
    let list = read(&send(&sandbox, "GET", "versions", "").await);
    assert_eq!(list, json!({"versions": [read(&first), version]}));
    let one = send(&sandbox, "GET", "versions/2", "").await;
    assert_eq!((one.status, read(&one)), (200, version));
    for (method, below, body, status, expected) in [
        ("POST", "versions", r#"{"x":1}"#, 400, "unknown field `x`"),
        (
            "GET",
            "versions/0",
            "",
            400,
            "a version is a whole number from 1",
        ),
        (
            "GET",
            "versions/3",
            "",
            404,
            r#"Version 3 of function \"f\" not found."#,
        ),
        ("DELETE", "versions/3", "", 404, "not found"),
        ("DELETE", "versions/1", "", 204, ""),
        ("GET", "versions/1", "", 404, "not found"),
    ] {
        let answer = send(&sandbox, method, below, body).await;
        assert_eq!(answer.status, status, "{method} {below}: {}", answer.text());
        assert!(
            answer.text().contains(expected),
            "{below}: {}",
            answer.text()
        );
    }
    let stale = Call::new("POST", &format!("{FUNCTION}/versions")).header("if-match", "\"1\"");
    assert_eq!(sandbox.admin(stale).await.status, 412);
}

#[tokio::test]
async fn aliases_are_set_rolled_back_and_deleted() {
    let sandbox = Sandbox::start();
    register(&sandbox, "http://a.example").await;
    send(&sandbox, "POST", "versions", "").await;
    register(&sandbox, "http://b.example").await;
    send(&sandbox, "POST", "versions", "").await;
    let made = send(&sandbox, "PUT", "aliases/prod", r#"{"version":1}"#).await;
    assert_eq!(made.status, 201, "{}", made.text());
    let tag = made.header("etag").unwrap().to_owned();
    let canary = r#"{"version":1,"weights":{"2":0.5},"canary":{"header":"X-Canary","version":2}}"#;
    let tagged = |tag: &str| {
        let call = Call::new("PUT", &format!("{FUNCTION}/aliases/prod"));
        call.header("if-match", tag).body(canary)
    };
    let set = sandbox.admin(tagged(&tag)).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let alias = read(&set);
    let expected = json!({
        "space": "default", "functionId": "f", "name": "prod", "version": 1, "weights": {"2": 0.5},
        "canary": {"header": "x-canary", "version": 2}, "previous": {"version": 1},
    });
    assert_eq!(alias, expected);
    assert_eq!(
        sandbox.admin(tagged(&tag)).await.status,
        412,
        "the tag is old"
    );
    let sent_back = send(&sandbox, "PUT", "aliases/prod", &alias.to_string()).await;
    assert_eq!(
        (sent_back.status, read(&sent_back)),
        (200, alias),
        "an answer can be sent back"
    );
    for (method, below, body, status, expected) in [
        (
            "PUT",
            "aliases/7",
            r#"{"version":1}"#,
            400,
            "more than digits",
        ),
        ("PUT", "aliases/prod", "{", 400, ""),
        (
            "PUT",
            "aliases/prod",
            r#"{"version":3}"#,
            400,
            "version is 3, expected a version that",
        ),
        (
            "PUT",
            "aliases/prod",
            r#"{"version":1,"weights":{"2":7}}"#,
            400,
            "weights.2 is 7",
        ),
        (
            "DELETE",
            "versions/2",
            "",
            409,
            "it's used by aliases: prod.",
        ),
        (
            "GET",
            "aliases/test",
            "",
            404,
            r#"Alias \"test\" of function \"f\" not found."#,
        ),
        ("POST", "aliases/test/rollback", "", 404, "not found"),
        ("POST", "aliases/prod/rollback", "", 200, r#""version":1"#),
        ("DELETE", "aliases/prod", "", 204, ""),
        ("GET", "aliases", "", 200, r#"{"aliases":[]}"#),
    ] {
        let answer = send(&sandbox, method, below, body).await;
        assert_eq!(answer.status, status, "{method} {below}: {}", answer.text());
        assert!(
            answer.text().contains(expected),
            "{below}: {}",
            answer.text()
        );
    }
    send(&sandbox, "PUT", "aliases/prod", r#"{"version":1}"#).await;
    let nothing = send(&sandbox, "POST", "aliases/prod/rollback", "").await;
    assert_eq!(nothing.status, 409);
    assert!(
        nothing.text().contains("has nothing to roll back to"),
        "{}",
        nothing.text()
    );
}
