//! A provider on the engine that `make test` starts, with a cluster of its own for each test.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bollard::query_parameters::{
    CreateImageOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    RemoveContainerOptionsBuilder,
};
use bytes::Bytes;
use config::settings::{DockerSettings, LambdaSettings, LimitsSettings, LogsSettings};
use futures_util::StreamExt;
use protocol::{Generation, NodeId};
use providers::docker::{Docker, Setup};
use providers::{AnswerLimits, Callers, Lambda, Launch, Outputs, SecretDirs};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The image of the test function.
pub(crate) const IMAGE: &str = "hearth-providers-test:1";

pub(crate) struct Cluster {
    pub(crate) client: bollard::Docker,
    pub(crate) outputs: Outputs,
    id: String,
    node: NodeId,
    data_dir: tempfile::TempDir,
    pub(crate) callers: Callers,
    /// The listeners that the providers made.
    _listeners: mpsc::Receiver<TcpListener>,
    stop: CancellationToken,
}

impl Cluster {
    pub(crate) async fn new() -> Self {
        let client = bollard::Docker::connect_with_host(&host())
            .expect("HEARTH_TEST_DOCKER is a host of an engine");
        client
            .ping()
            .await
            .expect("the engine at HEARTH_TEST_DOCKER answers");
        import(&client).await;
        let random = NodeId::random();
        let (sender, listeners) = mpsc::channel(4);
        Self {
            client,
            outputs: Outputs::new(&LogsSettings::default(), "n1"),
            id: format!("test-{}", &random.as_str()[..8]),
            node: NodeId::random(),
            data_dir: tempfile::tempdir().expect("a directory"),
            callers: Callers::new(free_address(), sender),
            _listeners: listeners,
            stop: CancellationToken::new(),
        }
    }

    /// A node's provider; a later generation stands for the node started again.
    pub(crate) async fn provider(&self, generation: u64) -> Docker {
        let docker = Docker::connect(self.setup(generation));
        super::program::eventually("the provider finds the engine", || async {
            docker.is_available().then_some(())
        })
        .await;
        docker
    }

    /// What a node's provider is made from.
    pub(crate) fn setup(&self, generation: u64) -> Setup {
        setup(&host(), &self.id, &self.node, generation, self)
    }

    /// Ids of this cluster's containers in whatever state.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let filters = HashMap::from([("label", vec![format!("hearth.cluster={}", self.id)])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self
            .client
            .list_containers(Some(options))
            .await
            .expect("the engine lists containers");
        listed
            .into_iter()
            .filter_map(|container| container.id)
            .collect()
    }

    /// Ids of this cluster's networks.
    pub(crate) async fn networks(&self) -> Vec<String> {
        let filters = HashMap::from([("label", vec![format!("hearth.cluster={}", self.id)])]);
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let listed = self
            .client
            .list_networks(Some(options))
            .await
            .expect("the engine lists networks");
        listed
            .into_iter()
            .filter_map(|network| network.id)
            .collect()
    }

    /// Removes what the test made.
    pub(crate) async fn finish(self) {
        self.stop.cancel();
        for id in self.containers().await {
            let options = RemoveContainerOptionsBuilder::new().force(true).build();
            let _ = self.client.remove_container(&id, Some(options)).await;
        }
        for id in self.networks().await {
            let _ = self.client.remove_network(&id).await;
        }
    }
}

pub(crate) fn setup(
    host: &str,
    cluster: &str,
    node: &NodeId,
    generation: u64,
    sandbox: &Cluster,
) -> Setup {
    Setup {
        settings: DockerSettings {
            host: host.to_owned(),
            retry_interval: Duration::from_millis(100),
            ..DockerSettings::default()
        },
        stop_grace: Duration::from_secs(1),
        answer_limits: AnswerLimits {
            whole: 1 << 20,
            ..AnswerLimits::new(&LimitsSettings::default())
        },
        cluster: cluster.to_owned(),
        node: node.clone(),
        generation: Generation(generation),
        data_dir: sandbox.data_dir.path().to_owned(),
        outputs: sandbox.outputs.clone(),
        callers: sandbox.callers.clone(),
        secrets: SecretDirs::open(Path::new("/dev/shm"), node),
        lambda: Lambda::new(&LambdaSettings::default()),
        tasks: TaskTracker::new(),
        stop: sandbox.stop.clone(),
    }
}

/// Loopback with a port that is free now.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener
        .local_addr()
        .expect("a bound listener has an address")
}

fn host() -> String {
    std::env::var("HEARTH_TEST_DOCKER").expect(
        "HEARTH_TEST_DOCKER is not set: these tests need a container engine of their own, which `make test` starts; \
         by hand: HEARTH_TEST_DOCKER=unix:///path/of/a/docker.sock",
    )
}

/// Imports the test function as an image with nothing else in it.
async fn import(client: &bollard::Docker) {
    if client.inspect_image(IMAGE).await.is_ok() {
        return;
    }
    let function = std::fs::read(super::program::build()).expect("the built function can be read");
    import_file(client, IMAGE, &function).await;
}

/// Imports an image that holds one file.
pub(crate) async fn import_file(client: &bollard::Docker, image: &str, content: &[u8]) {
    let (repository, tag) = image.split_once(':').expect("an image with a tag");
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repository)
        .tag(tag)
        .build();
    let body = bollard::body_full(Bytes::from(archive(Path::new("function"), content)));
    let mut steps = std::pin::pin!(client.create_image(Some(options), Some(body), None));
    while let Some(step) = steps.next().await {
        step.expect("the engine imports an archive");
    }
}

/// A tar archive with one executable file.
fn archive(name: &Path, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name.to_str().expect("a name"));
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().next_multiple_of(512) + 1024, 0);
    archive
}
