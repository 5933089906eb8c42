//! How fast the queue in NATS takes deliveries, beside plain publishes to the same JetStream, each acknowledged.
//!
//! `cargo run --release -p queue --features jetstream,test-util --example enqueue_jetstream -- nats://127.0.0.1:4222`. Rounds of both
//! alternate, so that a machine that others use as well is as slow for one as for the other.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::settings::JetStreamSettings;
use protocol::{Generation, NodeId};
use queue::backend::jetstream::{JetStreamQueue, Meters, Options};
use queue::backend::{Deaths, Limits, Outcome, Permits, Queue, conformance};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

const EVENT_BYTES: usize = 1_000;
const CALLERS: usize = 64;
const ROUNDS: usize = 10;
/// Of one caller, in each round.
const SINGLE: usize = 100;
/// Of each of all callers, in each round.
const SHARED: usize = 100;
/// The stream of the plain publishes.
const PLAIN: &str = "measured-plain";

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
    let usage = "usage: enqueue_jetstream URL";
    let url = std::env::args().nth(1).ok_or(usage)?;
    let client = async_nats::connect(&url).await?;
    make_plain(&client).await?;
    let queue = Arc::new(open(url).await?);
    let (mut one_published, mut one_enqueued) = (Vec::new(), Vec::new());
    let (mut publishes, mut enqueues, mut ends) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        for _ in 0..SINGLE {
            let began = Instant::now();
            publish(client.clone(), 1).await?;
            one_published.push(began.elapsed());
            let began = Instant::now();
            enqueue(Arc::clone(&queue), 1).await?;
            one_enqueued.push(began.elapsed());
        }
        publishes += all(|| publish(client.clone(), SHARED)).await?;
        enqueues += all(|| enqueue(Arc::clone(&queue), SHARED)).await?;
        let began = Instant::now();
        drain(&queue).await?;
        ends += began.elapsed();
    }
    let total = u32::try_from(ROUNDS * CALLERS * SHARED)?;
    let rate = |took: Duration| f64::from(total) / took.as_secs_f64();
    report(
        "publish with acknowledgement, p50",
        median(one_published),
        "us",
    );
    report("enqueue_jetstream_c1_p50", median(one_enqueued), "us");
    report("publishes of 64 callers", rate(publishes), "/s");
    report("enqueue_jetstream_c64_rps", rate(enqueues), "/s");
    report("ends, told to NATS", rate(ends), "/s");
    Ok(())
}

async fn open(url: String) -> Result<JetStreamQueue> {
    let limits = Limits {
        len_max: 1_000_000,
        bytes_max: 1 << 32,
        function_share: 1.0,
        lease_timeout: Duration::from_secs(60),
    };
    let options = Options {
        limits,
        settings: JetStreamSettings {
            servers: vec![url],
            stream: "measured".into(),
            ..JetStreamSettings::default()
        },
        cluster: "queue".into(),
        node: NodeId::random(),
        generation: Generation(1),
        dead_len_max: 10_000,
        dead_bytes_max: 64 << 20,
        dead_age_max: Duration::from_secs(7 * 86_400),
    };
    Ok(JetStreamQueue::open(options, Arc::new(Alone), Meters::none()).await?)
}

/// A stream with nothing special about it but a bound.
async fn make_plain(client: &async_nats::Client) -> Result<()> {
    let config = json!({
        "name": PLAIN, "subjects": [PLAIN], "retention": "limits", "storage": "file", "num_replicas": 1,
        "discard": "old", "max_msgs": 100_000,
    });
    let subject = format!("$JS.API.STREAM.CREATE.{PLAIN}");
    let made = client.request(subject, config.to_string().into()).await?;
    let made: Value = serde_json::from_slice(&made.payload)?;
    match made.get("error") {
        Some(error) => Err(error.to_string().into()),
        None => Ok(()),
    }
}

/// What each of all callers does, at the same time; how long it takes.
async fn all<F>(each: impl Fn() -> F) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let began = Instant::now();
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        callers.spawn(each());
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(began.elapsed())
}

async fn publish(client: async_nats::Client, count: usize) -> Result<()> {
    let event = Bytes::from(vec![b'x'; EVENT_BYTES]);
    for _ in 0..count {
        let acknowledged = client.request(PLAIN, event.clone()).await?;
        let acknowledged: Value = serde_json::from_slice(&acknowledged.payload)?;
        if acknowledged["seq"].is_null() {
            return Err(acknowledged.to_string().into());
        }
    }
    Ok(())
}

async fn enqueue(queue: Arc<JetStreamQueue>, count: usize) -> Result<()> {
    let event = Bytes::from(vec![b'x'; EVENT_BYTES]);
    for _ in 0..count {
        let mut deliveries = conformance::deliveries("f", 1);
        for delivery in &mut deliveries {
            delivery.event = event.clone();
        }
        queue.enqueue(deliveries).await?;
    }
    Ok(())
}

/// Ends all that waits, a hundred at a time: what one function gets of these permits.
async fn drain(queue: &Arc<JetStreamQueue>) -> Result<()> {
    let permits = Permits {
        free: 400,
        total: 400,
    };
    loop {
        let mut ending = JoinSet::new();
        for leased in queue.lease(permits).await? {
            let queue = Arc::clone(queue);
            ending.spawn(async move { queue.settle(&leased.lease, Outcome::Delivered).await });
        }
        if ending.is_empty() {
            return Ok(());
        }
        while let Some(ended) = ending.join_next().await {
            ended??;
        }
    }
}

fn median(mut took: Vec<Duration>) -> f64 {
    took.sort_unstable();
    took[took.len() / 2].as_secs_f64() * 1e6
}

fn report(what: &str, value: f64, unit: &str) {
    println!("{what:<34} {value:>10.0} {unit}");
}
