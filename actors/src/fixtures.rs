//! Functions, instances, peers and whole nodes for the tests of this crate.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cluster::hint::Hint;
use cluster::membership::{Load, LocalState, Member};
use cluster::peer::scripted::ScriptedPeer;
use cluster::peer::{Fingerprint, Peer};
use cluster::{Members, PeerClient};
use config::store::MemoryStore;
use config::{Revision, Settings, Store};
use protocol::invocation::TraceContext;
use protocol::{
    Function, Generation, InstanceId, InstanceKey, Invocation, NodeId, Phases, Reply, Space,
};
use providers::fake::FakeProvider;
use providers::{Error, Invoke, Launched, Outputs};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::executor::{Journal, Launchers};
use crate::invoker::Request;
use crate::registry_cache::{Registered, Registry};
use crate::router::announce::Announce;
use crate::supervisor::{self, Running};

/// How long a test waits for something before it fails; of a paused clock.
const BOUND: Duration = Duration::from_secs(30);

/// A record of type `process`, with `more` fields.
pub(crate) fn function(id: &str, more: &Value) -> Function {
    let mut record = json!({"space": "default", "functionId": id, "type": "process", "provider": {"command": ["run"]}});
    for (name, value) in more.as_object().unwrap() {
        record[name] = value.clone();
    }
    serde_json::from_value(record).unwrap()
}

pub(crate) fn registered(id: &str, more: &Value) -> Arc<Registered> {
    let function = Arc::new(function(id, more));
    Arc::new(Registered {
        key: function.instance_key(|_| None),
        secrets: Vec::new(),
        function,
        revision: Revision(1),
    })
}

pub(crate) fn registry(of: &[&Arc<Registered>]) -> Registry {
    let mut registry = Registry {
        revision: Revision(1),
        functions_revision: Revision(1),
        is_loaded: true,
        ..Registry::default()
    };
    for registered in of {
        let space = registry
            .functions
            .entry(registered.function.space.clone())
            .or_default();
        Arc::make_mut(space).insert(
            registered.function.function_id.clone(),
            Arc::clone(registered),
        );
    }
    registry
}

/// An empty journal; its file has no name any more.
pub(crate) fn journal() -> Journal {
    let dir = tempfile::tempdir().unwrap();
    Journal::open_file(&dir.path().join("busy")).unwrap()
}

pub(crate) fn instance_id(text: &str) -> InstanceId {
    text.parse().unwrap()
}

/// An instance that answers with the payload.
#[derive(Debug)]
pub(crate) struct Echo;

#[async_trait]
impl Invoke for Echo {
    async fn invoke(&self, _: &Function, invocation: &Invocation) -> Result<Reply, Error> {
        Ok(Reply {
            status: 200,
            body: invocation.payload.clone().into(),
            ..Reply::default()
        })
    }
}

pub(crate) fn launched(id: &str) -> Launched {
    Launched {
        id: instance_id(id),
        invoke: Arc::new(Echo),
        phases: Phases {
            start: Some(7),
            ..Phases::default()
        },
    }
}

/// What a node says of itself when it runs processes and has all the room there is.
pub(crate) fn local_state(name: &str) -> LocalState {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    LocalState {
        name: name.into(),
        version: "0".into(),
        protocol_version: 1,
        functions_address: address,
        config_address: address,
        is_draining: false,
        has_engine: false,
        allows_processes: true,
        secrets: Vec::new(),
        load: Load {
            instances_max: 100,
            memory_max_mb: 100_000,
            ..Load::default()
        },
        hints: Vec::new(),
        images: Vec::new(),
    }
}

pub(crate) fn node_id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// A peer that gossips of one instance key.
pub(crate) fn member(name: &str, hints: &[(InstanceKey, u32, u32)]) -> Member {
    let hint = |(key, free_slots, instances): &(InstanceKey, u32, u32)| Hint {
        key: *key,
        free_slots: *free_slots,
        instances: *instances,
    };
    let peer = Peer {
        id: node_id(name),
        name: name.into(),
        address: SocketAddr::from(([127, 0, 0, 1], 1)),
        fingerprint: Fingerprint([0; 32]),
    };
    let state = LocalState {
        hints: hints.iter().map(hint).collect(),
        ..local_state(name)
    };
    Member {
        id: node_id(name),
        generation: Generation(1),
        is_alive: true,
        state,
        peer,
    }
}

