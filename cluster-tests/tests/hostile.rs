//! Clients that mean harm, or act as if: slow ones, floods of headers, JSON without a bottom. Others are served meanwhile, and what it costs is bounded.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::process::peak_bytes;
use cluster_tests::{Node, Record, Sandbox};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// Connections of each kind of hostile client.
const CLIENTS: usize = 150;

/// How long a head and a body may take on the node of these tests.
const TIMEOUT: Duration = Duration::from_secs(2);

/// How long all hostile connections may take to be ended: the timeout, what a refused body is read on, and a busy machine.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

const MIB: u64 = 1 << 20;

/// What a hostile client does after it connected: sends the first text, then the second again and again.
#[derive(Debug, Clone, Copy)]
struct Hostile {
    name: &'static str,
    first: &'static str,
    then: &'static str,
    pause: Duration,
}

const KINDS: [Hostile; 4] = [
    Hostile {
        name: "a slow head",
        first: "POST /invoke HTTP/1.1\r\nhost: 127.0.0.1\r\nx-a: ",
        then: "a",
        pause: Duration::from_millis(50),
    },
    Hostile {
        name: "a flood of headers",
        first: "POST /invoke HTTP/1.1\r\nhost: 127.0.0.1\r\n",
        then: "x-flood: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n",
        pause: Duration::ZERO,
    },
    Hostile {
        name: "a slow body",
        first: "POST /invoke HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 6000000\r\n\r\n{",
        then: " ",
        pause: Duration::from_millis(50),
    },
    Hostile {
        name: "a silent client",
        first: "",
        then: "",
        pause: TIMEOUT,
    },
];

impl Hostile {
    /// Goes on until the node ends the connection.
    async fn attack(self, address: SocketAddr) {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let (mut reading, mut writing) = stream.split();
        let writing = async {
            writing.write_all(self.first.as_bytes()).await?;
            loop {
                writing.write_all(self.then.as_bytes()).await?;
                tokio::time::sleep(self.pause).await;
            }
            #[expect(unreachable_code, reason = "it tells the type of the loop")]
            Ok::<_, std::io::Error>(())
        };
        let mut answer = [0; 1024];
        let reading = async { while reading.read(&mut answer).await.is_ok_and(|read| read > 0) {} };
        tokio::select! {
            _ = writing => {}
            () = reading => {}
        }
    }
}

