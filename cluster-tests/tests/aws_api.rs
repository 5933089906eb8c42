//! AWS's own clients, with the address of a node in place of AWS's: boto3 without authentication, the SDK for JavaScript with signatures.

use cluster_tests::program::{self, library, nodes, run, told};
use cluster_tests::{Record, Sandbox, client};
use reqwest::Method;
use serde_json::{Value, json};

/// The function that the programs call.
fn worker(id: &str) -> Record {
    let python = library("venv/bin/python");
    let script = program::path("aws_function.py");
    let [python, script] = [python, script].map(|path| path.display().to_string());
    Record::command(id, [&*python, &*script]).env("PYTHONDONTWRITEBYTECODE", "1")
}

/// Every call to another node: calls of all types, changes, limits, tags, lists and errors.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_and_changes_functions_on_three_nodes() {
    let sandbox = Sandbox::processes(3).await;
    for id in ["worker", "second"] {
        sandbox.register(&worker(id)).await;
    }
    let told = run("aws_api.py", &sandbox).await;
    assert!(told.contains("ok: it is removed"), "{told}");
}

/// Requests signed with access keys of a cluster that asks for them, and those that are refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_javascript_signs_with_access_keys() {
    let sandbox = Sandbox::builder().nodes(3).auth_required().start().await;
    let person = Person::sign_up(&sandbox).await;
    let path = format!("/v1/spaces/team/members/{}", person.user);
    let joined = sandbox
        .node(0)
        .config(Method::PUT, &path, Some(&json!({})))
        .await;
    assert!(joined.is_ok(), "{}", joined.summary());
    let registered = sandbox.node(1).config(
        Method::POST,
        "/v1/spaces/team/functions",
        Some(worker("worker").json()),
    );
    let registered = registered.await;
    assert!(registered.is_ok(), "{}", registered.summary());
    let (good, _) = person.access_key(&["invoke", "read", "write"]).await;
    let (reader, _) = person.access_key(&["read"]).await;
    let (revoked, id) = person.access_key(&["invoke"]).await;
    person
        .call(Method::DELETE, &format!("/api/v1/keys/{id}"), &Value::Null)
        .await;
    let keys = json!({"good": good, "reader": reader, "revoked": revoked});
    let mut program = program::node(&program::path("aws_api.js"));
    program
        .env("HEARTH_TEST_KEYS", keys.to_string())
        .arg(nodes(&sandbox));
    let told = told("aws_api.js", program).await;
    assert!(told.contains("ok: a request that is altered"), "{told}");
}

/// Who has an account on the cluster.
struct Person {
    node: cluster_tests::Node,
    token: String,
    user: String,
}

impl Person {
    async fn sign_up(sandbox: &Sandbox) -> Self {
        let mut person = Self {
            node: sandbox.node(0),
            token: String::new(),
            user: String::new(),
        };
        let account = json!({"email": "ada@example.com", "password": "password123"});
        person.call(Method::POST, "/api/v1/users", &account).await;
        let tokens = person
            .call(Method::POST, "/api/v1/users/login", &account)
            .await;
        person.token = text(&tokens, "token");
        let me = person
            .call(Method::GET, "/api/v1/users/me", &Value::Null)
            .await;
        person.user = text(&me, "userId");
        person
    }

    /// An access key of the space `team`, as the SDK takes it, and its id.
    async fn access_key(&self, scopes: &[&str]) -> (Value, String) {
        let wanted = json!({"name": "sdk", "scopes": scopes, "spaces": ["team"], "aws": true});
        let made = self.call(Method::POST, "/api/v1/keys", &wanted).await;
        assert_eq!(made["key"], Value::Null, "an access key is no bearer token");
        let [access_key_id, secret] =
            ["accessKeyId", "secretAccessKey"].map(|name| text(&made, name));
        let pair = json!({"accessKeyId": access_key_id, "secretAccessKey": secret});
        (pair, text(&made, "id"))
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        let request = client().request(method, self.node.functions_url(path));
        let answer = request.bearer_auth(&self.token).json(body).send().await;
        let answer = answer.expect("it answers");
        let status = answer.status();
        let told: Value = answer.json().await.expect("it is JSON");
        assert!(status.is_success(), "{path}: {status} {told}");
        told
    }
}

fn text(of: &Value, name: &str) -> String {
    of[name].as_str().expect(name).to_owned()
}
