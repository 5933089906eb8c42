//! Custom events on a cluster: emitted through any node, delivered to every subscriber, whatever another one does.

#![expect(clippy::unwrap_used, reason = "a helper that panics fails its test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cluster_tests::{Answer, Node, Record, Sandbox, api, until};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long an event may take to all its subscribers, on a machine that is busy with other tests.
const DELIVERED: Duration = Duration::from_secs(20);

/// What a webhook does with a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Answer,
    Fail,
    Hang,
}

/// A webhook of the test's own: it keeps the envelopes that it was sent.
struct Webhook {
    url: String,
    got: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Webhook {
    async fn start(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let got = Arc::new(Mutex::new(Vec::new()));
        let (tasks, kept) = (TaskTracker::new(), Arc::clone(&got));
        let serving = tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                tasks.spawn(async move {
                    let _ = serve(stream, does, &kept).await;
                });
            }
        });
        Self {
            url,
            got,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    /// How often each event came, by id.
    fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for envelope in self.got.lock().unwrap().iter() {
            let id = envelope["id"].as_str().unwrap().to_owned();
            *ids.entry(id).or_default() += 1;
        }
        ids
    }

    async fn got(&self, count: usize) {
        let what = format!("{count} events came");
        until(&what, DELIVERED, || async { self.ids().len() >= count }).await;
    }
}

/// Reads one request, keeps its body, and answers or does not.
async fn serve(mut stream: TcpStream, does: Does, kept: &Mutex<Vec<Value>>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(());
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok());
        let length: usize = length.unwrap_or(0);
        let body = &bytes[end + 4..];
        if body.len() < length {
            continue;
        }
        kept.lock()
            .unwrap()
            .push(serde_json::from_slice(&body[..length]).unwrap());
        let status = match does {
            Does::Answer => "200 OK",
            Does::Fail => "500 Internal Server Error",
            Does::Hang => return std::future::pending().await,
        };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        return stream.write_all(answer.as_bytes()).await;
    }
}

/// Subscribes a function of the space `default` to an event on the path `/`, and waits until every node knows.
async fn subscribe(sandbox: &Sandbox, function: &str, event: &str) {
    let path = "/v1/spaces/default/subscriptions";
    let body = json!({ "event": event, "functionId": function, "path": "/" });
    let answer = sandbox
        .node(0)
        .config(Method::POST, path, Some(&body))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let id = format!("{path}/{event},{function},%2F");
    for node in sandbox.nodes() {
        until("the node knows the subscription", DELIVERED, || async {
            node.config(Method::GET, &id, None).await.status == 200
        })
        .await;
    }
}

async fn emit(node: &Node, event: &str, data: Value) -> Answer {
    let request = node.request(Method::POST, &node.events_url("/"));
    let request = request.header("event", event).json(&data);
    let answer = api::send(request).await;
    answer.unwrap_or_else(|lost| panic!("{} did not answer: {lost:?}", node.name()))
}

/// The id of the event that a 202 is about.
fn accepted(answer: &Answer) -> String {
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (202, ""),
        "{answer:?}"
    );
    answer.invocation.clone().unwrap()
}

/// A webhook and a process function, each subscribed once: an event through any node reaches both.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_through_any_node_reaches_every_subscriber() {
    let sandbox = Sandbox::processes(3).await;
    let hook = Webhook::start(Does::Answer).await;
    sandbox.register(&Record::http("hook", &hook.url)).await;
    let seen = sandbox.dir().join("seen");
    let script = format!("cat >> {0}; echo >> {0}", seen.display());
    let record = Record::command("keep", ["sh", "-c", &script]).stdio();
    sandbox.register(&record).await;
    subscribe(&sandbox, "hook", "user.created").await;
    subscribe(&sandbox, "keep", "user.*").await;

    let mut sent = Vec::new();
    for (number, node) in sandbox.nodes().iter().enumerate() {
        let answer = emit(node, "user.created", json!({ "number": number })).await;
        sent.push(accepted(&answer));
    }
    hook.got(3).await;
    let ids: BTreeMap<_, _> = sent.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(hook.ids(), ids, "the ids that were answered, once each");
    // A pooled function gets the data alone, and the rest as attributes.
    until(
        "the process function ran three times",
        DELIVERED,
        || async {
            let text = std::fs::read_to_string(&seen).unwrap_or_default();
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            lines == [r#"{"number":0}"#, r#"{"number":1}"#, r#"{"number":2}"#]
        },
    )
    .await;
    let node = sandbox.node(0);
    until("the node has counted", DELIVERED, || async {
        node.metric("hearth_deliveries_total", "outcome=\"delivered\"")
            .await
            >= 2.0
    })
    .await;
    let received = node.metric("gateway_events_received_total", "type=\"custom\"");
    let processed = node.metric("gateway_events_processed_total", "type=\"custom\"");
    assert_eq!((received.await, processed.await), (1.0, 1.0));
    assert_eq!(node.metric("gateway_events_backlog", "").await, 0.0);
    let waited = node.metric(
        "gateway_events_custom_processing_seconds_bucket",
        "le=\"0.00001\"",
    );
    assert!(waited.await >= 0.0);
}

/// One that hangs and one that fails beside a healthy one: more events than there are permits reach it, while the first of
/// those that hang has not even timed out.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_delays_no_other() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__PERMITS", "8")
        .start()
        .await;
    let healthy = Webhook::start(Does::Answer).await;
    let hanging = Webhook::start(Does::Hang).await;
    let failing = Webhook::start(Does::Fail).await;
    for (id, hook) in [
        ("healthy", &healthy),
        ("hanging", &hanging),
        ("failing", &failing),
    ] {
        let record = Record::http(id, &hook.url).timeout_ms(60_000);
        sandbox.register(&record).await;
        subscribe(&sandbox, id, "tick").await;
    }
    let node = sandbox.node(0);
    for number in 0..100 {
        accepted(&emit(&node, "tick", json!(number)).await);
    }
    healthy.got(100).await;
    failing.got(100).await;
    assert!(healthy.ids().values().all(|times| *times == 1));
    assert!(
        failing.ids().values().all(|times| *times == 1),
        "at most once"
    );
    assert!(hanging.ids().len() <= 2, "a quarter of the permits");
}

/// What was accepted is delivered before the node ends.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_delivers_what_was_accepted() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .env("HEARTH_QUEUE__PERMITS", "4")
        .start()
        .await;
    let seen = sandbox.dir().join("seen");
    let script = format!("sleep 0.2; cat >> {0}; echo >> {0}", seen.display());
    let slow = Record::command("slow", ["sh", "-c", &script]).stdio();
    sandbox.register(&slow).await;
    subscribe(&sandbox, "slow", "tick").await;
    let node = sandbox.node(0);
    for number in 0..20 {
        accepted(&emit(&node, "tick", json!(number)).await);
    }
    node.term();
    let status = node.exited(Duration::from_secs(40)).await;
    assert!(status.success(), "it ended with {status}");
    let text = std::fs::read_to_string(&seen).unwrap();
    let mut numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}
