//! A cold invocation beside the engine's own time for the same container: create, start, first answer.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use super::http::Client;
use super::load::{self, Subject};
use super::report::{Report, Row, Target};
use super::selection::Selection;
use super::{median, progress};
use crate::engine::Engine;
use crate::node::Node;
use crate::record::Record;
use crate::sandbox::Sandbox;

const COLD: &str = "cold_start";
const PLAIN: &str = "cold_start_beside_plain_container";

/// The rows of this part.
pub(super) const NAMES: [&str; 2] = [COLD, PLAIN];

const RUNS: usize = 9;

const FUNCTION: &str = "cold";

/// Where the image's function listens.
const PORT: u16 = 8080;

/// How long a container may take to answer, and how often it is tried.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
const TRY_EVERY: Duration = Duration::from_millis(1);

/// How long the node's instance may take to go after its idle second.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// The engine's API on a connection that is kept.
#[derive(Debug)]
struct Api(Client<UnixStream>);

/// What the engine starts: the very container that the node starts, and one that only shares image and network with it.
#[derive(Debug)]
struct Bodies {
    same: Value,
    plain: Value,
}

pub(super) async fn measure(selection: &Selection, report: &mut Report) -> anyhow::Result<()> {
    if !selection.wants_any(&NAMES) {
        return Ok(());
    }
    progress("cold starts");
    ensure!(
        std::env::var_os("HEARTH_TEST_DOCKER").is_some(),
        "HEARTH_TEST_DOCKER names no engine: scripts/bench.sh starts one and sets it"
    );
    let engine = Engine::suite();
    let sandbox = Sandbox::builder()
        .nodes(1)
        .embedded()
        .engine(engine.clone())
        .start()
        .await;
    let node = sandbox.node(0);
    // Its instance goes a second after the call, so that the next call is a cold one.
    let record = Record::container(FUNCTION, "hello").idle_seconds(1);
    sandbox.register(&record).await;
    let mut api = Api::open(&engine).await?;
    invoke(&node).await?;
    let bodies = api.bodies(sandbox.id()).await?;
    let (mut ours, mut same, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..RUNS {
        api.wait_gone(sandbox.id()).await?;
        // Whoever comes second finds the engine's caches warm, so they take turns.
        for step in 0..3 {
            match (run + step) % 3 {
                0 => ours.push(invoke(&node).await?),
                1 => same.push(api.start(&bodies.same).await?),
                _ => plain.push(api.start(&bodies.plain).await?),
            }
            api.wait_gone(sandbox.id()).await?;
        }
    }
    let (ours, same, plain) = (median(ours), median(same), median(plain));
    let target = Some(Target::RatioAtMost(1.1));
    let rows = [
        Row::compared(COLD, ours, same, "ms", target, RUNS),
        Row::compared(PLAIN, ours, plain, "ms", None, RUNS),
    ];
    rows.into_iter()
        .filter(|row| selection.wants(&row.name))
        .for_each(|row| report.row(row));
    Ok(())
}

/// One cold invocation, in milliseconds, on a connection of its own that stands before.
async fn invoke(node: &Node) -> anyhow::Result<f64> {
    let body = format!(r#"{{"function_name":"{FUNCTION}","payload":{{"name":"bench"}}}}"#);
    let subject = Subject::new(node.functions_address(), "/invoke", body.into());
    let mut client = Client::connect(subject.address, None).await?;
    let begun = Instant::now();
    let (head, body) = client.call(subject.request()).await?;
    let took = begun.elapsed();
    let start = head.headers.get("x-hearth-start");
    ensure!(
        head.status.is_success() && start.is_some_and(|start| start == "cold"),
        "a cold invocation was answered {} {start:?}: {}",
        head.status,
        String::from_utf8_lossy(&body)
    );
    Ok(took.as_secs_f64() * 1e3)
}

impl Api {
    async fn open(engine: &Engine) -> anyhow::Result<Self> {
        let path = engine
            .host()
            .strip_prefix("unix://")
            .context("the engine's URL is no unix:// one")?;
        Ok(Self(Client::unix(Path::new(path)).await?))
    }

    async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Value> {
        let (status, answer) = self.0.json(method.clone(), path, body).await?;
        ensure!(
            status.is_success(),
            "{method} {path}: the engine answered {status}: {answer}"
        );
        Ok(answer)
    }

    /// Reads from a running instance of the node what the engine is to start by itself.
    async fn bodies(&mut self, cluster: &str) -> anyhow::Result<Bodies> {
        let ids = self.ids(cluster).await?;
        let id = ids.first().context("the node's instance is not there")?;
        let path = format!("/containers/{id}/json");
        let inspected = self.call(Method::GET, &path, None).await?;
        let (config, host) = (&inspected["Config"], &inspected["HostConfig"]);
        // Without labels: the node would take a container with its own for a stray one.
        let same = json!({ "Image": config["Image"], "Env": config["Env"], "Cmd": config["Cmd"], "HostConfig": host });
        let network = json!({ "NetworkMode": host["NetworkMode"] });
        let plain =
            json!({ "Image": config["Image"], "Env": config["Env"], "HostConfig": network });
        Ok(Bodies { same, plain })
    }

    /// Creates and starts a container and calls the function in it; then removes it. In milliseconds, up to the answer.
    async fn start(&mut self, body: &Value) -> anyhow::Result<f64> {
        let begun = Instant::now();
        let created = self
            .call(Method::POST, "/containers/create", Some(body))
            .await?;
        let id = created["Id"]
            .as_str()
            .context("the engine named no container")?;
        let container = format!("/containers/{id}");
        let answered = self.answer(&container).await;
        let took = begun.elapsed();
        let removal = format!("{container}?force=true");
        self.call(Method::DELETE, &removal, None).await?;
        answered?;
        Ok(took.as_secs_f64() * 1e3)
    }

    async fn answer(&mut self, container: &str) -> anyhow::Result<()> {
        self.call(Method::POST, &format!("{container}/start"), None)
            .await?;
        let inspected = self
            .call(Method::GET, &format!("{container}/json"), None)
            .await?;
        let networks = inspected["NetworkSettings"]["Networks"].as_object();
        let address = networks
            .and_then(|networks| networks.values().next())
            .and_then(|network| network["IPAddress"].as_str()?.parse::<IpAddr>().ok())
            .context("the container has no address")?;
        let body = Bytes::from_static(br#"{"name":"bench"}"#);
        let subject = Subject::new(SocketAddr::new(address, PORT), "/", body);
        let give_up = Instant::now() + ANSWERS_WITHIN;
        while TcpStream::connect(subject.address).await.is_err() {
            ensure!(Instant::now() < give_up, "the container does not listen");
            tokio::time::sleep(TRY_EVERY).await;
        }
        let (head, _) = load::once(&subject).await?;
        ensure!(
            head.status.is_success(),
            "the container answered {}",
            head.status
        );
        Ok(())
    }

    /// Waits until the node has no container any more, so that nothing is removed while something else is measured.
    async fn wait_gone(&mut self, cluster: &str) -> anyhow::Result<()> {
        let give_up = Instant::now() + GONE_WITHIN;
        loop {
            let ids = self.ids(cluster).await?;
            if ids.is_empty() {
                return Ok(());
            }
            ensure!(
                Instant::now() < give_up,
                "an instance stays past its idle second: {ids:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn ids(&mut self, cluster: &str) -> anyhow::Result<Vec<String>> {
        // {"label":["hearth.cluster=…"]}, as the engine wants it in a URL.
        let filters = format!("%7B%22label%22%3A%5B%22hearth.cluster%3D{cluster}%22%5D%7D");
        let path = format!("/containers/json?all=true&filters={filters}");
        let listed = self.call(Method::GET, &path, None).await?;
        let containers = listed.as_array().context("the engine listed nothing")?;
        let ids = containers
            .iter()
            .filter_map(|container| container["Id"].as_str());
        Ok(ids.map(str::to_owned).collect())
    }
}
