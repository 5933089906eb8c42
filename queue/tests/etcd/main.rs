//! The queue in etcd over real etcd servers, which are killed, stopped and restarted on the way.

#![allow(
    clippy::unwrap_used,
    reason = "test code, of which the lint exempts only the test functions themselves"
)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::etcd::server::{Etcd, settings};
use config::settings::EtcdSettings;
use protocol::{Generation, NodeId};
use queue::backend::etcd::{Deaths, Meters, Options};
use queue::backend::{Limits, conformance};
use queue::{Delivery, DeliveryId, EtcdQueue, Leased, Permits, Queue};
use tokio::time::{Instant, sleep};

mod books;
mod bounds;
mod dead;
mod outage;
mod takeover;

/// How long something that must happen may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);
const MANY: Permits = Permits {
    free: 10_000,
    total: 10_000,
};

/// Who is dead, as a test says.
#[derive(Debug, Default)]
struct Told(Mutex<BTreeSet<NodeId>>);

impl Told {
    fn dead(&self, node: &str) {
        self.0.lock().unwrap().insert(node.parse().unwrap());
    }
}

impl Deaths for Told {
    fn is_dead(&self, node: &NodeId, _generation: Generation) -> bool {
        self.0.lock().unwrap().contains(node)
    }
}

/// A cluster whose nodes are queues of this process.
struct Cluster {
    settings: EtcdSettings,
    deaths: Arc<Told>,
}

impl Cluster {
    fn on(etcd: &Etcd) -> Self {
        Self {
            settings: settings([etcd.url.clone()]),
            deaths: Arc::default(),
        }
    }

    async fn node(&self, name: &str) -> EtcdQueue {
        self.node_with(options(name)).await
    }

    async fn node_with(&self, options: Options) -> EtcdQueue {
        let deaths = Arc::clone(&self.deaths) as Arc<dyn Deaths>;
        EtcdQueue::open(&self.settings, "test", options, deaths, Meters::none())
            .await
            .unwrap()
    }
}

fn options(node: &str) -> Options {
    Options {
        limits: Limits {
            len_max: 100_000,
            bytes_max: 1 << 30,
            function_share: 1.0,
            lease_timeout: Duration::from_secs(3_600),
        },
        node: node.parse().unwrap(),
        generation: Generation(1),
        session_timeout: Duration::from_secs(10),
        operation_timeout: Duration::from_secs(3),
        cluster_bytes_max: 1 << 30,
        storage_max: 2 << 30,
        compact_after: Duration::from_secs(300),
        dead_len_max: 1_000,
        dead_bytes_max: 1 << 20,
        dead_age_max: Duration::from_secs(3_600),
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < PATIENCE, "{what} did not come true");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Enqueues so many events of one delivery each, and says what they are called.
async fn enqueue(queue: &EtcdQueue, count: u32) -> BTreeSet<DeliveryId> {
    let mut ids = BTreeSet::new();
    for ordinal in 0..count {
        let one = conformance::deliveries("f", 1);
        ids.insert(one[0].id);
        queue
            .enqueue(one)
            .await
            .unwrap_or_else(|error| panic!("{ordinal}: {error}"));
    }
    ids
}

/// Leases all of these, as they come.
async fn lease_all(queue: &EtcdQueue, ids: &BTreeSet<DeliveryId>) -> Vec<Leased> {
    let mut all = Vec::new();
    until("all were leased", async || {
        all.extend(queue.lease(MANY).await.unwrap());
        all.len() >= ids.len()
    })
    .await;
    assert_eq!(names(&all), *ids);
    all
}

fn names(leased: &[Leased]) -> BTreeSet<DeliveryId> {
    leased.iter().map(|leased| leased.lease.id).collect()
}

#[tokio::test]
async fn conforms() {
    let etcd = Etcd::start().await;
    let settings = settings([etcd.url.clone()]);
    let clusters = AtomicU32::new(0);
    conformance::all(|limits| {
        let cluster = format!("cluster-{}", clusters.fetch_add(1, Ordering::Relaxed));
        let settings = settings.clone();
        let options = Options {
            limits,
            ..options("n1")
        };
        async move {
            let deaths = Arc::new(Told::default());
            EtcdQueue::open(&settings, &cluster, options, deaths, Meters::none())
                .await
                .unwrap()
        }
    })
    .await;
}
