//! One `hearth node` process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use reqwest::{Client, Method, RequestBuilder};

use crate::ports::Ports;
use crate::process::Process;
use crate::wait::eventually;

/// How a node differs from the others of its sandbox.
#[derive(Debug, Clone, Default)]
pub struct NodeOptions {
    /// Settings by their environment names, over those of the sandbox.
    pub env: Vec<(String, String)>,
    /// The cluster secret's file; that of the sandbox when absent.
    pub secret_file: Option<PathBuf>,
    /// The store's URL; that of the sandbox when absent.
    pub store_url: Option<String>,
    /// The container engine; that of the sandbox when absent.
    pub docker_host: Option<String>,
    /// Leaves `--allow-process` out, so that functions of type `process` run on other nodes.
    pub is_process_denied: bool,
    /// The network namespace it runs in, with its addresses there.
    pub place: Option<Place>,
    /// The data directory; one in the sandbox's when absent.
    pub data_dir: Option<PathBuf>,
}

/// Where a node lives when it has a network namespace of its own.
#[derive(Debug, Clone)]
pub struct Place {
    /// The namespace's name.
    pub namespace: String,
    /// The address that peers reach it at.
    pub peer_address: IpAddr,
    /// The address that the test reaches it at, whatever happens to the other.
    pub client_address: IpAddr,
}

/// All that a node's process is started with; the same at every start.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) secret_file: PathBuf,
    pub(crate) store_url: Option<String>,
    pub(crate) docker_host: String,
    pub(crate) is_process_denied: bool,
    pub(crate) seeds: Vec<String>,
    pub(crate) token: Option<(String, PathBuf)>,
    pub(crate) place: Option<Place>,
    /// The address that peers reach it at, where that is not the one that it listens on.
    pub(crate) advertised: Option<IpAddr>,
    pub(crate) ports: NodePorts,
}

/// The ports of a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodePorts {
    functions: u16,
    events: u16,
    config: u16,
    pub(crate) peer: u16,
}

impl NodePorts {
    pub(crate) fn take(ports: &Ports) -> Self {
        Self {
            functions: ports.take(),
            events: ports.take(),
            config: ports.take(),
            peer: ports.take(),
        }
    }
}

/// A handle on one `hearth node` process; clones share it.
#[derive(Debug, Clone)]
pub struct Node(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    launch: Launch,
    client: Client,
    process: Mutex<Arc<Process>>,
}

impl Node {
    /// Starts the process; does not wait for anything.
    pub(crate) fn start(launch: Launch, client: Client) -> Self {
        let process = Mutex::new(Arc::new(launch.spawn()));
        Self(Arc::new(Inner {
            launch,
            client,
            process,
        }))
    }

    /// The `--name`.
    pub fn name(&self) -> &str {
        &self.0.launch.name
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.0.launch.data_dir.clone()
    }

    /// A URL of the functions API.
    pub fn functions_url(&self, path: &str) -> String {
        self.url(self.0.launch.ports.functions, path)
    }

    /// A URL of the events API.
    pub fn events_url(&self, path: &str) -> String {
        self.url(self.0.launch.ports.events, path)
    }

    /// A URL of the config API.
    pub fn config_url(&self, path: &str) -> String {
        self.url(self.0.launch.ports.config, path)
    }

    /// The address of the functions API.
    pub(crate) fn functions_address(&self) -> SocketAddr {
        SocketAddr::new(self.client_host(), self.0.launch.ports.functions)
    }

    /// The address of the events API.
    pub(crate) fn events_address(&self) -> SocketAddr {
        SocketAddr::new(self.client_host(), self.0.launch.ports.events)
    }

    /// `HOST:PORT` that peers reach it at.
    pub fn peer_address(&self) -> String {
        self.0.launch.peer_address()
    }

    /// A request with the administrator's token where the sandbox has one.
    pub fn request(&self, method: Method, url: &str) -> RequestBuilder {
        let request = self.0.client.request(method, url);
        match &self.0.launch.token {
            Some((token, _)) => request.bearer_auth(token),
            None => request,
        }
    }

    /// The id of the present process.
    pub fn process_id(&self) -> i32 {
        self.process().id()
    }

    /// Whether the present process still runs.
    pub fn is_running(&self) -> bool {
        self.process().status().is_none()
    }

    /// Kills it with SIGKILL and returns once it is gone.
    pub fn kill9(&self) {
        self.process().kill9();
    }

    /// Sends SIGSTOP: its connections stay open and nothing answers.
    pub fn stop(&self) {
        self.process().signal(Signal::SIGSTOP);
    }

    /// Sends SIGCONT.
    pub fn cont(&self) {
        self.process().signal(Signal::SIGCONT);
    }

    /// Sends SIGTERM: the node drains.
    pub fn term(&self) {
        self.process().signal(Signal::SIGTERM);
    }

