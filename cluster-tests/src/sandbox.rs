//! A cluster of real processes for one test.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::{Client, Method};
use serde_json::Value;
use tempfile::TempDir;

use crate::api::{Answer, client, function_path};
use crate::engine::{Container, Engine};
use crate::etcd::Etcd;
use crate::nats::{Nats, Trio};
use crate::node::{Launch, Node, NodeOptions, NodePorts};
use crate::ports::Ports;
use crate::process;
use crate::record::Record;
use crate::tap::{self, Tap};
use crate::wait::{eventually, until};

/// How long a node may take to be ready, on a machine that is busy with other tests.
const READY: Duration = Duration::from_secs(20);

/// How long a change may take to reach every node.
const SPREAD: Duration = Duration::from_secs(10);

/// The token of sandboxes with `auth required`.
const TOKEN: &str = "sandbox-token-0123456789abcdef";

/// The docker host of sandboxes that use no containers.
const NO_ENGINE: &str = "unix:///nonexistent/docker.sock";

/// Whether outages last as long as the scenarios say, and not just longer than the timeout under test.
pub fn full_length() -> bool {
    std::env::var_os("HEARTH_TEST_FULL").is_some_and(|value| value == "1")
}

/// What a sandbox is made of.
#[derive(Debug, Default)]
pub struct Builder {
    nodes: Vec<NodeOptions>,
    env: Vec<(String, String)>,
    engine: Option<Engine>,
    is_embedded: bool,
    has_nats: bool,
    has_nats_trio: bool,
    is_auth_required: bool,
    is_tapped: bool,
    etcd_host: Option<String>,
    ports: Option<Ports>,
}

impl Builder {
    /// Adds nodes that differ in nothing.
    #[must_use]
    pub fn nodes(mut self, count: usize) -> Self {
        self.nodes
            .extend((0..count).map(|_| NodeOptions::default()));
        self
    }

    /// Adds a node.
    #[must_use]
    pub fn node(mut self, options: NodeOptions) -> Self {
        self.nodes.push(options);
        self
    }

    /// Sets a setting of all nodes, by its environment name.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the nodes the suite's container engine.
    #[must_use]
    pub fn containers(self) -> Self {
        self.engine(Engine::suite())
    }

