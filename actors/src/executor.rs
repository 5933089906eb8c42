//! The executor owns the life of this node's instances and publishes [`Pools`].
//!
//! It hears the registry, the providers' events, pools that ask for attention and a timer. It starts, adopts and stops instances
//! in tracked tasks that send their outcome back, and has forgotten what is kept of functions that are gone; taking a slot never passes through it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use config::recurring::{Due, Recurring};
use config::settings::ExecutorSettings;
use futures_util::future::BoxFuture;
use protocol::{Deadline, Failure, Generation, InstanceId, InstanceKey, NodeId};
use providers::{Error as ProviderError, Found, Invoke, LaunchSpec, Launched, Outputs, Update};
use ractor::{Actor, ActorProcessingErr, ActorRef, RpcReplyPort};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub mod attention;
pub mod budget;
pub mod journal;
mod launchers;
pub mod pool;
pub mod runs;
mod state;

pub use budget::Budget;
pub use journal::Journal;
pub use launchers::{Kind, Launchers};
pub use pool::{Checkout, Pool, WaitError};
pub use runs::Runs;

use crate::registry_cache::{Registered, Registry};
use crate::remotes::Remotes;
use crate::router::RouteTable;
use crate::secrets::Opener;
use crate::snapshot::{Publisher, Reader};
use crate::tasks::{Depth, Mailbox, Pending};
use attention::Attention;
use state::{Action, Elsewhere, Means, State};

/// The pools of every pooled function this node knows.
#[derive(Debug, Default)]
pub struct Pools {
    /// The pools and the records they were opened for.
    pub pools: HashMap<InstanceKey, (PoolKind, Arc<Registered>)>,
}

/// How a function's instances are used.
#[derive(Debug, Clone)]
pub enum PoolKind {
    /// They stay up and take invocations.
    Pool(Arc<Pool>),
    /// Each takes one invocation.
    Runs(Arc<Runs>),
}

/// All that the executor is made from; lent to each incarnation.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) node_id: NodeId,
    pub(crate) generation: Generation,
    pub(crate) settings: ExecutorSettings,
    pub(crate) start_timeout: Duration,
    pub(crate) launchers: Launchers,
    pub(crate) budget: Budget,
    pub(crate) attention: Attention,
    pub(crate) journal: Journal,
    pub(crate) outputs: Outputs,
    pub(crate) remotes: Remotes,
    pub(crate) secrets: Opener,
    pub(crate) registry: Reader<Registry>,
    pub(crate) routes: Reader<RouteTable>,
    pub(crate) publisher: Publisher<Pools>,
    pub(crate) tracker: TaskTracker,
    pub(crate) depth: Depth,
}

#[derive(Debug)]
#[expect(
    dead_code,
    reason = "a Pending is dropped when the message was handled, never read"
)]
pub(crate) enum Message {
    RegistryChanged(Pending),
    AttentionAsked(HashSet<InstanceKey>, Pending),
    RoomFreed(Pending),
    SweepDue(Pending),
    ReconcileDue(Pending),
    ProviderTold(Kind, Update, Pending),
    InstanceStarted(
        InstanceKey,
        Box<Result<Launched, Failure>>,
        budget::Reservation,
    ),
    InstanceStopped(InstanceId),
    InstancesListed(Kind, HashSet<InstanceId>, Result<Vec<Found>, ProviderError>),
    InstanceAdopted(Kind, Box<Found>, Result<Arc<dyn Invoke>, Failure>),
    Drain,
    Remaining(RpcReplyPort<usize>),
}

pub(crate) struct Executor;

pub(crate) struct Incarnation {
    args: Args,
    mailbox: Mailbox<Message>,
    state: State,
    is_listing: HashSet<Kind>,
    token: CancellationToken,
    _stops_tasks: DropGuard,
}

