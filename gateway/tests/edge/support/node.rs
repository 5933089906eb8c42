//! A node behind an edge: its records are real, and what it does with an invocation is a script.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use actors::catalog::{
    self, Stored, StoredCors, StoredEventType, StoredSchedule, StoredSecret, StoredSubscription,
};
use actors::invoker::{Completed, Failed, Request};
use actors::testing::TestCatalog;
use actors::view::Readiness;
use actors::{Backup, Catalog, Executions, Quotas, Registry};
use async_trait::async_trait;
use bytes::Bytes;
use config::settings::ExecutionsSettings;
use config::store::MemoryStore;
use config::{Revision, Store};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, StreamExt};
use gateway::Node;
use protocol::function::Provider;
use protocol::invocation::{Body, StartKind};
use protocol::{
    Component, CorsId, CorsRecord, Effect, ErrorCode, EventTypeRecord, Failure, Function,
    FunctionId, Phases, Reply, ScheduleRecord, SecretName, Space, Subscription, SubscriptionId,
    api,
};
use tokio::sync::OnceCell;
use vault::Plain;

/// What the scripted node does with an invocation.
pub(crate) type Run =
    Box<dyn Fn(Request) -> BoxFuture<'static, Result<Completed, Box<Failed>>> + Send + Sync>;

/// A node whose records are real, on a store in memory, and all else is a script.
#[derive(Clone)]
pub(crate) struct ScriptedNode(Arc<Script>);

pub(crate) struct Script {
    name: Arc<str>,
    run: Mutex<Arc<Run>>,
    /// Requests that reached the node.
    pub(crate) requests: Mutex<Vec<Request>>,
    /// Invocations whose future was dropped before it ended.
    pub(crate) cancelled: AtomicUsize,
    pub(crate) is_draining: AtomicBool,
    pub(crate) is_store_away: AtomicBool,
    /// What is registered and subscribed, for events.
    pub(crate) registry: Mutex<Arc<Registry>>,
    records: OnceCell<TestCatalog>,
    executions: Executions,
    backup: Backup,
}

impl fmt::Debug for ScriptedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedNode")
    }
}

impl std::ops::Deref for ScriptedNode {
    type Target = Script;

    fn deref(&self) -> &Script {
        &self.0
    }
}

impl ScriptedNode {
    pub(super) fn new() -> Self {
        let echo: Run = Box::new(|request: Request| {
            Box::pin(async move { Ok(replied(Some("application/json"), request.payload)) })
        });
        Self(Arc::new(Script {
            name: "n1".into(),
            run: Mutex::new(Arc::new(echo)),
            requests: Mutex::default(),
            cancelled: AtomicUsize::new(0),
            is_draining: AtomicBool::new(false),
            is_store_away: AtomicBool::new(false),
            registry: Mutex::new(Arc::new(Registry {
                is_loaded: true,
                ..Registry::default()
            })),
            records: OnceCell::new(),
            backup: {
                let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
                Backup::new(Arc::clone(&store), actors::testing::vault(&store))
            },
            executions: Executions::new(
                Arc::new(MemoryStore::new()),
                ExecutionsSettings::default(),
                "n1".into(),
            ),
        }))
    }