    /// Gives the nodes a container engine.
    #[must_use]
    pub fn engine(mut self, engine: Engine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// Uses the nodes' embedded store in place of etcd.
    #[must_use]
    pub fn embedded(mut self) -> Self {
        self.is_embedded = true;
        self
    }

    /// Keeps the events of the nodes in a NATS beside the etcd.
    #[must_use]
    pub fn nats(mut self) -> Self {
        self.has_nats = true;
        self
    }

    /// Keeps the events of the nodes in three NATS servers beside the etcd.
    #[must_use]
    pub fn nats_trio(mut self) -> Self {
        self.has_nats_trio = true;
        self
    }

    /// Makes the nodes ask for a token.
    #[must_use]
    pub fn auth_required(mut self) -> Self {
        self.is_auth_required = true;
        self
    }

    /// Lays a tap between the nodes; none can be added later.
    #[must_use]
    pub fn tapped(mut self) -> Self {
        self.is_tapped = true;
        self
    }

    /// Makes etcd and NATS listen on another address than loopback, from ports reserved before.
    #[must_use]
    pub fn etcd_on(mut self, host: &str, ports: Ports) -> Self {
        self.etcd_host = Some(host.to_owned());
        self.ports = Some(ports);
        self
    }

    /// Starts etcd and all nodes, and waits until each is ready and sees all others.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn start(mut self) -> Sandbox {
        let client = client();
        let ports = self.ports.unwrap_or_else(Ports::reserve);
        let id = format!("t{}-{}", std::process::id(), ports.number());
        let dir = tempfile::Builder::new()
            .prefix("hearth-")
            .tempdir()
            .expect("make a directory");
        let secret_file = write(
            dir.path(),
            "secret",
            &format!("the secret of cluster {id}, long enough"),
        );
        let token = self
            .is_auth_required
            .then(|| (TOKEN.to_owned(), write(dir.path(), "token", TOKEN)));
        let host = self.etcd_host.as_deref().unwrap_or("127.0.0.1");
        let etcd = if self.is_embedded {
            None
        } else {
            Some(Etcd::start(dir.path(), host, ports.take(), ports.take()).await)
        };
        let mut use_nats = |urls: String, replicas: &str| {
            let settings = [
                ("BACKEND", "jetstream"),
                ("JETSTREAM__SERVERS", &urls),
                ("JETSTREAM__REPLICAS", replicas),
            ];
            let settings =
                settings.map(|(name, value)| (format!("HEARTH_QUEUE__{name}"), value.to_owned()));
            self.env.extend(settings);
        };
        let (mut nats, mut trio) = (None, None);
        if self.has_nats {
            let one = Nats::start_on(dir.path(), host, ports.take()).await;
            use_nats(one.url(), "1");
            nats = Some(one);
        }
        if self.has_nats_trio {
            let three = Trio::start(dir.path(), host, &ports).await;
            use_nats(three.urls(), "3");
            trio = Some(three);
        }
        let mut sandbox = Sandbox {
            env: self.env,
            engine: self.engine,
            nodes: Mutex::new(Vec::new()),
            etcd,
            nats,
            trio,
            tap: None,
            id,
            client,
            secret_file,
            token,
            ports,
            dir: Some(dir),
        };
        let mut launches: Vec<_> = self
            .nodes
            .into_iter()
            .enumerate()
            .map(|(n, options)| sandbox.launch(n, options))
            .collect();
        if self.is_tapped {
            let ports: Vec<_> = launches.iter().map(|launch| launch.ports.peer).collect();
            sandbox.tap = Some(Tap::between(&ports).await);
            for launch in &mut launches {
                launch.advertised = Some(tap::ADVERTISED);
            }
        }
        let seeds: Vec<_> = launches.iter().take(3).map(Launch::peer_address).collect();
        for launch in &mut launches {
            launch.seeds = seeds.clone();
        }
        let started = launches
            .into_iter()
            .map(|launch| Node::start(launch, sandbox.client.clone()));
        sandbox.nodes = Mutex::new(started.collect());
        sandbox.wait_settled().await;
        sandbox
    }
}

/// A cluster of real processes, its etcd and its directory; all of it goes when this value is dropped.
#[derive(Debug)]
pub struct Sandbox {
    nodes: Mutex<Vec<Node>>,
    etcd: Option<Etcd>,
    nats: Option<Nats>,
    trio: Option<Trio>,
    tap: Option<Tap>,
    engine: Option<Engine>,
    id: String,
    env: Vec<(String, String)>,
    client: Client,
    secret_file: PathBuf,
    token: Option<(String, PathBuf)>,
    ports: Ports,
    dir: Option<TempDir>,
}

impl Sandbox {
    /// A sandbox to be described.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts that many nodes which run local processes only.
    pub async fn processes(nodes: usize) -> Self {
        Self::builder().nodes(nodes).start().await
    }

    /// Starts that many nodes on the suite's container engine.
    pub async fn containers(nodes: usize) -> Self {
        Self::builder().nodes(nodes).containers().start().await
    }

    /// The cluster's id, unique on this machine.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory, for files of the test.
    pub fn dir(&self) -> &Path {
        self.dir
            .as_ref()
            .expect("only drop takes the directory")
            .path()
    }

    /// Keeps all logs and data when the sandbox ends.
    pub fn keep(&mut self) {
        let dir = self.dir.as_mut();
        dir.expect("only drop takes the directory")
            .disable_cleanup(true);
    }

    /// An HTTP client without any token.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// All nodes, in the order of their names n1, n2, …
    pub fn nodes(&self) -> Vec<Node> {
        self.nodes.lock().expect("no holder panics").clone()
    }

    /// A node by its place, from 0.
    pub fn node(&self, place: usize) -> Node {
        self.nodes()[place].clone()
    }

    /// A node by its name.
    ///
    /// # Panics
    /// When there is none of that name.
    pub fn named(&self, name: &str) -> Node {
        let node = self.nodes().into_iter().find(|node| node.name() == name);
        node.unwrap_or_else(|| panic!("the sandbox has no node {name}"))
    }

