//! The whole configuration of a cluster, exported, and imported into another one.

use std::path::Path;
use std::process::Output;
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::{Does, Node, Sandbox, Webhook, until};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a command of the operator against a node.
fn run(sandbox: &Sandbox, node: &Node, words: &[&str]) -> Output {
    let mut command = hearth();
    command.args(["--api", &node.config_url("")]);
    command.arg("--token-file").arg(sandbox.dir().join("token"));
    command.args(words).output().expect("run hearth")
}

fn done(sandbox: &Sandbox, node: &Node, words: &[&str]) -> String {
    let output = run(sandbox, node, words);
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Calls as somebody who shows this credential, or none.
async fn call(
    sandbox: &Sandbox,
    method: Method,
    url: String,
    token: &str,
    body: Value,
) -> (u16, Value) {
    let request = sandbox.client().request(method, url).json(&body);
    let request = match token.is_empty() {
        true => request,
        false => request.bearer_auth(token),
    };
    let answer = request.send().await.expect("it answers");
    (
        answer.status().as_u16(),
        answer.json().await.unwrap_or(Value::Null),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_configuration_moves_into_an_empty_cluster() {
    let from = Sandbox::builder().nodes(1).auth_required().start().await;
    let node = from.node(0);
    let hook = Webhook::start(Does::Answer("answered")).await;
    let record = json!({"functionId": "hook", "type": "http", "provider": {"url": hook.url()}});
    let made = node
        .config(Method::POST, "/v1/spaces/default/functions", Some(&record))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let subscription = json!({"event": "user.created", "functionId": "hook"});
    let made = node
        .config(
            Method::POST,
            "/v1/spaces/default/subscriptions",
            Some(&subscription),
        )
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let user = json!({"email": "ada@example.com", "password": "password123"});
    let users = node.functions_url("/api/v1/users");
    assert_eq!(
        call(&from, Method::POST, users, "", user.clone()).await.0,
        201
    );
    let login = node.functions_url("/api/v1/users/login");
    let (_, session) = call(&from, Method::POST, login, "", user.clone()).await;
    let token = session["token"].as_str().expect("a token");
    let wanted = json!({"name": "all", "scopes": ["read"]});
    let (status, key) = call(
        &from,
        Method::POST,
        node.functions_url("/api/v1/keys"),
        token,
        wanted,
    )
    .await;
    assert_eq!(status, 201, "{key}");
    let key = key["key"].as_str().expect("a key");

    let file = from.dir().join("export.json");
    done(&from, &node, &["export", "--out", text(&file)]);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&file.metadata().expect("a file").permissions());
    assert_eq!(mode & 0o777, 0o600);
    let document = std::fs::read_to_string(&file).expect("read the file");
    for secret in [
        "password123",
        token,
        key,
        session["refreshToken"].as_str().expect("a token"),
    ] {
        assert!(!document.contains(secret), "{secret}");
    }
    assert!(!document.contains("sessions/") && !document.contains("signing/"));
    // Where it comes from, it is all there already.
    assert_eq!(
        done(&from, &node, &["import", text(&file)]),
        "imported 0 records\n"
    );
    let again = run(&from, &node, &["export", "--out", text(&file)]);
    assert_eq!(
        again.status.code(),
        Some(1),
        "an export replaces no file: {again:?}"
    );

    // Webhooks of this machine have to be listed with auth.
    let into = Sandbox::builder()
        .nodes(3)
        .auth_required()
        .env("HEARTH_OUTBOUND__ALLOW", "[\"127.0.0.1\"]")
        .start()
        .await;
    let (first, last) = (into.node(0), into.node(2));
    let imported = done(&into, &first, &["import", text(&file)]);
    assert_eq!(imported, "imported 5 records\n");
    until("the last node has it all", PATIENCE, || async {
        let login = last.functions_url("/api/v1/users/login");
        let (status, session) = call(&into, Method::POST, login, "", user.clone()).await;
        let me = last.functions_url("/api/v1/users/me");
        let with_key = call(&into, Method::GET, me, key, Value::Null).await;
        let invoked = last.invoke("hook", json!({})).await;
        status == 201 && session["token"].is_string() && with_key.0 == 200 && invoked.is_ok()
    })
    .await;
    // What was good there only is not good here.
    let me = last.functions_url("/api/v1/users/me");
    assert_eq!(
        call(&into, Method::GET, me, token, Value::Null).await.0,
        401
    );

    // What is subscribed stays, as where it comes from.
    let hooked = "/v1/spaces/default/functions/hook";
    let deleted = last.config(Method::DELETE, hooked, None).await;
    assert_eq!(deleted.status, 400, "{deleted:?}");
    assert!(deleted.body.contains("subscribed"), "{deleted:?}");

    let other = json!({"functionId": "other", "type": "http", "provider": {"url": hook.url()}});
    let made = first
        .config(Method::POST, "/v1/spaces/default/functions", Some(&other))
        .await;
    assert_eq!(made.status, 201, "{made:?}");
    let refused = run(&into, &last, &["import", text(&file)]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("the cluster is not empty: it has 1 records")
            && said.contains("functions/default/other"),
        "{said}"
    );
    let broken = from.dir().join("broken.json");
    std::fs::write(
        &broken,
        document.replace("\"type\":\"http\"", "\"type\":\"none\""),
    )
    .expect("write a file");
    let refused = run(&into, &first, &["import", text(&broken)]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("functions/default/hook"), "{said}");
}
