//! The search for values where they must not be.

use std::path::Path;
use std::sync::{Arc, Mutex};

use cluster_tests::{Record, Sandbox, Tap, eventually, until};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use crate::{
    FIRST, PATIENCE, SECOND, base64, command, files_below, register, said, secrets, with_secrets,
};

/// Listens for whatever is posted, and keeps it.
async fn collector() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let kept = Arc::new(Mutex::new(Vec::new()));
    let tasks = tokio_util::task::TaskTracker::new();
    let (all, inner) = (Arc::clone(&kept), tasks.clone());
    tasks.spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let all = Arc::clone(&all);
            inner.spawn(async move {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(bytes @ 1..) = connection.read(&mut piece).await {
                    all.lock()
                        .expect("no holder panics")
                        .extend_from_slice(&piece[..bytes]);
                    // Said early, which an exporter does not mind.
                    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
                    let _ = connection.write_all(answer).await;
                }
            });
        }
    });
    (format!("http://{address}/v1/traces"), kept)
}

fn has(bytes: &[u8], text: &str) -> bool {
    String::from_utf8_lossy(bytes).contains(text)
}

/// A text in the open, and as it would stand in base64 and in hex by itself.
fn forms(text: &str) -> [String; 3] {
    let hex = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    [text.to_owned(), base64(text), hex]
}

/// Each file below a directory that has one of the texts.
fn leaks(dir: &Path, hidden: &[String]) -> Vec<String> {
    let files = files_below(dir).into_iter();
    let has_one = |path: &String| {
        let bytes = std::fs::read(path).unwrap_or_default();
        hidden.iter().any(|text| has(&bytes, text))
    };
    files.filter(has_one).collect()
}

/// Those of the texts that are in one of the datagrams.
fn gossiped(tap: &Tap, texts: &[String]) -> Vec<String> {
    let datagrams = tap.datagrams();
    let is_in_one = |text: &&String| datagrams.iter().any(|bytes| has(bytes, text));
    texts.iter().filter(is_in_one).cloned().collect()
}