    /// All nodes but one.
    pub fn others(&self, name: &str) -> Vec<Node> {
        self.nodes()
            .into_iter()
            .filter(|node| node.name() != name)
            .collect()
    }

    /// The etcd.
    ///
    /// # Panics
    /// When the sandbox uses the embedded store.
    pub fn etcd(&self) -> &Etcd {
        self.etcd.as_ref().expect("this sandbox has an etcd")
    }

    /// The etcd, to restart it.
    ///
    /// # Panics
    /// When the sandbox uses the embedded store.
    pub fn etcd_mut(&mut self) -> &mut Etcd {
        self.etcd.as_mut().expect("this sandbox has an etcd")
    }

    /// The NATS, to kill and restart it.
    ///
    /// # Panics
    /// When the sandbox has none.
    pub fn nats_mut(&mut self) -> &mut Nats {
        self.nats.as_mut().expect("this sandbox has a NATS")
    }

    /// The three NATS servers.
    ///
    /// # Panics
    /// When the sandbox has none.
    pub fn trio_mut(&mut self) -> &mut Trio {
        self.trio.as_mut().expect("this sandbox has three NATS")
    }

    /// The tap between the nodes.
    ///
    /// # Panics
    /// When the sandbox has none.
    pub fn tap(&self) -> &Tap {
        self.tap.as_ref().expect("this sandbox has a tap")
    }

