//! How fast the embedded queue takes deliveries, beside plain appends to the same disk.
//!
//! `cargo run --release -p queue --example enqueue -- DIRECTORY`. Rounds of both alternate, so that a disk that others use as
//! well is as slow for one as for the other.

#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use protocol::{Space, SubscriptionId};
use queue::backend::embedded::{EmbeddedQueue, Meters, Options};
use queue::backend::{Delivery, DeliveryId, Limits, Origin, Outcome, Permits, Queue};
use tokio::task::JoinSet;
use tokio::time::Instant;

const EVENT_BYTES: usize = 1_000;
const CALLERS: usize = 64;
const ROUNDS: usize = 20;
/// Of one caller, in each round.
const SINGLE: usize = 100;
/// Of all callers, in each round.
const SHARED: usize = 100 * CALLERS;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let directory = std::env::args().nth(1).ok_or("usage: enqueue DIRECTORY")?;
    let directory = Path::new(&directory).join("enqueue");
    fs::create_dir_all(&directory)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_time()
        .build()?;
    let measured = runtime.block_on(measure(&directory));
    fs::remove_dir_all(&directory)?;
    measured
}

async fn measure(directory: &Path) -> Result<()> {
    let queue = Arc::new(open(directory)?);
    let mut file = File::create(directory.join("plain"))?;
    let (mut appended, mut enqueued) = (Vec::new(), Vec::new());
    let (mut plain, mut shared) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS {
        for _ in 0..SINGLE {
            let began = Instant::now();
            append(&mut file, 1)?;
            appended.push(began.elapsed());
            let began = Instant::now();
            queue.enqueue(vec![delivery()]).await?;
            enqueued.push(began.elapsed());
        }
        let began = Instant::now();
        for _ in 0..SHARED / CALLERS {
            append(&mut file, CALLERS)?;
        }
        plain += began.elapsed();
        let began = Instant::now();
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            callers.spawn(enqueue(Arc::clone(&queue), SHARED / CALLERS));
        }
        while let Some(caller) = callers.join_next().await {
            caller??;
        }
        shared += began.elapsed();
        drain(&queue).await?;
    }
    let total = u32::try_from(ROUNDS * SHARED)?;
    report("append and fdatasync, p50", median(appended), "us");
    report("enqueue_embedded_c1_p50", median(enqueued), "us");
    let rate = |took: Duration| f64::from(total) / took.as_secs_f64();
    report("appends in groups of 64", rate(plain), "/s");
    report("enqueue_embedded_c64_rps", rate(shared), "/s");
    backlog(directory).await
}

/// A backlog of 100,000: the memory it takes, and how long a restart takes over it.
async fn backlog(directory: &Path) -> Result<()> {
    let directory = directory.join("backlog");
    let queue = open(&directory)?;
    for _ in 0..100 {
        let batch = (0..1_000).map(|_| delivery());
        queue.enqueue(batch.collect()).await?;
    }
    drop(queue);
    let (before, began) = (resident()?, Instant::now());
    let queue = open(&directory)?;
    let (after, took) = (resident()?, began.elapsed());
    report("reopen with 100,000", took.as_secs_f64() * 1e3, "ms");
    let grown = after.saturating_sub(before) / queue.stats().waiting;
    let grown = f64::from(u32::try_from(grown)?);
    report("memory of each of 100,000", grown, "B");
    Ok(())
}

fn open(directory: &Path) -> Result<EmbeddedQueue> {
    let limits = Limits {
        len_max: 1_000_000,
        bytes_max: 1 << 32,
        function_share: 1.0,
        lease_timeout: Duration::from_secs(10),
    };
    let options = Options {
        limits,
        disk_bytes_max: 1 << 32,
        segment_bytes: 16 << 20,
        cache_bytes: 8 << 20,
        dead_len_max: 10_000,
        dead_bytes_max: 64 << 20,
        dead_age_max: Duration::from_secs(7 * 86_400),
    };
    let path = directory.join("queue");
    Ok(EmbeddedQueue::open(&path, options, Meters::none())?)
}

fn append(file: &mut File, events: usize) -> Result<()> {
    file.write_all(&vec![b'x'; events * EVENT_BYTES])?;
    file.sync_data()?;
    Ok(())
}

async fn enqueue(queue: Arc<EmbeddedQueue>, count: usize) -> std::result::Result<(), queue::Error> {
    for _ in 0..count {
        queue.enqueue(vec![delivery()]).await?;
    }
    Ok(())
}

async fn drain(queue: &EmbeddedQueue) -> Result<()> {
    let permits = Permits {
        free: 1_000_000,
        total: 1_000_000,
    };
    for leased in queue.lease(permits).await? {
        queue.settle(&leased.lease, Outcome::Delivered).await?;
    }
    Ok(())
}

fn delivery() -> Delivery {
    Delivery {
        id: DeliveryId::random(),
        event: Bytes::from_static(&[b'x'; EVENT_BYTES]),
        space: Space::default_space(),
        function_id: "function".parse().expect("that is an id"),
        origin: Origin::Subscription(SubscriptionId::from_url("user.created,function,%2F")),
        ordinal: 0,
        accepted_at: SystemTime::now(),
        not_before: None,
    }
}

/// In microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn report(what: &str, value: f64, unit: &str) {
    println!("{what:28} {value:>8.0} {unit}");
}

/// The bytes of memory that the process has.
fn resident() -> Result<usize> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let pages: usize = pages.split(' ').nth(1).ok_or("no statm")?.parse()?;
    Ok(pages * 4_096)
}
