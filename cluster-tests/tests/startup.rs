//! What the binary says when it can not start as it was told, and what it starts without.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::{NodeOptions, Sandbox, until};
use nix::sys::signal::Signal;
use reqwest::Method;

/// Points at which a process kills itself are for the tests of the queue alone.
#[test]
fn the_binary_has_no_fault_points() {
    let has = |text: &str| {
        let options = ["--text", "--quiet", "--fixed-strings", text];
        let mut grep = Command::new("grep");
        let found = grep.args(options).arg(hearth().get_program()).status();
        match found.expect("grep runs").code() {
            Some(0) => true,
            Some(1) => false,
            other => panic!("grep ended with {other:?}"),
        }
    };
    let sources = concat!(env!("CARGO_MANIFEST_DIR"), "/../queue/src/delivery.rs");
    let text = std::fs::read_to_string(sources).expect("read a source");
    let named = text.split("fault_point!(\"").skip(1);
    let named: Vec<_> = named.filter_map(|rest| rest.split('"').next()).collect();
    assert!(named.len() > 3, "{named:?}");
    let found: Vec<_> = named.iter().filter(|name| has(name)).collect();
    assert!(found.is_empty(), "{found:?}");
    assert!(
        has("hearth_queue_drift"),
        "texts of the queue are found in it"
    );
}

#[test]
fn a_wrong_setting_exits_64_and_names_key_value_and_what_was_expected() {
    let dir = tempfile::tempdir().expect("make a directory");
    let short = dir.path().join("short-secret");
    std::fs::write(&short, "too short").expect("write a file");
    let short = short.to_str().expect("temporary directories are UTF-8");

    check(
        &[("HEARTH_LISTEN__FUNCTIONS", "nonsense")],
        &[],
        &["listen.functions", "nonsense"],
    );
    check(&[("HEARTH_NODE__NOPE", "1")], &[], &["node.nope"]);
    check(&[("HEARTH_NOPE__NAME", "x")], &[], &["nope"]);
    check(
        &[("HEARTH_NODE__DRAIN_TIMEOUT", "soon")],
        &[],
        &["node.drain_timeout", "soon"],
    );
    check(
        &[("HEARTH_LOGS__FORMAT", "xml")],
        &[],
        &["logs.format", "xml", "json"],
    );
    check(
        &[("HEARTH_CLUSTER__PHI_THRESHOLD", "-1")],
        &[],
        &["cluster.phi_threshold", "-1"],
    );
    check(
        &[],
        &["--peer-listen", "nonsense"],
        &["listen.peer", "nonsense"],
    );
    check(&[], &["--name", "two words"], &["node.name", "two words"]);
    check(
        &[],
        &["--etcd", "not a url"],
        &["store.etcd.endpoints", "not a url"],
    );
    check(
        &[],
        &["--cluster-secret-file", short],
        &["cluster.secret_file", "32"],
    );
    check(
        &[],
        &["--cluster-secret-file", "/nonexistent"],
        &["cluster.secret_file", "/nonexistent"],
    );
    check(
        &[],
        &["--auth", "sometimes"],
        &["auth.mode", "sometimes", "required"],
    );
    check(
        &[],
        &["--tls-cert-file", short],
        &["tls.key_file", "not set"],
    );
    check(
        &[],
        &["--tls-cert-file", short, "--tls-key-file", short],
        &["tls.cert_file", short, "a certificate as PEM"],
    );
}

#[test]
fn a_plugin_that_can_not_be_loaded_exits_64_and_says_why() {
    let dir = tempfile::tempdir().expect("make a directory");
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "no module").expect("write a file");
    let text = text.to_str().expect("temporary directories are UTF-8");
    check(
        &[],
        &["--plugin", "/nonexistent.wasm"],
        &[
            "plugins.load.0.path is \"/nonexistent.wasm\"",
            "it can not be read: No such file",
        ],
    );
    check(
        &[],
        &["--plugin", text],
        &["plugins.load.0.path", "it is no WebAssembly module"],
    );
    check(
        &[(
            "HEARTH_PLUGINS__LOAD",
            "[{path=\"/a/x.wasm\"}, {path=\"/b/x.wasm\"}]",
        )],
        &[],
        &["plugins.load.1.name", "\"x\"", "no other plugin"],
    );
    check(
        &[(
            "HEARTH_PLUGINS__LOAD",
            "[{path=\"/a/x.wasm\", on_failure=\"pray\"}]",
        )],
        &[],
        &["plugins.load.0.on_failure", "pray", "refuse, continue"],
    );
}

