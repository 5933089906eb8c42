//! The process provider with real commands under a real guard.
#![cfg(feature = "process")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/program.rs"]
mod program;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use config::settings::{LambdaSettings, LimitsSettings, LogsSettings};
use futures_util::StreamExt;
use protocol::{Effect, Function, Generation, NodeId};
use providers::output::Line;
use providers::process::{Process, Setup};
use providers::{
    AnswerLimits, Callers, Error, Lambda, Launch, LaunchSpec, Life, Outputs, SecretDirs, Secrets,
};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use program::{eventually, function, invocation, spec};

const GUARD: &str = env!("CARGO_BIN_EXE_instance-guard");

fn provider(outputs: &Outputs) -> Process {
    with_callers(outputs, &Callers::new(LOCAL, mpsc::channel(1).0))
}

/// Where processes would reach their node.
const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 28_000);

fn with_callers(outputs: &Outputs, callers: &Callers) -> Process {
    Process::new(Setup {
        guard: vec![GUARD.into()],
        stop_grace: Duration::from_secs(1),
        answer_limits: AnswerLimits {
            whole: 1 << 20,
            ..AnswerLimits::new(&LimitsSettings::default())
        },
        generation: Generation(1),
        outputs: outputs.clone(),
        callers: callers.clone(),
        secrets: SecretDirs::open(Path::new("/dev/shm"), &NodeId::random()),
        lambda: Lambda::new(&LambdaSettings::default()),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    })
}

fn outputs() -> Outputs {
    Outputs::new(&LogsSettings::default(), "n1")
}

fn process(mode: &str, contract: &str, limits: serde_json::Value) -> Arc<Function> {
    let program = program::build();
    function(json!({
        "functionId": "f",
        "type": "process",
        "limits": limits,
        "provider": {"command": [program, mode], "contract": contract, "env": {"GREETING": "hello"}},
    }))
}

fn text(reply: &protocol::Reply) -> &str {
    std::str::from_utf8(reply.body.whole()).unwrap()
}

fn is_alive(pid: &str) -> bool {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
}

