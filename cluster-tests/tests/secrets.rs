//! Secrets: given to functions on any node, changed without a failed call, and found nowhere else.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::node::hearth;
use cluster_tests::{Load, Node, NodeOptions, Record, Sandbox, Targets, eventually, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

/// The values of a variable in the environments of this sandbox's instances.
fn variables(sandbox: &Sandbox, name: &str) -> BTreeSet<String> {
    let mark = format!("SANDBOX={}", sandbox.id());
    let mut values = BTreeSet::new();
    let processes = std::fs::read_dir("/proc").expect("processes are listed");
    for process in processes.flatten() {
        let Ok(environment) = std::fs::read(process.path().join("environ")) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let set: Vec<&str> = environment.split('\0').collect();
        if set.contains(&mark.as_str()) {
            let prefix = format!("{name}=");
            values.extend(
                set.iter()
                    .filter_map(|set| set.strip_prefix(&prefix))
                    .map(str::to_owned),
            );
        }
    }
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_set_on_one_node_is_given_on_another_and_changes_without_a_failed_call() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let dir = memory.path().to_str().expect("a path of text");
    let sandbox = Sandbox::builder()
        .nodes(3)
        .env("HEARTH_SECRETS__DIR", dir)
        .start()
        .await;
    let nodes = sandbox.nodes();
    let function = with_secrets(
        &sandbox,
        &Record::command("show", ["/bin/sh", "-c", SHOW]).stdio(),
        secrets(),
    );

    // Neither is there without the other.
    let refused = nodes[1]
        .config(
            Method::POST,
            "/v1/spaces/default/functions",
            Some(&function),
        )
        .await;
    assert_eq!(refused.status, 400, "{refused:?}");
    let told = refused.json().to_string();
    assert!(
        told.contains("provider.secrets[0].name is \\\"db\\\""),
        "{told}"
    );
    let made = set(&nodes[0], "db", FIRST).await;
    register(&sandbox, &nodes[1], &function).await;
    let path = "/v1/spaces/default/secrets/db";
    let refused = nodes[2].config(Method::DELETE, path, None).await;
    assert_eq!(refused.status, 409, "{refused:?}");
    assert!(
        refused.json().to_string().contains("used by: show"),
        "{refused:?}"
    );
    for node in &nodes {
        let answer = node.invoke("show", json!({})).await;
        let shown = answer.result();
        let shown: Vec<_> = shown.as_str().expect("a text").split('|').collect();
        assert_eq!(shown[..3], [FIRST, FIRST, "400"], "{answer:?}");
        assert!(shown[3].starts_with(dir), "{answer:?}");
        let listed = node
            .config(Method::GET, "/v1/spaces/default/secrets", None)
            .await
            .json();
        assert_eq!(
            listed["secrets"][0]["functions"],
            json!(["show"]),
            "{listed}"
        );
        assert_eq!(listed["secrets"][0]["version"], made["version"]);
    }
    assert_eq!(
        files_below(memory.path()),
        [""; 0],
        "a run's files go with it"
    );

    // One that stays up gets another instance, and no call fails meanwhile.
    let pooled = Record::process("pooled", "hello").concurrency(8);
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &pooled, secrets()),
    )
    .await;
    let load = Load::start(Targets::Each(nodes.clone()), 4, "pooled", |_| json!({}));
    load.more_successes(20, PATIENCE).await;
    assert_eq!(
        variables(&sandbox, "DB_PASSWORD"),
        BTreeSet::from([FIRST.to_owned()])
    );
    let changed = set(&nodes[2], "db", SECOND).await;
    assert_ne!(changed["version"], made["version"]);
    assert_eq!(changed["functions"], json!(["pooled", "show"]));
    until(
        "only instances with the new value are left",
        PATIENCE,
        || async { variables(&sandbox, "DB_PASSWORD") == BTreeSet::from([SECOND.to_owned()]) },
    )
    .await;
    load.more_successes(20, PATIENCE).await;
    let calls = load.stop().await;
    assert_all_ok(&calls);
    let instances: BTreeSet<_> = (calls.iter().filter_map(|call| call.outcome.as_ref().ok()))
        .map(cluster_tests::Answer::instance)
        .collect();
    assert!(instances.len() > 1, "{instances:?}");
    for node in &nodes {
        let answer = node.invoke("show", json!({})).await;
        assert!(
            answer
                .result()
                .as_str()
                .is_some_and(|text| text.starts_with(SECOND)),
            "{answer:?}"
        );
    }
    let files = files_below(memory.path());
    let values: BTreeSet<_> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap_or_default())
        .collect();
    assert_eq!(values, BTreeSet::from([SECOND.to_owned()]), "{files:?}");

    // The function goes, its instances and their files with it, and then the secret may.
    for id in ["pooled", "show"] {
        nodes[1].delete(id).await;
    }
    until("no file is left", PATIENCE, || async {
        files_below(memory.path()).is_empty()
    })
    .await;
    let deleted = nodes[0].config(Method::DELETE, path, None).await;
    assert_eq!(deleted.status, 204, "{deleted:?}");
    assert_eq!(
        nodes[0].config(Method::DELETE, path, None).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_killed_leaves_no_file_and_starts_instances_without_the_store() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let dir = memory.path().to_str().expect("a path of text");
    let mut sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_SECRETS__DIR", dir)
        .start()
        .await;
    let node = sandbox.node(0);
    set(&node, "db", FIRST).await;
    let show = Record::command("show", ["/bin/sh", "-c", SHOW]).stdio();
    register(&sandbox, &node, &with_secrets(&sandbox, &show, secrets())).await;
    let pooled = Record::process("pooled", "hello");
    register(&sandbox, &node, &with_secrets(&sandbox, &pooled, secrets())).await;
    assert!(node.invoke("pooled", json!({})).await.is_ok());
    assert_eq!(files_below(memory.path()).len(), 1);
    until("the data key is copied", PATIENCE, || async {
        node.data_dir().join("vault.key").is_file()
    })
    .await;
    until("the snapshot has the function", PATIENCE, || async {
        let snapshot = std::fs::read_to_string(node.data_dir().join("functions.snapshot"));
        snapshot.is_ok_and(|text| {
            text.contains("functions/default/pooled") && text.contains("secrets/default/db")
        })
    })
    .await;

    node.kill9();
    assert_eq!(files_below(memory.path()).len(), 1, "it had no time to");
    sandbox.etcd_mut().stop();
    node.restart();
    eventually(
        "it runs what it knows, without the store",
        Duration::from_secs(40),
        || async {
            match node.try_invoke("show", json!({})).await {
                Ok(answer) if answer.is_ok() => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
    assert_eq!(files_below(memory.path()), [""; 0], "what was left is gone");
    let answer = node.invoke("show", json!({})).await;
    assert!(
        answer
            .result()
            .as_str()
            .is_some_and(|text| text.starts_with(FIRST)),
        "{answer:?}"
    );
    sandbox.etcd().cont();

    node.term();
    node.exited(PATIENCE).await;
    assert_eq!(
        std::fs::read_dir(memory.path())
            .expect("it is there")
            .count(),
        0
    );
}

/// Listens for whatever is posted, and keeps it.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let kept = Arc::new(Mutex::new(Vec::new()));
    let tasks = tokio_util::task::TaskTracker::new();
    let (all, inner) = (Arc::clone(&kept), tasks.clone());
    tasks.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            inner.spawn(async move {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(bytes @ 1..) = connection.read(&mut piece).await {
                    all.lock()
                        .expect("no holder panics")
                        .extend_from_slice(&piece[..bytes]);
                    // Said early, which an exporter does not mind.
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let _ = connection.write_all(answer).await;
                }
            });
        }
    });
    (format!("http://{address}/v1/traces"), kept)
}

