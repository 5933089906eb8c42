//! Custom events of a cluster whose queue is kept by three NATS servers: how long nobody can be accepted when one of them dies.
//! What becomes of the events is checked by the scenario `jetstream-replicas` of `tests/history.rs`.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeSet;
use std::time::Duration;

use cluster_tests::{Does, Node, Record, Sandbox, Webhook, eventually, until};
use serde_json::json;
use tokio::time::Instant;

/// How soon after the death of the leader events are accepted again. NATS waits for 4 to 9 s until it elects another one.
const ACCEPTS_AGAIN: Duration = Duration::from_secs(20);

const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes, one function that gets the event `tick`, and what was accepted.
struct Scene {
    sandbox: Sandbox,
    takes: Webhook,
    accepted: BTreeSet<String>,
}

impl Scene {
    async fn new() -> Self {
        let sandbox = Sandbox::builder().nodes(3).nats_trio().start().await;
        let takes = Webhook::start(Does::Answer("")).await;
        sandbox.register(&Record::http("takes", takes.url())).await;
        let subscription = json!({ "event": "tick", "functionId": "takes" });
        sandbox.subscribe(&subscription).await;
        Self {
            sandbox,
            takes,
            accepted: BTreeSet::new(),
        }
    }

    /// Emits through each node until that takes it; how long it was until all had.
    async fn accepts(&mut self) -> Duration {
        let begun = Instant::now();
        for node in self.sandbox.nodes() {
            let id = eventually("an event is accepted", ACCEPTS_AGAIN, || accept(&node)).await;
            self.accepted.insert(id);
        }
        begun.elapsed()
    }

    /// Waits until each accepted event was delivered.
    async fn delivers(&self) {
        until("all accepted events were delivered", PATIENCE, || async {
            let came = self.takes.ids();
            self.accepted.iter().all(|id| came.contains_key(id))
        })
        .await;
    }
}

/// Emits once; the id of the event, or why it was not accepted.
async fn accept(node: &Node) -> Result<String, String> {
    let answer = node.try_emit("tick", &json!({})).await;
    match answer {
        Ok(answer) if answer.status == 202 => Ok(answer.invocation.unwrap()),
        Ok(answer) => Err(answer.body),
        Err(lost) => Err(format!("{lost:?}")),
    }
}

/// Any server may lead, one that is back as well, and one that hangs leads no longer than one that died.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_accepted_again_soon_after_the_leader_of_their_stream_died() {
    let mut scene = Scene::new().await;
    scene.accepts().await;
    for way in ["was killed", "was stopped"] {
        let trio = scene.sandbox.trio_mut();
        trio.wait_current(3).await;
        let leader = trio.leader("-held").await;
        match way {
            "was killed" => trio.servers()[leader].kill9(),
            _ => trio.servers()[leader].stop(),
        }
        let took = scene.accepts().await;
        println!("{took:?} after the leader {way} all nodes accept events");
        assert!(took < ACCEPTS_AGAIN, "{took:?} after the leader {way}");
        let server = &mut scene.sandbox.trio_mut().servers_mut()[leader];
        match way {
            "was killed" => server.restart().await,
            _ => server.cont(),
        }
    }
    scene.delivers().await;
}

/// Two of three are enough, and without them nothing is accepted and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_two_servers_keep_outlives_the_third_and_all_three() {
    let mut scene = Scene::new().await;
    scene.takes.now(Does::Fail);
    scene.accepts().await;
    let trio = scene.sandbox.trio_mut();
    trio.wait_current(3).await;
    let follower = (trio.leader("-held").await + 1) % 3;
    trio.servers()[follower].kill9();
    scene.accepts().await;
    let trio = scene.sandbox.trio_mut();
    for server in trio.servers() {
        server.kill9();
    }
    for node in scene.sandbox.nodes() {
        let refused = node.emit("tick", &json!({})).await;
        assert_eq!(refused.status, 503, "{refused:?}");
        assert_eq!(refused.component.as_deref(), Some("queue"), "{refused:?}");
    }
    for server in scene.sandbox.trio_mut().servers_mut() {
        server.restart().await;
    }
    scene.accepts().await;
    scene.takes.now(Does::Answer(""));
    scene.delivers().await;
}
