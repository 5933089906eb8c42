//! Three NATS servers that keep each stream together.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::Value;

use super::{Launch, Nats};
use crate::api::client;
use crate::ports::Ports;
use crate::wait::{eventually, until};

const SERVERS: usize = 3;

/// How soon the servers agree on a leader, and have what they missed, on a busy machine. NATS 2.9 waits for up to 9 s until it
/// elects another one.
const AGREED: Duration = Duration::from_secs(60);

/// Three NATS servers, one cluster.
#[derive(Debug)]
pub struct Trio {
    servers: Vec<Nats>,
    /// Where each tells what it knows.
    monitors: Vec<String>,
    client: Client,
}

impl Trio {
    /// Starts three servers that listen on `host`, and waits until they have a leader.
    ///
    /// # Panics
    /// When there is no nats-server or they do not agree.
    pub async fn start(dir: &Path, host: &str, ports: &Ports) -> Self {
        let program = program();
        let routes: Vec<u16> = (0..SERVERS).map(|_| ports.take()).collect();
        let url = |port: &u16| format!("nats://{host}:{port}");
        let all: Vec<String> = routes.iter().map(url).collect();
        let (mut servers, mut monitors) = (Vec::new(), Vec::new());
        for (place, route) in all.iter().enumerate() {
            let name = name(place);
            let monitor = ports.take();
            monitors.push(format!("http://{host}:{monitor}"));
            let more = [
                ("--name", name.clone()),
                ("--cluster_name", "trio".to_owned()),
                ("--cluster", route.clone()),
                ("--routes", all.join(",")),
                ("--http_port", monitor.to_string()),
            ];
            let more = more
                .into_iter()
                .flat_map(|(flag, value)| [flag.to_owned(), value]);
            servers.push(Nats::spawn(Launch {
                program: program.clone(),
                more: more.collect(),
                ..Launch::new(dir, &name, host, ports.take())
            }));
        }
        let trio = Self {
            servers,
            monitors,
            client: client(),
        };
        join_all(trio.servers.iter().map(Nats::wait_ready)).await;
        until("three NATS servers have a leader", AGREED, || async {
            let told = trio.told(0, "/jsz").await;
            told.is_some_and(|told| told["meta_cluster"]["leader"].is_string())
        })
        .await;
        trio
    }

    /// Their URLs, as the setting takes them.
    pub fn urls(&self) -> String {
        let urls: Vec<String> = self.servers.iter().map(Nats::url).collect();
        urls.join(",")
    }

    /// All of them.
    pub fn servers(&self) -> &[Nats] {
        &self.servers
    }

    /// All of them, to restart one.
    pub fn servers_mut(&mut self) -> &mut [Nats] {
        &mut self.servers
    }

    /// The place of the server that leads the stream whose name ends like that.
    ///
    /// # Panics
    /// When none does.
    pub async fn leader(&self, stream: &str) -> usize {
        let what = format!("a server leads stream {stream}");
        eventually(&what, AGREED, || async {
            for place in 0..SERVERS {
                let streams = self.streams(place).await;
                let leader = streams
                    .iter()
                    .filter(|one| one["name"].as_str().is_some_and(|it| it.ends_with(stream)))
                    .find_map(|one| one["cluster"]["leader"].as_str());
                // Others may name one that is gone.
                if leader == Some(&name(place)) {
                    return Ok(place);
                }
            }
            Err("none of them says that it does")
        })
        .await
    }

    /// Waits until each of so many streams has a leader, and its replicas on both other servers have all of it.
    ///
    /// # Panics
    /// When that does not come about.
    pub async fn wait_current(&self, streams: usize) {
        eventually("all replicas are current", AGREED, || async {
            let mut led = 0;
            for place in 0..SERVERS {
                let told = self.streams(place).await;
                let own = told
                    .iter()
                    .map(|one| &one["cluster"])
                    .filter(|cluster| cluster["leader"] == name(place));
                for cluster in own {
                    led += 1;
                    let replicas = cluster["replicas"].as_array();
                    let current = replicas.into_iter().flatten();
                    if current.filter(|one| one["current"] == true).count() != SERVERS - 1 {
                        return Err(cluster.to_string());
                    }
                }
            }
            if led == streams {
                Ok(())
            } else {
                Err(format!("{led} of {streams} have a leader"))
            }
        })
        .await;
    }

    /// What a server tells of the streams that it has.
    async fn streams(&self, place: usize) -> Vec<Value> {
        let told = self.told(place, "/jsz?streams=true").await;
        let accounts = told.and_then(|told| told["account_details"].as_array().cloned());
        let accounts = accounts.into_iter().flatten();
        let streams = accounts.filter_map(|account| account["stream_detail"].as_array().cloned());
        streams.flatten().collect()
    }

    async fn told(&self, place: usize, path: &str) -> Option<Value> {
        const SOON: Duration = Duration::from_secs(1);
        let url = format!("{}{path}", self.monitors[place]);
        let answer = self.client.get(url).timeout(SOON).send().await.ok()?;
        answer.json().await.ok()
    }
}

/// What `scripts/deps.sh` has installed: Debian's server does not keep what several acknowledge.
fn program() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/nats/bin/nats-server");
    assert!(
        path.is_file(),
        "there is no {}: make deps installs it",
        path.display()
    );
    path
}

/// What a server is called.
fn name(place: usize) -> String {
    format!("nats{}", place + 1)
}
