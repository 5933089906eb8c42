//! AWS's own clients, with the address of a node in place of AWS's: boto3 without authentication, the SDK for JavaScript with signatures.

use cluster_tests::account::{Person, SPACE};
use cluster_tests::program::{self, library, nodes, told};
use cluster_tests::{Record, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// The function that the programs call.
fn worker(id: &str) -> Record {
    let python = library("venv/bin/python");
    let script = program::path("aws_function.py");
    let [python, script] = [python, script].map(|path| path.display().to_string());
    Record::command(id, [&*python, &*script]).env("PYTHONDONTWRITEBYTECODE", "1")
}

/// A function of Lambda's own contract, by AWS's runtime for Python.
fn raw() -> Value {
    let python = library("venv/bin/python").display().to_string();
    let clients = program::path("aws_lambda_function.py");
    let clients = clients.parent().expect("a program is in a directory");
    json!({
        "functionId": "raw",
        "type": "process",
        "provider": {
            "contract": "lambda",
            "command": [python, "-m", "awslambdaric", "aws_lambda_function.handler"],
            "env": {"PYTHONPATH": clients, "PYTHONDONTWRITEBYTECODE": "1"},
        },
    })
}

fn boto3(name: &str, sandbox: &Sandbox) -> Command {
    let mut command = Command::new(library("venv/bin/python"));
    command
        .arg(program::path(name))
        .arg(nodes(sandbox))
        // Any pair: nobody looks at the signature.
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env(
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
    command
}

/// Every call to another node: calls of all types, changes, limits, tags, lists and errors.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_calls_and_changes_functions_on_three_nodes() {
    let sandbox = Sandbox::processes(3).await;
    for id in ["worker", "second"] {
        sandbox.register(&worker(id)).await;
    }
    let path = "/v1/spaces/default/functions";
    let registered = sandbox
        .node(2)
        .config(Method::POST, path, Some(&raw()))
        .await;
    assert_eq!(registered.status, 201, "{}", registered.summary());
    sandbox.wait_known("raw").await;
    let told = told("aws_api.py", boto3("aws_api.py", &sandbox)).await;
    assert!(told.contains("ok: it is removed"), "{told}");
}

/// A function made of an image, whose entry point is a runtime of a few lines; the machine has no other.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_deploys_an_image_on_three_nodes_with_containers() {
    let sandbox = Sandbox::containers(3).await;
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    let mut deploy = boto3("aws_deploy.py", &sandbox);
    deploy.arg(image);
    let told = told("aws_deploy.py", deploy).await;
    assert!(told.contains("ok: it is removed"), "{told}");
}

/// Requests signed with access keys of a cluster that asks for them, and those that are refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_javascript_signs_with_access_keys() {
    let sandbox = Sandbox::builder().nodes(3).auth_required().start().await;
    let person = Person::sign_up(&sandbox).await;
    let path = format!("/v1/spaces/{SPACE}/functions");
    let hook = Record::http("hook", "https://example.com/");
    let node = sandbox.node(1);
    for record in [worker("worker"), hook] {
        let registered = node.config(Method::POST, &path, Some(record.json()));
        let registered = registered.await;
        assert_eq!(registered.status, 201, "{}", registered.summary());
    }
    let good = person.access_key(&["invoke", "read", "write"]).await;
    let reader = person.access_key(&["read"]).await;
    let revoked = person.access_key(&["invoke"]).await;
    person.revoke(&revoked).await;
    let keys = json!({"good": good.json(), "reader": reader.json(), "revoked": revoked.json()});
    let mut program = program::node(&program::path("aws_api.js"));
    program
        .env("HEARTH_TEST_KEYS", keys.to_string())
        .arg(nodes(&sandbox));
    let told = told("aws_api.js", program).await;
    assert!(told.contains("ok: a request that is altered"), "{told}");
}
