//! The docker provider against a real engine.
#![cfg(feature = "docker")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "docker/callers.rs"]
mod callers;
#[path = "support/engine.rs"]
mod engine;
#[path = "support/program.rs"]
mod program;

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{RemoveContainerOptionsBuilder, RemoveImageOptions};
use futures_util::StreamExt;
use protocol::{Effect, Function, NodeId};
use providers::output::Line;
use providers::{Error, Launch, Life};
use serde_json::json;

use engine::{Cluster, IMAGE};
use program::{eventually, function, invocation, spec};

fn container(mode: &str, contract: &str, more: serde_json::Value) -> Arc<Function> {
    let mut record = json!({
        "functionId": "f",
        "type": "container",
        "provider": {"image": IMAGE, "contract": contract, "command": ["/function", mode], "env": {"GREETING": "hello"}},
    });
    record
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().cloned().unwrap_or_default());
    function(record)
}

fn http(more: serde_json::Value) -> Arc<Function> {
    container("http", "http", more)
}

fn text(reply: &protocol::Reply) -> &str {
    std::str::from_utf8(reply.body.whole()).unwrap()
}

#[tokio::test]
async fn an_instance_starts_answers_and_leaves_nothing() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let digest = docker
        .resolve_present(IMAGE)
        .await
        .unwrap()
        .expect("the image is present");
    let mut record = serde_json::to_value(&*http(json!({"limits": {"memoryMb": 32}}))).unwrap();
    record["provider"]["digest"] = digest.clone().into();
    let function = function(record);

    let launched = docker.start(spec(&function)).await.unwrap();
    let phases = launched.phases;
    assert!(
        phases.pull.is_none()
            && phases.create.is_some()
            && phases.start.is_some()
            && phases.ready.is_some(),
        "{phases:?}"
    );
    assert_eq!(
        docker.images().first(),
        Some(&digest),
        "the image was used last"
    );

    let call = invocation(&function, "headers");
    let reply = launched.invoke.invoke(&function, &call).await.unwrap();
    assert_eq!(
        (reply.status, reply.content_type.as_deref()),
        (200, Some("text/plain"))
    );
    let head = text(&reply);
    for expected in [
        "POST / HTTP/1.1",
        "content-type: text/plain",
        "ce-source: /v1/spaces/default/functions/f",
        "ce-specversion: 1.0",
        "ce-type: hearth.invocation",
        &format!("ce-id: {}", call.id),
        &format!("x-hearth-invocation: {}", call.id),
    ] {
        assert!(head.contains(expected), "{expected} is missing in {head}");
    }
    let env = launched
        .invoke
        .invoke(&function, &invocation(&function, "env"))
        .await
        .unwrap();
    assert!(
        text(&env).contains("PORT=8080\n") && text(&env).contains("GREETING=hello\n"),
        "{}",
        text(&env)
    );

    let found = docker.list().await.unwrap();
    assert_eq!(found.len(), 1);
    assert!(
        found[0].id == launched.id
            && found[0].is_adoptable
            && found[0].key == function.instance_key(|_| None)
    );
    docker.stop(&launched.id).await.unwrap();
    docker
        .stop(&launched.id)
        .await
        .expect("one that is gone is a success");
    assert!(cluster.containers().await.is_empty());
    let gone = launched
        .invoke
        .invoke(&function, &invocation(&function, "x"))
        .await
        .unwrap_err();
    assert_eq!(gone.effect(), Effect::Refused, "{gone}");
    cluster.finish().await;
}

#[tokio::test]
async fn a_later_generation_adopts_what_runs() {
    let cluster = Cluster::new().await;
    let function = http(json!({}));
    let launched = cluster
        .provider(1)
        .await
        .start(spec(&function))
        .await
        .unwrap();
    let restarted = cluster.provider(2).await;
    let found = restarted.list().await.unwrap().remove(0);
    assert_eq!(
        (&found.id, found.generation.0, found.is_adoptable),
        (&launched.id, 1, true)
    );
    let invoke = restarted
        .adopt(&found, Arc::clone(&function))
        .await
        .unwrap();
    assert_eq!(
        text(
            &invoke
                .invoke(&function, &invocation(&function, "hello"))
                .await
                .unwrap()
        ),
        "hello"
    );
    restarted.stop(&found.id).await.unwrap();
    assert!(cluster.containers().await.is_empty());
    cluster.finish().await;
}

