//! AWS's own clients, with the address of a node in place of AWS's: boto3 without authentication, the SDK for JavaScript with signatures.

use std::time::Duration;

use cluster_tests::account::{AccessKey, Person, SPACE};
use cluster_tests::program::{self, library, nodes, told};
use cluster_tests::{Node, Record, Sandbox, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

/// How long a call may take to run, on a machine that is busy with other tests.
const STARTED: Duration = Duration::from_secs(30);

/// The function that the programs call.
fn worker(id: &str) -> Record {
    let python = library("venv/bin/python");
    let script = program::path("aws_function.py");
    let [python, script] = [python, script].map(|path| path.display().to_string());
    Record::command(id, [&*python, &*script]).env("PYTHONDONTWRITEBYTECODE", "1")
}

/// A function of Lambda's own contract, by AWS's runtime for Python.
fn raw() -> Record {
    let python = library("venv/bin/python").display().to_string();
    let script = program::path("aws_lambda_function.py");
    let clients = script.parent().expect("a program is in a directory");
    let command = [
        &*python,
        "-m",
        "awslambdaric",
        "aws_lambda_function.handler",
    ];
    Record::command("raw", command)
        .lambda()
        .env("PYTHONPATH", &clients.display().to_string())
        .env("PYTHONDONTWRITEBYTECODE", "1")
}

fn boto3(name: &str, of: &str) -> Command {
    let mut command = Command::new(library("venv/bin/python"));
    command
        .arg(program::path(name))
        .arg(of)
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
    sandbox.register(&raw()).await;
    let told = told("aws_api.py", boto3("aws_api.py", &nodes(&sandbox))).await;
    assert!(told.contains("ok: it is removed"), "{told}");
}

/// A function made of an image, whose entry point is a runtime of a few lines; the machine has no other.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_deploys_an_image_on_three_nodes_with_containers() {
    let sandbox = Sandbox::containers(3).await;
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    let mut deploy = boto3("aws_deploy.py", &nodes(&sandbox));
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

/// What boto3 told of one call by way of a node, with its own retries or without.
async fn invoked(entry: &Node, payload: &Value, retries: &str) -> Value {
    let mut invoke = boto3("aws_invoke.py", &entry.functions_url(""));
    invoke.args(["raw", &payload.to_string(), retries]);
    let told = told("aws_invoke.py", invoke).await;
    serde_json::from_str(&told).expect("it is JSON")
}

/// Kills the node that runs the call as soon as it does, and returns what boto3 told of it.
async fn interrupted(entry: &Node, home: &Node, payload: &Value, retries: &str) -> Value {
    let killing = async {
        until("it runs", STARTED, || async { home.in_flight().await == 1 }).await;
        home.kill9();
    };
    let (told, ()) = tokio::join!(invoked(entry, payload, retries), killing);
    told
}

/// A call that came in elsewhere than it ran: who tries nothing again is told that it may have run, and boto3 by itself has it run again.
#[tokio::test(flavor = "multi_thread")]
async fn boto3_outlives_the_node_that_ran_its_call() {
    let sandbox = Sandbox::processes(3).await;
    let record = raw().timeout_ms(60_000);
    let (_, home) = sandbox.register_warm(&record, json!({})).await;
    let entry = sandbox.others(home.name()).remove(0);
    let told = interrupted(&entry, &home, &json!({"sleep": 40}), "once").await;
    assert_eq!(
        (&told["error"], &told["status"]),
        (&json!("ServiceException"), &json!(502)),
        "{told}"
    );
    let message = told["message"].as_str().expect("a message");
    let lost = format!("peer {} was lost during the call: ", home.name());
    assert!(message.starts_with(&lost), "{told}");
    assert!(message.ends_with("; the function may have run"), "{told}");
    assert!(!message.contains("docs.rs"), "it is for people: {told}");
    let next = invoked(&entry, &json!({"n": 2}), "once").await;
    assert_eq!(next["result"]["got"], json!({"n": 2}), "{next}");

    let home = sandbox.named(next["node"].as_str().expect("a node"));
    let entry = sandbox.others(home.name());
    let entry = entry.iter().find(|node| node.is_running());
    let entry = entry.expect("one of three was killed");
    let payload = json!({"sleep": 5});
    let told = interrupted(entry, &home, &payload, "defaults").await;
    assert_eq!(told["result"]["got"], payload, "{told}");
    assert_eq!(told["node"], entry.name(), "{told}");
    assert!(told["retries"].as_u64() >= Some(1), "{told}");
}

/// A function of another cluster, by all of its names, each call signed; and what that cluster refuses.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_another_cluster_is_called_as_one_of_lambda() {
    let there = Sandbox::builder().nodes(2).auth_required().start();
    let (here, there) = tokio::join!(Sandbox::processes(2), there);
    let person = Person::sign_up(&there).await;
    let path = format!("/v1/spaces/{SPACE}/functions");
    let record = raw();
    let versions = format!("{path}/raw/versions");
    let alias = format!("{path}/raw/aliases/prod");
    let version = json!({"version": 1});
    for (method, path, body) in [
        (Method::POST, &path, Some(record.json())),
        (Method::POST, &versions, None),
        (Method::PUT, &alias, Some(&version)),
    ] {
        let answer = there.node(0).config(method, path, body).await;
        assert_eq!(answer.status, 201, "{path}: {}", answer.summary());
    }
    let key = person.access_key(&["invoke"]).await;
    let reader = person.access_key(&["read"]).await;
    let mut forger = key.clone();
    forger.secret_access_key = reader.secret_access_key.clone();
    let of = |id: &str, arn: &str, key: &AccessKey| {
        let provider = json!({
            "arn": arn, "region": "eu-west-1", "endpoint": there.node(1).functions_url(""),
            "awsAccessKeyId": key.access_key_id, "awsSecretAccessKey": key.secret_access_key,
        });
        Record::remote(id, "awslambda", &provider).timeout_ms(30_000)
    };
    for (id, name, version) in [
        ("name", "raw", ""),
        ("latest", "raw:$LATEST", ""),
        ("version", "raw:1", ":1"),
        ("alias", "raw:prod", ":1"),
        (
            "arn",
            "arn:aws:lambda:eu-west-1:123456789012:function:raw",
            "",
        ),
        (
            "arn-alias",
            "arn:aws:lambda:eu-west-1:123456789012:function:raw:prod",
            ":1",
        ),
    ] {
        here.register(&of(id, name, &key)).await;
        for node in here.nodes() {
            let payload = json!({"by": node.name()});
            let answer = node.invoke(id, payload.clone()).await;
            assert_eq!(answer.result()["got"], payload, "{id}: {answer:?}");
            let own = format!("arn:aws:lambda:us-east-1:000000000000:function:raw{version}");
            assert_eq!(answer.result()["arn"], own, "{id}");
        }
    }
    let failed = here.node(0).invoke("alias", json!({"fail": true})).await;
    assert_eq!(
        failed.summary(),
        "502 function_failed;function",
        "{failed:?}"
    );
    assert!(failed.body.contains("asked to fail"), "{failed:?}");
    for (id, name, key, expected) in [
        ("forged", "raw", &forger, "InvalidSignatureException"),
        ("powerless", "raw", &reader, "AccessDeniedException"),
        ("none", "none", &key, "ResourceNotFoundException"),
        ("gone", "raw:9", &key, "ResourceNotFoundException"),
    ] {
        here.register(&of(id, name, key)).await;
        let answer = here.node(1).invoke(id, json!({})).await;
        assert_eq!(
            answer.summary(),
            "502 unreachable;provider",
            "{id}: {answer:?}"
        );
        assert!(answer.body.contains(expected), "{id}: {answer:?}");
    }
}
