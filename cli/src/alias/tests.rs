use serde_json::{Value, json};

use crate::testing::{Server, check_ok, parse};

const ALIAS: &str = r#"{"space":"default","functionId":"hello","name":"prod","version":3,"weights":{"4":0.1},"canary":{"header":"x-canary","value":"1","version":4},"previous":{"version":2}}"#;

#[test]
fn an_alias_is_set() {
    let server = Server::new(&[("201 Created", &[], ALIAS)]);
    let outcome = server.run(
        "alias set hello prod --version 3 --weight 4=0.1 --canary-header X-Canary=1:4 --description x",
    );
    check_ok(
        &outcome,
        "made hello:prod in space default: its calls go to version 3, 10 % to 4, x-canary: 1 to 4\n",
    );
    let request = server.request();
    let line = "PUT /v1/spaces/default/functions/hello/aliases/prod";
    assert_eq!(request.line, line);
    let body: Value = serde_json::from_str(&request.body).unwrap();
    let sent = json!({
        "version": 3, "weights": {"4": 0.1}, "description": "x",
        "canary": {"header": "x-canary", "value": "1", "version": 4},
    });
    assert_eq!(body, sent);
}

#[test]
fn one_command_rolls_back() {
    let server = Server::new(&[("200 OK", &[], r#"{"version":2,"previous":{"version":3}}"#)]);
    check_ok(
        &server.run("rollback hello prod"),
        "rolled back hello:prod in space default: its calls go to version 2\n",
    );
    let line = "POST /v1/spaces/default/functions/hello/aliases/prod/rollback";
    assert_eq!(server.request().line, line);
}

#[test]
fn aliases_are_listed_shown_and_deleted() {
    let listed = format!(r#"{{"aliases":[{ALIAS}]}}"#);
    let outcome = Server::new(&[("200 OK", &[], &listed)]).run("alias list hello");
    let line = outcome.out.lines().nth(1).unwrap();
    assert_eq!(
        line,
        "prod   version 3, 10 % to 4, x-canary: 1 to 4  version 2  -"
    );
    let server = Server::new(&[("200 OK", &[], ALIAS)]);
    assert!(server.run("alias show hello prod").out.contains("x-canary"));
    let line = "GET /v1/spaces/default/functions/hello/aliases/prod";
    assert_eq!(server.request().line, line);
    let server = Server::new(&[("204 No Content", &[], "")]);
    let told = "deleted hello:prod from space default\n";
    check_ok(&server.run("alias delete hello prod"), told);
}

#[test]
fn a_mistake_is_told_without_a_node() {
    let set = |words: &str| format!("alias set f {words}");
    for (words, expected) in [
        ("a", "--version <VERSION>"),
        ("7 --version 1", "an alias's name has more than digits"),
        ("a --version 0", "a version is a whole number from 1"),
        ("a --version 1 --weight 2", "such as 4=0.1"),
        (
            "a --version 1 --weight 2=2",
            "the share is 2, expected 0 to 1",
        ),
        ("a --version 1 --canary-header x", "such as x-canary=1:4"),
    ] {
        let error = parse(&set(words)).unwrap_err().to_string();
        assert!(error.contains(expected), "{words}: {error}");
    }
    for (words, expected) in [
        ("a --version 1 --weight 1=0.5", "weights has version 1"),
        (
            "a --version 1 --canary-header =1:2",
            "canary.header is \"\"",
        ),
    ] {
        let outcome = Server::new(&[]).run(&set(words));
        assert_eq!(outcome.code, 64, "{words}");
        assert!(outcome.err.contains(expected), "{words}: {}", outcome.err);
    }
}