fn has(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

/// Each file below a directory that has one of the values, in the open or in base64.
fn leaks(dir: &Path, hidden: &[String]) -> Vec<String> {
    let files = files_below(dir).into_iter();
    let has_one = |path: &String| {
        let bytes = std::fs::read(path).unwrap_or_default();
        hidden.iter().any(|text| has(&bytes, text))
    };
    files.filter(has_one).collect()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_found_nowhere_but_in_its_instances() {
    let (endpoint, traced) = collector().await;
    let mut builder = Sandbox::builder()
        .env("HEARTH_TELEMETRY__OTLP_ENDPOINT", &endpoint)
        .env("HEARTH_LOGS__LEVEL", "trace,hyper=trace,h2=trace,tonic=trace,tower=trace,reqwest=trace,chitchat=trace,bollard=trace");
    for _ in 0..3 {
        builder = builder.node(NodeOptions::default());
    }
    let sandbox = builder.start().await;
    let nodes = sandbox.nodes();
    let hidden: Vec<String> = [FIRST, SECOND]
        .iter()
        // As it would stand in base64 by itself.
        .flat_map(|text| [(*text).to_owned(), base64(text)])
        .collect();

    let file = sandbox.dir().join("value");
    let mut spoken = Vec::new();
    let made = command(&nodes[0], &["secret", "set", "db", "--file", "-"], FIRST);
    assert!(made.status.success(), "{made:?}");
    spoken.push(said(&made));
    // Counts what it was given, and tells it not.
    let script = r#"printf '%s %s' "${#DB_PASSWORD}" "$(wc -c < "$HEARTH_SECRETS/db.txt")""#;
    let count = Record::command("count", ["/bin/sh", "-c", script]).stdio();
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &count, secrets()),
    )
    .await;
    let pooled = Record::process("pooled", "hello");
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &pooled, secrets()),
    )
    .await;
    for node in &nodes {
        for id in ["count", "pooled"] {
            let answer = node.invoke(id, json!({})).await;
            assert!(answer.is_ok(), "{answer:?}");
            spoken.push(format!("{answer:?}"));
        }
    }
    std::fs::write(&file, SECOND).expect("write a file");
    let path = file.to_str().expect("a path of text");
    for words in [
        &["secret", "set", "db", "--file", path][..],
        &["--json", "secret", "set", "db", "--file", path],
        &["secret", "list"],
        &["--json", "secret", "list"],
        &["secret", "delete", "db"],
        &["function", "get", "pooled"],
        &["export"],
    ] {
        spoken.push(said(&command(&nodes[1], words, "")));
    }
    std::fs::remove_file(&file).expect("remove a file");
    // Bodies that are refused are not repeated either.
    for body in [
        json!({"value": [FIRST]}),
        json!({FIRST: 1}),
        json!({"base64": format!("!{FIRST}")}),
        json!({"value": FIRST, "base64": FIRST}),
    ] {
        let refused = nodes[2]
            .config(Method::PUT, "/v1/spaces/default/secrets/x", Some(&body))
            .await;
        assert_eq!(refused.status, 400, "{refused:?}");
        spoken.push(format!("{refused:?}"));
    }
    for node in &nodes {
        assert!(node.invoke("count", json!({})).await.is_ok());
        for path in [
            "/metrics",
            "/v1/cluster",
            "/v1/status",
            "/v1/export",
            "/v1/spaces/default",
            "/v1/spaces/default/functions",
            "/v1/spaces/default/functions/pooled",
            "/v1/spaces/default/functions/count/logs",
            "/v1/spaces/default/secrets",
            "/v1/spaces/default/executions",
            "/v1/dead-letters",
            "/debug/actors",
            "/debug/route?function=pooled",
        ] {
            let answer = node
                .request(Method::GET, &node.config_url(path))
                .send()
                .await;
            spoken.push(answer.expect("it answers").text().await.expect("a text"));
        }
    }
    let leaked: Vec<_> = spoken
        .iter()
        .filter(|text| hidden.iter().any(|hidden| text.contains(hidden)))
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    until("spans are exported", PATIENCE, || async {
        has(&traced.lock().expect("no holder panics"), "start_instance")
    })
    .await;
    for text in &hidden {
        assert!(
            !has(&traced.lock().expect("no holder panics"), text),
            "in a trace"
        );
    }
    for node in &nodes {
        assert!(node.log().contains("TRACE"), "it logs all there is");
    }
    // Logs, data directories and etcd's own files are below it; what the record says in the open is found there.
    let listed = nodes[0]
        .config(Method::GET, "/v1/spaces/default/secrets", None)
        .await
        .json();
    let version = listed["secrets"][0]["version"]
        .as_str()
        .expect("a version")
        .to_owned();
    assert!(!leaks(sandbox.dir(), &[version]).is_empty());
    assert_eq!(leaks(sandbox.dir(), &hidden), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_move_with_a_backup_and_only_with_the_secret_of_their_cluster() {
    let from = Sandbox::processes(1).await;
    let node = from.node(0);
    set(&node, "db", FIRST).await;
    let show = Record::command("show", ["/bin/sh", "-c", SHOW]).stdio();
    register(&from, &node, &with_secrets(&from, &show, secrets())).await;
    let file = from.dir().join("export.json");
    let path = file.to_str().expect("a path of text");
    let exported = command(&node, &["export", "--out", path], "");
    assert!(exported.status.success(), "{exported:?}");
    let document = std::fs::read_to_string(&file).expect("read the file");
    assert!(document.contains("vault/key") && document.contains("secrets/default/db"));
    assert!(!document.contains(FIRST) && !document.contains(&base64(FIRST)));
    // Where it is from it is all there.
    let again = command(&node, &["import", path], "");
    assert!(said(&again).contains("imported 0 records"), "{again:?}");

    let into = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_CLUSTER__SECRET_RELOAD_INTERVAL", "200ms")
        .start()
        .await;
    let other = into.node(0);
    let refused = command(&other, &["import", path], "");
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let told = said(&refused);
    assert!(
        told.contains("further line into cluster.secret_file"),
        "{told}"
    );
    let listed = other
        .config(Method::GET, "/v1/spaces/default/functions", None)
        .await
        .json();
    assert_eq!(listed["functions"], json!([]), "nothing is stored then");

    let secret = |sandbox: &Sandbox| {
        std::fs::read_to_string(sandbox.dir().join("secret")).expect("a secret")
    };
    let both = format!("{}\n{}\n", secret(&into).trim(), secret(&from).trim());
    std::fs::write(into.dir().join("secret"), both).expect("write a file");
    eventually(
        "it is imported with the secret of its cluster",
        PATIENCE,
        || async {
            let imported = command(&other, &["import", path], "");
            match imported.status.success() {
                true => Ok(()),
                false => Err(said(&imported)),
            }
        },
    )
    .await;
    eventually("the function has its secret", PATIENCE, || async {
        match other.try_invoke("show", json!({})).await {
            Ok(answer)
                if answer.is_ok()
                    && answer
                        .result()
                        .as_str()
                        .is_some_and(|text| text.starts_with(FIRST)) =>
            {
                Ok(())
            }
            told => Err(format!("{told:?}")),
        }
    })
    .await;
}

/// What a container can see of others' secrets: its own environment, mounts, memory file systems and processes.
const SEARCH: &str = "/busybox env; /busybox ls -laR /run /dev/shm 2>&1; /busybox cat /run/secrets/* /dev/shm/* /dev/shm/*/*/* /proc/*/environ /proc/*/cmdline /proc/mounts 2>/dev/null; true";

#[tokio::test(flavor = "multi_thread")]
async fn containers_have_their_secrets_in_memory_and_no_others() {
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let dir = memory.path().to_str().expect("a path of text");
    let sandbox = Sandbox::builder()
        .nodes(2)
        .containers()
        .env("HEARTH_SECRETS__DIR", dir)
        .env("HEARTH_LOGS__LEVEL", "trace,bollard=trace")
        .start()
        .await;
    let (node, other) = (sandbox.node(0), sandbox.node(1));
    let image = sandbox.engine().shell_image(sandbox.dir()).await;
    set(&node, "db", FIRST).await;
    // Root without capabilities reads what everybody may read, and writes nothing.
    let script = r#"printf '%s|%s|' "$DB_PASSWORD" "$(/busybox cat "$HEARTH_SECRETS/db.txt")"; /busybox grep ' /run/secrets ' /proc/mounts; echo x > /run/secrets/new 2>/dev/null || echo refused"#;
    let show = Record::shell("show", image, script);
    register(&sandbox, &node, &with_secrets(&sandbox, &show, secrets())).await;
    for node in sandbox.nodes() {
        let answer = node.invoke("show", json!({})).await;
        let shown = answer.result();
        let shown = shown.as_str().unwrap_or_default();
        assert!(
            shown.starts_with(&format!("{FIRST}|{FIRST}|tmpfs ")),
            "{answer:?}"
        );
        assert!(
            shown.contains(" ro") && shown.trim_end().ends_with("refused"),
            "{answer:?}"
        );
    }
    let pooled = with_secrets(&sandbox, &Record::container("pooled", "hello"), secrets());
    register(&sandbox, &node, &pooled).await;
    let answer = node.invoke("pooled", json!({})).await;
    assert!(answer.is_ok(), "{answer:?}");
    let home = sandbox.named(answer.node.as_deref().expect("a node"));
    until(
        "a run's files are gone, an instance's are there",
        PATIENCE,
        || async { files_below(memory.path()).len() == 1 },
    )
    .await;

    // Another function, on the same machine and while that one runs.
    let search = Record::shell("search", image, SEARCH);
    sandbox.register(&search).await;
    for node in sandbox.nodes() {
        let answer = node.invoke("search", json!({})).await;
        let found = answer.result().as_str().unwrap_or_default().to_owned();
        assert!(
            found.contains("HEARTH_URL") && found.contains("proc /proc"),
            "{answer:?}"
        );
        assert!(
            !found.contains(FIRST) && !found.contains("db.txt"),
            "{found}"
        );
    }

    // What runs on is adopted with its files.
    let before = answer.instance();
    home.kill9();
    home.restart();
    sandbox.wait_settled().await;
    let again = eventually("the instance answers again", PATIENCE, || async {
        match home.try_invoke("pooled", json!({})).await {
            Ok(answer) if answer.is_ok() => Ok(answer),
            told => Err(format!("{told:?}")),
        }
    })
    .await;
    assert_eq!(again.instance(), before, "it was adopted");
    assert_eq!(files_below(memory.path()).len(), 1);

    // What has another secret by then goes, and its files.
    home.kill9();
    let left = if home.name() == node.name() {
        &other
    } else {
        &node
    };
    set(left, "db", SECOND).await;
    home.restart();
    sandbox.wait_settled().await;
    until("what was left is gone", PATIENCE, || async {
        let files = files_below(memory.path());
        files
            .iter()
            .all(|file| std::fs::read_to_string(file).is_ok_and(|value| value == SECOND))
    })
    .await;
    let answer = home.invoke("pooled", json!({})).await;
    assert!(answer.is_ok() && answer.instance() != before, "{answer:?}");
    // What the engine was sent has the variables.
    for node in sandbox.nodes() {
        let log = node.log();
        let is_hidden = [FIRST, SECOND].iter().all(|value| !log.contains(value));
        assert!(is_hidden, "in the log of {}", node.name());
    }
    left.delete("pooled").await;
    until("no file is left", PATIENCE, || async {
        files_below(memory.path()).is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_secret_of_the_cluster_keeps_secrets_readable() {
    let sandbox = Sandbox::builder()
        .nodes(2)
        .env("HEARTH_CLUSTER__SECRET_RELOAD_INTERVAL", "200ms")
        .start()
        .await;
    let nodes = sandbox.nodes();
    set(&nodes[0], "db", FIRST).await;
    let show = Record::command("show", ["/bin/sh", "-c", SHOW]).stdio();
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &show, secrets()),
    )
    .await;
    let file = sandbox.dir().join("secret");
    let path = file.to_str().expect("a path of text");
    let words = ["cluster", "rotate-secret", "--secret-file", path];
    let rotated = command(&nodes[0], &words, "");
    assert!(rotated.status.success(), "{rotated:?}");
    // A node that starts has the new one only.
    nodes[1].kill9();
    nodes[1].restart();
    sandbox.wait_settled().await;
    for node in &nodes {
        let answer = node.invoke("show", json!({})).await;
        let shown = answer.result();
        assert!(
            shown.as_str().is_some_and(|text| text.starts_with(FIRST)),
            "{answer:?}"
        );
    }
    set(&nodes[1], "db", SECOND).await;
    eventually("what is set after it is given", PATIENCE, || async {
        let answer = nodes[0].invoke("show", json!({})).await;
        match answer.result().as_str() {
            Some(text) if text.starts_with(SECOND) => Ok(()),
            _ => Err(format!("{answer:?}")),
        }
    })
    .await;
}
