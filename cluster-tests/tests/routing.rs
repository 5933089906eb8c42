//! Where a call runs: on a free warm slot wherever it is, else on as few new instances as the demand needs.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::{Record, Sandbox, eventually, until};
use futures_util::future::join_all;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn forwards_to_warm_peer() {
    let sandbox = Sandbox::processes(3).await;
    let (first, home) = sandbox
        .register_warm(&Record::process("hello", "hello"), json!({}))
        .await;
    assert_eq!(first.start.as_deref(), Some("cold"));

    for node in sandbox.nodes() {
        let answer = node.invoke("hello", json!({ "name": "Ada" })).await;
        let route = if node.name() == home.name() {
            "local"
        } else {
            "forwarded"
        };
        assert_eq!(answer.result()["hello"], "Ada");
        assert_eq!(answer.instance(), first.instance());
        assert_eq!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
        assert_eq!(answer.start.as_deref(), Some("warm"), "{answer:?}");
        assert_eq!(answer.route.as_deref(), Some(route), "{answer:?}");
        assert!(answer.invocation.is_some(), "{answer:?}");
        assert!(
            answer
                .timing
                .as_deref()
                .is_some_and(|timing| timing.contains("run")),
            "{answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwards_to_warm_container() {
    let sandbox = Sandbox::containers(3).await;
    let (first, home) = sandbox
        .register_warm(&Record::container("hello", "hello"), json!({}))
        .await;

    for node in sandbox.nodes() {
        let answer = node.invoke("hello", json!({ "name": "Ada" })).await;
        assert_eq!(answer.instance(), first.instance());
        assert_eq!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
        assert_eq!(answer.start.as_deref(), Some("warm"), "{answer:?}");
    }
    assert_eq!(sandbox.containers_now().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_one_container_for_fifty_first_calls() {
    let sandbox = Sandbox::containers(3).await;
    sandbox
        .register(&Record::container("sleep", "sleep").concurrency(50))
        .await;

    let node = sandbox.node(0);
    let answers = join_all((0..50).map(|_| node.invoke("sleep", json!({ "ms": 200 })))).await;

    let instances: BTreeSet<_> = answers.iter().map(|answer| answer.instance()).collect();
    assert_eq!(instances.len(), 1, "{instances:?}");
    assert_eq!(sandbox.containers_now().await.len(), 1);
    assert!(
        answers
            .iter()
            .any(|answer| answer.start.as_deref() == Some("cold"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_the_concurrency_limit_inside_the_function() {
    let sandbox = Sandbox::processes(2).await;
    sandbox
        .register(&Record::process("sleep", "sleep").concurrency(3).max(1))
        .await;

    let node = sandbox.node(0);
    let answers = join_all((0..12).map(|_| node.invoke("sleep", json!({ "ms": 100 })))).await;

    let seen = answers
        .iter()
        .map(|answer| answer.result()["in_flight_max"].as_u64());
    assert_eq!(
        seen.max(),
        Some(Some(3)),
        "three slots are filled and never a fourth"
    );
    let instances: BTreeSet<_> = answers.iter().map(|answer| answer.instance()).collect();
    assert_eq!(instances.len(), 1, "{instances:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_no_more_instances_than_max() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(&Record::process("sleep", "sleep").max(3))
        .await;

    let node = sandbox.node(0);
    let answers = join_all((0..12).map(|_| node.invoke("sleep", json!({ "ms": 100 })))).await;

    let instances: BTreeSet<_> = answers.iter().map(|answer| answer.instance()).collect();
    assert!(instances.len() <= 3, "{instances:?}");
    assert!(
        answers
            .iter()
            .all(|answer| answer.result()["in_flight_max"] == 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sheds_calls_that_nobody_may_wait_for() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_EXECUTOR__WAITERS_MAX", "2")
        .start()
        .await;
    let (_, node) = sandbox
        .register_warm(
            &Record::process("sleep", "sleep").max(1),
            json!({ "ms": 1 }),
        )
        .await;

    let answers = join_all((0..10).map(|_| node.invoke("sleep", json!({ "ms": 500 })))).await;

    let (good, shed): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.is_ok());
    assert_eq!(good.len(), 3, "one runs and two wait; shed: {shed:?}");
    for answer in shed {
        assert_eq!(answer.status, 429, "{answer:?}");
        assert_eq!(answer.error.as_deref(), Some("function_busy"), "{answer:?}");
        assert!(answer.retry_after.is_some(), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_min_up_and_stops_idle_instances() {
    let sandbox = Sandbox::processes(1).await;
    sandbox
        .register(
            &Record::process("kept", "hello")
                .min(1)
                .max(2)
                .idle_seconds(1),
        )
        .await;
    sandbox
        .register(&Record::process("idle", "hello").idle_seconds(1))
        .await;
    let node = sandbox.node(0);

    eventually(
        "the one of min is up without a call",
        Duration::from_secs(10),
        || async {
            let instances = node.instance_ids().await?;
            if instances.len() == 1 {
                Ok(())
            } else {
                Err(format!("{instances:?}"))
            }
        },
    )
    .await;
    let kept = node.invoke("kept", json!({})).await;
    assert_eq!(kept.start.as_deref(), Some("warm"), "{kept:?}");

    assert!(node.invoke("idle", json!({})).await.is_ok());
    until(
        "the idle instance is stopped",
        Duration::from_secs(10),
        || async {
            node.instance_ids()
                .await
                .is_ok_and(|instances| instances.len() == 1)
        },
    )
    .await;
    assert_eq!(
        node.invoke("kept", json!({})).await.instance(),
        kept.instance()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_stdio_functions_anew_each_time() {
    let sandbox = Sandbox::processes(2).await;
    sandbox
        .register(&Record::process("count", "wordcount").stdio())
        .await;

    for node in sandbox.nodes() {
        let answer = node.invoke("count", json!("one two two")).await;
        let text = answer.result();
        let text = text
            .as_str()
            .expect("the result of a stdio function is a string");
        let report: serde_json::Value = serde_json::from_str(text).expect("wordcount writes JSON");
        assert_eq!(report["words"], 3);
        assert_eq!(
            answer.start.as_deref(),
            Some("cold"),
            "a stdio function is never warm: {answer:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_stdio_functions_in_containers() {
    let sandbox = Sandbox::containers(1).await;
    sandbox
        .register(&Record::container("count", "wordcount").stdio())
        .await;

    let answer = sandbox.node(0).invoke("count", json!("one two two")).await;

    assert!(
        answer
            .result()
            .as_str()
            .is_some_and(|text| text.contains(r#""words":3"#)),
        "{answer:?}"
    );
    until("its container is gone", Duration::from_secs(5), || async {
        sandbox.containers_now().await.is_empty()
    })
    .await;
}
