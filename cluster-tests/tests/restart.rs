//! All nodes are killed with -9 and started again: warm containers are adopted, and nothing is left over.

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::engine::Container;
use cluster_tests::{Node, Record, Sandbox, eventually, until};
use futures_util::future::{join, join_all};
use serde_json::json;

/// How soon after a restart everything that can not be adopted is gone.
const CLEANED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn adopts_warm_containers_after_all_nodes_were_killed() {
    let sandbox = Sandbox::containers(3).await;
    // An adopted instance may be busy with an old call until its timeout has passed.
    let hello = Record::container("hello", "hello").timeout_ms(1_000);
    let (first, home) = sandbox.register_warm(&hello, json!({})).await;
    let before = sandbox.containers_now().await;

    kill_all_and_restart(&sandbox).await;
    sandbox.wait_warm("hello", &home).await;

    for node in sandbox.nodes() {
        let answer = node.invoke("hello", json!({})).await;
        assert_eq!(answer.start.as_deref(), Some("warm"), "{answer:?}");
        assert_eq!(
            answer.instance(),
            first.instance(),
            "the same container answers"
        );
        assert_eq!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
    }
    assert_eq!(ids(&sandbox.containers_now().await), ids(&before));
}

#[tokio::test(flavor = "multi_thread")]
async fn removes_containers_that_can_not_be_adopted() {
    let sandbox = Sandbox::containers(2).await;
    let (_, home) = sandbox
        .register_warm(
            &Record::container("kept", "hello").timeout_ms(1_000),
            json!({}),
        )
        .await;
    sandbox
        .register_warm(&Record::container("paused", "hello"), json!({}))
        .await;
    sandbox
        .register_warm(&Record::container("deleted", "hello"), json!({}))
        .await;
    // The sleep server never ends by itself, so as a stdio function it runs until its timeout.
    sandbox
        .register(&Record::container("stdio", "sleep").stdio())
        .await;
    let engine = sandbox.engine();
    let kept = sandbox.containers_of("kept").await[0].clone();
    let paused = sandbox.containers_of("paused").await[0].clone();

    let lost = home.try_invoke("stdio", json!({}));
    let kill = async {
        until(
            "the stdio container runs",
            Duration::from_secs(20),
            || async {
                sandbox
                    .containers_of("stdio")
                    .await
                    .iter()
                    .any(|container| container.state == "running")
            },
        )
        .await;
        // The called node first: if it outlived the node where the call runs, it would tell its caller so.
        home.kill9();
        for node in sandbox.nodes() {
            node.kill9();
        }
        engine.docker(&["pause", &paused.id]).await;
        create_like(&sandbox, &kept).await;
    };
    let (lost, ()) = join(lost, kill).await;
    assert!(lost.is_err(), "the node was killed under it: {lost:?}");
    let states: BTreeSet<_> = sandbox
        .containers_now()
        .await
        .into_iter()
        .map(|found| found.state)
        .collect();
    assert!(
        states.contains("paused") && states.contains("created"),
        "the test's own set-up: {states:?}"
    );

    // One node comes back alone and deletes a function whose instance may belong to the other.
    sandbox.node(0).restart();
    sandbox.node(0).wait_ready(Duration::from_secs(20)).await;
    sandbox.node(0).delete("deleted").await;
    sandbox.node(1).restart();
    sandbox.wait_settled().await;

    eventually(
        "only the warm container of a known function is left",
        CLEANED,
        || async {
            let left = sandbox.containers_now().await;
            if ids(&left) == BTreeSet::from([kept.id.clone()]) {
                Ok(())
            } else {
                Err(format!("{left:#?}"))
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removes_a_container_whose_start_was_cut_short() {
    let sandbox = Sandbox::containers(1).await;
    sandbox
        .register(&Record::container("slow", "sleep").env("SLEEP_START_MS", "5000"))
        .await;
    let node = sandbox.node(0);

    let kill = async {
        until("the container exists", Duration::from_secs(20), || async {
            !sandbox.containers_now().await.is_empty()
        })
        .await;
        node.kill9();
    };
    let (_, ()) = join(node.try_invoke("slow", json!({})), kill).await;
    node.restart();
    node.wait_ready(Duration::from_secs(20)).await;

    wait_containers_are_instances(&sandbox, std::slice::from_ref(&node)).await;
    node.term();
    assert!(node.exited(Duration::from_secs(40)).await.success());
    assert!(
        sandbox.containers_now().await.is_empty(),
        "a drained node leaves nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_die_with_their_node() {
    let sandbox = Sandbox::processes(2).await;
    sandbox.register(&Record::process("hello", "hello")).await;
    sandbox
        .register(&Record::command("forking", ["/bin/sh", "-c", "sleep 300 & sleep 300"]).stdio())
        .await;
    let node = sandbox.node(0);
    assert!(node.invoke("hello", json!({})).await.is_ok());

    let kill = async {
        until(
            "the stdio run has both its processes",
            Duration::from_secs(10),
            || async {
                let processes = sandbox.processes_left();
                processes
                    .iter()
                    .filter(|process| process.ends_with("sleep 300"))
                    .count()
                    >= 2
            },
        )
        .await;
        for node in sandbox.nodes() {
            node.kill9();
        }
    };
    let (lost, ()) = join(node.try_invoke("forking", json!({})), kill).await;
    assert!(lost.is_err(), "the node was killed under it: {lost:?}");

    eventually("no process is left", Duration::from_secs(5), || async {
        let left = sandbox.processes_left();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_nothing_after_a_drain() {
    let sandbox = Sandbox::containers(2).await;
    sandbox
        .register_warm(&Record::container("contained", "hello"), json!({}))
        .await;
    sandbox
        .register_warm(&Record::process("local", "hello"), json!({}))
        .await;

    for node in sandbox.nodes() {
        node.term();
    }
    for node in sandbox.nodes() {
        assert!(node.exited(Duration::from_secs(40)).await.success());
    }

    assert!(
        sandbox.containers_now().await.is_empty(),
        "{:#?}",
        sandbox.containers_now().await
    );
    eventually("no process is left", Duration::from_secs(5), || async {
        let left = sandbox.processes_left();
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:#?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_containers_removed_behind_its_back() {
    let sandbox = Sandbox::containers(1).await;
    let (_, node) = sandbox
        .register_warm(&Record::container("hello", "hello"), json!({}))
        .await;
    let container = sandbox.containers_now().await[0].clone();

    sandbox
        .engine()
        .docker(&["rm", "--force", &container.id])
        .await;
    until("the pool is empty", Duration::from_secs(15), || async {
        node.instance_ids()
            .await
            .is_ok_and(|instances| instances.is_empty())
    })
    .await;

    let again = node.invoke("hello", json!({})).await;
    assert_eq!(again.start.as_deref(), Some("cold"), "{again:?}");
    let now = sandbox.containers_now().await;
    assert!(now.len() == 1 && now[0].id != container.id, "{now:#?}");
}

async fn kill_all_and_restart(sandbox: &Sandbox) {
    for node in sandbox.nodes() {
        node.kill9();
    }
    for node in sandbox.nodes() {
        node.restart();
    }
    sandbox.wait_settled().await;
}

/// Creates, without starting it, a container that a node killed between create and start would have left.
async fn create_like(sandbox: &Sandbox, container: &Container) {
    let engine = sandbox.engine();
    let labels = engine
        .docker(&[
            "inspect",
            "--format",
            "{{json .Config.Labels}}",
            &container.id,
        ])
        .await;
    let labels: std::collections::BTreeMap<String, String> =
        serde_json::from_str(&labels).expect("labels are an object");
    let labels: Vec<_> = labels
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let mut arguments = vec!["create"];
    for label in &labels {
        arguments.extend(["--label", label]);
    }
    arguments.push("hearth-example-hello:latest");
    engine.docker(&arguments).await;
}

/// Every container is an instance of a node, and every instance has its container.
async fn wait_containers_are_instances(sandbox: &Sandbox, nodes: &[Node]) {
    eventually("containers and instances match", CLEANED, || async {
        let containers = sandbox.containers_now().await;
        let instances = join_all(nodes.iter().map(Node::instance_ids)).await;
        let instances = instances
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        if containers.len() == instances.len() {
            Ok(())
        } else {
            Err(format!("{containers:#?} against {instances:?}"))
        }
    })
    .await;
}

fn ids(containers: &[Container]) -> BTreeSet<String> {
    containers
        .iter()
        .map(|container| container.id.clone())
        .collect()
}
