//! Programs that others wrote the libraries of: `clients/`, with what `scripts/clients.sh` installed.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use serde_json::json;
use tokio::process::Command;
use tokio::time::timeout;

use crate::{Node, Sandbox};

/// How long a program may take, on a machine that is busy with other tests.
const ENDS: Duration = Duration::from_secs(90);

/// A program of `clients/`.
pub fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("clients")
        .join(name)
}

/// What `scripts/clients.sh` has installed.
///
/// # Panics
/// When it is not there.
pub fn library(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/clients")
        .join(name);
    assert!(
        path.exists(),
        "there is no {}: scripts/clients.sh installs it",
        path.display()
    );
    path
}

/// The nodes as programs are told them.
pub fn nodes(sandbox: &Sandbox) -> String {
    let node = |node: &Node| {
        json!({
            "name": node.name(), "functions": node.functions_url(""), "events": node.events_url(""), "config": node.config_url(""),
        })
    };
    let nodes: Vec<_> = sandbox.nodes().iter().map(node).collect();
    json!(nodes).to_string()
}

/// Runs a program with the nodes as its argument and returns what it printed.
///
/// # Panics
/// When it fails, or takes too long.
pub async fn run(name: &str, sandbox: &Sandbox) -> String {
    let mut command = match name.ends_with(".js") {
        true => node(&path(name)),
        false => {
            let mut command = Command::new(library("venv/bin/python"));
            command.arg(path(name));
            command
        }
    };
    command.arg(nodes(sandbox));
    told(name, command).await
}

/// Runs a program of JavaScript, which finds the libraries.
pub fn node(program: &Path) -> Command {
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", library("node_modules"))
        .arg(program);
    command
}

/// Runs a command to its end and returns what it printed.
///
/// # Panics
/// When it fails, or takes too long.
#[expect(clippy::print_stdout, reason = "shown with --no-capture")]
pub async fn told(name: &str, command: Command) -> String {
    let output = output(name, command, ENDS).await;
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{name}: {}\n{told}{errors}",
        output.status
    );
    println!("{told}");
    told
}

/// Runs a command to its end.
///
/// # Panics
/// When it can not be run, or takes too long.
pub async fn output(name: &str, mut command: Command, bound: Duration) -> Output {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(bound, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{name} did not end within {bound:?}"));
    output.unwrap_or_else(|error| panic!("{name}: {error}: make deps installs it"))
}
