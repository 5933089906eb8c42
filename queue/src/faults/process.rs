//! The process that is killed: a queue with its loop, and callers that do to it all that can be done. What they see goes into a
//! file, a line at once, as there may be no time for another one.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use config::etcd::server::settings;
use config::settings::JetStreamSettings;
use protocol::{Component, Effect, ErrorCode, Failure, Generation, NodeId};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::armed;
use crate::backend::{
    Deaths, Delivery, DeliveryId, Error, Leased, Limits, Queue, conformance, embedded, etcd,
    jetstream,
};
use crate::delivery::{Args, Deliver, DeliveryLoop, End, Meters, Retry};
use crate::{EmbeddedQueue, EtcdQueue, JetStreamQueue};

/// Says to the process what to do.
pub(super) const ORDER: &str = "QUEUE_FAULT_ORDER";
/// The test that is that process.
pub(super) const VICTIM: &str = "faults::process::a_process_uses_its_queue";

/// How long a process has for all that it does.
const PATIENCE: Duration = Duration::from_secs(50);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(2);
const CALLERS: usize = 3;
const ROUNDS: usize = 10;

/// What a process does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// Where its queue is.
    pub(super) place: Place,
    /// The incarnation of its node.
    pub(super) generation: u64,
    /// Where it is killed, and at which time that it is there.
    pub(super) ends_at: Option<(String, i64)>,
    /// Whether it has callers, or only brings to an end what there is.
    pub(super) has_callers: bool,
    /// What it sees.
    pub(super) history: PathBuf,
}

/// Where a queue is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Place {
    Directory(PathBuf),
    Etcd { url: String, cluster: String },
    JetStream { url: String, cluster: String },
}

/// What a process sees.
#[derive(Debug)]
struct History(Mutex<File>);

/// Functions that take, fail, or fail once.
#[derive(Debug)]
struct Functions {
    history: Arc<History>,
    failed_once: Mutex<HashSet<DeliveryId>>,
}

#[derive(Debug)]
struct Nobody;

impl Deaths for Nobody {
    fn is_dead(&self, _node: &NodeId, _generation: Generation) -> bool {
        false
    }
}

impl History {
    fn say(&self, what: &str, whom: impl std::fmt::Display) {
        let line = format!("{what} {whom}\n");
        let mut file = self.0.lock().unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

#[async_trait]
impl Deliver for Functions {
    async fn deliver(&self, Leased { delivery, .. }: &Leased) -> Result<End, Failure> {
        let id = delivery.id;
        self.history.say("call", id);
        fault_point!("loop.called");
        let failed = |code| Failure::new(code, Component::Function, Effect::Finished, "it fails");
        match delivery.function_id.as_str() {
            "bad" => return Err(failed(ErrorCode::InvalidRequest)),
            "again" if self.failed_once.lock().unwrap().insert(id) => {
                return Err(failed(ErrorCode::FunctionFailed));
            }
            _ => {}
        }
        self.history.say("done", id);
        fault_point!("loop.taken");
        Ok(End::Delivered)
    }
}

/// Nothing where there is no order: it is a test only so that a test can start it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_uses_its_queue() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let order: Order = serde_json::from_str(&order).unwrap();
    if let Some((point, nth)) = &order.ends_at {
        armed::arm(point, *nth);
    }
    let ends = timeout(PATIENCE, use_queue(&order)).await;
    ends.expect("all comes to an end");
}

async fn use_queue(order: &Order) {
    let file = OpenOptions::new().append(true).open(&order.history);
    let history = Arc::new(History(Mutex::new(file.unwrap())));
    let queue = open(order).await;
    let running = deliver(&queue, &history);
    if order.has_callers {
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(call(queue.clone(), history.clone()));
        }
        callers.join_all().await;
        handle_dead(&*queue, &history).await;
    }
    // While what a process had that was killed is being taken over, nobody can say that there is none of a name.
    let nobodys = DeliveryId::random();
    until(async || queue.cancel(nobodys).await == Ok(false)).await;
    let said = std::fs::read_to_string(&order.history).unwrap();
    let (late, cancelled) = (named(&said, "late"), named(&said, "cancelled"));
    for id in late.difference(&cancelled) {
        cancel(&*queue, &history, *id).await;
    }
    until(async || queue.stats().waiting + queue.stats().leased == 0).await;
    history.say("lists", "dead letters");
    for letter in queue.dead_letters(0, 1_000).await.unwrap() {
        history.say("dead", letter.delivery.id);
    }
    history.say("drift", queue.audit().await.unwrap().drift());
    running.drain(Instant::now() + PATIENCE).await;
}