    /// The container engine.
    ///
    /// # Panics
    /// When the sandbox has none.
    pub fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("this sandbox has an engine")
    }

    /// Starts one more node; does not wait for anything.
    ///
    /// # Panics
    /// When there is a tap between the nodes.
    pub fn add_node(&self, options: NodeOptions) -> Node {
        assert!(self.tap.is_none(), "the tap has no end for one more node");
        let mut nodes = self.nodes.lock().expect("no holder panics");
        let mut launch = self.launch(nodes.len(), options);
        launch.seeds = nodes.iter().take(3).map(Node::peer_address).collect();
        let node = Node::start(launch, self.client.clone());
        nodes.push(node.clone());
        node
    }

    /// Waits until every running node is ready and sees exactly the running ones alive.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn wait_settled(&self) {
        let running: Vec<_> = self.nodes().into_iter().filter(Node::is_running).collect();
        join_all(running.iter().map(|node| node.wait_ready(READY))).await;
        let names: Vec<_> = running.iter().map(|node| node.name().to_owned()).collect();
        for node in &running {
            let what = format!("{} sees {names:?} alive", node.name());
            eventually(&what, READY, || async {
                let alive = node.alive().await;
                if alive == names {
                    Ok(())
                } else {
                    Err(format!("{alive:?}"))
                }
            })
            .await;
        }
    }

    /// Registers a function, calls it once through the first running node, and waits until every other running node would
    /// forward a call to where it ran. Returns that call's answer and the node where it ran.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn register_warm(&self, record: &Record, payload: Value) -> (Answer, Node) {
        self.register(record).await;
        let first = self
            .nodes()
            .into_iter()
            .find(Node::is_running)
            .expect("a node runs");
        let answer = first.invoke(record.id(), payload).await;
        assert!(
            answer.is_ok(),
            "the first call of {}: {answer:?}",
            record.id()
        );
        let home = self.named(
            answer
                .node
                .as_deref()
                .expect("an answer names the node where it ran"),
        );
        self.wait_warm(record.id(), &home).await;
        (answer, home)
    }

    /// Waits until every running node would send a call of the function to `home`.
    ///
    /// # Panics
    /// When one would not.
    pub async fn wait_warm(&self, function: &str, home: &Node) {
        for node in self.nodes().into_iter().filter(Node::is_running) {
            let choice = if node.name() == home.name() {
                "local"
            } else {
                "peer"
            };
            let what = format!("{} would send {function} to {}", node.name(), home.name());
            eventually(&what, SPREAD, || async {
                let route = node.route(function).await?;
                let is_there = choice == "local" || route.node.as_deref() == Some(home.name());
                if route.choice == choice && is_there {
                    Ok(())
                } else {
                    Err(format!("{route:?}"))
                }
            })
            .await;
        }
    }

    /// Registers a function at the first running node and waits until every running node knows it.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn register(&self, record: &Record) {
        let running: Vec<_> = self.nodes().into_iter().filter(Node::is_running).collect();
        let body = self.record(record);
        let first = running.first().expect("a node runs");
        let answer = first
            .config(Method::POST, "/v1/spaces/default/functions", Some(&body))
            .await;
        assert_eq!(answer.status, 201, "register {body}: {answer:?}");
        self.wait_known(record.id()).await;
    }

    /// Waits until every running node knows the function.
    ///
    /// # Panics
    /// When one does not.
    pub async fn wait_known(&self, id: &str) {
        for node in self.nodes().into_iter().filter(Node::is_running) {
            until(&format!("{} knows {id}", node.name()), SPREAD, || {
                node.knows(id)
            })
            .await;
        }
    }

    /// Subscribes a function at the first running node, waits until every running node knows of it, and returns the path of
    /// the subscription in the config API.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn subscribe(&self, subscription: &Value) -> String {
        let running: Vec<_> = self.nodes().into_iter().filter(Node::is_running).collect();
        let first = running.first().expect("a node runs");
        let path = first.subscribe(subscription).await;
        for node in &running {
            until(&format!("{} knows {path}", node.name()), SPREAD, || async {
                node.config(Method::GET, &path, None).await.status == 200
            })
            .await;
        }
        path
    }

    /// The record's JSON with the mark that lets [`Sandbox::processes_left`] find its instances.
    pub fn record(&self, record: &Record) -> Value {
        let marked = if record.is_pooled() {
            record.clone().env("SANDBOX", &self.id)
        } else {
            record.clone()
        };
        marked.json().clone()
    }

    /// Reads a function's record as the first running node has it.
    pub async fn stored(&self, id: &str) -> Value {
        let node = self
            .nodes()
            .into_iter()
            .find(Node::is_running)
            .expect("a node runs");
        node.config(Method::GET, &function_path(id), None)
            .await
            .json()
    }

    /// Processes of this cluster's nodes, guards and functions that exist now.
    pub fn processes_left(&self) -> Vec<String> {
        process::with_environment(&format!("={}\0", self.id))
    }

    /// The containers of this cluster, in any state.
    pub async fn containers_now(&self) -> Vec<Container> {
        self.engine().containers(&self.id).await
    }

    /// The containers of one function, in any state.
    pub async fn containers_of(&self, function: &str) -> Vec<Container> {
        let mut containers = self.containers_now().await;
        containers.retain(|container| container.function.ends_with(function));
        containers
    }

    fn launch(&self, place: usize, options: NodeOptions) -> Launch {
        let name = format!("n{}", place + 1);
        let engine = self.engine.as_ref().map_or(NO_ENGINE, Engine::host);
        let mut env = vec![("HEARTH_CLUSTER__ID".to_owned(), self.id.clone())];
        env.extend(self.env.iter().cloned());
        env.extend(options.env);
        let dir = self.dir().join(&name);
        Launch {
            data_dir: options.data_dir.unwrap_or_else(|| dir.join("data")),
            dir,
            name,
            env,
            secret_file: options
                .secret_file
                .unwrap_or_else(|| self.secret_file.clone()),
            store_url: options
                .store_url
                .or_else(|| self.etcd.as_ref().map(Etcd::url)),
            docker_host: options.docker_host.unwrap_or_else(|| engine.to_owned()),
            is_process_denied: options.is_process_denied,
            seeds: Vec::new(),
            token: self.token.clone(),
            place: options.place,
            advertised: None,
            ports: NodePorts::take(&self.ports),
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let nodes = self.nodes();
        for node in &nodes {
            node.kill9();
        }
        if let Some(engine) = &self.engine {
            engine.remove_all(&self.id);
        }
        if std::thread::panicking() {
            let mut errors = std::io::stderr().lock();
            for node in &nodes {
                let _ = writeln!(
                    errors,
                    "--- log of {}, its end:\n{}",
                    node.name(),
                    node.log_tail(80)
                );
            }
            if let Some(dir) = self.dir.take() {
                let _ = writeln!(
                    errors,
                    "--- all logs and data stay in {}",
                    dir.keep().display()
                );
            }
        }
    }
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("write a file of the sandbox");
    path
}
