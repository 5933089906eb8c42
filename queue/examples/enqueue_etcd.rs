//! How fast the queue in etcd takes deliveries, beside plain puts to the same etcd.
//!
//! `cargo run --release -p queue --example enqueue_etcd -- http://127.0.0.1:2379`. Rounds of both alternate, so that a machine that others
//! use as well is as slow for one as for the other.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::settings::EtcdSettings;
use etcd_client::KvClient;
use protocol::{Generation, NodeId};
use queue::backend::etcd::{Deaths, EtcdQueue, Meters, Options};
use queue::backend::{Limits, Outcome, Permits, Queue, conformance};
use tokio::task::JoinSet;
use tokio::time::Instant;

const EVENT_BYTES: usize = 1_000;
const CALLERS: usize = 64;
const ROUNDS: usize = 10;
/// Of one caller, in each round.
const SINGLE: usize = 100;
/// Of each of all callers, in each round.
const SHARED: usize = 100;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Nobody else is there.
#[derive(Debug)]
struct Alone;

impl Deaths for Alone {
    fn is_dead(&self, _node: &NodeId, _generation: Generation) -> bool {
        false
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).ok_or("usage: enqueue_etcd URL")?;
    let client = etcd_client::Client::connect([&url], None)
        .await?
        .kv_client();
    let queue = Arc::new(open(url).await?);
    let (mut one_put, mut one_enqueued) = (Vec::new(), Vec::new());
    let (mut puts, mut enqueues, mut ends) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        for _ in 0..SINGLE {
            let began = Instant::now();
            put(client.clone(), 0, 1).await?;
            one_put.push(began.elapsed());
            let began = Instant::now();
            enqueue(Arc::clone(&queue), 1).await?;
            one_enqueued.push(began.elapsed());
        }
        puts += all(|caller| put(client.clone(), caller, SHARED)).await?;
        enqueues += all(|_| enqueue(Arc::clone(&queue), SHARED)).await?;
        let began = Instant::now();
        drain(&queue).await?;
        ends += began.elapsed();
    }
    let total = u32::try_from(ROUNDS * CALLERS * SHARED)?;
    let rate = |took: Duration| f64::from(total) / took.as_secs_f64();
    report("put, p50", median(one_put), "us");
    report("enqueue_etcd_c1_p50", median(one_enqueued), "us");
    report("puts of 64 callers", rate(puts), "/s");
    report("enqueue_etcd_c64_rps", rate(enqueues), "/s");
    report("ends, told to etcd", rate(ends), "/s");
    Ok(())
}

async fn open(url: String) -> Result<EtcdQueue> {
    let settings = EtcdSettings {
        endpoints: vec![url],
        prefix: "enqueue".into(),
        ..EtcdSettings::default()
    };
    let limits = Limits {
        len_max: 1_000_000,
        bytes_max: 1 << 32,
        function_share: 1.0,
        lease_timeout: Duration::from_secs(60),
    };
    let options = Options {
        limits,
        node: NodeId::random(),
        generation: Generation(1),
        session_timeout: Duration::from_secs(10),
        operation_timeout: Duration::from_secs(3),
        cluster_bytes_max: 1 << 32,
        storage_max: 2 << 30,
        compact_after: Duration::from_secs(30),
        dead_len_max: 10_000,
        dead_bytes_max: 64 << 20,
        dead_age_max: Duration::from_secs(7 * 86_400),
    };
    let opened = EtcdQueue::open(
        &settings,
        "measured",
        options,
        Arc::new(Alone),
        Meters::none(),
    );
    Ok(opened.await?)
}

/// What each of all callers does, at the same time; how long it takes.
async fn all<F>(each: impl Fn(usize) -> F) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        callers.spawn(each(caller));
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(began.elapsed())
}

async fn put(mut client: KvClient, caller: usize, count: usize) -> Result<()> {
    for number in 0..count {
        let key = format!("enqueue/plain/{caller}/{number}");
        client.put(key, vec![b'x'; EVENT_BYTES], None).await?;
    }
    Ok(())
}

async fn enqueue(queue: Arc<EtcdQueue>, count: usize) -> Result<()> {
    for _ in 0..count {
        let mut deliveries = conformance::deliveries("f", 1);
        for delivery in &mut deliveries {
            delivery.event = Bytes::from_static(&[b'x'; EVENT_BYTES]);
        }
        queue.enqueue(deliveries).await?;
    }
    Ok(())
}

/// Settles all, and waits until etcd knows.
async fn drain(queue: &EtcdQueue) -> Result<()> {
    let permits = Permits {
        free: 1_000_000,
        total: 1_000_000,
    };
    for leased in queue.lease(permits).await? {
        queue.settle(&leased.lease, Outcome::Delivered).await?;
    }
    // Who is accepted after them is told after them.
    enqueue_and_end(queue).await
}

async fn enqueue_and_end(queue: &EtcdQueue) -> Result<()> {
    let last = conformance::deliveries("f", 1);
    let id = last[0].id;
    queue.enqueue(last).await?;
    queue.cancel(id).await?;
    Ok(())
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn report(what: &str, value: f64, unit: &str) {
    println!("{what:28} {value:>8.0} {unit}");
}
