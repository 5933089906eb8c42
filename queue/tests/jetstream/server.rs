//! NATS servers of a test's own, and a connection to one that can be cut.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// How long a server may take to answer, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A port that nothing listens on. Below those that outgoing connections take, so that a server finds it free after a restart.
fn free_port() -> u16 {
    (0..200)
        .map(|_| rand::random_range(15_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("some port is free")
}

/// One NATS server with JetStream, killed when dropped.
#[derive(Debug)]
pub(crate) struct Nats {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
}

impl Nats {
    /// Starts a server, and waits until it answers.
    pub(crate) async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts a server that has more in its configuration.
    pub(crate) async fn start_with(more: &str) -> Self {
        let mut nats = Self::down(more);
        nats.run();
        nats.ready().await;
        nats
    }

    /// A server that was not started yet.
    pub(crate) fn down(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let data = dir.path().join("data");
        let text = format!(
            "listen: 127.0.0.1:{port}\njetstream {{ store_dir: {:?} }}\n{more}\n",
            data.display().to_string()
        );
        std::fs::write(dir.path().join("nats.conf"), text).unwrap();
        Self {
            child: None,
            dir,
            port,
        }
    }

    /// Starts the process, again after [`Nats::kill`].
    pub(crate) fn run(&mut self) {
        // Debian has it where only the system's administrator looks.
        let path = std::env::var("PATH").unwrap_or_default();
        let spawned = Command::new("nats-server")
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
            .arg("-c")
            .arg(self.dir.path().join("nats.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.dir.path().join("log")).unwrap())
            .spawn();
        let missing =
            "these tests start the nats-server found on PATH or in /usr/sbin; install nats-server";
        self.child = Some(spawned.expect(missing));
    }

    /// Kills the process with signal 9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A directory that lives as long as the server does.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Waits until it takes connections.
    pub(crate) async fn ready(&self) {
        let start = Instant::now();
        while TcpStream::connect(self.address()).await.is_err() {
            let log = || std::fs::read_to_string(self.dir.path().join("log")).unwrap();
            assert!(
                start.elapsed() < PATIENCE,
                "NATS does not answer: {}",
                log()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A way to a server that passes everything on, or nothing.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) url: String,
    is_cut: Arc<AtomicBool>,
    _accept: AbortOnDropHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(nats: &Nats) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let is_cut = Arc::new(AtomicBool::new(false));
        let (server, tasks) = (nats.address(), TaskTracker::new());
        let accept = tasks.spawn({
            let (is_cut, tasks) = (Arc::clone(&is_cut), tasks.clone());
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tasks.spawn(pass(client, server, Arc::clone(&is_cut)));
                }
            }
        });
        Self {
            url,
            is_cut,
            _accept: AbortOnDropHandle::new(accept),
        }
    }

    /// Breaks every connection.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, is_cut: Arc<AtomicBool>) {
    if is_cut.load(Ordering::SeqCst) {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else {
        return;
    };
    let cut = async {
        while !is_cut.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
        () = cut => {}
    }
}
