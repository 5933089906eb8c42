//! Client listeners that speak TLS: what clients see, the operator's commands, and a certificate that is replaced under load.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use cluster_tests::node::hearth;
use cluster_tests::ports::Ports;
use cluster_tests::process::Process;
use cluster_tests::{Record, Sandbox, eventually};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, Method};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

/// How soon a node must have seen that a file changed; it looks every 200 ms here.
const SEEN: Duration = Duration::from_secs(10);

/// An authority of the test's own, and the files of a node that it made a certificate for.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("make a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("make an authority");
        let authority = Self {
            issuer,
            dir: tempfile::tempdir().expect("make a directory"),
        };
        std::fs::write(authority.file("ca.pem"), authority.issuer.pem()).expect("write a file");
        authority.renew();
        authority
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes another certificate and its key into the node's files.
    fn renew(&self) {
        let (certificate, key) = self.sign();
        std::fs::write(self.file("node.key"), key).expect("write a file");
        std::fs::write(self.file("node.pem"), certificate).expect("write a file");
    }

    fn sign(&self) -> (String, String) {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let key = KeyPair::generate().expect("make a key");
        let params = CertificateParams::new(names).expect("these are names");
        let signed = params.signed_by(&key, &self.issuer).expect("sign");
        (signed.pem(), key.serialize_pem())
    }

    /// A client that trusts this authority and no other.
    fn client(&self) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let root = Certificate::from_pem(self.issuer.pem().as_bytes()).expect("a certificate");
        let client = Client::builder().tls_certs_only([root]).tls_info(true);
        client.build().expect("make a client")
    }
}

/// A node that has TLS on its functions and events listeners; the config API is plain, so the sandbox can ask it.
async fn sandbox(authority: &Authority) -> Sandbox {
    let text = |name| authority.file(name).display().to_string();
    let mut builder = Sandbox::builder().nodes(1).embedded();
    for listener in ["FUNCTIONS", "EVENTS"] {
        let name = |file| format!("HEARTH_TLS__{listener}__{file}");
        builder = builder
            .env(&name("CERT_FILE"), &text("node.pem"))
            .env(&name("KEY_FILE"), &text("node.key"));
    }
    builder
        .env("HEARTH_TLS__RELOAD_INTERVAL", "200ms")
        .env("HEARTH_TLS__HANDSHAKE_TIMEOUT", "1s")
        .start()
        .await
}

/// The same URL with TLS.
fn secure(url: &str) -> String {
    url.replacen("http://", "https://", 1)
}