#[tokio::test]
async fn an_instance_that_dies_is_told_of_and_removed() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let mut updates = docker.watch();
    let function = http(json!({}));
    let launched = docker.start(spec(&function)).await.unwrap();
    let lost = launched
        .invoke
        .invoke(&function, &invocation(&function, "exit 7"))
        .await
        .unwrap_err();
    assert!(matches!(lost, Error::Died { .. }), "{lost:?}");
    assert!(lost.to_string().contains("exit code 7"), "{lost}");
    assert_eq!(told(&mut updates).await, Some(Life::Gone(launched.id)));
    eventually("the container is removed", || async {
        cluster.containers().await.is_empty().then_some(())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn an_instance_removed_or_paused_behind_our_back_is_gone() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let mut updates = docker.watch();
    let function = http(json!({}));
    let removed = docker.start(spec(&function)).await.unwrap().id;
    let options = RemoveContainerOptionsBuilder::new().force(true).build();
    cluster
        .client
        .remove_container(removed.as_str(), Some(options))
        .await
        .unwrap();
    assert_eq!(told(&mut updates).await, Some(Life::Gone(removed)));
    let paused = docker.start(spec(&function)).await.unwrap().id;
    cluster
        .client
        .pause_container(paused.as_str())
        .await
        .unwrap();
    assert_eq!(told(&mut updates).await, Some(Life::Gone(paused)));
    eventually("both are removed", || async {
        cluster.containers().await.is_empty().then_some(())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_start_that_fails_says_why_and_leaves_nothing() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let failed = docker
        .start(spec(&container("fail", "http", json!({}))))
        .await
        .unwrap_err();
    assert!(failed.to_string().contains("exit code 3"), "{failed}");
    assert!(
        failed
            .to_string()
            .contains("this function does not come up"),
        "{failed}"
    );
    assert_eq!(failed.effect(), Effect::Refused);

    let read_only = container("write", "http", json!({"sandbox": {"readOnlyRoot": true}}));
    let failed = docker.start(spec(&read_only)).await.unwrap_err();
    assert!(
        failed.to_string().contains("sandbox.readOnlyRoot"),
        "{failed}"
    );

    let mut silent = spec(&container("silent", "http", json!({})));
    silent.deadline = program::within(Duration::from_secs(8));
    let failed = docker.start(silent).await.unwrap_err();
    assert!(
        failed.to_string().contains("nothing listened on port 8080"),
        "{failed}"
    );
    eventually("nothing is left", || async {
        cluster.containers().await.is_empty().then_some(())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_start_that_is_dropped_leaves_nothing() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = http(json!({}));
    for milliseconds in [1, 10, 60, 200] {
        let start = docker.start(spec(&function));
        assert!(
            tokio::time::timeout(Duration::from_millis(milliseconds), start)
                .await
                .is_err(),
            "it is not that fast"
        );
    }
    eventually("a container was begun and removed", || async {
        docker.list().await.unwrap().is_empty().then_some(())
    })
    .await;
    // The engine may still finish a creation that was under way.
    for _ in 0..5 {
        eventually("nothing is left", || async {
            cluster.containers().await.is_empty().then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_stdio_function_runs_once_an_invocation() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = container("stdio", "stdio", json!({"limits": {"timeoutMs": 2000}}));
    let run = |payload: &'static str| {
        let (docker, function) = (&docker, &function);
        async move {
            docker
                .run(spec(function), &invocation(function, payload))
                .await
        }
    };
    let (phases, reply) = run("hello").await;
    let reply = reply.unwrap();
    assert_eq!(
        (reply.status, text(&reply), reply.content_type.as_deref()),
        (200, "HELLO", None)
    );
    assert!(
        phases.create.is_some() && phases.start.is_some() && phases.run.is_some(),
        "{phases:?}"
    );
    let failed = run("exit 9").await.1.unwrap_err();
    assert_eq!(failed.to_string(), "the function failed: exit code 9: boom");
    assert_eq!(
        run("sleep 60000").await.1.unwrap_err().to_string(),
        "the function ran longer than its limit of 2000 ms and was stopped"
    );
    assert!(matches!(
        run("flood").await.1,
        Err(Error::AnswerTooLarge { bytes_max: 1048576 })
    ));
    eventually("nothing is left", || async {
        cluster.containers().await.is_empty().then_some(())
    })
    .await;
    let lines = lines(&cluster, &function).await;
    assert!(
        lines
            .iter()
            .any(|line| line.text == "noted" && line.stream == "stderr"),
        "{lines:?}"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn a_run_can_answer_with_all_that_it_printed_however_it_ended() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = container("stdio", "stdio", json!({"limits": {"timeoutMs": 2000}}));
    program::check_outputs(&docker, &function).await;
    eventually("nothing is left", || async {
        cluster.containers().await.is_empty().then_some(())
    })
    .await;
    cluster.finish().await;
}

#[tokio::test]
async fn memory_is_bounded_and_the_error_says_so() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = http(json!({"limits": {"memoryMb": 16}}));
    let launched = docker.start(spec(&function)).await.unwrap();
    let lost = launched
        .invoke
        .invoke(&function, &invocation(&function, "eat 64"))
        .await
        .unwrap_err();
    assert!(lost.to_string().contains("out of memory"), "{lost}");
    cluster.finish().await;
}

#[tokio::test]
async fn output_is_kept_with_the_invocation_that_wrote_it() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    let function = http(json!({}));
    let launched = docker.start(spec(&function)).await.unwrap();
    let call = invocation(&function, "print ping");
    launched.invoke.invoke(&function, &call).await.unwrap();
    let pings = eventually("both lines are read", || async {
        let lines: Vec<Line> = lines(&cluster, &function)
            .await
            .into_iter()
            .filter(|line| line.text == "ping")
            .collect();
        (lines.len() == 2).then_some(lines)
    })
    .await;
    assert!(
        pings
            .iter()
            .all(|line| line.invocations == [call.id.to_string()]),
        "{pings:?}"
    );
    assert!(
        lines(&cluster, &function)
            .await
            .iter()
            .any(|line| line.text == "listening"),
        "output of the start is kept too"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn instances_do_not_reach_each_other() {
    let cluster = Cluster::new().await;
    // Nodes that share an engine make the network at the same time.
    let (docker, other) = tokio::join!(cluster.provider(1), cluster.provider(1));
    let function = http(json!({}));
    let (one, two) = tokio::join!(docker.start(spec(&function)), other.start(spec(&function)));
    let (one, two) = (one.unwrap(), two.unwrap());
    let inspected = cluster
        .client
        .inspect_container(two.id.as_str(), None)
        .await
        .unwrap();
    let networks = inspected.network_settings.unwrap().networks.unwrap();
    let address = networks
        .values()
        .find_map(|network| network.ip_address.clone())
        .unwrap();
    let tried = one
        .invoke
        .invoke(
            &function,
            &invocation(&function, &format!("connect {address}:8080")),
        )
        .await
        .unwrap();
    assert!(text(&tried).starts_with("refused"), "{}", text(&tried));
    assert_eq!(cluster.networks().await.len(), 1);

    let closed = http(json!({"sandbox": {"network": false}}));
    let closed_in = docker.start(spec(&closed)).await.unwrap();
    assert_eq!(
        text(
            &closed_in
                .invoke
                .invoke(&closed, &invocation(&closed, "hello"))
                .await
                .unwrap()
        ),
        "hello"
    );
    let tried = closed_in
        .invoke
        .invoke(&closed, &invocation(&closed, "connect 192.0.2.1:80"))
        .await
        .unwrap();
    assert!(text(&tried).starts_with("refused"), "{}", text(&tried));
    cluster.finish().await;
}

#[tokio::test]
async fn an_image_that_is_nowhere_is_not_found() {
    let cluster = Cluster::new().await;
    let docker = cluster.provider(1).await;
    assert_eq!(
        docker
            .resolve_present("localhost:1/nothing:1")
            .await
            .unwrap(),
        None
    );
    let missing = docker
        .resolve_remote("localhost:1/nothing:1")
        .await
        .unwrap_err();
    assert!(
        matches!(missing, Error::ImageNotFound { .. }),
        "{missing:?}"
    );
    let mut record = serde_json::to_value(&*http(json!({}))).unwrap();
    record["provider"]["image"] = "localhost:1/nothing:1".into();
    let missing = docker.start(spec(&function(record))).await.unwrap_err();
    assert!(
        matches!(missing, Error::ImageNotFound { .. }),
        "{missing:?}"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn pulled_images_over_the_disk_limit_are_removed_and_others_stay() {
    let cluster = Cluster::new().await;
    // As if an earlier generation had pulled one of them.
    let [pulled, own] = ["pulled", "own"].map(|kind| {
        let random = NodeId::random();
        (
            format!("hearth-providers-{kind}-{random}:1"),
            random.to_string(),
        )
    });
    for (image, content) in [&pulled, &own] {
        engine::import_file(&cluster.client, image, content.as_bytes()).await;
    }
    let id = cluster
        .client
        .inspect_image(&pulled.0)
        .await
        .unwrap()
        .id
        .unwrap();
    let mut setup = cluster.setup(1);
    let remembered = json!([{"id": id, "at_seconds": 1}]).to_string();
    std::fs::write(setup.data_dir.join("pulled-images.json"), remembered).unwrap();
    setup.settings.image_disk_max = bytesize::ByteSize(0);
    let docker = providers::docker::Docker::connect(setup);
    eventually("the pulled image is removed", || async {
        docker
            .resolve_present(&pulled.0)
            .await
            .ok()?
            .is_none()
            .then_some(())
    })
    .await;
    assert!(docker.resolve_present(&own.0).await.unwrap().is_some());
    cluster
        .client
        .remove_image(&own.0, None::<RemoveImageOptions>, None)
        .await
        .unwrap();
    cluster.finish().await;
}

#[tokio::test]
async fn without_an_engine_calls_fail_at_once_and_a_later_one_is_found() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let host = format!("unix://{}", path.display());
    let docker = providers::docker::Docker::connect(engine::setup(
        &host,
        "none",
        &NodeId::random(),
        1,
        &cluster,
    ));
    let mut updates = docker.watch();
    let failed = docker.list().await.unwrap_err();
    assert!(
        matches!(failed, Error::EngineUnavailable { .. }),
        "{failed:?}"
    );
    assert!(!docker.is_available());
    let real = std::env::var("HEARTH_TEST_DOCKER").unwrap();
    std::os::unix::fs::symlink(real.trim_start_matches("unix://"), &path).unwrap();
    assert_eq!(updates.recv().await, Some(Life::Restored));
    assert!(docker.is_available());
    docker.list().await.unwrap();
    cluster.finish().await;
}

#[tokio::test]
async fn an_engine_that_hangs_counts_as_missing() {
    let cluster = Cluster::new().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("docker.sock");
    let _silent = tokio::net::UnixListener::bind(&path).unwrap();
    let mut setup = engine::setup(
        &format!("unix://{}", path.display()),
        "none",
        &NodeId::random(),
        1,
        &cluster,
    );
    setup.settings.call_timeout = Duration::from_millis(300);
    let docker = providers::docker::Docker::connect(setup);
    let function = http(json!({}));
    let failed = docker.start(spec(&function)).await.unwrap_err();
    assert!(
        matches!(failed, Error::EngineUnavailable { .. }),
        "{failed:?}"
    );
    eventually("the look at the engine ends without an answer", || async {
        (!docker.is_available()).then_some(())
    })
    .await;
    cluster.finish().await;
}

/// What the provider tells next, besides that it found its engine.
async fn told(updates: &mut tokio::sync::mpsc::Receiver<Life>) -> Option<Life> {
    loop {
        match updates.recv().await {
            Some(Life::Restored) => {}
            told => return told,
        }
    }
}

async fn lines(cluster: &Cluster, function: &Function) -> Vec<Line> {
    let kept = cluster
        .outputs
        .read(&function.space, &function.function_id, false);
    kept.map(|line| serde_json::from_slice(&line.unwrap()).unwrap())
        .collect()
        .await
}