    /// Replaces what it does with an invocation; at first it answers with the payload.
    pub(crate) fn on_invoke<F>(&self, run: impl Fn(Request) -> F + Send + Sync + 'static)
    where
        F: Future<Output = Result<Completed, Box<Failed>>> + Send + 'static,
    {
        *self.run.lock().unwrap() = Arc::new(Box::new(move |request| Box::pin(run(request))));
    }

    pub(crate) fn calls(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// The records, which begin with the first request for one.
    pub(crate) async fn records(&self) -> &Catalog {
        let start = || TestCatalog::start(Arc::new(MemoryStore::new()));
        &self.records.get_or_init(start).await.catalog
    }

    fn store(&self) -> Result<(), catalog::Error> {
        match self.is_store_away.load(Ordering::SeqCst) {
            true => Err(catalog::Error::Store(config::store::Error::Unavailable {
                why: "etcd is away".to_owned(),
                effect: Effect::Refused,
            })),
            false => Ok(()),
        }
    }

    /// Stands for what the catalog refuses: the image `missing`, the image `unknown` whose registry is away, and processes.
    fn admit(function: &Function) -> Result<(), catalog::Error> {
        let image = |code| {
            Failure::new(
                code,
                Component::Provider,
                Effect::Refused,
                "image was not found",
            )
        };
        match &function.provider {
            Provider::Container(container) if container.image == "missing" => {
                Err(catalog::Error::Image(image(ErrorCode::ImageNotFound)))
            }
            Provider::Container(container) if container.image == "unknown" => {
                Err(catalog::Error::Image(image(ErrorCode::EngineUnavailable)))
            }
            Provider::Process(_) => Err(catalog::Error::ProcessesOff),
            _ => Ok(()),
        }
    }
}

/// An answer of a function that ran here, warm.
pub(crate) fn replied(content_type: Option<&str>, body: impl Into<Bytes>) -> Completed {
    Completed {
        reply: Reply {
            status: 200,
            content_type: content_type.map(str::to_owned),
            body: Body::Whole(body.into()),
            ..Reply::default()
        },
        node: "n1".into(),
        start: StartKind::Warm,
        is_forwarded: false,
        phases: Phases {
            route: Some(4),
            run: Some(1_250),
            ..Phases::default()
        },
        standing: None,
    }
}

/// An invocation that failed after a place was chosen for it.
pub(crate) fn failed(code: ErrorCode, component: Component, effect: Effect) -> Box<Failed> {
    let failure = Failure::new(code, component, effect, "the reason");
    Box::new(Failed {
        failure,
        is_forwarded: false,
        phases: Phases {
            route: Some(4),
            ..Phases::default()
        },
        standing: None,
    })
}

struct CountDrop<'a>(Option<&'a AtomicUsize>);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Node for ScriptedNode {
    fn name(&self) -> &Arc<str> {
        &self.0.name
    }

    async fn invoke(&self, request: Request) -> Result<Completed, Box<Failed>> {
        self.requests.lock().unwrap().push(request.clone());
        let run = Arc::clone(&self.run.lock().unwrap());
        let mut cancelled = CountDrop(Some(&self.0.cancelled));
        let outcome = run(request).await;
        cancelled.0 = None;
        outcome
    }

    async fn create(&self, function: Function) -> Result<Stored, catalog::Error> {
        self.store()?;
        Self::admit(&function)?;
        self.records().await.create(function).await
    }

    async fn update(
        &self,
        function: Function,
        at: Option<Revision>,
    ) -> Result<Stored, catalog::Error> {
        self.store()?;
        Self::admit(&function)?;
        self.records().await.update(function, at).await
    }

    async fn adjust(&self, function: Function, at: Revision) -> Result<Stored, catalog::Error> {
        self.update(function, Some(at)).await
    }

    async fn delete(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.store()?;
        self.records().await.delete(space, id, at).await
    }

    async fn get(&self, space: &str, id: &str) -> Result<Stored, catalog::Error> {
        self.records().await.get(space, id).await
    }

    async fn known(&self, space: &str, id: &str) -> Result<Stored, catalog::Error> {
        self.store()?;
        self.records().await.known(space, id).await
    }

    async fn list(&self, space: &str) -> Result<Vec<Stored>, catalog::Error> {
        self.records().await.list(space).await
    }

    async fn create_subscription(
        &self,
        subscription: Subscription,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.store()?;
        self.records().await.create_subscription(subscription).await
    }

    async fn update_subscription(
        &self,
        id: &SubscriptionId,
        subscription: Subscription,
        at: Option<Revision>,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.store()?;
        let records = self.records().await;
        records.update_subscription(id, subscription, at).await
    }

    async fn delete_subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.store()?;
        let records = self.records().await;
        records.delete_subscription(space, id, at).await
    }

    async fn subscription(
        &self,
        space: &str,
        id: &SubscriptionId,
    ) -> Result<StoredSubscription, catalog::Error> {
        self.records().await.subscription(space, id).await
    }

    async fn subscriptions(&self, space: &str) -> Result<Vec<StoredSubscription>, catalog::Error> {
        self.records().await.subscriptions(space).await
    }

    async fn create_event_type(
        &self,
        event_type: EventTypeRecord,
    ) -> Result<StoredEventType, catalog::Error> {
        self.store()?;
        self.records().await.create_event_type(event_type).await
    }

    async fn update_event_type(
        &self,
        event_type: EventTypeRecord,
        at: Option<Revision>,
    ) -> Result<StoredEventType, catalog::Error> {
        self.store()?;
        self.records().await.update_event_type(event_type, at).await
    }

    async fn delete_event_type(
        &self,
        space: &str,
        name: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.store()?;
        self.records()
            .await
            .delete_event_type(space, name, at)
            .await
    }

    async fn event_type(&self, space: &str, name: &str) -> Result<StoredEventType, catalog::Error> {
        self.records().await.event_type(space, name).await
    }

