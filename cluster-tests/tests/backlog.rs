//! Many events that wait while functions hang and fail: what they cost in memory, how soon a killed node has them again, and that a
//! function with a flood of them does not keep the others waiting.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]
#![expect(clippy::print_stdout, reason = "figures for docs/operations.md")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster_tests::process::{peak_bytes, resident_bytes};
use cluster_tests::sandbox::Builder;
use cluster_tests::{Node, Record, Sandbox, eventually, until};
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long a node may take that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(30);

/// Clients that emit at once.
const CLIENTS: usize = 64;

/// How many events, and how large.
#[derive(Debug, Clone, Copy)]
struct Size {
    events: usize,
    payload_bytes: usize,
    /// How long a killed node may take until it has all of them again.
    recovered_within: Duration,
    /// How long they may take to their functions.
    drained_within: Duration,
}

const SHORT: Size = Size {
    events: 4_000,
    payload_bytes: 20_000,
    recovered_within: Duration::from_secs(20),
    drained_within: Duration::from_secs(40),
};

const LONG: Size = Size {
    events: 100_000,
    payload_bytes: 2_000,
    recovered_within: Duration::from_secs(400),
    drained_within: Duration::from_secs(600),
};

/// What a node may take of memory for what waits.
#[derive(Debug, Clone, Copy)]
struct Cost {
    /// Whatever waits: what is on its way, the cache of events, and what the allocator keeps.
    fixed: u64,
    each: u64,
    /// Whether events that wait are in memory as well.
    has_events: bool,
}

impl Cost {
    fn of(self, size: Size) -> u64 {
        let event = if self.has_events {
            size.payload_bytes
        } else {
            0
        };
        self.fixed + size.events as u64 * (self.each + event as u64)
    }
}

/// What a function does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    /// Answers when it does something else.
    Hang,
    Fail,
    Take,
}

/// A function that counts what it took.
struct Function {
    name: &'static str,
    served: Arc<Served>,
    _serving: AbortOnDropHandle<()>,
}

struct Served {
    does: watch::Sender<Does>,
    /// How often it took each event.
    took: Mutex<BTreeMap<String, usize>>,
}

impl Function {
    async fn start(sandbox: &Sandbox, name: &'static str, does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let served = Arc::new(Served {
            does: watch::Sender::new(does),
            took: Mutex::default(),
        });
        let serving = TaskTracker::new().spawn(serve(listener, Arc::clone(&served)));
        let record = Record::http(name, &url).timeout_ms(60_000);
        sandbox.register(&record).await;
        let subscription = json!({ "event": name, "functionId": name });
        sandbox.subscribe(&subscription).await;
        Self {
            name,
            served,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    fn now(&self, does: Does) {
        self.served.does.send_replace(does);
    }

    /// How many of its events it took.
    fn took(&self) -> usize {
        self.served.took.lock().unwrap().len()
    }

    fn repeated(&self) -> usize {
        let took = self.served.took.lock().unwrap();
        took.values().map(|times| times - 1).sum()
    }

    /// Emits so many events for it; all of them are accepted.
    async fn emit(&self, node: &Node, size: Size, count: usize) {
        let data = "x".repeat(size.payload_bytes);
        let data = data.as_str();
        let emitted = stream::iter(0..count).map(|number| async move {
            let event = json!({
                "specversion": "1.0", "type": self.name, "source": "backlog",
                "id": format!("{}-{number}", self.name), "data": data,
            });
            let request = node.request(Method::POST, &node.events_url("/"));
            let request = request
                .header("content-type", "application/cloudevents+json")
                .body(event.to_string());
            let answer = cluster_tests::api::send(request).await.unwrap();
            assert_eq!(answer.status, 202, "{answer:?}");
        });
        emitted.buffer_unordered(CLIENTS).collect::<Vec<()>>().await;
    }
}

async fn serve(listener: TcpListener, served: Arc<Served>) {
    let tasks = TaskTracker::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let served = Arc::clone(&served);
        let service = service_fn(move |request| {
            let served = Arc::clone(&served);
            async move { Ok::<_, Infallible>(served.answer(request).await) }
        });
        // A node that hangs up is how every connection ends.
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tasks.spawn(async move { drop(connection.await) });
    }
}

impl Served {
    async fn answer(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let mut answer = Response::new(Empty::new());
        // A node that was killed while it sent has called nobody.
        #[expect(clippy::disallowed_methods, reason = "the test makes all events")]
        let Ok(body) = request.into_body().collect().await else {
            return answer;
        };
        let mut does = self.does.subscribe();
        let does = *does.wait_for(|does| *does != Does::Hang).await.unwrap();
        if does == Does::Fail {
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return answer;
        }
        let envelope: Value = serde_json::from_slice(&body.to_bytes()).unwrap();
        let id = envelope["id"].as_str().unwrap().to_owned();
        *self.took.lock().unwrap().entry(id).or_default() += 1;
        answer
    }
}

