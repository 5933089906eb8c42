//! AWS's own clients, with the address of a node in place of AWS's: boto3 without authentication, the SDK for JavaScript with signatures.

use cluster_tests::account::{Person, SPACE};
use cluster_tests::program::{self, library, nodes, told};
use cluster_tests::{Record, Sandbox};
use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

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
    let mut boto3 = Command::new(library("venv/bin/python"));
    boto3
        .arg(program::path("aws_api.py"))
        .arg(nodes(&sandbox))
        // Any pair: nobody looks at the signature.
        .env("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")
        .env(
            "AWS_SECRET_ACCESS_KEY",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        );
    let told = told("aws_api.py", boto3).await;
    assert!(told.contains("ok: it is removed"), "{told}");
}

/// Requests signed with access keys of a cluster that asks for them, and those that are refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_for_javascript_signs_with_access_keys() {
    let sandbox = Sandbox::builder().nodes(3).auth_required().start().await;
    let person = Person::sign_up(&sandbox).await;
    let path = format!("/v1/spaces/{SPACE}/functions");
    let record = worker("worker");
    let registered = sandbox
        .node(1)
        .config(Method::POST, &path, Some(record.json()));
    let registered = registered.await;
    assert!(registered.is_ok(), "{}", registered.summary());
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