impl Actor for Executor {
    type Msg = Message;
    type State = Incarnation;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        args: Args,
    ) -> Result<Incarnation, ActorProcessingErr> {
        let token = CancellationToken::new();
        let means = Means {
            generation: args.generation,
            settings: args.settings.clone(),
            budget: args.budget.clone(),
            attention: args.attention.clone(),
            journal: args.journal.clone(),
        };
        let state = State::new(means, &args.publisher.reader().load());
        let mailbox = Mailbox::new(myself, args.depth.clone());
        listen(&mailbox, &args, &token);
        let guard = token.clone().drop_guard();
        Ok(Incarnation {
            args,
            mailbox,
            state,
            is_listing: HashSet::new(),
            token,
            _stops_tasks: guard,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        incarnation: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        incarnation.args.depth.taken();
        let actions = incarnation.on_message(message);
        for action in actions {
            incarnation.carry_out(action);
        }
        Ok(())
    }
}

/// Spawns the tasks that turn what others publish into messages; each has at most one message under way.
fn listen(mailbox: &Mailbox<Message>, args: &Args, token: &CancellationToken) {
    let (tracker, settings) = (&args.tracker, &args.settings);
    let spawn = |task: BoxFuture<'static, ()>| {
        tracker.spawn(token.clone().run_until_cancelled_owned(task));
    };
    mailbox.every(tracker, token, settings.sweep_interval, Message::SweepDue);
    mailbox.every(
        tracker,
        token,
        settings.reconcile_interval,
        Message::ReconcileDue,
    );
    spawn(Box::pin(args.journal.clone().keep_lowering()));
    let (executor, mut changes) = (mailbox.clone(), args.registry.changes());
    changes.mark_changed();
    spawn(Box::pin(async move {
        while changes.changed().await.is_ok() && executor.send(Message::RegistryChanged).await {}
    }));
    let (executor, attention) = (mailbox.clone(), args.attention.clone());
    spawn(Box::pin(async move {
        let mut is_heard = true;
        while is_heard {
            let keys = attention.next().await;
            is_heard = executor
                .send(|pending| Message::AttentionAsked(keys, pending))
                .await;
        }
    }));
    let (executor, budget) = (mailbox.clone(), args.budget.clone());
    spawn(Box::pin(async move {
        let mut is_heard = true;
        let mut freed = Box::pin(budget.freed());
        while is_heard {
            freed.as_mut().await;
            // Listened for before the message goes out: what is freed while it is handled is told too.
            freed.set(budget.freed());
            is_heard = executor.send(Message::RoomFreed).await;
        }
    }));
    for (kind, launch) in args.launchers.iter() {
        let (executor, mut updates) = (mailbox.clone(), launch.watch());
        spawn(Box::pin(async move {
            let mut is_heard = true;
            while is_heard {
                let Some(update) = updates.recv().await else {
                    return;
                };
                is_heard = executor
                    .send(|pending| Message::ProviderTold(kind, update, pending))
                    .await;
            }
        }));
    }
}

impl Incarnation {
    fn on_message(&mut self, message: Message) -> Vec<Action> {
        let now = Instant::now();
        let routes = self.args.routes.get();
        let elsewhere = Routes {
            routes: &routes,
            node_id: &self.args.node_id,
            launchers: &self.args.launchers,
        };
        match message {
            Message::RegistryChanged(_) => self.on_registry(now),
            Message::AttentionAsked(keys, _) => self.state.on_attentions(keys, now, &elsewhere),
            Message::RoomFreed(_) => self.state.on_room(now, &elsewhere),
            Message::SweepDue(_) => self.state.on_sweep(now, &elsewhere),
            Message::ReconcileDue(_) => self.list_all(),
            Message::ProviderTold(kind, Update::Gone(id), _) => {
                self.state.on_gone(kind, &id, now, &elsewhere)
            }
            Message::ProviderTold(kind, Update::Restored, _) => self.list(kind),
            Message::ProviderTold(kind, Update::Lost, _) => {
                // The provider itself has told of it, with the reason.
                tracing::debug!(?kind, "the provider does not answer");
                Vec::new()
            }
            Message::InstanceStarted(key, result, reservation) => {
                self.state
                    .on_started(key, *result, reservation, now, &elsewhere)
            }
            Message::InstanceStopped(id) => self.state.on_stopped(&id),
            Message::InstancesListed(kind, before, result) => {
                self.is_listing.remove(&kind);
                on_listed(&mut self.state, kind, &before, result, now, &elsewhere)
            }
            Message::InstanceAdopted(kind, found, result) => {
                self.state
                    .on_adopted(kind, &found, result, (now, SystemTime::now()), &elsewhere)
            }
            Message::Drain => self.state.on_drain(now),
            Message::Remaining(reply) => {
                // Nobody waits any more when the port is closed.
                let _ = reply.send(self.state.remaining());
                Vec::new()
            }
        }
    }