/// A node takes a backlog, is killed, has it again, and delivers it.
async fn check(backend: &str, builder: Builder, size: Size, cost: Cost) {
    let Size {
        events,
        recovered_within,
        drained_within,
        ..
    } = size;
    let sandbox = builder
        .nodes(1)
        .env("HEARTH_QUEUE__BYTES_MAX", "256MiB")
        .env("HEARTH_QUEUE__CLUSTER_BYTES_MAX", "256MiB")
        .env("HEARTH_QUEUE__FUNCTION_SHARE", "1.0")
        .env("HEARTH_QUEUE__RETRY_BACKOFF_MAX", "2s")
        .env("HEARTH_QUEUE__ATTEMPTS_MAX", "1000")
        .start()
        .await;
    let flood = Function::start(&sandbox, "flood", Does::Hang).await;
    let few = [
        Function::start(&sandbox, "few", Does::Hang).await,
        Function::start(&sandbox, "fewer", Does::Hang).await,
    ];
    let fails = Function::start(&sandbox, "fails", Does::Fail).await;
    let (many, some) = (events / 100 * 90, events / 100 * 4);
    let node = sandbox.node(0);
    let waits = || node.metric("gateway_events_backlog", "");
    let before = resident_bytes(node.process_id()).unwrap();

    // The flood is there before the others have anything.
    let began = Instant::now();
    flood.emit(&node, size, many).await;
    fails.emit(&node, size, events - many - 2 * some).await;
    for function in &few {
        function.emit(&node, size, some).await;
    }
    let accepted = began.elapsed();
    let all_but_permits = |waiting: f64| waiting >= (events - 100) as f64;
    until("all of them wait", PATIENCE, || async {
        all_but_permits(waits().await)
    })
    .await;
    let waiting = peak_bytes(node.process_id()).unwrap() - before;

    node.kill9();
    let began = Instant::now();
    node.restart();
    node.wait_ready(recovered_within).await;
    let ready = began.elapsed();
    eventually("all of them wait again", recovered_within, || async {
        match waits().await {
            waiting if all_but_permits(waiting) => Ok(()),
            waiting => Err(waiting),
        }
    })
    .await;
    let recovered = began.elapsed();

    let began = Instant::now();
    flood.now(Does::Take);
    few.iter().for_each(|function| function.now(Does::Take));
    until("the few events came", drained_within, || async {
        few.iter().all(|function| function.took() == some)
    })
    .await;
    let (few_came, of_flood) = (began.elapsed(), flood.took());
    fails.now(Does::Take);
    let sum = || flood.took() + fails.took() + few.iter().map(Function::took).sum::<usize>();
    eventually("all of them came", drained_within, || async {
        match sum() {
            came if came == events => Ok(()),
            came => Err(came),
        }
    })
    .await;
    let drained = began.elapsed();
    until("nothing waits", PATIENCE, || async { waits().await == 0.0 }).await;
    let draining = peak_bytes(node.process_id()).unwrap() - before;
    let repeated: usize = [&flood, &fails, &few[0], &few[1]]
        .iter()
        .map(|function| function.repeated())
        .sum();
    println!(
        "{backend}: {size:?}: accepted in {accepted:?}, {} B each while they wait and {} B after the kill, of {} B allowed; ready after {ready:?}, \
         all there after {recovered:?}; few came in {few_came:?} with {of_flood} of {many} of the flood, all in {drained:?}, {repeated} repeated",
        waiting / events as u64,
        draining / events as u64,
        cost.of(size) / events as u64,
    );
    assert!(waiting <= cost.of(size), "{waiting} B of {}", cost.of(size));
    assert!(
        draining <= cost.of(size),
        "{draining} B of {}",
        cost.of(size)
    );
    assert!(
        of_flood <= many / 2,
        "the flood came first: {of_flood} of it"
    );
    let dead = node.metric("hearth_dead_letters", "").await;
    assert!(dead == 0.0, "{dead} of them are dead letters");
}

/// Events are read from the journal when they are delivered, but for `queue.cache_max`.
const ON_DISK: Cost = Cost {
    fixed: 64 << 20,
    each: 600,
    has_events: false,
};

/// What waits is in memory as well.
const ELSEWHERE: Cost = Cost {
    fixed: 64 << 20,
    each: 1_600,
    has_events: true,
};

#[tokio::test(flavor = "multi_thread")]
async fn many_events_wait_on_disk() {
    check("embedded", Sandbox::builder().embedded(), SHORT, ON_DISK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_wait_in_etcd() {
    check("etcd", Sandbox::builder(), SHORT, ELSEWHERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_events_wait_in_nats() {
    check("jetstream", Sandbox::builder().nats(), SHORT, ELSEWHERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_hundred_thousand_events_wait_on_disk() {
    check("embedded", Sandbox::builder().embedded(), LONG, ON_DISK).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_hundred_thousand_events_wait_in_etcd() {
    check("etcd", Sandbox::builder(), LONG, ELSEWHERE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn long_a_hundred_thousand_events_wait_in_nats() {
    check("jetstream", Sandbox::builder().nats(), LONG, ELSEWHERE).await;
}