/// Holds that gossip went on for a while, and that none of the texts is in it, nor anything else that can be read.
async fn check_gossip(sandbox: &Sandbox, hidden: &[String]) {
    let tap = sandbox.tap();
    let before = tap.datagrams().len();
    assert!(before > 0, "nothing was gossiped");
    eventually("gossip goes on", PATIENCE, || async {
        // A round of one node with another is three.
        match tap.datagrams().len() - before {
            count @ ..50 => Err(format!("{count} datagrams")),
            _ => Ok(()),
        }
    })
    .await;
    let secret = std::fs::read_to_string(sandbox.dir().join("secret")).expect("a secret");
    let mut hidden = hidden.to_vec();
    hidden.extend(forms(secret.trim()));
    // Every message has it before it is sealed.
    hidden.push(sandbox.id().to_owned());
    assert_eq!(gossiped(tap, &hidden), [""; 0]);

    // What is sent in the open is found, so the search can fail.
    let open = "open-Jw3eN8uYq5Vt1Kc6".to_owned();
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = sandbox.node(0).peer_address();
    let sent = socket.send_to(open.as_bytes(), address).await;
    sent.expect("send a datagram");
    until("what is sent in the open is found", PATIENCE, || async {
        gossiped(tap, std::slice::from_ref(&open)) == [open.clone()]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_found_nowhere_but_in_its_instances() {
    let (endpoint, traced) = collector().await;
    let sandbox = Sandbox::builder()
        .nodes(3)
        .tapped()
        .env("HEARTH_TELEMETRY__OTLP_ENDPOINT", &endpoint)
        .env("HEARTH_LOGS__LEVEL", "trace,hyper=trace,h2=trace,tonic=trace,tower=trace,reqwest=trace,chitchat=trace,bollard=trace")
        .start()
        .await;
    let nodes = sandbox.nodes();
    let hidden: Vec<String> = [FIRST, SECOND].into_iter().flat_map(forms).collect();

    let file = sandbox.dir().join("value");
    let mut spoken = Vec::new();
    let made = command(&nodes[0], &["secret", "set", "db", "--file", "-"], FIRST);
    assert!(made.status.success(), "{made:?}");
    spoken.push(said(&made));
    // Counts what it was given, and tells it not.
    let script = r#"printf '%s %s' "${#DB_PASSWORD}" "$(wc -c < "$HEARTH_SECRETS/db.txt")""#;
    let count = Record::command("count", ["/bin/sh", "-c", script]).stdio();
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &count, secrets()),
    )
    .await;
    let pooled = Record::process("pooled", "hello");
    register(
        &sandbox,
        &nodes[0],
        &with_secrets(&sandbox, &pooled, secrets()),
    )
    .await;
    for node in &nodes {
        for id in ["count", "pooled"] {
            let answer = node.invoke(id, json!({})).await;
            assert!(answer.is_ok(), "{answer:?}");
            spoken.push(format!("{answer:?}"));
        }
    }
    std::fs::write(&file, SECOND).expect("write a file");
    let path = file.to_str().expect("a path of text");
    for words in [
        &["secret", "set", "db", "--file", path][..],
        &["--json", "secret", "set", "db", "--file", path],
        &["secret", "list"],
        &["--json", "secret", "list"],
        &["secret", "delete", "db"],
        &["function", "get", "pooled"],
        &["export"],
    ] {
        spoken.push(said(&command(&nodes[1], words, "")));
    }
    std::fs::remove_file(&file).expect("remove a file");
    // Bodies that are refused are not repeated either.
    for body in [
        json!({"value": [FIRST]}),
        json!({FIRST: 1}),
        json!({"base64": format!("!{FIRST}")}),
        json!({"value": FIRST, "base64": FIRST}),
    ] {
        let refused = nodes[2]
            .config(Method::PUT, "/v1/spaces/default/secrets/x", Some(&body))
            .await;
        assert_eq!(refused.status, 400, "{refused:?}");
        spoken.push(format!("{refused:?}"));
    }
    for node in &nodes {
        assert!(node.invoke("count", json!({})).await.is_ok());
        for path in [
            "/metrics",
            "/v1/cluster",
            "/v1/status",
            "/v1/export",
            "/v1/spaces/default",
            "/v1/spaces/default/functions",
            "/v1/spaces/default/functions/pooled",
            "/v1/spaces/default/functions/count/logs",
            "/v1/spaces/default/secrets",
            "/v1/spaces/default/executions",
            "/v1/dead-letters",
            "/debug/actors",
            "/debug/route?function=pooled",
        ] {
            let answer = node
                .request(Method::GET, &node.config_url(path))
                .send()
                .await;
            spoken.push(answer.expect("it answers").text().await.expect("a text"));
        }
    }
    let leaked: Vec<_> = spoken
        .iter()
        .filter(|text| hidden.iter().any(|hidden| text.contains(hidden)))
        .collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    until("spans are exported", PATIENCE, || async {
        has(&traced.lock().expect("no holder panics"), "start_instance")
    })
    .await;
    for text in &hidden {
        assert!(
            !has(&traced.lock().expect("no holder panics"), text),
            "in a trace"
        );
    }
    check_gossip(&sandbox, &hidden).await;
    for node in &nodes {
        assert!(node.log().contains("TRACE"), "it logs all there is");
    }
    // Logs, data directories and etcd's own files are below it; what the record says in the open is found there.
    let listed = nodes[0]
        .config(Method::GET, "/v1/spaces/default/secrets", None)
        .await
        .json();
    let version = listed["secrets"][0]["version"]
        .as_str()
        .expect("a version")
        .to_owned();
    assert!(!leaks(sandbox.dir(), &[version]).is_empty());
    assert_eq!(leaks(sandbox.dir(), &hidden), [""; 0]);
}