    fn on_registry(&mut self, now: Instant) -> Vec<Action> {
        let registry = self.args.registry.get();
        if !registry.is_loaded {
            return Vec::new();
        }
        let actions = self.state.on_registry(&registry, now);
        // What stands is known now, so what an earlier generation left can be told apart.
        let lists = self.list_all();
        actions.into_iter().chain(lists).collect()
    }

    fn list_all(&mut self) -> Vec<Action> {
        let kinds: Vec<Kind> = self.args.launchers.iter().map(|(kind, _)| kind).collect();
        for kind in kinds {
            self.list(kind);
        }
        Vec::new()
    }

    fn list(&mut self, kind: Kind) -> Vec<Action> {
        let is_loaded = self.args.registry.load().is_loaded;
        if let Some(launch) = self
            .args
            .launchers
            .get(kind)
            .filter(|launch| is_loaded && launch.is_available())
            && self.is_listing.insert(kind)
        {
            let (launch, actor) = (Arc::clone(launch), self.mailbox.clone());
            let before = self.state.on_listing(kind);
            self.spawn(async move {
                let result = launch.list().await;
                actor.cast(Message::InstancesListed(kind, before, result));
            });
        }
        Vec::new()
    }

    fn carry_out(&self, action: Action) {
        match action {
            Action::Forget { space, id } => {
                self.args.outputs.forget(&space, &id);
                self.args.remotes.forget(&space, &id);
            }
            Action::Publish => self.args.publisher.store(Arc::new(self.state.pools())),
            Action::Start {
                key,
                registered,
                reservation,
            } => self.start(key, registered, reservation),
            Action::Stop {
                kind,
                id,
                reservation,
            } => self.stop(kind, id, reservation),
            Action::Adopt {
                kind,
                found,
                registered,
            } => self.adopt(kind, found, &registered),
        }
    }

    fn start(
        &self,
        key: InstanceKey,
        registered: Arc<Registered>,
        reservation: budget::Reservation,
    ) {
        let actor = self.mailbox.clone();
        let deadline = Deadline::at((Instant::now() + self.args.start_timeout).into_std());
        let launch = self
            .args
            .launchers
            .get(Kind::of(&registered.function))
            .cloned();
        let (space, function) = (
            registered.function.space.clone(),
            registered.function.function_id.clone(),
        );
        let span = tracing::info_span!("start_instance", %space, %function);
        let opener = self.args.secrets.clone();
        let task = async move {
            let result = match launch {
                Some(launch) => match opener.open(&registered).await {
                    Ok(secrets) => {
                        let spec = LaunchSpec {
                            function: state::function_of(&registered),
                            key,
                            secrets,
                            deadline,
                        };
                        launch.start(spec).await
                    }
                    Err(error) => Err(error),
                },
                None => Err(ProviderError::EngineUnavailable {
                    why: "this node has no provider for the type".into(),
                }),
            };
            match &result {
                Ok(launched) => {
                    tracing::info!(%space, %function, instance = %launched.id, phases = ?launched.phases, "instance started");
                }
                Err(error) => tracing::warn!(%space, %function, %error, "instance did not start"),
            }
            let result = result.map_err(|error| Failure::from(&error));
            actor.cast(Message::InstanceStarted(key, Box::new(result), reservation));
        };
        self.spawn(task.instrument(span));
    }

