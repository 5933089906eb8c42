//! Custom events of a cluster whose queue is in NATS: what was accepted is delivered or a dead letter, whoever is killed or stopped.
//! Deliveries are recorded by webhooks of the test itself, which outlives all nodes.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use cluster_tests::ports::Ports;
use cluster_tests::{Does, Nats, Node, Record, Sandbox, Webhook, until};
use futures_util::{StreamExt, future, stream};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::time::Instant;

/// How long events may take to their subscribers, on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes, and two functions that get the event `tick`: one takes it, and one refuses it for good.
struct Scene {
    sandbox: Sandbox,
    nats: Nats,
    takes: Webhook,
    refuses: Webhook,
    /// The ids of events that were answered with 202.
    accepted: Mutex<BTreeSet<String>>,
    _dir: TempDir,
    _ports: Ports,
}

impl Scene {
    async fn new() -> Self {
        let (dir, ports) = (tempfile::tempdir().unwrap(), Ports::reserve());
        let nats = Nats::start(dir.path(), ports.take()).await;
        let sandbox = Sandbox::builder()
            .nodes(3)
            .env("HEARTH_QUEUE__BACKEND", "jetstream")
            .env("HEARTH_QUEUE__JETSTREAM__SERVERS", &nats.url())
            .start()
            .await;
        let takes = Webhook::start(Does::Answer("")).await;
        let refuses = Webhook::start(Does::AnswerWith("404 Not Found", "no such order")).await;
        for (id, hook) in [("takes", &takes), ("refuses", &refuses)] {
            sandbox.register(&Record::http(id, hook.url())).await;
            let subscription = json!({ "event": "tick", "functionId": id });
            sandbox.subscribe(&subscription).await;
        }
        Self {
            sandbox,
            nats,
            takes,
            refuses,
            accepted: Mutex::default(),
            _dir: dir,
            _ports: ports,
        }
    }

