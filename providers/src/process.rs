//! Functions of type `process`: local commands, each under a guard that kills it when the node is gone.

pub mod guard;
mod lambda;
mod launch;
mod run;

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use protocol::function::Contract;
use protocol::{
    Function, FunctionId, Generation, InstanceId, InstanceKey, Invocation, Phases, Reply, Space,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::launch::Handle;
use crate::callers::{Badge, Callers};
use crate::secrets::{SecretDir, SecretDirs};
use crate::watchers::Watchers;
use crate::{
    AnswerLimits, Error, Found, Invoke, Lambda, Launch, LaunchSpec, Launched, Outputs, Update,
};

/// What the provider is made from. It is only made where `process.allow` is set.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The program and the arguments that run [`guard::main`]: the node's own path and `instance-guard`.
    pub guard: Vec<OsString>,
    /// How long an instance gets between the signal to stop and the kill.
    pub stop_grace: Duration,
    /// How large an answer may be, and how long silent.
    pub answer_limits: AnswerLimits,
    /// The incarnation of this node.
    pub generation: Generation,
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
    /// Ends its tasks, and with them all instances.
    pub stop: CancellationToken,
}

/// Functions of type `process`. Clones share everything.
#[derive(Debug, Clone)]
pub struct Process {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    setup: Setup,
    instances: Mutex<HashMap<InstanceId, Up>>,
    watchers: Watchers,
    started: AtomicU64,
}

/// An instance that is up; dropping its handle kills it.
#[derive(Debug, Clone)]
struct Up {
    handle: Arc<Handle>,
    space: Space,
    function_id: FunctionId,
    key: InstanceKey,
    created_at: SystemTime,
    /// Its right to call the node.
    _badge: Arc<Badge>,
    /// The files of its secrets.
    _secrets: Option<Arc<SecretDir>>,
}

impl Process {
    /// Makes the provider. Instances of an earlier generation died with it, so there are none at first.
    pub fn new(setup: Setup) -> Self {
        let shared = Shared {
            setup,
            instances: Mutex::default(),
            watchers: Watchers::default(),
            started: AtomicU64::new(0),
        };
        let process = Self {
            shared: Arc::new(shared),
        };
        let (setup, ending) = (&process.shared.setup, process.clone());
        let stopped = setup.stop.clone().cancelled_owned();
        setup.tasks.spawn(async move {
            stopped.await;
            // Dropping the handles closes the links, and the guards kill what is still there.
            ending.instances().clear();
        });
        process
    }

    fn next_id(&self) -> InstanceId {
        let number = self.shared.started.fetch_add(1, Ordering::Relaxed);
        let id = format!("process-{}-{number}", self.shared.setup.generation);
        id.parse()
            .expect("an instance id of letters, digits and '-'")
    }

    fn instances(&self) -> std::sync::MutexGuard<'_, HashMap<InstanceId, Up>> {
        self.shared
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Launch for Process {
    async fn start(&self, spec: LaunchSpec) -> Result<Launched, Error> {
        match spec.function.contract() {
            Some(Contract::Lambda) => lambda::start(self, &spec).await,
            _ => launch::start(self, spec).await,
        }
    }

    async fn run(
        &self,
        spec: LaunchSpec,
        invocation: &Invocation,
    ) -> (Phases, Result<Reply, Error>) {
        run::run(self, &spec, invocation).await
    }

    async fn stop(&self, id: &InstanceId) -> Result<(), Error> {
        let up = self.instances().remove(id);
        if let Some(up) = up {
            up.handle.stop(self.shared.setup.stop_grace).await;
        }
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Found>, Error> {
        let instances = self.instances();
        let found = instances.iter().map(|(id, up)| Found {
            id: id.clone(),
            space: up.space.clone(),
            function_id: up.function_id.clone(),
            key: up.key,
            generation: self.shared.setup.generation,
            is_adoptable: false,
            created_at: up.created_at,
        });
        Ok(found.collect())
    }

    async fn adopt(
        &self,
        found: &Found,
        _function: Arc<Function>,
    ) -> Result<Arc<dyn Invoke>, Error> {
        Err(Error::StartFailed {
            why: format!(
                "{} is a process, which does not outlive the node that started it",
                found.id
            ),
        })
    }

    fn watch(&self) -> mpsc::Receiver<Update> {
        self.shared.watchers.subscribe()
    }

    fn images(&self) -> Arc<Vec<String>> {
        Arc::default()
    }

    fn is_available(&self) -> bool {
        true
    }

    async fn resolve_present(&self, _image: &str) -> Result<Option<String>, Error> {
        Ok(None)
    }

    async fn resolve_remote(&self, image: &str) -> Result<String, Error> {
        Err(Error::ImageNotFound {
            image: image.to_owned(),
            why: "functions of type process have no image".into(),
        })
    }
}