    async fn event_types(&self, space: &str) -> Result<Vec<StoredEventType>, catalog::Error> {
        self.records().await.event_types(space).await
    }

    async fn create_cors(&self, cors: CorsRecord) -> Result<StoredCors, catalog::Error> {
        self.store()?;
        self.records().await.create_cors(cors).await
    }

    async fn update_cors(
        &self,
        id: &CorsId,
        cors: CorsRecord,
        at: Option<Revision>,
    ) -> Result<StoredCors, catalog::Error> {
        self.store()?;
        self.records().await.update_cors(id, cors, at).await
    }

    async fn delete_cors(
        &self,
        space: &str,
        id: &CorsId,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.store()?;
        self.records().await.delete_cors(space, id, at).await
    }

    async fn cors(&self, space: &str, id: &CorsId) -> Result<StoredCors, catalog::Error> {
        self.records().await.cors(space, id).await
    }

    async fn all_cors(&self, space: &str) -> Result<Vec<StoredCors>, catalog::Error> {
        self.records().await.all_cors(space).await
    }

    fn executions(&self) -> &Executions {
        &self.0.executions
    }

    async fn catalog(&self) -> &Catalog {
        self.records().await
    }

    fn backup(&self) -> &Backup {
        &self.0.backup
    }

    async fn create_schedule(
        &self,
        schedule: ScheduleRecord,
    ) -> Result<StoredSchedule, catalog::Error> {
        self.store()?;
        self.records().await.create_schedule(schedule).await
    }

    async fn update_schedule(
        &self,
        schedule: ScheduleRecord,
        at: Option<Revision>,
    ) -> Result<StoredSchedule, catalog::Error> {
        self.store()?;
        self.records().await.update_schedule(schedule, at).await
    }

    async fn delete_schedule(
        &self,
        space: &str,
        id: &str,
        at: Option<Revision>,
    ) -> Result<(), catalog::Error> {
        self.store()?;
        self.records().await.delete_schedule(space, id, at).await
    }

    async fn schedule(&self, space: &str, id: &str) -> Result<StoredSchedule, catalog::Error> {
        self.records().await.schedule(space, id).await
    }

    async fn schedules(&self, space: &str) -> Result<Vec<StoredSchedule>, catalog::Error> {
        self.records().await.schedules(space).await
    }

    fn quotas(&self) -> Option<&Quotas> {
        None
    }

    async fn set_secret(
        &self,
        space: &Space,
        name: &SecretName,
        value: &Plain,
    ) -> Result<StoredSecret, catalog::Error> {
        self.records().await.set_secret(space, name, value).await
    }

    async fn delete_secret(&self, space: &str, name: &str) -> Result<(), catalog::Error> {
        self.records().await.delete_secret(space, name).await
    }

    async fn secrets(&self, space: &str) -> Result<Vec<StoredSecret>, catalog::Error> {
        self.records().await.secrets(space).await
    }

    fn spaces(&self) -> BTreeSet<Space> {
        let records = self.records.get();
        records.map_or_else(BTreeSet::new, |records| records.catalog.spaces())
    }

    fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.0.registry.lock().unwrap())
    }

    async fn output(
        &self,
        _: &Space,
        id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, std::io::Result<Bytes>> {
        let lines = [
            format!("{{\"line\":\"{id} one\"}}\n"),
            "{\"line\":\"two\"}\n".to_owned(),
        ];
        let lines = stream::iter(lines.map(|line| Ok(Bytes::from(line))));
        if follow {
            lines.chain(stream::pending()).boxed()
        } else {
            lines.boxed()
        }
    }

    fn readiness(&self) -> Readiness {
        match self.is_draining.load(Ordering::SeqCst) {
            true => Readiness::Draining,
            false => Readiness::Ready,
        }
    }

    fn cluster(&self) -> api::Cluster {
        api::Cluster {
            cluster: "hearth".to_owned(),
            node: "n1".to_owned(),
            revision: 7,
            store_staleness_seconds: 0.0,
            nodes: Vec::new(),
        }
    }

    async fn actors(&self) -> api::Actors {
        api::Actors { actors: Vec::new() }
    }

    fn route(&self, space: &Space, id: &FunctionId) -> Option<api::Route> {
        let registry = self.records.get()?.registry.get();
        registry.function(space, id)?;
        Some(api::Route {
            choice: "cold".to_owned(),
            node: None,
            why: "no slot".to_owned(),
            inputs: BTreeMap::new(),
        })
    }

    fn kill_actor(&self, name: &str) -> bool {
        name == "router"
    }
}
