//! Functions of type `container`, through the API of a Docker engine.
//!
//! The engine may be missing, restart or hang at any time: every call to it is bounded in number and time, a monitor tells when
//! it went and came back, and what was begun when it went is removed when it is back.

mod adopt;
mod engine;
mod firewall;
mod guard;
mod image;
mod lambda;
mod launch;
mod logs;
mod name;
mod network;
mod registry;
mod run;
mod watch;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
};
use config::settings::DockerSettings;
use protocol::{Function, Generation, InstanceId, Invocation, NodeId, Phases, Reply};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::engine::{CallError, Engine};
use self::firewall::{Firewall, Gap};
use self::image::Images;
use self::name::labels;
use self::network::Networks;
use crate::callers::{Badge, Callers};
use crate::contract::End;
use crate::secrets::{SecretDir, SecretDirs};
use crate::watchers::Watchers;
use crate::{
    AnswerLimits, Error, Found, Invoke, Lambda, Launch, LaunchSpec, Launched, Outputs, Update,
};

pub use self::network::is_bridge;

/// What the provider is made from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The settings of the section `docker`.
    pub settings: DockerSettings,
    /// How long an instance gets between the signal to stop and the kill.
    pub stop_grace: Duration,
    /// How large an answer may be, and how long silent.
    pub answer_limits: AnswerLimits,
    /// The id of the cluster.
    pub cluster: String,
    /// The id of this node.
    pub node: NodeId,
    /// The incarnation of this node.
    pub generation: Generation,
    /// The directory where it remembers which images it pulled.
    pub data_dir: PathBuf,
    /// Where the output of functions goes.
    pub outputs: Outputs,
    /// Which instances may call the node.
    pub callers: Callers,
    /// Where files with secrets are.
    pub secrets: SecretDirs,
    /// What functions of the `lambda` contract have in common.
    pub lambda: Lambda,
    /// Runs its tasks.
    pub tasks: TaskTracker,
    /// Ends its tasks.
    pub stop: CancellationToken,
}

/// Functions of type `container`. Clones share everything.
#[derive(Debug, Clone)]
pub struct Docker {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Setup,
    engine: Engine,
    images: Images,
    networks: Networks,
    instances: Instances,
    watchers: Watchers,
}

/// The containers that this process is responsible for.
#[derive(Debug, Default)]
struct Instances {
    up: Mutex<HashMap<InstanceId, Up>>,
    /// Names of those that a `start` or `run` is busy with.
    begun: Mutex<HashSet<String>>,
}

/// A container that is up.
#[derive(Debug, Default)]
struct Up {
    /// Tells its invocations why it died.
    end: Arc<End>,
    /// Its right to call the node.
    badge: Option<Badge>,
    /// The files of its secrets.
    secrets: Option<SecretDir>,
    /// Its way through the firewall to its Runtime API.
    gap: Option<Gap>,
}

impl Instances {
    /// Notes a container, with a new end. One that is known keeps its badge.
    fn insert(&self, id: &InstanceId) -> Arc<End> {
        let end = Arc::new(End::default());
        self.up().entry(id.clone()).or_default().end = Arc::clone(&end);
        end
    }

    /// Gives a container its badge, the files of its secrets, and its way to its Runtime API, unless it died meanwhile.
    fn admit(
        &self,
        id: &InstanceId,
        badge: Option<Badge>,
        secrets: Option<SecretDir>,
        gap: Option<Gap>,
    ) {
        if let Some(up) = self.up().get_mut(id) {
            up.badge = badge;
            up.secrets = secrets;
            up.gap = gap;
        }
    }

    /// Notes at which address a container is.
    fn is_at(&self, id: &InstanceId, address: IpAddr) {
        if let Some(badge) = self.up().get(id).and_then(|up| up.badge.as_ref()) {
            badge.is_at(address);
        }
    }

    fn remove(&self, id: &InstanceId) -> Option<Up> {
        self.up().remove(id)
    }

    fn end(&self, id: &InstanceId) -> Option<Arc<End>> {
        self.up().get(id).map(|up| Arc::clone(&up.end))
    }

