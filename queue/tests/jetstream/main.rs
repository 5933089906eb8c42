//! The queue in NATS over real servers, which are killed and cut off on the way, and with other processes, which are killed and stopped.

#![allow(
    clippy::unwrap_used,
    reason = "test code, of which the lint exempts only the test functions themselves"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use config::settings::JetStreamSettings;
use protocol::{Generation, NodeId};
use queue::backend::jetstream::{Meters, OpenError, Options};
use queue::backend::{Deaths, conformance};
use queue::{JetStreamQueue, Leased, Permits, Queue};
use tokio::time::{Instant, sleep, timeout};

use crate::server::Nats;

mod access;
mod books;
mod dead;
mod nodes;
mod outage;
mod process;
mod server;

const PATIENCE: Duration = Duration::from_secs(30);

/// As many permits as a test needs.
const MANY: Permits = Permits {
    free: 1_000,
    total: 1_000,
};

/// A queue of the node `n1` with short times.
fn options(url: &str, cluster: &str) -> Options {
    options_of("n1", url, cluster)
}

fn options_of(node: &str, url: &str, cluster: &str) -> Options {
    Options {
        limits: conformance::limits(),
        settings: JetStreamSettings {
            servers: vec![url.to_owned()],
            operation_timeout: Duration::from_secs(2),
            session_timeout: Duration::from_secs(1),
            // Servers set it aside, and a disk need not have a gibibyte for each test.
            bytes_max: "64MiB".parse().unwrap(),
            ..JetStreamSettings::default()
        },
        cluster: cluster.to_owned(),
        node: node.parse().unwrap(),
        generation: Generation(GENERATIONS.fetch_add(1, Ordering::Relaxed)),
        dead_len_max: 1_000,
        dead_bytes_max: 1 << 20,
        dead_age_max: Duration::from_secs(3_600),
    }
}

/// Leases that outlast a test.
fn patient(options: Options) -> Options {
    let mut options = options;
    options.limits.lease_timeout = Duration::from_secs(600);
    options
}

/// Each incarnation of a node has a later one.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// Nobody is known to be dead before it is missed.
#[derive(Debug)]
struct Unknown;

impl Deaths for Unknown {
    fn is_dead(&self, _node: &NodeId, _generation: Generation) -> bool {
        false
    }
}

async fn open(options: Options) -> JetStreamQueue {
    let opened = JetStreamQueue::open(options, Arc::new(Unknown), Meters::none()).await;
    opened.unwrap()
}

async fn refused(options: Options) -> OpenError {
    let opened = JetStreamQueue::open(options, Arc::new(Unknown), Meters::none()).await;
    opened.expect_err("the queue can not be opened")
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Leases until something comes, as a loop does.
async fn next(queue: &dyn Queue) -> Vec<Leased> {
    let leased = async {
        loop {
            let leased = queue.lease(MANY).await.unwrap();
            if !leased.is_empty() {
                return leased;
            }
            queue.ready().await;
        }
    };
    timeout(PATIENCE, leased)
        .await
        .expect("there is something to lease in time")
}

#[tokio::test]
async fn conforms() {
    let nats = Nats::start().await;
    let clusters = AtomicU32::new(0);
    conformance::all(|limits| {
        let cluster = format!("c{}", clusters.fetch_add(1, Ordering::Relaxed));
        let options = Options {
            limits,
            ..options(&nats.url(), &cluster)
        };
        open(options)
    })
    .await;
}
