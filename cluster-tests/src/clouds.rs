//! Other clouds, on this machine: AWS as moto serves it, and the platforms of `clients/clouds.py`.

use std::path::Path;
use std::process::Command as Spawned;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tokio::process::Command;

use crate::ports::Ports;
use crate::process::Process;
use crate::program::{library, path, told};
use crate::wait::eventually;

/// How long a server of Python may take to start, on a machine that is busy with other tests.
const STARTS: Duration = Duration::from_secs(30);

/// A server of moto, with what a test needs of AWS in it: see `clients/aws.py`. It checks signatures and permissions.
#[derive(Debug)]
pub struct Moto {
    url: String,
    process: Process,
    _ports: Ports,
}

/// The platforms of `clients/clouds.py`.
#[derive(Debug)]
pub struct Platforms {
    url: String,
    keys: Value,
    _process: Process,
    _ports: Ports,
}

impl Moto {
    /// Starts it and makes all that is in it; returns that, too.
    ///
    /// # Panics
    /// When it does not come up.
    pub async fn start(dir: &Path) -> (Self, Value) {
        let ports = Ports::reserve();
        let port = ports.take();
        let mut command = Spawned::new(library("venv/bin/moto_server"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let process = Process::spawn("moto", command, &dir.join("moto.log"));
        let moto = Self {
            url: format!("http://127.0.0.1:{port}"),
            process,
            _ports: ports,
        };
        let ready = format!("{}/moto-api/data.json", moto.url);
        eventually("moto answers", STARTS, || async {
            reqwest::get(&ready).await.map(drop)
        })
        .await;
        let made = moto.step("make").await;
        (moto, made)
    }

    /// Its URL, for all services.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// All that came since the last time for queues, and from the beginning for streams, by service.
    pub async fn came(&self) -> Value {
        self.step("read").await
    }

    /// Kills it; nobody listens then.
    pub fn kill9(&self) {
        self.process.kill9();
    }

    /// Stops it with SIGSTOP: it takes connections, and answers nothing.
    pub fn stop(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Moto::stop`].
    pub fn cont(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    async fn step(&self, step: &str) -> Value {
        let mut command = Command::new(library("venv/bin/python"));
        command.arg(path("aws.py")).arg(&self.url).arg(step);
        let told = told("aws.py", command).await;
        serde_json::from_str(&told).expect("aws.py writes JSON")
    }
}

impl Platforms {
    /// Starts them.
    ///
    /// # Panics
    /// When they do not come up.
    pub async fn start(dir: &Path) -> Self {
        let ports = Ports::reserve();
        let port = ports.take();
        let mut command = Spawned::new(library("venv/bin/python"));
        command.arg(path("clouds.py")).arg(port.to_string());
        let process = Process::spawn("clouds", command, &dir.join("clouds.log"));
        let keys = eventually("the platforms have keys", STARTS, || async {
            let log = process.log();
            let line = log.lines().find(|line| line.starts_with('{'));
            let line = line.ok_or_else(|| log.clone())?;
            serde_json::from_str(line).map_err(|error| error.to_string())
        })
        .await;
        Self {
            url: format!("http://127.0.0.1:{port}"),
            keys,
            _process: process,
            _ports: ports,
        }
    }

    /// The URL of all of them.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What they are called with: `account` (a service account's key), `azure`, `openwhisk`.
    pub fn keys(&self) -> &Value {
        &self.keys
    }
}