    fn up(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Up>> {
        self.up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begun(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Docker {
    /// Makes the provider. It never fails: a monitor looks for the engine and goes on looking while it is missing.
    pub fn connect(setup: Setup) -> Self {
        let (port, node) = (setup.callers.port(), setup.node.as_str());
        let firewall = Firewall::new(&setup.settings, port, node, &setup.tasks);
        let shared = Shared {
            engine: Engine::new(&setup.settings),
            images: Images::load(&setup.settings, &setup.data_dir),
            networks: Networks::new(&setup.settings.network, &setup.cluster, firewall),
            instances: Instances::default(),
            watchers: Watchers::default(),
            setup,
        };
        let docker = Self {
            shared: Arc::new(shared),
        };
        let setup = &docker.shared.setup;
        setup.tasks.spawn(
            setup
                .stop
                .clone()
                .run_until_cancelled_owned(watch::monitor(docker.clone())),
        );
        setup.tasks.spawn(
            setup
                .stop
                .clone()
                .run_until_cancelled_owned(watch::follow_events(docker.clone())),
        );
        setup.tasks.spawn(
            setup
                .stop
                .clone()
                .run_until_cancelled_owned(image::keep_index(docker.clone())),
        );
        docker
    }

    /// Stops and removes a container. One that is gone, or going, is a success.
    async fn remove(&self, id: &str) -> Result<(), Error> {
        let engine = &self.shared.engine;
        let grace = self.shared.setup.stop_grace;
        let options = StopContainerOptionsBuilder::new().t(seconds(grace)).build();
        let stopped = engine
            .call_within(
                engine.call_timeout() + grace,
                "stopping a container",
                |docker| async move { docker.stop_container(id, Some(options)).await },
            )
            .await;
        match stopped {
            Ok(()) => {}
            Err(CallError::Answered { status: 404, .. }) => return Ok(()),
            // One that can not be stopped is removed by force.
            Err(CallError::Answered { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        self.remove_by_force(id).await
    }

    async fn remove_by_force(&self, id_or_name: &str) -> Result<(), Error> {
        let options = RemoveContainerOptionsBuilder::new()
            .force(true)
            .v(true)
            .build();
        let removed = self
            .shared
            .engine
            .call("removing a container", |docker| async move {
                docker.remove_container(id_or_name, Some(options)).await
            })
            .await;
        match removed {
            // 409: another removal of it is under way.
            Ok(())
            | Err(CallError::Answered {
                status: 404 | 409, ..
            }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn found(&self, container: ContainerSummary) -> Option<Found> {
        let labels = container.labels?;
        let state = container.state?.to_string();
        Some(Found {
            id: container.id?.parse().ok()?,
            space: labels.get(labels::SPACE)?.parse().ok()?,
            function_id: labels.get(labels::FUNCTION)?.parse().ok()?,
            key: labels.get(labels::INSTANCE_KEY)?.parse().ok()?,
            generation: Generation(labels.get(labels::GENERATION)?.parse().ok()?),
            is_adoptable: state == "running"
                && labels
                    .get(labels::CONTRACT)
                    .is_some_and(|contract| contract == "http"),
            created_at: UNIX_EPOCH
                + Duration::from_secs(u64::try_from(container.created.unwrap_or(0)).unwrap_or(0)),
        })
    }
}

#[async_trait]
impl Launch for Docker {
    async fn start(&self, spec: LaunchSpec) -> Result<Launched, Error> {
        launch::start(self, spec).await
    }

    async fn run(
        &self,
        spec: LaunchSpec,
        invocation: &Invocation,
    ) -> (Phases, Result<Reply, Error>) {
        run::run(self, spec, invocation).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), Error> {
        // From here on its end is expected, so the watcher stays silent. The files of its secrets stay until it has ended.
        let up = self.shared.instances.remove(id);
        if let Some(up) = &up {
            up.end.lost("the instance was stopped");
        }
        self.remove(id.as_str()).await?;
        if up.is_none() && !self.shared.setup.secrets.names().is_empty() {
            // It was not this incarnation's: which files are left over, a list tells.
            self.list().await?;
        }
        Ok(())
    }

    /// Those that a `start` or `run` of this process is busy with are left out: it removes them itself when it fails.
    async fn list(&self) -> Result<Vec<Found>, Error> {
        let setup = &self.shared.setup;
        let secrets = setup.secrets.names();
        let mut begun = self.shared.instances.begun().clone();
        let filters = HashMap::from([(
            "label",
            vec![
                format!("{}={}", labels::CLUSTER, setup.cluster),
                format!("{}={}", labels::NODE, setup.node),
            ],
        )]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let containers = self
            .shared
            .engine
            .call("listing containers", |docker| async move {
                docker.list_containers(Some(options)).await
            })
            .await?;
        begun.extend(self.shared.instances.begun().iter().cloned());
        let is_ours_to_tell = |container: &ContainerSummary| {
            let names = container.names.iter().flatten();
            !names
                .map(|name| name.trim_start_matches('/'))
                .any(|name| begun.contains(name))
        };
        if !secrets.is_empty() {
            let names = containers.iter().flat_map(|one| one.names.iter().flatten());
            let names: HashSet<_> = names.map(|name| name.trim_start_matches('/')).collect();
            let is_needed = |name: &str| names.contains(name) || begun.contains(name);
            setup.secrets.keep(&secrets, is_needed);
        }
        Ok(containers
            .into_iter()
            .filter(is_ours_to_tell)
            .filter_map(|container| self.found(container))
            .collect())
    }

    async fn adopt(
        &self,
        found: &Found,
        function: Arc<Function>,
    ) -> Result<Arc<dyn Invoke>, Error> {
        adopt::adopt(self, found, &function).await
    }

    fn watch(&self) -> mpsc::Receiver<Update> {
        self.shared.watchers.subscribe()
    }

    fn images(&self) -> Arc<Vec<String>> {
        self.shared.images.present()
    }

    fn is_available(&self) -> bool {
        !self.shared.engine.is_down()
    }

    async fn resolve_present(&self, image: &str) -> Result<Option<String>, Error> {
        image::resolve_present(self, image).await
    }

    async fn resolve_remote(&self, image: &str) -> Result<String, Error> {
        image::resolve_remote(self, image).await
    }
}

fn seconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX)
}

fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
