use serde_json::{Value, json};

use crate::testing::{Server, check_ok};

const SET: &str = r#"{"name":"db","version":"0123456789abcdef","createdAt":"2026-01-01T02:00:00.000Z","updatedAt":"2026-01-02T02:00:00.000Z","functions":["api","job"]}"#;

#[track_caller]
fn check_set(bytes: &[u8], status: &str, sent: &Value, told: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("value");
    std::fs::write(&file, bytes).unwrap();
    let server = Server::new(&[(status, &[], SET)]);
    let outcome = server.run(&format!("secret set db --file {}", file.display()));
    check_ok(&outcome, told);
    let request = server.request();
    assert_eq!(request.line, "PUT /v1/spaces/default/secrets/db");
    let body: Value = serde_json::from_str(&request.body).unwrap();
    assert_eq!(body, *sent);
}

#[test]
fn a_value_is_sent_as_it_is() {
    check_set(
        b"hunter2\n",
        "201 Created",
        &json!({"value": "hunter2\n"}),
        "made db in space default\n",
    );
    check_set(
        &[0, 255],
        "200 OK",
        &json!({"base64": "AP8="}),
        "set db in space default; new instances of api, job get it\n",
    );
}

#[test]
fn a_mistake_is_told_without_a_node() {
    for (words, expected) in [
        (
            "secret set db",
            "there is no terminal to ask for the value of db on",
        ),
        ("secret set db --file /dev/null", "the value is empty"),
    ] {
        let outcome = Server::new(&[]).run(words);
        assert_eq!(outcome.code, 64, "{words}");
        assert!(outcome.err.contains(expected), "{words}: {}", outcome.err);
    }
}

#[test]
fn secrets_are_listed_and_deleted() {
    let listed = format!(r#"{{"secrets":[{SET}]}}"#);
    let server = Server::new(&[("200 OK", &[], &listed)]);
    let outcome = server.run("secret list");
    let line = outcome.out.lines().nth(1).unwrap();
    assert!(
        line.starts_with("db      01234567  2026-01-02T02:00:00.000Z  api, job"),
        "{line}"
    );
    assert_eq!(server.request().line, "GET /v1/spaces/default/secrets");
    let server = Server::new(&[("200 OK", &[], &listed)]);
    assert!(
        server
            .run("--json secret list")
            .out
            .contains("0123456789abcdef")
    );
    let server = Server::new(&[("200 OK", &[], r#"{"secrets":[]}"#)]);
    let outcome = server.run("secret list");
    assert!(outcome.err.contains("has no secrets"), "{}", outcome.err);

    let server = Server::new(&[("204 No Content", &[], "")]);
    check_ok(
        &server.run("secret delete db"),
        "deleted db from space default\n",
    );
    assert_eq!(
        server.request().line,
        "DELETE /v1/spaces/default/secrets/db"
    );
    let refused =
        r#"{"errors":[{"message":"Secret \"db\" cannot be deleted because it's used by: api."}]}"#;
    let server = Server::new(&[("409 Conflict", &[], refused)]);
    let outcome = server.run("secret delete db");
    assert_eq!(outcome.code, 1);
    assert!(outcome.err.contains("used by: api"), "{}", outcome.err);
}

#[test]
fn a_name_that_no_secret_has_is_refused() {
    for (words, expected) in [
        ("secret set a/b", "a secret's name has at most 128"),
        (
            "function register f --process --secret db=DB -- x",
            "expected NAME, NAME=file:FILE or NAME=env:VARIABLE",
        ),
    ] {
        let refused = crate::testing::parse(words).unwrap_err().to_string();
        assert!(refused.contains(expected), "{words}: {refused}");
    }
}

#[test]
fn a_function_is_registered_with_its_secrets() {
    let server = Server::new(&[("201 Created", &[], r#"{"functionId":"f"}"#)]);
    let words = "--process --secret db=env:DB --secret key=file:tls.key --secret api -- x";
    let outcome = server.run(&format!("function register f {words}"));
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    let sent: Value = serde_json::from_str(&server.request().body).unwrap();
    let expected = json!([
        {"name": "db", "env": "DB"}, {"name": "key", "file": "tls.key"}, {"name": "api"},
    ]);
    assert_eq!(sent["provider"]["secrets"], expected);
}
