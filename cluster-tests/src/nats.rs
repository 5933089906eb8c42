//! A real NATS with JetStream: one server, or a cluster of `trio`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::until;

mod trio;

pub use trio::Trio;

/// One NATS server; its data outlives [`Nats::kill9`].
#[derive(Debug)]
pub struct Nats {
    launch: Launch,
    process: Process,
}

/// How a server is started, again after it was killed.
#[derive(Debug)]
struct Launch {
    host: String,
    port: u16,
    data: String,
    log: PathBuf,
    program: PathBuf,
    /// What makes it one of several.
    more: Vec<String>,
}

impl Nats {
    /// Starts a server on loopback and waits until it takes connections.
    ///
    /// # Panics
    /// When there is no nats-server or it does not take any.
    pub async fn start(dir: &Path, port: u16) -> Self {
        Self::start_on(dir, "127.0.0.1", port).await
    }

    /// Starts a server that listens on `host` and waits until it takes connections.
    ///
    /// # Panics
    /// When there is no nats-server or it does not take any.
    pub async fn start_on(dir: &Path, host: &str, port: u16) -> Self {
        let launch = Launch::new(dir, "nats", host, port);
        let nats = Self::spawn(launch);
        nats.wait_ready().await;
        nats
    }

    fn spawn(launch: Launch) -> Self {
        let process = launch.spawn();
        Self { launch, process }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.launch.host, self.launch.port)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Stops it with SIGSTOP: connections stay open and nothing answers.
    pub fn stop(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Nats::stop`].
    pub fn cont(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same data and port, and waits until it takes connections.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = self.launch.spawn();
        self.wait_ready().await;
    }

    async fn wait_ready(&self) {
        until(
            "NATS takes connections",
            Duration::from_secs(20),
            || async {
                assert!(
                    self.process.status().is_none(),
                    "nats-server ended at once:\n{}",
                    self.process.log()
                );
                TcpStream::connect((self.launch.host.as_str(), self.launch.port))
                    .await
                    .is_ok()
            },
        )
        .await;
    }
}

impl Launch {
    fn new(dir: &Path, name: &str, host: &str, port: u16) -> Self {
        Self {
            host: host.to_owned(),
            port,
            data: dir.join(name).display().to_string(),
            log: dir.join(format!("{name}.log")),
            program: "nats-server".into(),
            more: Vec::new(),
        }
    }

    fn spawn(&self) -> Process {
        // Debian has it where only the system's administrator looks.
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(&self.program);
        command
            .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
            .args(["--addr", &self.host, "--port", &self.port.to_string()])
            .args(["--jetstream", "--store_dir", &self.data])
            .args(&self.more);
        let name = "nats-server (install it with make deps)";
        Process::spawn(name, command, &self.log)
    }
}
