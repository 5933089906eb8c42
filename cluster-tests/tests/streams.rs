//! Answers that are passed on as they come, from the node where the function is warm to a client of another one.

#![expect(
    clippy::unwrap_used,
    reason = "the lint spares test functions, not what they call"
)]

use std::path::PathBuf;
use std::time::Duration;

use cluster_tests::{Node, Record, Sandbox, until};
use reqwest::{Method, Response};
use serde_json::json;

/// The bound on every wait.
const PATIENCE: Duration = Duration::from_secs(20);

/// A function that is warm on one node, and a client of another one.
struct Scene {
    sandbox: Sandbox,
    home: Node,
    entry: Node,
    signs: PathBuf,
}

impl Scene {
    async fn start() -> Self {
        let sandbox = Sandbox::processes(2).await;
        let signs = sandbox.dir().join("signs");
        std::fs::create_dir(&signs).unwrap();
        let record = Record::command("events", [env!("CARGO_BIN_EXE_stream")])
            .env("SIGNS", signs.to_str().unwrap())
            .event_format("raw")
            .max(1)
            .timeout_ms(60_000);
        let (_, home) = sandbox.register_warm(&record, json!({})).await;
        let entry = sandbox.others(home.name()).remove(0);
        let subscription =
            json!({"event": "http", "method": "GET", "path": "/events", "functionId": "events"});
        let path = "/v1/spaces/default/subscriptions";
        let answer = entry.config(Method::POST, path, Some(&subscription)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        Self {
            sandbox,
            home,
            entry,
            signs,
        }
    }

    /// Asks for events through the node where the function is not.
    async fn listen(&self) -> Response {
        let url = self.entry.events_url("/events");
        let asking = self.entry.request(Method::GET, &url).send();
        let response = within(asking).await.unwrap();
        assert_eq!(response.status(), 200, "{response:?}");
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), "text/event-stream");
        assert_eq!(header("x-hearth-route"), "forwarded");
        assert_eq!(header("x-hearth-node"), self.home.name());
        response
    }

    async fn sign(&self, name: &str) {
        let sign = self.signs.join(name);
        until(&format!("{name} is there"), PATIENCE, || async {
            sign.exists()
        })
        .await;
    }

    async fn nothing_in_flight(&self) {
        for node in self.sandbox.nodes().into_iter().filter(Node::is_running) {
            let what = format!("nothing is in flight on {}", node.name());
            until(&what, PATIENCE, || async { node.in_flight().await == 0 }).await;
        }
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes in time")
}

/// The next piece of an answer: some text, or none at a clean end.
async fn piece(response: &mut Response) -> Option<String> {
    let piece = within(response.chunk()).await.expect("it is not cut");
    piece.map(|piece| String::from_utf8(piece.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_arrives_before_the_next_is_written_and_a_client_that_leaves_ends_the_run() {
    let scene = Scene::start().await;
    let mut response = scene.listen().await;
    assert_eq!(piece(&mut response).await.unwrap(), "data: 1\n\n");
    until("its slot is in use", PATIENCE, || async {
        scene.home.in_flight().await == 1
    })
    .await;
    drop(response);
    scene.sign("left").await;
    scene.nothing_in_flight().await;

    // The slot is free again, and an answer that ends well ends cleanly.
    let mut response = scene.listen().await;
    assert_eq!(piece(&mut response).await.unwrap(), "data: 1\n\n");
    std::fs::write(scene.signs.join("go"), "").unwrap();
    assert_eq!(piece(&mut response).await.unwrap(), "data: 2\n\n");
    assert_eq!(piece(&mut response).await, None);
    scene.nothing_in_flight().await;
    let finished = scene.entry.metric("hearth_streams_total", "finished").await;
    let left = scene.entry.metric("hearth_streams_total", "left").await;
    assert_eq!((finished, left), (1.0, 1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_cut_and_never_ended_when_its_node_is_killed() {
    let scene = Scene::start().await;
    let mut response = scene.listen().await;
    assert_eq!(piece(&mut response).await.unwrap(), "data: 1\n\n");
    scene.home.kill9();
    let cut = within(response.chunk()).await;
    assert!(
        cut.is_err(),
        "the answer ended as if it were whole: {cut:?}"
    );
    scene.nothing_in_flight().await;
    let cut = scene.entry.metric("hearth_streams_total", "cut").await;
    assert_eq!(cut, 1.0);
    let log = scene.entry.log();
    let told = log.lines().filter(|line| line.contains("was cut short"));
    let told: Vec<_> = told.collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let home = format!("node={}", scene.home.name());
    for text in ["function=events", "code=interrupted", home.as_str()] {
        assert!(told[0].contains(text), "{text} is not in {told:?}");
    }
}
