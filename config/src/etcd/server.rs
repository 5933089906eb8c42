//! etcd servers of a test's own, and a connection to one that can be cut: for the tests of whoever keeps something in etcd.

#![allow(
    clippy::unwrap_used,
    reason = "this is test code, although it is built for the tests of other crates too"
)]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::task::AbortOnDropHandle;

use crate::settings::EtcdSettings;

/// How long a server may take to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nothing listens on. Below those that outgoing connections take, so that a server finds it free after a restart.
pub fn free_port() -> u16 {
    (0..200)
        .map(|_| rand::random_range(15_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}

/// One etcd, killed when dropped.
#[derive(Debug)]
pub struct Etcd {
    child: Option<Child>,
    arguments: Vec<String>,
    dir: TempDir,
    pub url: String,
    peer_url: String,
    name: String,
}

impl Etcd {
    fn new(scheme: &str, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("{scheme}://127.0.0.1:{}", free_port());
        let peer_url = format!("http://127.0.0.1:{}", free_port());
        Self {
            child: None,
            arguments: Vec::new(),
            dir,
            url,
            peer_url,
            name: name.into(),
        }
    }

    /// Starts a server that is a cluster by itself, and waits until it answers.
    pub async fn start() -> Self {
        let mut etcd = Self::down();
        etcd.run();
        etcd.ready().await;
        etcd
    }

    /// A server that was not started yet.
    pub fn down() -> Self {
        let mut etcd = Self::new("http", "single");
        let cluster = format!("single={}", etcd.peer_url);
        etcd.configure(&cluster, &[]);
        etcd
    }

    /// Starts a server that talks TLS and asks for a client's certificate; does not wait, as only such a client could.
    pub fn start_with_tls(authority: &Path, certificate: &Path, key: &Path) -> Self {
        let mut etcd = Self::new("https", "sealed");
        let cluster = format!("sealed={}", etcd.peer_url);
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        etcd.configure(
            &cluster,
            &[
                "--client-cert-auth".into(),
                format!("--trusted-ca-file={}", text(authority)),
                format!("--cert-file={}", text(certificate)),
                format!("--key-file={}", text(key)),
            ],
        );
        etcd.run();
        etcd
    }

    /// Starts a cluster of three.
    pub async fn start_three() -> Vec<Self> {
        let mut members: Vec<_> = ["a", "b", "c"]
            .iter()
            .map(|name| Self::new("http", name))
            .collect();
        let cluster: Vec<_> = members
            .iter()
            .map(|member| format!("{}={}", member.name, member.peer_url))
            .collect();
        for member in &mut members {
            member.configure(&cluster.join(","), &[]);
            member.run();
        }
        for member in &members {
            member.ready().await;
        }
        members
    }

    fn configure(&mut self, cluster: &str, more: &[String]) {
        self.arguments = vec![
            format!("--name={}", self.name),
            format!("--data-dir={}", self.dir.path().join("data").display()),
            format!("--listen-client-urls={}", self.url),
            format!("--advertise-client-urls={}", self.url),
            format!("--listen-peer-urls={}", self.peer_url),
            format!("--initial-advertise-peer-urls={}", self.peer_url),
            format!("--initial-cluster={cluster}"),
            "--logger=zap".into(),
            "--log-level=error".into(),
        ];
        self.arguments.extend_from_slice(more);
    }

    /// Starts the process, again after [`Etcd::kill`].
    pub fn run(&mut self) {
        let spawned = Command::new("etcd")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child =
            Some(spawned.expect("these tests start the etcd found on PATH; install etcd-server"));
    }

    /// Kills the process with signal 9.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Removes all it kept. It must be down.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.dir.path().join("data")).unwrap();
    }

    /// Stops the process with signal 19, and waits until all its threads have stopped.
    pub fn stop(&self) {
        kill(self.pid(), Signal::SIGSTOP).unwrap();
        let status = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// Lets a stopped process go on.
    pub fn go_on(&self) {
        kill(self.pid(), Signal::SIGCONT).unwrap();
    }

    fn pid(&self) -> Pid {
        let child = self.child.as_ref().expect("it runs");
        Pid::from_raw(i32::try_from(child.id()).unwrap())
    }

    /// Waits until it answers from its cluster.
    pub async fn ready(&self) {
        let start = Instant::now();
        loop {
            let answer = async { self.client().await.get("ready", None).await };
            match tokio::time::timeout(Duration::from_secs(2), answer).await {
                Ok(Ok(_)) => return,
                other => assert!(
                    start.elapsed() < PATIENCE,
                    "etcd does not answer: {other:?}"
                ),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.url], None)
            .await
            .unwrap()
    }

    fn address(&self) -> SocketAddr {
        self.url.rsplit('/').next().unwrap().parse().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Settings with short times, for tests.
pub fn settings(endpoints: impl IntoIterator<Item = String>) -> EtcdSettings {
    EtcdSettings {
        endpoints: endpoints.into_iter().collect(),
        operation_timeout: Duration::from_secs(6),
        watch_progress_interval: Duration::from_millis(300),
        watch_silence_max: Duration::from_millis(1500),
        backoff_max: Duration::from_millis(300),
        ..EtcdSettings::default()
    }
}

/// A way to a server that passes everything on, or cuts connections.
#[derive(Debug)]
pub struct Proxy {
    pub url: String,
    mode: Arc<AtomicU8>,
    _accept: AbortOnDropHandle<()>,
}

const PASS: u8 = 0;
const LOSE_ANSWERS: u8 = 1;
const CUT: u8 = 2;

impl Proxy {
    pub async fn to(etcd: &Etcd) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mode = Arc::new(AtomicU8::new(PASS));
        let server = etcd.address();
        let tasks = tokio_util::task::TaskTracker::new();
        let accept = tasks.spawn({
            let (mode, tasks) = (Arc::clone(&mode), tasks.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tasks.spawn(pass(client, server, Arc::clone(&mode)));
                }
            }
        });
        Self {
            url,
            mode,
            _accept: AbortOnDropHandle::new(accept),
        }
    }

    /// Passes requests on, and breaks the connection instead of passing the next answer.
    pub fn lose_answers(&self) {
        self.mode.store(LOSE_ANSWERS, Ordering::SeqCst);
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.mode.store(CUT, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.mode.store(PASS, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, mode: Arc<AtomicU8>) {
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let (mut up, mut down) = ([0; 16384], [0; 16384]);
    loop {
        tokio::select! {
            read = client.read(&mut up) => match read {
                Ok(count) if count > 0 && mode.load(Ordering::SeqCst) != CUT => {
                    if server.write_all(&up[..count]).await.is_err() { return }
                }
                _ => return,
            },
            read = server.read(&mut down) => match read {
                Ok(count) if count > 0 && mode.load(Ordering::SeqCst) == PASS => {
                    if client.write_all(&down[..count]).await.is_err() { return }
                }
                // HTTP/2 acknowledges a request before it answers: a frame this small is no answer yet.
                Ok(count) if count > 0 && count < 60 && mode.load(Ordering::SeqCst) == LOSE_ANSWERS => {}
                _ => return,
            },
            () = sleep(Duration::from_millis(20)) => if mode.load(Ordering::SeqCst) == CUT { return },
        }
    }
}
