//! Secrets: given to functions on any node, changed without a failed call, and found nowhere else.

mod given;
mod leaks;

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::{Node, Record, Sandbox};
use reqwest::Method;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// Texts that nothing else has, so that they can be searched for.
const FIRST: &str = "first-Zq8vK2xWm4Tn6Rb1";
const SECOND: &str = "second-Hd5yJ9cPf3Lg7Sa0";

/// Prints the variable and the file that it has, and who else may read them.
const SHOW: &str = r#"printf '%s|%s|%s|%s' "$DB_PASSWORD" "$(cat "$HEARTH_SECRETS/db.txt")" "$(stat -c %a "$HEARTH_SECRETS/db.txt")" "$HEARTH_SECRETS""#;

fn secrets() -> Value {
    json!([{"name": "db", "env": "DB_PASSWORD"}, {"name": "db", "file": "db.txt"}])
}

/// A record as the test changes it.
fn with_secrets(sandbox: &Sandbox, record: &Record, secrets: Value) -> Value {
    let mut record = sandbox.record(record);
    record["provider"]["secrets"] = secrets;
    record
}

async fn register(sandbox: &Sandbox, node: &Node, record: &Value) {
    let path = "/v1/spaces/default/functions";
    let made = node.config(Method::POST, path, Some(record)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = record["functionId"].as_str().expect("it has an id");
    sandbox.wait_known(id).await;
}

async fn set(node: &Node, name: &str, value: &str) -> Value {
    let path = format!("/v1/spaces/default/secrets/{name}");
    let body = json!({ "value": value });
    let set = node.config(Method::PUT, &path, Some(&body)).await;
    assert!(matches!(set.status, 200 | 201), "{set:?}");
    assert!(!set.json().to_string().contains(value), "{set:?}");
    set.json()
}

/// A command of the operator, with something to read.
fn command(node: &Node, words: &[&str], input: &str) -> Output {
    let mut command = hearth();
    command
        .args(["--api", &node.config_url("")])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut running = command.spawn().expect("run hearth");
    let mut stdin = running.stdin.take().expect("it reads");
    // A command that fails before it reads is judged by what it says.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    running.wait_with_output().expect("it ends")
}

fn said(output: &Output) -> String {
    let both = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&both).into_owned()
}

/// The files with secrets of a cluster's nodes, where those are below a directory of the test's own.
fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push(path.display().to_string()),
        }
    }
    found
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(text)
}