fn address(node: &Node) -> SocketAddr {
    let url = node.functions_url("");
    let text = url.strip_prefix("http://").expect("it is plain");
    text.parse().expect("it is an address")
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_and_floods_are_ended_and_cost_bounded_memory() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_LIMITS__HEAD_TIMEOUT", "2s")
        .env("HEARTH_LIMITS__BODY_TIMEOUT", "2s")
        .start()
        .await;
    let node = sandbox.node(0);
    let hello = Record::process("hello", "hello");
    sandbox.register_warm(&hello, json!({})).await;
    let before = peak_bytes(node.process_id()).expect("it runs");

    let (is_over, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let mut honest = JoinSet::new();
    for _ in 0..2 {
        let (node, is_over, answered) = (node.clone(), Arc::clone(&is_over), Arc::clone(&answered));
        honest.spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let answer = node.invoke("hello", json!({})).await;
                assert!(answer.is_ok(), "an honest client got {answer:?}");
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let (mut hostile, begun) = (JoinSet::new(), Instant::now());
    for kind in KINDS {
        for _ in 0..CLIENTS {
            let attack = timeout(ENDED_WITHIN, kind.attack(address(&node)));
            hostile.spawn(async move { (kind.name, attack.await.is_ok()) });
        }
    }
    while let Some(ended) = hostile.join_next().await {
        let (name, is_ended) = ended.expect("no client panics");
        assert!(is_ended, "{name} was not ended in {ENDED_WITHIN:?}");
    }
    assert!(begun.elapsed() >= TIMEOUT, "the slow ones had their time");
    is_over.store(true, Ordering::Relaxed);
    while let Some(ended) = honest.join_next().await {
        ended.expect("honest clients are answered");
    }
    assert!(answered.load(Ordering::Relaxed) > 0);

    // A head may have 64 KiB, of which nobody who is slow sends as much; the rest is the connections' own.
    let peak = peak_bytes(node.process_id()).expect("it runs");
    let grown = peak.saturating_sub(before) / MIB;
    let bound = 64 + (KINDS.len() * CLIENTS * 128 / 1024) as u64;
    assert!(
        grown < bound,
        "{grown} MiB for {CLIENTS} clients of each kind"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_does_not_keep_others_out() {
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .env("HEARTH_LIMITS__CONNECTIONS_MAX", "40")
        // They stay for longer than the other one waits.
        .env("HEARTH_LIMITS__HEAD_TIMEOUT", "60s")
        .env("HEARTH_LIMITS__CONNECTIONS_PER_ADDRESS_MAX", "30")
        .start()
        .await;
    let node = sandbox.node(0);
    let mut idle = Vec::new();
    for _ in 0..60 {
        idle.push(TcpStream::connect(address(&node)).await.expect("connect"));
    }
    let other = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let client = reqwest::Client::builder().local_address(other).build();
    let asking = client
        .expect("a client")
        .get(node.functions_url("/"))
        .send();
    let answer = timeout(ENDED_WITHIN, asking).await.expect("in time");
    assert_eq!(answer.expect("an answer").status(), 200);
    drop(idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_without_a_bottom_is_refused_or_handed_on_and_harms_nobody() {
    let sandbox = Sandbox::builder().nodes(1).embedded().start().await;
    let node = sandbox.node(0);
    let cat = Record::command("cat", ["cat"]).stdio();
    sandbox.register(&cat).await;
    let subscription = json!({ "event": "deep", "functionId": "cat" });
    sandbox.subscribe(&subscription).await;
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let invoke = node.functions_url("/invoke");
    let event = node.events_url("/");
    let record = node.config_url("/v1/spaces/default/functions");
    let json = "application/json";
    let structured = "application/cloudevents+json";
    let id = "id\":\"1\",\"source\":\"/t\",\"specversion\":\"1.0\",\"type\":\"deep";
    for (url, content_type, body, expected) in [
        // A payload is handed on byte for byte, so nobody minds its depth.
        (
            &invoke,
            json,
            format!(r#"{{"function_name":"cat","payload":{deep}}}"#),
            [200, 200],
        ),
        (
            &invoke,
            json,
            format!(r#"{{"function_name":"cat","async":true,"payload":{deep}}}"#),
            [202, 400],
        ),
        (&invoke, json, deep.clone(), [400, 400]),
        (
            &invoke,
            json,
            format!(r#"{{"function_name":{deep}}}"#),
            [400, 400],
        ),
        (&record, json, deep.clone(), [400, 400]),
        (
            &record,
            json,
            format!(r#"{{"functionId":"f","type":"process","provider":{{"command":{deep}}}}}"#),
            [400, 400],
        ),
        (
            &record,
            json,
            format!(r#"{{"functionId":"f","type":"http","metadata":{deep}}}"#),
            [400, 400],
        ),
        (&event, json, deep.clone(), [202, 400]),
        (
            &event,
            structured,
            format!(r#"{{"{id}","data":{deep}}}"#),
            [202, 400],
        ),
    ] {
        let request = node
            .request(Method::POST, url)
            .header("content-type", content_type);
        let request = match *url == event && content_type == json {
            true => request.header("event", "deep"),
            false => request,
        };
        let begins: String = body.chars().take(60).collect();
        let answer = request.body(body).send().await.expect("an answer");
        let status = answer.status().as_u16();
        assert!(expected.contains(&status), "{url} {begins}: {status}");
    }
    let answer = node.invoke("cat", json!(1)).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert!(node.is_running());
}