    /// Emits so many events through these nodes in turn. An event that was not accepted is emitted again, as a client would.
    async fn emit(&self, nodes: &[Node], count: usize) {
        let emitted = stream::iter(0..count).map(|number| async move {
            for attempt in 0.. {
                let node = &nodes[(number + attempt) % nodes.len()];
                if let Ok(answer) = node.try_emit("tick", &json!(number)).await
                    && answer.status == 202
                {
                    let id = answer.invocation.unwrap();
                    self.accepted.lock().unwrap().insert(id);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        emitted.buffer_unordered(16).collect::<()>().await;
    }

    fn accepted(&self) -> BTreeSet<String> {
        self.accepted.lock().unwrap().clone()
    }

    /// Waits until so many events were accepted.
    async fn accepts(&self, count: usize) {
        let what = format!("{count} events were accepted");
        until(&what, PATIENCE, || async { self.accepted().len() >= count }).await;
    }

    /// Waits until each accepted event was delivered to the one, and is a dead letter of the other on every node, and nothing is left.
    #[expect(
        clippy::print_stdout,
        reason = "what came of it is worth a line in the log of the run"
    )]
    async fn checks(&self, nodes: &[Node]) {
        let accepted = self.accepted();
        for (what, hook) in [("taken", &self.takes), ("refused", &self.refuses)] {
            let what = format!("all {} accepted events were {what}", accepted.len());
            until(&what, PATIENCE, || async {
                let came = hook.ids();
                accepted.iter().all(|id| came.contains_key(id))
            })
            .await;
        }
        until("nothing waits or runs", PATIENCE, || async {
            let waiting = nodes
                .iter()
                .map(|node| node.metric("gateway_events_backlog", ""));
            future::join_all(waiting).await.iter().sum::<f64>() == 0.0
        })
        .await;
        for node in nodes {
            let what = format!("{} lists the dead letter of each", node.name());
            until(&what, PATIENCE, || async {
                let dead = dead_letters(node).await;
                accepted.iter().all(|id| dead.contains(id))
            })
            .await;
        }
        let times = self.takes.ids();
        let twice = accepted.iter().filter(|id| times[*id] > 1).count();
        println!(
            "accepted {}, lost 0, delivered more than once {twice}",
            accepted.len()
        );
    }
}

/// The events of the dead letters that a node lists.
async fn dead_letters(node: &Node) -> BTreeSet<String> {
    let mut dead = BTreeSet::new();
    let mut after = 0;
    loop {
        let path = format!("/v1/dead-letters?limit=200&after={after}");
        let page = node.config(Method::GET, &path, None).await.json();
        for letter in page["deadLetters"].as_array().unwrap() {
            dead.insert(letter["eventId"].as_str().unwrap().to_owned());
        }
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return dead,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_a_node_is_killed() {
    let scene = Scene::new().await;
    let nodes = scene.sandbox.nodes();
    let dies = nodes[0].clone();
    let kill = async {
        scene.accepts(200).await;
        dies.kill9();
    };
    tokio::join!(scene.emit(&nodes, 600), kill);
    scene.checks(&nodes[1..]).await;
    dies.restart();
    dies.wait_ready(PATIENCE).await;
    scene.checks(&nodes).await;
}

/// What a node held when it died is delivered by others while it is away, and soon after gossip knows of its death.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_node_held_is_taken_over() {
    let scene = Scene::new().await;
    scene.takes.now(Does::Hang);
    let nodes = scene.sandbox.nodes();
    let dies = &nodes[2];
    scene.emit(std::slice::from_ref(dies), 100).await;
    dies.kill9();
    scene.takes.now(Does::Answer(""));
    until("others know that it is dead", PATIENCE, || async {
        let cluster = nodes[0]
            .config(Method::GET, "/v1/cluster", None)
            .await
            .json();
        let members = cluster["nodes"].as_array().unwrap();
        members
            .iter()
            .any(|member| member["name"] == dies.name() && member["state"] == "dead")
    })
    .await;
    let known = Instant::now();
    until("it is taken over", PATIENCE, || async {
        let taken = nodes[..2]
            .iter()
            .map(|node| node.metric("hearth_deliveries_taken_over_total", ""));
        future::join_all(taken).await.iter().sum::<f64>() >= 100.0
    })
    .await;
    let took = known.elapsed();
    println!("taken over {took:?} after its death was known");
    assert!(took < Duration::from_secs(4), "{took:?}");
    scene.checks(&nodes[..2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_a_node_is_stopped_for_longer_than_its_session() {
    let scene = Scene::new().await;
    let nodes = scene.sandbox.nodes();
    let silent = nodes[1].clone();
    let rest = [nodes[0].clone(), nodes[2].clone()];
    // What it holds runs, and is not over before it is stopped.
    scene.takes.now(Does::Hang);
    scene.emit(std::slice::from_ref(&silent), 50).await;
    silent.stop();
    scene.takes.now(Does::Answer(""));
    scene.emit(&rest, 200).await;
    until("what it held was delivered by others", PATIENCE, || async {
        let came = scene.takes.ids();
        let taken = rest
            .iter()
            .map(|node| node.metric("hearth_deliveries_taken_over_total", ""));
        let taken = future::join_all(taken).await.iter().sum::<f64>();
        taken >= 50.0 && scene.accepted().iter().all(|id| came.contains_key(id))
    })
    .await;
    silent.cont();
    until("it accepts again", PATIENCE, || async {
        silent.emit("tock", &json!(1)).await.status == 202
    })
    .await;
    scene.emit(std::slice::from_ref(&silent), 50).await;
    scene.checks(&nodes).await;
    let log = silent.log();
    assert!(log.contains("another node took deliveries over"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_when_nats_is_killed_and_restarted() {
    let mut scene = Scene::new().await;
    let nodes = scene.sandbox.nodes();
    scene.emit(&nodes, 100).await;
    scene.nats.kill9();
    let begun = Instant::now();
    for node in &nodes {
        let refused = node.emit("tick", &json!("refused")).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.component.as_deref(), Some("queue"), "{refused:?}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(12),
        "{:?}",
        begun.elapsed()
    );
    scene.nats.restart().await;
    scene.emit(&nodes, 100).await;
    scene.checks(&nodes).await;
}

/// A node that is drained leaves what waits to the others, who need not wait until it is missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_leaves_what_waits_to_the_others() {
    let scene = Scene::new().await;
    let nodes = scene.sandbox.nodes();
    let leaves = &nodes[0];
    // It is tried again a second after the first attempt failed.
    scene.takes.now(Does::Fail);
    scene.emit(std::slice::from_ref(leaves), 20).await;
    until("each was tried", PATIENCE, || async {
        scene.takes.ids().len() >= 20
    })
    .await;
    leaves.term();
    scene.takes.now(Does::Answer(""));
    assert!(leaves.exited(PATIENCE).await.success());
    let log = leaves.log();
    assert!(log.contains("is left to the other nodes"), "{log}");
    scene.checks(&nodes[1..]).await;
}
