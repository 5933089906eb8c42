//! `hearth dead-letter redrive` and `purge` of more than a page: a bar for who watches, and an end that says how far it came.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::process::{Command, Output};
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::process::Process;
use cluster_tests::{Does, Node, Record, Sandbox, Webhook, until};
use futures_util::{StreamExt, stream};
use nix::sys::signal::Signal;
use serde_json::json;

/// How long anything may take, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than two pages.
const COUNT: usize = 1_200;

/// A node with dead letters, and the webhook that refused them.
async fn with_dead_letters() -> (Sandbox, Webhook) {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let hook = Webhook::start(Does::AnswerWith("404 Not Found", "")).await;
    sandbox.register(&Record::http("orders", hook.url())).await;
    let subscription = json!({ "event": "tick", "functionId": "orders" });
    sandbox.subscribe(&subscription).await;
    let node = sandbox.node(0);
    let emitted = stream::iter(0..COUNT).map(|number| {
        let node = node.clone();
        async move { node.emit("tick", &json!(number)).await.status }
    });
    let statuses: Vec<_> = emitted.buffer_unordered(16).collect().await;
    assert!(statuses.iter().all(|status| *status == 202));
    until("all are dead letters", PATIENCE, || async {
        dead(&node).await == COUNT
    })
    .await;
    (sandbox, hook)
}

async fn dead(node: &Node) -> usize {
    let count = node.metric("hearth_dead_letters", "").await;
    count.to_string().parse().unwrap()
}

/// Runs something in a thread of its own, so that the test goes on.
async fn output(mut command: Command) -> Output {
    let ended = tokio::task::spawn_blocking(move || command.output().unwrap());
    tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("it ends in time")
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The command line, with the binary under test.
fn command(node: &Node, what: &str) -> Command {
    let mut command = hearth();
    let api = node.config_url("");
    command.args(["--api", &api, "dead-letter", what, "--all"]);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_is_drawn_for_who_watches_and_for_nobody_else() {
    let (sandbox, hook) = with_dead_letters().await;
    let node = sandbox.node(0);
    let piped = output(command(&node, "redrive")).await;
    assert_eq!(text(&piped.stdout), "redriven: 1200\n");
    assert_eq!(text(&piped.stderr), "");
    until("all are dead letters again", PATIENCE, || async {
        hook.ids().values().all(|times| *times == 2) && dead(&node).await == COUNT
    })
    .await;

    // `script` runs it on a terminal of its own.
    let program = command(&node, "purge");
    let words = std::iter::once(program.get_program()).chain(program.get_args());
    let line: Vec<_> = words.map(|word| word.to_str().unwrap()).collect();
    let mut watched = Command::new("script");
    watched.args([
        "--quiet",
        "--return",
        "--command",
        &line.join(" "),
        "/dev/null",
    ]);
    for (name, value) in program.get_envs() {
        assert!(value.is_none(), "a setting of the tests is taken away");
        watched.env_remove(name);
    }
    let watched = output(watched).await;
    let shown = text(&watched.stdout);
    assert!(watched.status.success(), "{shown}");
    assert!(shown.contains(" of 1200 ["), "{shown}");
    assert!(shown.ends_with("purged: 1200\r\n"), "{shown}");
    assert_eq!(dead(&node).await, 0);
}

/// What it says was done is what is gone.
#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_ends_it_and_the_rest_stays() {
    let (sandbox, _hook) = with_dead_letters().await;
    let node = sandbox.node(0);
    let log = sandbox.dir().join("purge.log");
    let purge = Process::spawn("purge", command(&node, "purge"), &log);
    until("it has begun", PATIENCE, || async {
        dead(&node).await < COUNT
    })
    .await;
    // So that it is not done before it is told to stop.
    node.stop();
    purge.signal(Signal::SIGINT);
    node.cont();
    let ended = purge.exited(PATIENCE).await;
    let left = dead(&node).await;
    assert!(left > 0, "it was done before it was stopped");
    let done = COUNT - left;
    let log = purge.log();
    assert_eq!(ended.code(), Some(130), "{log}");
    assert!(log.contains(&format!("purged: {done}\n")), "{log}");
    let said = format!("hearth: stopped by Ctrl-C: purged {done} of {COUNT}\n");
    assert!(log.contains(&said), "{left} are left: {log}");
}