#[test]
fn a_bind_beyond_loopback_without_auth_is_refused_with_the_way_out() {
    for flag in ["--functions-listen", "--events-listen", "--config-listen"] {
        check(
            &[],
            &[flag, "0.0.0.0:0"],
            &["0.0.0.0", "127.0.0.1", "--auth required"],
        );
    }
}

#[test]
fn settings_are_printed_as_they_are_in_effect_and_without_secrets() {
    let output = run(hearth()
        .args(["settings", "--name", "shown"])
        .env("HEARTH_STORE__ETCD__USER", "somebody")
        .env("HEARTH_STORE__ETCD__PASSWORD", "hunter2hunter2")
        .env("HEARTH_NODE__DRAIN_DELAY", "7s"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    assert!(text.contains("shown") && text.contains("7s"), "{text}");
    assert!(
        text.contains("<redacted>") && !text.contains("hunter2"),
        "{text}"
    );
}

#[test]
fn help_names_the_commands() {
    let output = run(hearth().arg("--help"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for command in ["node", "dev", "settings", "function", "cluster"] {
        assert!(text.contains(command), "{command} is not in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_port_is_named() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let busy = sandbox.node(0).functions_url("");
    let busy = busy.trim_start_matches("http://").to_owned();
    let dir = sandbox.dir().join("second");

    let mut command = hearth();
    command
        .args(["node", "--data-dir"])
        .arg(dir)
        .args(["--functions-listen", &busy]);
    command.args([
        "--events-listen",
        "127.0.0.1:0",
        "--config-listen",
        "127.0.0.1:0",
    ]);
    command.args(["--peer-listen", "127.0.0.1:0"]);
    let output = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .expect("it ran");

    let errors = said(&output);
    assert!(!output.status.success(), "{errors}");
    assert!(errors.contains(&busy), "{busy} is not in: {errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_in_use_is_refused() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let dir = sandbox.node(0).data_dir();

    let mut command = hearth();
    command
        .args(["node", "--data-dir"])
        .arg(&dir)
        .args(["--functions-listen", "127.0.0.1:0"]);
    command.args([
        "--events-listen",
        "127.0.0.1:0",
        "--config-listen",
        "127.0.0.1:0",
    ]);
    command.args(["--peer-listen", "127.0.0.1:0"]);
    let output = tokio::task::spawn_blocking(move || run(&mut command))
        .await
        .expect("it ran");

    let errors = said(&output);
    assert!(!output.status.success(), "{errors}");
    assert!(errors.contains(dir.to_str().expect("UTF-8")), "{errors}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_starts_without_store_and_engine_and_says_so() {
    let sandbox = Sandbox::builder().nodes(1).start().await;
    let options = NodeOptions {
        store_url: Some("http://127.0.0.1:9".into()),
        ..NodeOptions::default()
    };
    let node = sandbox.add_node(options);

    until("its status answers", Duration::from_secs(20), || async {
        node.try_config(Method::GET, "/v1/status", None)
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
    let ready = node.config(Method::GET, "/v1/ready", None).await;
    assert_eq!(ready.status, 503, "{ready:?}");
    until("its log names both", Duration::from_secs(20), || async {
        let log = node.log();
        log.contains("127.0.0.1:9") && log.contains("/nonexistent/docker.sock")
    })
    .await;
    node.term();
    assert!(
        node.exited(Duration::from_secs(40)).await.success(),
        "it can be stopped in that state"
    );
}

/// Runs `hearth node` with settings that are wrong, and returns what it said.
#[track_caller]
fn check(env: &[(&str, &str)], flags: &[&str], parts: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("make a directory");
    let mut command = hearth();
    command
        .arg("node")
        .arg("--data-dir")
        .arg(dir.path())
        .envs(env.iter().copied())
        .args(flags);
    let output = run(&mut command);
    let errors = said(&output);
    assert_eq!(
        output.status.code(),
        Some(64),
        "{env:?} {flags:?}: {errors}"
    );
    for part in parts {
        assert!(
            errors.contains(part),
            "{env:?} {flags:?}: {part} is not in: {errors}"
        );
    }
    errors
}

/// Runs a command that should end by itself, for 20 s at most.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let id = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
    let (done, ended) = std::sync::mpsc::channel();
    let watch = std::thread::spawn(move || {
        if ended.recv_timeout(Duration::from_secs(20)).is_err() {
            let _ = nix::sys::signal::kill(id, Signal::SIGKILL);
        }
    });
    let output = child.wait_with_output().expect("read what it says");
    let _ = done.send(());
    watch.join().expect("the watch does not panic");
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
