//! Three nodes and two subscribers of one event, for tests of what becomes of events while something is killed or stopped.
//!
//! Deliveries are noted by webhooks of the test itself, which outlives all nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt, future, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::node::Node;
use crate::record::Record;
use crate::sandbox::{Builder, Sandbox};
use crate::wait::{eventually, until};
use crate::webhook::{Does, Webhook};

/// How long events may take to their subscribers, on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Three nodes, and two functions that get the event `tick`: one takes it, and one refuses it for good.
#[derive(Debug)]
pub struct Scene {
    /// The nodes.
    pub sandbox: Sandbox,
    /// Takes events, unless it is told otherwise.
    pub takes: Webhook,
    /// Answers 404.
    pub refuses: Webhook,
    /// The ids of events that were answered with 202.
    accepted: Mutex<BTreeSet<String>>,
}

impl Scene {
    /// Starts three nodes of a sandbox with these settings, and subscribes.
    pub async fn start(builder: Builder) -> Self {
        let sandbox = builder.nodes(3).start().await;
        let takes = Webhook::start(Does::Answer("")).await;
        let refuses = Webhook::start(Does::AnswerWith("404 Not Found", "no such order")).await;
        for (id, hook) in [("takes", &takes), ("refuses", &refuses)] {
            sandbox.register(&Record::http(id, hook.url())).await;
            let subscription = json!({ "event": "tick", "functionId": id });
            sandbox.subscribe(&subscription).await;
        }
        Self {
            sandbox,
            takes,
            refuses,
            accepted: Mutex::default(),
        }
    }

    /// Emits so many events through these nodes in turn. An event that was not accepted is emitted again, as a client would.
    pub async fn emit(&self, nodes: &[Node], count: usize) {
        let emitted = stream::iter(0..count).map(|number| async move {
            let mut turns = nodes.iter().cycle().skip(number % nodes.len());
            // Who waits for a stopped node waits until it goes on.
            let id = eventually("a node accepts", PATIENCE * 2, || {
                let node = turns.next().expect("there is a node");
                async move {
                    match node.try_emit("tick", &json!(number)).await {
                        Ok(answer) if answer.status == 202 => Ok(answer.invocation),
                        other => Err(format!("{other:?}")),
                    }
                }
            });
            let id = id.await.expect("an event has an id");
            self.accepted.lock().expect("no holder panics").insert(id);
        });
        emitted.buffer_unordered(16).collect::<()>().await;
    }

    /// The ids of events that were accepted so far.
    pub fn accepted(&self) -> BTreeSet<String> {
        self.accepted.lock().expect("no holder panics").clone()
    }

    /// Waits until so many events were accepted.
    pub async fn accepts(&self, count: usize) {
        let what = format!("{count} events were accepted");
        until(&what, PATIENCE, || async { self.accepted().len() >= count }).await;
    }

    /// Waits until the others know that a node is dead, and then until they have taken over so many deliveries; returns how long
    /// after they knew.
    pub async fn taken_over(&self, dead: &Node, others: &[Node], count: f64) -> Duration {
        until("others know that it is dead", PATIENCE, || async {
            let cluster = others[0].cluster().await;
            let members = cluster.map(|cluster| cluster.nodes).unwrap_or_default();
            let mut members = members.into_iter();
            members.any(|member| member.name == dead.name() && member.state == "dead")
        })
        .await;
        let known = Instant::now();
        until("it is taken over", PATIENCE, || async {
            taken_over(others).await >= count
        })
        .await;
        known.elapsed()
    }

    /// Waits until each accepted event was delivered to the one, and is a dead letter of the other, the same ones on every node.
    #[expect(
        clippy::print_stdout,
        reason = "what came of it is worth a line in the log of the run"
    )]
    pub async fn checks(&self, nodes: &[Node]) {
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
            sum(nodes, "gateway_events_backlog").await == 0.0
        })
        .await;
        until("each is a dead letter, everywhere", PATIENCE, || async {
            let dead = future::join_all(nodes.iter().map(dead_letters)).await;
            let is_whole = accepted.iter().all(|id| dead[0].contains_key(id));
            is_whole && dead.iter().all(|others| *others == dead[0])
        })
        .await;
        let times = self.takes.ids();
        let twice = accepted.iter().filter(|id| times[*id] > 1).count();
        let count = accepted.len();
        println!("accepted {count}, lost 0, delivered more than once {twice}");
    }
}

/// How many deliveries these nodes have taken over.
pub async fn taken_over(nodes: &[Node]) -> f64 {
    sum(nodes, "hearth_deliveries_taken_over_total").await
}

async fn sum(nodes: &[Node], metric: &str) -> f64 {
    let values = nodes.iter().map(|node| node.metric(metric, ""));
    future::join_all(values).await.iter().sum()
}

/// The dead letters that a node lists: how often each event died, by its id.
async fn dead_letters(node: &Node) -> BTreeMap<String, usize> {
    let mut dead = BTreeMap::new();
    for letter in node.dead_letters().await {
        let id = letter["eventId"]
            .as_str()
            .expect("a dead letter has an event");
        *dead.entry(id.to_owned()).or_default() += 1;
    }
    dead
}
