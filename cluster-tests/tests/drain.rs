//! SIGTERM drains a node: nothing that was admitted fails.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cluster_tests::load::assert_all_ok;
use cluster_tests::{Does, Load, Node, Record, Sandbox, Targets, Webhook, until};
use futures_util::future::{self, join};
use serde_json::json;

/// How long a drain may take with short calls in flight: the delay, the calls, the instances' grace.
const DRAINED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_request() {
    let sandbox = Sandbox::processes(3).await;
    let record = Record::process("sleep", "sleep").concurrency(16);
    sandbox.register_warm(&record, json!({ "ms": 1 })).await;

    let load = Load::start(
        Targets::Balanced(sandbox.nodes()),
        8,
        "sleep",
        |_| json!({ "ms": 20 }),
    );
    load.more_successes(50, Duration::from_secs(20)).await;
    for node in sandbox.nodes() {
        node.term();
        let status = node.exited(DRAINED).await;
        assert!(status.success(), "{} ended with {status}", node.name());
        load.more(50, Duration::from_secs(20)).await;
        node.restart();
        sandbox.wait_settled().await;
        load.more(50, Duration::from_secs(20)).await;
    }

    assert_all_ok(&load.stop().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn finishes_what_is_in_flight_and_says_it_is_not_ready() {
    let sandbox = Sandbox::processes(2).await;
    let (_, home) = sandbox
        .register_warm(
            &Record::process("sleep", "sleep").max(1),
            json!({ "ms": 1 }),
        )
        .await;
    let peer = sandbox.others(home.name())[0].clone();

    let drain = async {
        until("the call is in flight", Duration::from_secs(10), || async {
            home.in_flight().await > 0
        })
        .await;
        home.term();
        until(
            "it is not ready any more",
            Duration::from_secs(5),
            || async { !home.is_ready().await },
        )
        .await;
        until("its peer sees it drain", Duration::from_secs(5), || async {
            let cluster = peer.cluster().await;
            let mut nodes = cluster
                .map(|cluster| cluster.nodes)
                .unwrap_or_default()
                .into_iter();
            nodes.any(|node| node.name == home.name() && node.state == "draining")
        })
        .await;
    };
    // A forwarded call, so that both the hop and the run have to be waited for.
    let (answer, ()) = join(peer.invoke("sleep", json!({ "ms": 3_000 })), drain).await;

    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(answer.node.as_deref(), Some(home.name()), "{answer:?}");
    assert!(home.exited(DRAINED).await.success());
    let after = peer.invoke("sleep", json!({ "ms": 1 })).await;
    assert!(after.is_ok(), "{after:?}");
    assert_eq!(after.node.as_deref(), Some(peer.name()), "{after:?}");
}

/// Events that are emitted one after the other, and what their clients were told.
#[derive(Default)]
struct Emitted {
    next: AtomicU64,
    /// Answered with 202.
    accepted: Mutex<BTreeSet<u64>>,
    /// Answered with 503.
    refused: Mutex<BTreeSet<u64>>,
}

impl Emitted {
    /// Emits through a node until it takes no more connections.
    async fn emit(&self, node: &Node) {
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            let (status, set) = match node.try_emit("tick", &json!(number)).await {
                Ok(answer) if answer.status == 202 => (202, &self.accepted),
                Ok(answer) => (answer.status, &self.refused),
                Err(lost) if lost.is_refused => return,
                // Nobody was told anything.
                Err(_) => continue,
            };
            assert!(matches!(status, 202 | 503), "{number}: {status}");
            set.lock().expect("no holder panics").insert(number);
        }
    }

    /// Emits on several connections at once while the node is told to end and drains, until it has ended. Returns the first number
    /// that was emitted while it drained.
    async fn emit_while_draining(&self, node: &Node) -> u64 {
        let emits = future::join_all((0..8).map(|_| self.emit(node)));
        let drain = async {
            let what = "events are accepted";
            until(what, DRAINED, || async { self.accepted().len() >= 50 }).await;
            node.term();
            until("it is not ready any more", DRAINED, || async {
                !node.is_ready().await
            })
            .await;
            self.next.load(Ordering::SeqCst)
        };
        let (_, first) = join(emits, drain).await;
        assert!(node.exited(DRAINED).await.success());
        first
    }

    fn accepted(&self) -> BTreeSet<u64> {
        self.accepted.lock().expect("no holder panics").clone()
    }

    /// Waits until all that was accepted has come and nothing waits; what was refused must not have come.
    async fn came(&self, hook: &Webhook, nodes: &[Node]) {
        let accepted = self.accepted();
        let came = || -> BTreeSet<u64> {
            let envelopes = hook.envelopes();
            let numbers = envelopes.iter().filter_map(|one| one["data"].as_u64());
            numbers.collect()
        };
        let what = format!("all {} accepted events came", accepted.len());
        until(&what, DRAINED * 2, || async {
            came().is_superset(&accepted)
        })
        .await;
        until("nothing waits", DRAINED * 2, || async {
            let waiting = nodes
                .iter()
                .map(|node| node.metric("gateway_events_backlog", ""));
            future::join_all(waiting).await.iter().sum::<f64>() == 0.0
        })
        .await;
        let refused = self.refused.lock().expect("no holder panics");
        assert!(came().is_disjoint(&refused), "{refused:?}");
    }
}

/// A function that gets the event `tick`, and fails until it is told otherwise: what is accepted waits.
async fn subscribed(sandbox: &Sandbox) -> Webhook {
    let hook = Webhook::start(Does::Fail).await;
    sandbox.register(&Record::http("takes", hook.url())).await;
    let subscription = json!({ "event": "tick", "functionId": "takes" });
    sandbox.subscribe(&subscription).await;
    hook
}

/// Its client has a 202, and it is delivered after the next start; or a 503, and it is not; or no connection.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_accepted_by_a_draining_node_is_kept_on_its_disk() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let hook = subscribed(&sandbox).await;
    let (node, emitted) = (sandbox.node(0), Emitted::default());
    let first = emitted.emit_while_draining(&node).await;
    let late = emitted.accepted().range(first..).count();
    assert!(late > 0, "it accepts until node.drain_delay is over");
    hook.now(Does::Answer(""));
    node.restart();
    node.wait_ready(DRAINED).await;
    emitted.came(&hook, &[node]).await;
}

/// The same with etcd, from which the other nodes deliver it.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_accepted_by_a_draining_node_is_delivered_by_others() {
    let sandbox = Sandbox::processes(3).await;
    let hook = subscribed(&sandbox).await;
    let (nodes, emitted) = (sandbox.nodes(), Emitted::default());
    let first = emitted.emit_while_draining(&nodes[0]).await;
    let late = emitted.accepted().range(first..).count();
    assert!(late > 0, "it accepts until node.drain_delay is over");
    hook.now(Does::Answer(""));
    emitted.came(&hook, &nodes[1..]).await;
}
