//! What nodes do with secrets: who gets which value, and when it goes.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{Load, Record, Sandbox, Targets, eventually, until};
use reqwest::Method;
use serde_json::json;

use crate::{
    FIRST, PATIENCE, SECOND, SHOW, base64, command, files_below, register, said, secrets, set,
    with_secrets,
};

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
