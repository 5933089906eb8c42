//! The container engine restarts, or hangs. Each test has an engine of its own, which needs root.

use std::time::Duration;

use cluster_tests::engine::PrivateEngine;
use cluster_tests::load::assert_all_ok;
use cluster_tests::record::image;
use cluster_tests::{Load, Node, Record, Sandbox, Targets, eventually, until};
use futures_util::future::join_all;
use serde_json::json;

/// How soon functions run again after the engine is back.
const BACK: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn recovers_from_an_engine_restart() {
    let work = tempfile::tempdir().expect("make a directory");
    let private = PrivateEngine::start(&work.path().join("engine"), &[&image("hello")]).await;
    let sandbox = Sandbox::builder()
        .nodes(2)
        .engine(private.engine())
        .start()
        .await;
    let (_, home) = sandbox
        .register_warm(&Record::container("contained", "hello"), json!({}))
        .await;
    sandbox
        .register_warm(&Record::process("local", "hello").concurrency(8), json!({}))
        .await;

    // Local processes need no engine.
    let load = Load::start(Targets::Each(sandbox.nodes()), 2, "local", |_| json!({}));
    load.more_successes(20, Duration::from_secs(20)).await;
    private.end();
    load.more_successes(20, Duration::from_secs(20)).await;
    let missing = home.invoke("contained", json!({})).await;
    assert!(
        matches!(missing.status, 502 | 503),
        "its container ended with the engine: {missing:?}"
    );
    private.begin().await;

    for node in sandbox.nodes() {
        eventually(
            &format!("{} runs containers again", node.name()),
            BACK,
            || async {
                let answer = node.invoke("contained", json!({})).await;
                if answer.is_ok() {
                    Ok(())
                } else {
                    Err(format!("{answer:?}"))
                }
            },
        )
        .await;
    }
    assert_all_ok(&load.stop().await);
    eventually("no container is left that is no instance", BACK, || async {
        let containers = sandbox.containers_of("contained").await;
        let instances = join_all(sandbox.nodes().iter().map(container_instances)).await;
        let count: usize = instances.iter().sum();
        if containers.len() == count {
            Ok(())
        } else {
            Err(format!("{containers:#?} against {count}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_containers_serve_while_the_engine_hangs() {
    let work = tempfile::tempdir().expect("make a directory");
    let private = PrivateEngine::start(&work.path().join("engine"), &[&image("hello")]).await;
    let sandbox = Sandbox::builder()
        .nodes(2)
        .engine(private.engine())
        .env("HEARTH_DOCKER__CALL_TIMEOUT", "2s")
        .env("HEARTH_NODE__START_TIMEOUT", "5s")
        .start()
        .await;
    sandbox
        .register_warm(
            &Record::container("warm", "hello").concurrency(8),
            json!({}),
        )
        .await;
    sandbox.register(&Record::container("cold", "hello")).await;
    let node = sandbox.node(0);

    let load = Load::start(Targets::Each(sandbox.nodes()), 4, "warm", |_| json!({}));
    load.more_successes(40, Duration::from_secs(20)).await;
    private.stop();
    let refused = node.invoke("cold", json!({})).await;
    assert!(matches!(refused.status, 502..=504), "{refused:?}");
    assert_eq!(
        refused.component.as_deref(),
        Some("provider"),
        "{refused:?}"
    );
    assert!(refused.elapsed < Duration::from_secs(12), "{refused:?}");
    load.more_successes(100, Duration::from_secs(20)).await;
    assert!(
        node.is_ready().await,
        "a node without its engine serves what it can"
    );
    private.cont();

    eventually("cold starts work again", BACK, || async {
        let answer = node.invoke("cold", json!({})).await;
        if answer.is_ok() {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    })
    .await;
    assert_all_ok(&load.stop().await);
    until("what the hang left half made is gone", BACK, || async {
        let instances = join_all(sandbox.nodes().iter().map(container_instances)).await;
        sandbox.containers_now().await.len() == instances.iter().sum::<usize>()
    })
    .await;
}

/// How many container instances the node has up, by the functions they belong to.
async fn container_instances(node: &Node) -> usize {
    let Ok(cluster) = node.cluster().await else {
        return 0;
    };
    let own = cluster
        .nodes
        .into_iter()
        .filter(|seen| seen.name == node.name());
    let hints = own.flat_map(|own| own.hints);
    let ours = hints.filter(|hint| {
        hint.function
            .as_deref()
            .is_some_and(|function| !function.contains("local"))
    });
    ours.map(|hint| hint.instance_ids.len()).sum()
}
