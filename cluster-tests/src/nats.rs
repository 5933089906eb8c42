//! A real NATS with JetStream, one server.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::process::Process;
use crate::wait::until;

/// One NATS server; its data outlives [`Nats::kill9`].
#[derive(Debug)]
pub struct Nats {
    dir: PathBuf,
    host: String,
    port: u16,
    process: Process,
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
        let nats = Self {
            dir: dir.to_owned(),
            host: host.to_owned(),
            port,
            process: spawn(dir, host, port),
        };
        nats.wait_ready().await;
        nats
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("nats://{}:{}", self.host, self.port)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Starts it again on the same data and port, and waits until it takes connections.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = spawn(&self.dir, &self.host, self.port);
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
                TcpStream::connect((self.host.as_str(), self.port))
                    .await
                    .is_ok()
            },
        )
        .await;
    }
}

fn spawn(dir: &Path, host: &str, port: u16) -> Process {
    // Debian has it where only the system's administrator looks.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("nats-server");
    command
        .env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"))
        .args(["--addr", host, "--port", &port.to_string()])
        .args(["--jetstream", "--store_dir"])
        .arg(dir.join("nats"));
    Process::spawn(
        "nats-server (install it with make deps)",
        command,
        &dir.join("nats.log"),
    )
}
