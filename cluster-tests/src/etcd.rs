//! A real etcd with one member.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::io::AsyncWriteExt;

use crate::process::Process;
use crate::wait::until;

/// One etcd member; its data outlives [`Etcd::kill9`].
#[derive(Debug)]
pub struct Etcd {
    dir: PathBuf,
    host: String,
    client_port: u16,
    peer_port: u16,
    process: Process,
}

impl Etcd {
    /// Starts a member that listens on `host` and waits until it answers.
    ///
    /// # Panics
    /// When there is no etcd on PATH or it does not get healthy.
    pub async fn start(dir: &Path, host: &str, client_port: u16, peer_port: u16) -> Self {
        let process = spawn(dir, host, client_port, peer_port);
        let host = host.to_owned();
        let etcd = Self {
            dir: dir.to_owned(),
            host,
            client_port,
            peer_port,
            process,
        };
        etcd.wait_healthy().await;
        etcd
    }

    /// Its client URL.
    pub fn url(&self) -> String {
        format!("http://{}:{}", self.host, self.client_port)
    }

    /// Its client address.
    pub fn address(&self) -> String {
        format!("{}:{}", self.host, self.client_port)
    }

    /// Kills it with SIGKILL.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Stops it with SIGSTOP: connections stay open and nothing answers.
    pub fn stop(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Etcd::stop`].
    pub fn cont(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same data and ports, and waits until it answers.
    pub async fn restart(&mut self) {
        self.process.kill9();
        self.process = spawn(&self.dir, &self.host, self.client_port, self.peer_port);
        self.wait_healthy().await;
    }

    /// Forgets all history before the present revision.
    pub async fn compact(&self) {
        let status = self.etcdctl(&["endpoint", "status", "-w", "json"]).await;
        let status: serde_json::Value =
            serde_json::from_str(&status).expect("etcdctl -w json writes JSON");
        let revision = status
            .pointer("/0/Status/header/revision")
            .expect("a status has a revision");
        self.etcdctl(&["compact", &revision.to_string()]).await;
    }

    /// Runs etcdctl and returns what it printed.
    ///
    /// # Panics
    /// When it fails.
    pub async fn etcdctl(&self, arguments: &[&str]) -> String {
        self.etcdctl_with(arguments, String::new()).await
    }

    async fn etcdctl_with(&self, arguments: &[&str], input: String) -> String {
        let mut child = tokio::process::Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg(format!("--endpoints={}", self.url()))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run etcdctl: it comes with etcd (make deps)");
        let mut stdin = child.stdin.take().expect("it is piped");
        let written = stdin.write_all(input.as_bytes()).await;
        written.expect("etcdctl reads its input");
        drop(stdin);
        let output = child.wait_with_output().await.expect("etcdctl ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "etcdctl {arguments:?}: {errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes many records of ASCII, a hundred in a transaction.
    ///
    /// # Panics
    /// When etcd refuses one.
    pub async fn put_all(&self, records: impl Iterator<Item = (String, String)>) {
        let records: Vec<_> = records.collect();
        for chunk in records.chunks(100) {
            let puts: String = chunk
                .iter()
                .map(|(key, value)| format!("put {key:?} {value:?}\n"))
                .collect();
            // No comparisons, these when they hold, and nothing when they do not.
            self.etcdctl_with(&["txn"], format!("\n{puts}\n\n")).await;
        }
    }

    /// The records whose keys begin with this, as keys and values.
    ///
    /// # Panics
    /// When etcd does not answer.
    pub async fn get_all(&self, prefix: &str) -> Vec<(String, String)> {
        let told = self.etcdctl(&["get", "--prefix", prefix]).await;
        let lines: Vec<_> = told.lines().map(str::to_owned).collect();
        let pairs = lines.chunks_exact(2);
        pairs
            .map(|pair| (pair[0].clone(), pair[1].clone()))
            .collect()
    }

    async fn wait_healthy(&self) {
        let url = format!("{}/health", self.url());
        until("etcd is healthy", Duration::from_secs(20), || async {
            assert!(
                self.process.status().is_none(),
                "etcd ended at once:\n{}",
                self.process.log()
            );
            let answer = crate::api::client().get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }
}

fn spawn(dir: &Path, host: &str, client_port: u16, peer_port: u16) -> Process {
    let client = format!("http://{host}:{client_port}");
    let peer = format!("http://{host}:{peer_port}");
    let mut command = Command::new("etcd");
    command
        .arg("--data-dir")
        .arg(dir.join("etcd"))
        .args(["--name", "only", "--log-level", "warn", "--enable-v2=false"])
        .args([
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
        ])
        .arg(format!("--initial-cluster=only={peer}"))
        // Elections of a single member need not wait as long as those of several.
        .args(["--heartbeat-interval", "20", "--election-timeout", "200"]);
    Process::spawn(
        "etcd (install it with make deps)",
        command,
        &dir.join("etcd.log"),
    )
}