/// The certificate that a new connection to a listener shows.
async fn shown(authority: &Authority, url: &str) -> Vec<u8> {
    let answer = authority.client().get(url).send().await.expect("an answer");
    let info = answer.extensions().get::<reqwest::tls::TlsInfo>();
    let shown = info.expect("it is TLS").peer_certificate();
    shown.expect("a server shows its certificate").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_and_events_are_served_with_tls_and_plain_http_is_told_so() {
    let authority = Authority::new();
    let sandbox = sandbox(&authority).await;
    let node = sandbox.node(0);
    sandbox.register(&Record::process("echo", "sleep")).await;
    let client = authority.client();
    let url = node.functions_url("/invoke");
    let body = json!({ "function_name": "echo", "payload": { "ms": 1 } });
    let answer = client.post(secure(&url)).json(&body).send().await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), 200, "{answer:?}");
    // Browsers would not come to the plain config API any more.
    assert!(!answer.headers().contains_key("strict-transport-security"));
    let emitted = client
        .post(secure(&node.events_url("/")))
        .header("event", "user.created");
    let emitted = emitted.body("x").send().await.expect("an answer");
    assert_eq!(emitted.status(), 202, "{emitted:?}");

    for url in [url, node.events_url("/")] {
        let answer = sandbox.client().post(&url).json(&body).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), 400, "{url}");
        let text = answer.text().await.expect("a body");
        assert!(text.contains("https://"), "{url}: {text}");
    }
    // Whoever trusts another authority gets nothing.
    let stranger = Authority::new().client();
    let refused = stranger.get(secure(&node.functions_url("/"))).send().await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_go_on_with_the_handshake_is_let_go() {
    let authority = Authority::new();
    let sandbox = sandbox(&authority).await;
    let url = sandbox.node(0).functions_url("");
    let address = url.strip_prefix("http://").expect("it is an URL");
    // Nothing, and half a record: the node closes both after a second.
    for bytes in [&[][..], &[22, 3, 1, 2, 0, 1]] {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        stream.write_all(bytes).await.expect("write");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SEEN, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the node waits on for {bytes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_replaced_under_load_and_no_request_is_lost() {
    let authority = Arc::new(Authority::new());
    let sandbox = sandbox(&authority).await;
    let node = sandbox.node(0);
    let url = secure(&node.functions_url("/"));
    let (calls, is_over) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let clients = TaskTracker::new();
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, url) = (authority.client(), url.clone());
            let (calls, is_over) = (Arc::clone(&calls), Arc::clone(&is_over));
            clients.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let answer = client.get(&url).send().await.expect("no request is lost");
                    assert_eq!(answer.status(), 200);
                    answer.bytes().await.expect("a whole body");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for _ in 0..3 {
        let before = shown(&authority, &url).await;
        authority.renew();
        eventually("the new certificate is shown", SEEN, || async {
            match shown(&authority, &url).await == before {
                true => Err("the old one"),
                false => Ok(()),
            }
        })
        .await;
    }

    // A key that belongs to another certificate changes nothing, and the log says so.
    let good = shown(&authority, &url).await;
    let (_, other_key) = authority.sign();
    std::fs::write(authority.file("node.key"), other_key).expect("write a file");
    eventually("the log names the key", SEEN, || async {
        let log = node.log();
        match log.contains("tls.functions.key_file") && log.contains("the one before is used on") {
            true => Ok(()),
            false => Err("not yet"),
        }
    })
    .await;
    assert_eq!(shown(&authority, &url).await, good);
    authority.renew();
    eventually("a right pair is taken again", SEEN, || async {
        match shown(&authority, &url).await == good {
            true => Err("the old one"),
            false => Ok(()),
        }
    })
    .await;
    is_over.store(true, Ordering::Relaxed);
    for client in load {
        client.await.expect("no client met an error");
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
    let metrics = sandbox.client().get(node.config_url("/metrics"));
    let metrics = metrics.send().await.expect("an answer").text().await;
    let metrics = metrics.expect("a body");
    for name in [
        r#"hearth_tls_reloads_total{listener="functions",outcome="replaced"} 4"#,
        r#"hearth_tls_certificate_end_seconds{listener="events"}"#,
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_commands_trust_the_authority_they_are_given() {
    let authority = Authority::new();
    let ports = Ports::reserve();
    let config = ports.take();
    let mut command = hearth();
    command.args([
        "node",
        "--name",
        "n1",
        "--docker-host",
        "unix:///nonexistent",
    ]);
    command.arg("--data-dir").arg(authority.file("data"));
    for (flag, port) in [
        ("--functions-listen", ports.take()),
        ("--events-listen", ports.take()),
        ("--config-listen", config),
        ("--peer-listen", ports.take()),
    ] {
        command.args([flag, &format!("127.0.0.1:{port}")]);
    }
    command
        .arg("--tls-cert-file")
        .arg(authority.file("node.pem"));
    command
        .arg("--tls-key-file")
        .arg(authority.file("node.key"));
    let _node = Process::spawn("n1", command, &authority.file("log"));
    let api = format!("https://localhost:{config}");
    let run = |authority: Option<&Path>| {
        let mut command = hearth();
        command.args(["ready", "--api", &api]);
        if let Some(file) = authority {
            command.arg("--ca-file").arg(file);
        }
        let output = command.stdin(Stdio::null()).output().expect("it is run");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), text)
    };
    let ca = authority.file("ca.pem");
    eventually("the node is ready", Duration::from_secs(20), || async {
        match run(Some(&ca)) {
            (Some(0), _) => Ok(()),
            (_, text) => Err(text),
        }
    })
    .await;
    let answer = authority.client().get(format!("{api}/v1/status"));
    let answer = answer.send().await.expect("an answer");
    let told = &answer.headers()["strict-transport-security"];
    assert_eq!(told, "max-age=31536000");
    let (status, text) = run(None);
    assert_eq!(status, Some(69), "{text}");
    assert!(text.contains("--ca-file"), "{text}");
    let (status, text) = run(Some(&authority.file("node.key")));
    assert_eq!(status, Some(64), "{text}");
    assert!(text.contains("holds no certificate"), "{text}");
    let plain = cluster_tests::client().request(Method::GET, api.replacen("https", "http", 1));
    let answer = plain.send().await.expect("an answer");
    assert_eq!(answer.status(), 400);
}