async fn open(order: &Order) -> Arc<dyn Queue> {
    let limits = Limits {
        lease_timeout: Duration::from_secs(600),
        ..conformance::limits()
    };
    let (node, generation) = ("n1".parse().unwrap(), Generation(order.generation));
    let (dead_len_max, dead_bytes_max) = (1_000, 1 << 20);
    let dead_age_max = Duration::from_secs(3_600);
    match &order.place {
        Place::Directory(directory) => Arc::new(on_disk(directory, limits)),
        Place::Etcd { url, cluster } => {
            let options = etcd::Options {
                limits,
                node,
                generation,
                session_timeout: Duration::from_secs(10),
                operation_timeout: Duration::from_secs(10),
                cluster_bytes_max: 1 << 30,
                storage_max: 2 << 30,
                compact_after: Duration::ZERO,
                dead_len_max,
                dead_bytes_max,
                dead_age_max,
            };
            let (settings, told) = (settings([url.clone()]), etcd::Meters::none());
            let opened = EtcdQueue::open(&settings, cluster, options, Arc::new(Nobody), told).await;
            Arc::new(opened.unwrap())
        }
        Place::JetStream { url, cluster } => {
            let options = jetstream::Options {
                limits,
                settings: JetStreamSettings {
                    servers: vec![url.clone()],
                    operation_timeout: Duration::from_secs(10),
                    // The server keeps so much for each try.
                    bytes_max: "1MiB".parse().unwrap(),
                    ..JetStreamSettings::default()
                },
                cluster: cluster.clone(),
                node,
                generation,
                dead_len_max,
                dead_bytes_max,
                dead_age_max,
            };
            let told = jetstream::Meters::none();
            let opened = JetStreamQueue::open(options, Arc::new(Nobody), told).await;
            Arc::new(opened.unwrap())
        }
    }
}

fn on_disk(directory: &Path, limits: Limits) -> EmbeddedQueue {
    let options = embedded::Options {
        limits,
        ..embedded::Options::for_tests()
    };
    EmbeddedQueue::open(directory, options, embedded::Meters::none()).unwrap()
}

fn deliver(queue: &Arc<dyn Queue>, history: &Arc<History>) -> DeliveryLoop {
    let functions = Functions {
        history: Arc::clone(history),
        failed_once: Mutex::default(),
    };
    DeliveryLoop::start(Args {
        queue: Arc::clone(queue),
        deliver: Arc::new(functions),
        permits: 8,
        lease_timeout: Duration::from_secs(600),
        retry: Retry {
            backoff: Duration::from_millis(5),
            backoff_max: Duration::from_millis(50),
            until_age: Duration::from_secs(3_600),
            attempts_max: 20,
        },
        meters: Meters::custom(),
    })
}

/// Enqueues events of one and of several deliveries, and cancels some that are not due.
async fn call(queue: Arc<dyn Queue>, history: Arc<History>) {
    for round in 0..ROUNDS {
        let mut batch = conformance::deliveries("good", 1);
        if round % 2 == 1 {
            batch.extend(conformance::deliveries("again", 1));
            batch.extend(conformance::deliveries("bad", 1));
        }
        enqueue(&*queue, &history, batch).await;
        if round % 5 == 2 {
            let mut late = conformance::deliveries("late", 1);
            late[0].not_before = Some(SystemTime::now() + Duration::from_secs(3_600));
            let id = late[0].id;
            history.say("late", id);
            enqueue(&*queue, &history, late).await;
            cancel(&*queue, &history, id).await;
        }
    }
}

async fn enqueue(queue: &dyn Queue, history: &History, batch: Vec<Delivery>) {
    let ids: Vec<_> = batch.iter().map(|delivery| delivery.id).collect();
    ids.iter().for_each(|id| history.say("offer", id));
    queue.enqueue(batch).await.unwrap();
    ids.iter().for_each(|id| history.say("took", id));
}

async fn cancel(queue: &dyn Queue, history: &History, id: DeliveryId) {
    history.say("cancels", id);
    loop {
        match queue.cancel(id).await {
            Ok(true) => return history.say("cancelled", id),
            Ok(false) => return history.say("none", id),
            // What a process had that was killed is being taken over.
            Err(Error::Unavailable(_)) => sleep(PAUSE).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Of the dead letters one is redriven, and dies again, and another one is purged.
async fn handle_dead(queue: &dyn Queue, history: &History) {
    let mut letters = Vec::new();
    until(async || {
        letters = queue.dead_letters(0, 10).await.unwrap();
        letters.len() >= 2
    })
    .await;
    let (redriven, purged) = (letters[0].delivery.id, letters[1].delivery.id);
    assert!(queue.redrive(redriven).await.unwrap());
    history.say("purges", purged);
    assert!(queue.purge(purged).await.unwrap());
    history.say("purged", purged);
}

/// Those of whom this was said.
fn named(history: &str, word: &str) -> HashSet<DeliveryId> {
    let lines = history.lines().filter_map(|line| line.split_once(' '));
    let those = lines.filter(|(what, _)| *what == word);
    those.map(|(_, id)| id.parse().unwrap()).collect()
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    while !holds().await {
        sleep(PAUSE).await;
    }
}
