//! Records change and go while calls come in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{Load, Record, Sandbox, Targets, eventually, until};
use futures_util::future::join;
use serde_json::json;

/// An old instance is gone 5 s after its last call; a busy machine may take as much again.
const GONE: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_update_never_mixes_an_old_command_with_new_settings() {
    let sandbox = Sandbox::processes(3).await;
    let version = |version: &str| {
        let script = format!("echo command {version}, environment $VERSION");
        Record::command("versions", ["/bin/sh", "-c", &script])
            .env("VERSION", version)
            .stdio()
    };
    sandbox.register(&version("1")).await;

    let load = Load::start(Targets::Each(sandbox.nodes()), 3, "versions", |_| json!({}));
    load.more_successes(10, Duration::from_secs(20)).await;
    for round in 2..=6 {
        let node = sandbox.node(round % 3);
        node.update(&sandbox.record(&version(&round.to_string())))
            .await;
        // The write has answered, so that node runs nothing older any more.
        let answer = node.invoke("versions", json!({})).await;
        let expected = format!("command {round}, environment {round}");
        assert_eq!(
            answer.result().as_str().map(str::trim),
            Some(expected.as_str())
        );
        load.more(10, Duration::from_secs(20)).await;
    }
    let calls = load.stop().await;

    assert_all_ok(&calls);
    let pairs: BTreeSet<_> = (1..=6)
        .map(|round| format!("command {round}, environment {round}"))
        .collect();
    for call in &calls {
        let result = call.outcome.as_ref().expect("all calls succeeded").result();
        assert!(
            result
                .as_str()
                .is_some_and(|text| pairs.contains(text.trim())),
            "{call:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_never_mixes_an_old_image_with_new_settings() {
    let sandbox = Sandbox::containers(2).await;
    // The two images answer in different ways, and an instance's environment can be read from the engine.
    let version = |image: &str| {
        Record::container("pairs", image)
            .env("VERSION", image)
            .concurrency(8)
    };
    sandbox.register_warm(&version("hello"), json!({})).await;
    let hello = sandbox.containers_now().await[0].image.clone();

    let load = Load::start(
        Targets::Each(sandbox.nodes()),
        4,
        "pairs",
        |_| json!({ "ms": 5 }),
    );
    load.more_successes(20, Duration::from_secs(20)).await;
    let mut seen = BTreeMap::new();
    for (round, image) in ["sleep", "hello", "sleep"].into_iter().enumerate() {
        let node = sandbox.node(round % 2);
        node.update(&sandbox.record(&version(image))).await;
        let field = if image == "hello" {
            "hello"
        } else {
            "slept_ms"
        };
        let answer = node.invoke("pairs", json!({ "ms": 5 })).await;
        assert!(
            answer.result().get(field).is_some(),
            "the write has answered: {answer:?}"
        );
        for container in sandbox.containers_now().await {
            if let Some(environment) = sandbox.engine().variable(&container.id, "VERSION").await {
                seen.insert(container.id, (container.image, environment));
            }
        }
        load.more(20, Duration::from_secs(20)).await;
    }
    let calls = load.stop().await;

    assert_all_ok(&calls);
    assert!(seen.len() >= 2, "{seen:?}");
    for (image, environment) in seen.values() {
        assert_eq!(*image == hello, environment == "hello", "{seen:#?}");
    }
    eventually("the instances of old versions are gone", GONE, || async {
        let left = sandbox.containers_now().await;
        if left.iter().all(|left| left.image != hello) {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_function_finishes_its_call_and_then_is_gone() {
    let sandbox = Sandbox::containers(2).await;
    let (_, home) = sandbox
        .register_warm(&Record::container("sleep", "sleep"), json!({ "ms": 1 }))
        .await;
    let other = sandbox.others(home.name())[0].clone();

    let delete = async {
        until("the call is in flight", Duration::from_secs(10), || async {
            home.in_flight().await > 0
        })
        .await;
        other.delete("sleep").await;
        let after = other.invoke("sleep", json!({ "ms": 1 })).await;
        assert_eq!(
            after.summary(),
            "404 function_not_found;gateway",
            "{after:?}"
        );
    };
    let (answer, ()) = join(home.invoke("sleep", json!({ "ms": 3_000 })), delete).await;

    assert!(answer.is_ok(), "it was admitted before: {answer:?}");
    until("its container is gone", GONE, || async {
        sandbox.containers_now().await.is_empty()
    })
    .await;
    until("the other node does not know it either", GONE, || async {
        !home.knows("sleep").await
    })
    .await;
    let after = home.invoke("sleep", json!({ "ms": 1 })).await;
    assert_eq!(after.status, 404, "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_without_effect_on_instances_keeps_them_warm() {
    let sandbox = Sandbox::processes(1).await;
    let (first, node) = sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;

    node.update(&sandbox.record(&Record::process("hello", "hello").max(5).timeout_ms(5_000)))
        .await;

    let answer = node.invoke("hello", json!({})).await;
    assert_eq!(answer.start.as_deref(), Some("warm"), "{answer:?}");
    assert_eq!(answer.instance(), first.instance());
}