async fn is_gone(pid: &str) {
    eventually("the process is gone", || async {
        (!is_alive(pid)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_starts_answers_and_stops() {
    let process_provider = provider(&outputs());
    let function = process("http", "http", json!({}));
    let launched = process_provider.start(spec(&function)).await.unwrap();
    assert!(launched.phases.start.is_some() && launched.phases.ready.is_some());
    let env = launched
        .invoke
        .invoke(&function, &invocation(&function, "env"))
        .await
        .unwrap();
    let names: Vec<&str> = text(&env)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    assert!(
        names.contains(&"PORT") && names.contains(&"GREETING"),
        "{names:?}"
    );
    let allowed = [
        "PORT",
        "GREETING",
        "HEARTH_URL",
        "HEARTH_TOKEN",
        "PATH",
        "HOME",
        "LANG",
        "TMPDIR",
    ];
    assert!(names.iter().all(|name| allowed.contains(name)), "{names:?}");
    let pid = text(
        &launched
            .invoke
            .invoke(&function, &invocation(&function, "pid"))
            .await
            .unwrap(),
    )
    .to_owned();
    assert_eq!(process_provider.list().await.unwrap().len(), 1);
    process_provider.stop(&launched.id).await.unwrap();
    assert!(!is_alive(&pid));
    assert!(process_provider.list().await.unwrap().is_empty());
    process_provider
        .stop(&launched.id)
        .await
        .expect("one that is gone is a success");
}

/// The value of a variable in what a function told of its environment.
fn variable<'a>(env: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = env.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

#[tokio::test]
async fn an_instance_may_call_its_node_while_it_is_up() {
    let callers = Callers::new(LOCAL, mpsc::channel(1).0);
    let process_provider = with_callers(&outputs(), &callers);
    let function = process("http", "http", json!({}));
    let (one, two) = tokio::join!(
        process_provider.start(spec(&function)),
        process_provider.start(spec(&function))
    );
    let mut tokens = Vec::new();
    for launched in [one.unwrap(), two.unwrap()] {
        let env = invocation(&function, "env");
        let env = launched.invoke.invoke(&function, &env).await.unwrap();
        let env = text(&env);
        assert_eq!(variable(env, "HEARTH_URL"), Some("http://127.0.0.1:28000"));
        let token = variable(env, "HEARTH_TOKEN").unwrap().to_owned();
        let instance = callers.find(token.as_bytes()).unwrap();
        assert_eq!(instance.function_id, function.function_id);
        assert!(instance.is_at(LOCAL.ip()).await);
        process_provider.stop(&launched.id).await.unwrap();
        assert!(callers.find(token.as_bytes()).is_none(), "it is stopped");
        tokens.push(token);
    }
    assert_ne!(tokens[0], tokens[1]);
    let dies = process_provider.start(spec(&function)).await.unwrap();
    let env = invocation(&function, "env");
    let env = dies.invoke.invoke(&function, &env).await.unwrap();
    let token = variable(text(&env), "HEARTH_TOKEN").unwrap();
    let exit = invocation(&function, "exit 1");
    dies.invoke.invoke(&function, &exit).await.unwrap_err();
    eventually("its token is no good any more", || async {
        callers.find(token.as_bytes()).is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_instance_that_dies_is_told_of_and_its_strays_die_too() {
    let process_provider = provider(&outputs());
    let mut updates = process_provider.watch();
    let function = process("http", "http", json!({}));
    let launched = process_provider.start(spec(&function)).await.unwrap();
    let stray = text(
        &launched
            .invoke
            .invoke(&function, &invocation(&function, "spawn 600"))
            .await
            .unwrap(),
    )
    .to_owned();
    assert!(is_alive(&stray));
    let lost = launched
        .invoke
        .invoke(&function, &invocation(&function, "exit 7"))
        .await
        .unwrap_err();
    assert!(
        matches!(lost, Error::Died { .. }) && lost.to_string().contains("exit code 7"),
        "{lost}"
    );
    assert_eq!(updates.recv().await, Some(Life::Gone(launched.id)));
    is_gone(&stray).await;
}

#[tokio::test]
async fn a_start_that_fails_says_why() {
    let process_provider = provider(&outputs());
    let failed = process_provider
        .start(spec(&process("fail", "http", json!({}))))
        .await
        .unwrap_err();
    assert_eq!(
        failed.to_string(),
        "the instance did not start: exit code 3: this function does not come up"
    );
    assert_eq!(failed.effect(), Effect::Refused);
    let missing = function(
        json!({"functionId": "f", "type": "process", "provider": {"command": ["/no/such/program"]}}),
    );
    let failed = process_provider.start(spec(&missing)).await.unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("/no/such/program: No such file"),
        "{failed}"
    );
    let mut silent = spec(&process("silent", "http", json!({})));
    silent.deadline = program::within(Duration::from_millis(500));
    let failed = process_provider.start(silent).await.unwrap_err();
    assert!(failed.to_string().contains("nothing listened"), "{failed}");
    assert!(process_provider.list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_stdio_function_runs_once_an_invocation() {
    let outputs = outputs();
    let process_provider = provider(&outputs);
    let function = process("stdio", "stdio", json!({"timeoutMs": 2000}));
    let run = |payload: &'static str| {
        let (process_provider, function) = (&process_provider, &function);
        async move {
            process_provider
                .run(spec(function), &invocation(function, payload))
                .await
        }
    };
    let (phases, reply) = run("hello").await;
    assert_eq!(text(&reply.unwrap()), "HELLO");
    assert!(phases.run.is_some());
    assert_eq!(
        run("exit 9").await.1.unwrap_err().to_string(),
        "the function failed: exit code 9: boom"
    );
    assert!(matches!(
        run("sleep 60000").await.1,
        Err(Error::TimedOut { timeout_ms: 2000 })
    ));
    assert!(matches!(
        run("flood").await.1,
        Err(Error::AnswerTooLarge { .. })
    ));
    let kept = outputs.read(&function.space, &function.function_id, false);
    let lines: Vec<Line> = kept
        .map(|line| serde_json::from_slice(&line.unwrap()).unwrap())
        .collect()
        .await;
    assert!(
        lines
            .iter()
            .any(|line| line.text == "noted" && line.invocations.len() == 1),
        "{lines:?}"
    );
}

#[tokio::test]
async fn a_run_can_answer_with_all_that_it_printed_however_it_ended() {
    let function = process("stdio", "stdio", json!({"timeoutMs": 2000}));
    program::check_outputs(&provider(&outputs()), &function).await;
}

#[tokio::test]
async fn memory_is_bounded_and_the_error_says_so() {
    let process_provider = provider(&outputs());
    let function: Arc<Function> = process("stdio", "stdio", json!({"memoryMb": 32}));
    let failed = process_provider
        .run(spec(&function), &invocation(&function, "eat 256"))
        .await
        .1
        .unwrap_err();
    assert!(
        failed
            .to_string()
            .contains("resident memory over limits.memoryMb of 32 MiB"),
        "{failed}"
    );
}

#[tokio::test]
async fn a_dropped_start_and_a_dropped_run_leave_no_process() {
    let process_provider = provider(&outputs());
    let marked = |mode: &str, contract: &str| {
        let program = program::build();
        let marker = format!("marker-{}", protocol::InvocationId::random());
        let command = json!([program, mode, marker]);
        let record = json!({"functionId": "f", "type": "process", "provider": {"command": command, "contract": contract}});
        (function(record), marker)
    };
    let (silent, marker) = marked("silent", "http");
    let start = process_provider.start(spec(&silent));
    assert!(
        tokio::time::timeout(Duration::from_millis(300), start)
            .await
            .is_err()
    );
    eventually("the start is undone", || async {
        (!runs(&marker)).then_some(())
    })
    .await;
    let (slow, marker) = marked("stdio", "stdio");
    let call = invocation(&slow, "sleep 600000");
    let run = process_provider.run(spec(&slow), &call);
    assert!(
        tokio::time::timeout(Duration::from_millis(300), run)
            .await
            .is_err()
    );
    eventually("the run is undone", || async {
        (!runs(&marker)).then_some(())
    })
    .await;
}

/// Whether a process has the marker among its arguments.
fn runs(marker: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut arguments =
        processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    arguments.any(|arguments| String::from_utf8_lossy(&arguments).contains(marker))
}

#[tokio::test]
async fn nothing_survives_when_the_node_is_gone() {
    // The node's side of the link is held by a process that is then killed with SIGKILL, as a node would be.
    let (node, guard_side) = tokio::net::UnixStream::pair().unwrap();
    let guard_side = guard_side.into_std().unwrap();
    guard_side.set_nonblocking(false).unwrap();
    let mut guard = tokio::process::Command::new(GUARD)
        .args([
            "--memory-mb",
            "64",
            "--",
            "sh",
            "-c",
            "setsid sleep 600 & trap '' TERM; sleep 601",
        ])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(guard_side)))
        .spawn()
        .unwrap();
    let mut node = BufReader::new(node);
    let mut report = String::new();
    node.read_line(&mut report).await.unwrap();
    let group = report
        .trim()
        .strip_prefix("started ")
        .expect("the guard tells the group")
        .to_owned();
    assert!(is_alive(&group));
    node.write_all(b"T").await.unwrap();
    let children = || children_of(&guard.id().unwrap().to_string());
    let strays = eventually("both commands run", || async {
        Some(children()).filter(|all| all.len() >= 3)
    })
    .await;
    assert!(is_alive(&group), "it ignores the signal to end");
    drop(node);
    guard.wait().await.unwrap();
    for pid in strays {
        is_gone(&pid).await;
    }
}

#[tokio::test]
async fn a_command_hears_the_request_to_end() {
    let (mut node, guard_side) = tokio::net::UnixStream::pair().unwrap();
    let guard_side = guard_side.into_std().unwrap();
    guard_side.set_nonblocking(false).unwrap();
    let script = "trap 'echo heard; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    let mut guard = tokio::process::Command::new(GUARD)
        .args(["--", "sh", "-c", script])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(guard_side)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(guard.stdout.take().unwrap()).lines();
    assert_eq!(output.next_line().await.unwrap().as_deref(), Some("ready"));
    node.write_all(b"T").await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), output.next_line()).await;
    assert_eq!(
        heard.expect("it ends in time").unwrap().as_deref(),
        Some("heard")
    );
    assert!(guard.wait().await.unwrap().success());
}

/// All descendants of a process.
fn children_of(pid: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(pid) {
            let child = entry.file_name().into_string().unwrap();
            found.extend(children_of(&child));
            found.push(child);
        }
    }
    found
}

#[tokio::test]
async fn secrets_are_variables_and_files_that_go_with_the_instance() {
    let provider = provider(&outputs());
    let secrets = Arc::new(Secrets {
        env: vec![("DB".to_owned(), b"hunter2".to_vec().into())],
        files: vec![("tls.key".to_owned(), b"\0key".to_vec().into())],
    });
    let given = |function: &Arc<Function>| LaunchSpec {
        secrets: Arc::clone(&secrets),
        ..spec(function)
    };
    assert!(!format!("{:?}", given(&process("http", "http", json!({})))).contains("hunter2"));
    let script = r#"printf '%s ' "$DB"; wc -c < "$HEARTH_SECRETS/tls.key"; echo "$HEARTH_SECRETS""#;
    let once = function(json!({
        "functionId": "f", "type": "process",
        "provider": {"command": ["sh", "-c", script], "contract": "stdio"},
    }));
    let (_, reply) = provider.run(given(&once), &invocation(&once, "")).await;
    let printed = text(&reply.unwrap()).to_owned();
    let (told, dir) = printed.trim().split_once('\n').unwrap();
    assert_eq!(told, "hunter2 4");
    assert!(!Path::new(dir).exists(), "{dir}");

    let pooled = process("http", "http", json!({}));
    let launched = provider.start(given(&pooled)).await.unwrap();
    let asked = invocation(&pooled, "env");
    let env = launched.invoke.invoke(&pooled, &asked).await.unwrap();
    let mut lines = text(&env).lines();
    let dir = lines
        .find_map(|line| line.strip_prefix("HEARTH_SECRETS="))
        .unwrap();
    assert_eq!(
        std::fs::read(Path::new(dir).join("tls.key")).unwrap(),
        b"\0key"
    );
    provider.stop(&launched.id).await.unwrap();
    assert!(!Path::new(dir).exists(), "{dir}");
}