    fn stop(&self, kind: Kind, id: InstanceId, reservation: Option<budget::Reservation>) {
        let Some(launch) = self.args.launchers.get(kind).cloned() else {
            return;
        };
        let actor = self.mailbox.clone();
        self.spawn(async move {
            let mut pause = Duration::from_millis(100);
            let mut failing = Recurring::default();
            while let Err(error) = launch.stop(&id).await {
                if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                    tracing::warn!(instance = %id, %error, times, seconds, "instance could not be stopped; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            match failing.end(Instant::now()) {
                Some(seconds) => tracing::info!(instance = %id, seconds, "instance is stopped at last"),
                None => tracing::debug!(instance = %id, "instance stopped"),
            }
            drop(reservation);
            actor.cast(Message::InstanceStopped(id));
        });
    }

    fn adopt(&self, kind: Kind, found: Found, registered: &Registered) {
        let Some(launch) = self.args.launchers.get(kind).cloned() else {
            return;
        };
        let (actor, function) = (self.mailbox.clone(), state::function_of(registered));
        self.spawn(async move {
            let result = launch.adopt(&found, function).await;
            match &result {
                Ok(_) => tracing::info!(instance = %found.id, function = %found.function_id, "instance adopted"),
                Err(error) => tracing::info!(instance = %found.id, %error, "instance can not be adopted and is removed"),
            }
            let result = result.map_err(|error| Failure::from(&error));
            actor.cast(Message::InstanceAdopted(kind, Box::new(found), result));
        });
    }

    /// Tasks end with this incarnation; the next one finds what they left by listing.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.args
            .tracker
            .spawn(self.token.clone().run_until_cancelled_owned(task));
    }
}

fn on_listed(
    state: &mut State,
    kind: Kind,
    before: &HashSet<InstanceId>,
    result: Result<Vec<Found>, ProviderError>,
    now: Instant,
    elsewhere: &Routes<'_>,
) -> Vec<Action> {
    state.on_listing_ended(kind);
    let mut actions = match result {
        Ok(found) => state.on_listed(kind, found, before, now, elsewhere),
        Err(error) => {
            tracing::warn!(?kind, %error, "instances can not be listed; trying again at the next reconciliation");
            Vec::new()
        }
    };
    // Those who came while what is there was unknown are served now.
    actions.extend(state.on_room(now, elsewhere));
    actions
}

/// The route table as the state asks of it.
struct Routes<'a> {
    routes: &'a RouteTable,
    node_id: &'a NodeId,
    launchers: &'a Launchers,
}

impl Elsewhere for Routes<'_> {
    fn instances(&self, key: InstanceKey) -> u32 {
        self.routes.instances(key)
    }

    fn is_home(&self, registered: &Registered) -> bool {
        let can_run = self.launchers.can_run(Kind::of(&registered.function));
        self.routes.is_home(self.node_id, can_run, registered)
    }
}

impl Pools {
    /// The pool of an instance key.
    pub fn get(&self, key: InstanceKey) -> Option<&PoolKind> {
        self.pools.get(&key).map(|(pool, _)| pool)
    }
}

impl PoolKind {
    pub(crate) fn pool(&self) -> Option<&Arc<Pool>> {
        match self {
            Self::Pool(pool) => Some(pool),
            Self::Runs(_) => None,
        }
    }

    /// Slots free now; those of runs count as a start, never as free.
    pub fn free_slots(&self) -> u32 {
        self.pool().map_or(0, |pool| pool.status().free_slots)
    }

    /// Instances up, or runs under way.
    pub fn instances(&self) -> u32 {
        match self {
            Self::Pool(pool) => pool.status().open,
            Self::Runs(runs) => runs.running(),
        }
    }

    fn reopen(&self, max: u32) {
        match self {
            Self::Pool(pool) => pool.reopen(),
            Self::Runs(runs) => {
                runs.set_max(max);
                runs.reopen();
            }
        }
    }

    fn close(&self) {
        match self {
            Self::Pool(pool) => pool.close(),
            Self::Runs(runs) => runs.close(),
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        match self {
            Self::Pool(pool) => pool.is_closed(),
            Self::Runs(runs) => runs.is_closed(),
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Self::Pool(pool) => pool.status().up == 0,
            Self::Runs(runs) => runs.running() == 0,
        }
    }

    fn needs_room(&self) -> bool {
        matches!(self, Self::Runs(runs) if runs.needs_room())
    }
}

#[cfg(test)]
mod tests;