    /// Waits until the process has ended.
    ///
    /// # Panics
    /// When it has not within `bound`.
    pub async fn exited(&self, bound: Duration) -> ExitStatus {
        self.process().exited(bound).await
    }

    /// Starts it again with the same data directory and ports, after killing what may be left; does not wait for anything.
    pub fn restart(&self) {
        self.process().kill9();
        *self.0.process.lock().expect("no holder panics") = Arc::new(self.0.launch.spawn());
    }

    /// Waits until `/v1/ready` says so.
    ///
    /// # Panics
    /// When the process ends, or is not ready within `bound`.
    pub async fn wait_ready(&self, bound: Duration) {
        eventually(&format!("{} is ready", self.name()), bound, || async {
            let status = self.process().status();
            assert!(
                status.is_none(),
                "{} ended: {status:?}\n{}",
                self.name(),
                self.log_tail(60)
            );
            if self.is_ready().await {
                Ok(())
            } else {
                Err("not ready")
            }
        })
        .await;
    }

    /// All that its processes have written.
    pub fn log(&self) -> String {
        self.process().log()
    }

    /// The last lines of its log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let skipped = log.lines().count().saturating_sub(lines);
        log.lines().skip(skipped).collect::<Vec<_>>().join("\n")
    }

    fn process(&self) -> Arc<Process> {
        self.0.process.lock().expect("no holder panics").clone()
    }

    fn url(&self, port: u16, path: &str) -> String {
        format!("http://{}:{port}{path}", self.client_host())
    }

    fn client_host(&self) -> IpAddr {
        let place = self.0.launch.place.as_ref();
        place.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |place| {
            place.client_address
        })
    }
}

impl Launch {
    pub(crate) fn peer_address(&self) -> String {
        format!("{}:{}", self.peer_host(), self.ports.peer)
    }

    fn peer_host(&self) -> IpAddr {
        self.advertised.unwrap_or_else(|| self.listen_host())
    }

    fn listen_host(&self) -> IpAddr {
        self.place
            .as_ref()
            .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |place| place.peer_address)
    }

    fn spawn(&self) -> Process {
        std::fs::create_dir_all(&self.dir).expect("make the directory of a node");
        Process::spawn(&self.name, self.command(), &self.dir.join("log"))
    }

    fn command(&self) -> Command {
        let mut command = match &self.place {
            None => hearth(),
            Some(place) => {
                let inside = hearth();
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", &place.namespace])
                    .arg(inside.get_program());
                without_settings(&mut command);
                command
            }
        };
        let client_host = match &self.place {
            None => Ipv4Addr::LOCALHOST,
            Some(_) => Ipv4Addr::UNSPECIFIED,
        };
        command
            .args(["node", "--name", &self.name])
            .arg("--data-dir")
            .arg(&self.data_dir);
        command.arg("--cluster-secret-file").arg(&self.secret_file);
        command
            .arg("--functions-listen")
            .arg(format!("{client_host}:{}", self.ports.functions));
        command
            .arg("--events-listen")
            .arg(format!("{client_host}:{}", self.ports.events));
        command
            .arg("--config-listen")
            .arg(format!("{client_host}:{}", self.ports.config));
        command
            .arg("--peer-listen")
            .arg(format!("{}:{}", self.listen_host(), self.ports.peer));
        command.arg("--advertise").arg(self.peer_host().to_string());
        command.args(["--docker-host", &self.docker_host]);
        if !self.is_process_denied {
            command.arg("--allow-process");
        }
        if let Some(url) = &self.store_url {
            command.args(["--etcd", url]);
        }
        for seed in &self.seeds {
            command.args(["--seed", seed]);
        }
        match &self.token {
            Some((_, file)) => command
                .args(["--auth", "required", "--admin-token-file"])
                .arg(file),
            None => command.args(["--auth", "off"]),
        };
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A command that runs the `hearth` binary under test, without settings from the environment of the tests.
///
/// # Panics
/// When the binary was not built.
pub fn hearth() -> Command {
    let mut command = Command::new(binary());
    without_settings(&mut command);
    command
}

fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HEARTH_") || text.starts_with("AWS_") {
            command.env_remove(name);
        }
    }
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("HEARTH_BIN") {
        let path = PathBuf::from(path);
        assert!(
            path.is_file(),
            "HEARTH_BIN names {}, which is no file",
            path.display()
        );
        return path;
    }
    // Tests lie in target/<profile>/deps, programs one above.
    let exe = std::env::current_exe().expect("a test knows its own path");
    let found = exe
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("hearth"))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| missing(&exe))
}

fn missing(exe: &Path) -> ! {
    panic!(
        "no hearth binary beside {}: cargo build --workspace makes it, or HEARTH_BIN names one",
        exe.display()
    )
}