pub(crate) fn members(of: impl IntoIterator<Item = Member>) -> Arc<Members> {
    Arc::new(
        of.into_iter()
            .map(|member| (member.id.clone(), Arc::new(member)))
            .collect::<BTreeMap<_, _>>(),
    )
}

#[derive(Debug, Default)]
struct Heard(Mutex<Option<LocalState>>);

impl Announce for Heard {
    fn publish(&self, state: LocalState) {
        *self.0.lock().unwrap() = Some(state);
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A node with a fake provider, a store in memory and scripted peers.
pub(crate) struct TestNode {
    pub(crate) running: Running,
    pub(crate) provider: FakeProvider,
    pub(crate) peers: ScriptedPeer,
    pub(crate) members: watch::Sender<Arc<Members>>,
    pub(crate) store: Arc<MemoryStore>,
    requests: AtomicU32,
    _dir: tempfile::TempDir,
}

impl TestNode {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        let provider = FakeProvider::new(Generation(2));
        Self::start_on(provider, change).await
    }

    pub(crate) async fn start_on(
        provider: FakeProvider,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::default();
        settings.node.name = "n1".into();
        settings.process.allow = true;
        change(&mut settings);
        let (store, peers) = (Arc::new(MemoryStore::new()), ScriptedPeer::new());
        let (members, heard) = watch::channel(Arc::default());
        let parts = supervisor::Parts {
            node_id: node_id("n1"),
            generation: Generation(2),
            peer_address: SocketAddr::from(([127, 0, 0, 1], 1)),
            base: local_state("n1"),
            store: Arc::clone(&store) as Arc<dyn Store>,
            vault: crate::testing::vault(&(Arc::clone(&store) as Arc<dyn Store>)),
            launchers: Launchers {
                container: None,
                process: Some(Arc::new(provider.clone())),
            },
            remotes: crate::Remotes::default(),
            outputs: Outputs::new(&settings.logs, "n1"),
            members: heard,
            announce: Arc::new(Heard::default()),
            client: Arc::new(peers.clone()) as Arc<dyn PeerClient>,
            journal: Journal::open_file(&dir.path().join("busy")).unwrap(),
            memory_max_mb: 10_000,
            snapshot_path: dir.path().join("functions"),
            quotas: None,
            propagate: None,
            tracker: TaskTracker::new(),
            settings: Arc::new(settings),
        };
        let running = supervisor::start(parts).await.unwrap();
        Self {
            running,
            provider,
            peers,
            members,
            store,
            requests: AtomicU32::new(0),
            _dir: dir,
        }
    }

    /// Stores a function and waits until the node knows it; its instance key.
    pub(crate) async fn register(&self, id: &str, more: Value) -> InstanceKey {
        let function = function(id, &more);
        let key = function.instance_key(|_| None);
        let value = serde_json::to_vec(&function).unwrap();
        self.store
            .put(&format!("functions/default/{id}"), value.into(), None)
            .await
            .unwrap();
        until("the function is known", || {
            let registry = self.running.control.registry.load();
            registry.iter().any(|registered| registered.key == key)
        })
        .await;
        key
    }

    /// Lets the node hear of peers, and waits until it routes by them.
    pub(crate) async fn hear(&self, of: impl IntoIterator<Item = Member>) {
        let before = self.routes_version().await;
        self.members.send_replace(members(of));
        let bound = Instant::now() + BOUND;
        while self.routes_version().await <= before {
            assert!(Instant::now() < bound, "the peers are not known");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn routes_version(&self) -> u64 {
        let actors = self.running.control.view.actors().await.actors;
        let router = actors.iter().find(|actor| actor.name == "router");
        router
            .and_then(|router| router.snapshot_revision)
            .unwrap_or(0)
    }

    pub(crate) async fn restarts(&self, name: &str) -> u32 {
        let actors = self.running.control.view.actors().await.actors;
        actors
            .iter()
            .find(|actor| actor.name == name)
            .map_or(0, |actor| actor.restarts)
    }

    pub(crate) fn request(&self, id: &str, payload: &'static str) -> Request {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        Request {
            id: format!("request-{number}").parse().unwrap(),
            space: Space::default_space(),
            function_id: id.parse().unwrap(),
            version: None,
            payload: Bytes::from_static(payload.as_bytes()),
            content_type: "text/plain".into(),
            call: None,
            trace: TraceContext::default(),
            begun: None,
        }
    }
}

/// Waits until something is so, and fails when it takes too long.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let bound = Instant::now() + BOUND;
    while !is_so() {
        assert!(Instant::now() < bound, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
