//! The registry cache owns this node's copy of the cluster's records and publishes [`Registry`].
//!
//! It hears the store's watch. While the store is away it keeps what it knows, also across a restart: a snapshot on disk is
//! read when the store does not answer at the start.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::store::patience::{self, list_until_done};
use config::store::{Listing, WatchEvent};
use config::{Revision, Store};
use futures_util::future::join_all;
use protocol::schedule::Plan;
use protocol::subscription::EventType;
use protocol::{
    EventTypeRecord, Function, FunctionId, InstanceKey, ScheduleId, ScheduleRecord, SecretName,
    SecretRecord, Space,
};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

mod cors;
pub mod disk;
mod records;
pub(crate) mod state;
pub mod subscriptions;
pub(crate) mod versions;

use crate::snapshot::Publisher;
use crate::tasks::{Depth, Mailbox, Pending};
pub use cors::{CorsIndex, RegisteredCors};
use state::State;
pub use subscriptions::{Matched, Subscribed, Subscriptions};
pub use versions::{RegisteredAlias, Unresolved, Versions};

/// The prefix of function records in the store; a record's key is `functions/<space>/<id>`.
pub const FUNCTIONS_PREFIX: &str = "functions/";

/// The prefix of subscription records in the store; a record's key is `subscriptions/<space>/<id>`.
pub const SUBSCRIPTIONS_PREFIX: &str = "subscriptions/";

/// The prefix of event type records in the store; a record's key is `eventtypes/<space>/<name>`.
pub const EVENT_TYPES_PREFIX: &str = "eventtypes/";

/// The prefix of CORS configurations in the store; a record's key is `cors/<space>/<id>`.
pub const CORS_PREFIX: &str = "cors/";

/// The prefix of schedules in the store; a record's key is `schedules/<space>/<id>`.
pub const SCHEDULES_PREFIX: &str = "schedules/";

/// The prefix of secrets in the store; a record's key is `secrets/<space>/<name>`.
pub const SECRETS_PREFIX: &str = "secrets/";

/// The prefix of versions of functions in the store; a record's key is `versions/<space>/<function>/<number, 10 digits>`.
pub const VERSIONS_PREFIX: &str = "versions/";

/// The prefix of aliases in the store; a record's key is `aliases/<space>/<function>/<name>`.
pub const ALIASES_PREFIX: &str = "aliases/";

/// How long the store may take at the start before the snapshot on disk is read as well.
const STORE_PATIENCE: Duration = Duration::from_millis(250);

/// Events of the watch that are applied together, so that a burst of changes is published a few times only.
const EVENTS_AT_ONCE: usize = 256;

/// The functions, their versions and aliases, subscriptions, event types, CORS configurations, schedules and secrets this node knows, as of a revision of the store.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// The newest revision of the store that it was built from.
    pub revision: Revision,
    /// The revision as of which the functions are complete.
    pub functions_revision: Revision,
    /// Whether it was read from the store or the disk snapshot; empty and without meaning until then.
    pub is_loaded: bool,
    /// The functions.
    pub functions: HashMap<Space, Arc<BTreeMap<FunctionId, Arc<Registered>>>>,
    /// The subscriptions.
    pub subscriptions: Subscriptions,
    /// The revision as of which the event types are complete.
    pub event_types_revision: Revision,
    /// The event types.
    pub event_types: HashMap<Space, Arc<BTreeMap<EventType, Arc<RegisteredType>>>>,
    /// The CORS configurations.
    pub cors: CorsIndex,
    /// The revision as of which the schedules are complete.
    pub schedules_revision: Revision,
    /// The schedules.
    pub schedules: HashMap<Space, Arc<BTreeMap<ScheduleId, Arc<RegisteredSchedule>>>>,
    /// The revision as of which the secrets are complete.
    pub secrets_revision: Revision,
    /// The secrets, sealed.
    pub secrets: HashMap<Space, Arc<BTreeMap<SecretName, Arc<RegisteredSecret>>>>,
    /// The revision as of which the versions of functions are complete.
    pub versions_revision: Revision,
    /// The revision as of which the aliases are complete.
    pub aliases_revision: Revision,
    /// The versions and aliases of functions that have some.
    pub versions: HashMap<Space, Arc<BTreeMap<FunctionId, Arc<Versions>>>>,
}

/// A function as the warm path needs it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The record.
    pub function: Arc<Function>,
    /// Its instance key.
    pub key: InstanceKey,
    /// The secrets that it names and that this node knows, sealed.
    pub secrets: Vec<Arc<RegisteredSecret>>,
    /// The revision of its last change.
    pub revision: Revision,
}

/// A secret as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredSecret {
    /// The record, its value sealed.
    pub secret: Arc<SecretRecord>,
    /// The revision of its last change.
    pub revision: Revision,
}

/// An event type as the registry has it.
#[derive(Debug, Clone, PartialEq)]
pub struct RegisteredType {
    /// The record.
    pub event_type: Arc<EventTypeRecord>,
    /// The revision of its last change.
    pub revision: Revision,
}

/// A schedule as the registry has it.
#[derive(Debug, Clone)]
pub struct RegisteredSchedule {
    /// The record.
    pub schedule: Arc<ScheduleRecord>,
    /// When it is due.
    pub plan: Plan,
    /// The revision of its last change.
    pub revision: Revision,
}

impl Registry {
    /// Finds a function.
    pub fn function(&self, space: &Space, id: &FunctionId) -> Option<&Arc<Registered>> {
        self.functions.get(space)?.get(id)
    }

    /// Finds an event type.
    pub fn event_type(&self, space: &Space, name: &EventType) -> Option<&Arc<RegisteredType>> {
        self.event_types.get(space)?.get(name)
    }

    /// The event type of a space that asks a function before its events are delivered, if there is one.
    pub fn authorized_by(&self, space: &Space, function_id: &FunctionId) -> Option<&EventType> {
        let mut event_types = self.event_types.get(space)?.values();
        let found = event_types
            .find(|registered| registered.event_type.authorizer_id.as_ref() == Some(function_id));
        found.map(|registered| &registered.event_type.name)
    }

    /// The schedules of a space, by id.
    pub fn schedules_of(&self, space: &Space) -> impl Iterator<Item = &Arc<RegisteredSchedule>> {
        let of_space = self.schedules.get(space).into_iter();
        of_space.flat_map(|schedules| schedules.values())
    }

    /// All functions of all spaces.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.functions
            .values()
            .flat_map(|functions| functions.values())
    }
}

/// The kinds of records, each with a watch of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Functions,
    Subscriptions,
    EventTypes,
    Cors,
    Schedules,
    Secrets,
    Versions,
    Aliases,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Functions,
        Self::Subscriptions,
        Self::EventTypes,
        Self::Cors,
        Self::Schedules,
        Self::Secrets,
        Self::Versions,
        Self::Aliases,
    ];

    fn prefix(self) -> &'static str {
        match self {
            Self::Functions => FUNCTIONS_PREFIX,
            Self::Subscriptions => SUBSCRIPTIONS_PREFIX,
            Self::EventTypes => EVENT_TYPES_PREFIX,
            Self::Cors => CORS_PREFIX,
            Self::Schedules => SCHEDULES_PREFIX,
            Self::Secrets => SECRETS_PREFIX,
            Self::Versions => VERSIONS_PREFIX,
            Self::Aliases => ALIASES_PREFIX,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Functions => "functions",
            Self::Subscriptions => "subscriptions",
            Self::EventTypes => "eventtypes",
            Self::Cors => "cors",
            Self::Schedules => "schedules",
            Self::Secrets => "secrets",
            Self::Versions => "versions",
            Self::Aliases => "aliases",
        }
    }
}

/// All that the registry cache is made from; lent to each incarnation.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) snapshot_path: PathBuf,
    pub(crate) cluster_id: String,
    pub(crate) publisher: Publisher<Registry>,
    pub(crate) tracker: TaskTracker,
    pub(crate) depth: Depth,
}

#[derive(Debug)]
#[expect(
    dead_code,
    reason = "a Pending is dropped when the message was handled, never read"
)]
pub(crate) enum Message {
    StoreListed(Kind, Listing, Pending),
    /// Of one kind, and since when they are known.
    StoreChanged(Kind, Vec<WatchEvent>, Instant, Pending),
    SnapshotRead(disk::Snapshot, Pending),
}

pub(crate) struct RegistryCache;

pub(crate) struct Incarnation {
    state: State,
    publisher: Publisher<Registry>,
    disk: disk::Writer,
    depth: Depth,
    _stops_tasks: DropGuard,
}

impl Actor for RegistryCache {
    type Msg = Message;
    type State = Incarnation;
    type Arguments = Args;

    async fn pre_start(
        &self,
        myself: ActorRef<Message>,
        args: Args,
    ) -> Result<Incarnation, ActorProcessingErr> {
        let token = CancellationToken::new();
        let mailbox = Mailbox::new(myself, args.depth.clone());
        let follow = follow(args.clone(), mailbox);
        args.tracker
            .spawn(token.clone().run_until_cancelled_owned(follow));
        let disk = disk::Writer::start(args.snapshot_path, args.cluster_id, &args.tracker, &token);
        let (state, guard) = (State::default(), token.drop_guard());
        Ok(Incarnation {
            state,
            publisher: args.publisher,
            disk,
            depth: args.depth,
            _stops_tasks: guard,
        })
    }

    async fn handle(
        &self,
        _myself: ActorRef<Message>,
        message: Message,
        incarnation: &mut Incarnation,
    ) -> Result<(), ActorProcessingErr> {
        incarnation.depth.taken();
        let mut told = None;
        match message {
            Message::StoreListed(kind, listing, _) => incarnation.state.on_listing(kind, listing),
            Message::StoreChanged(kind, events, heard, _) => {
                incarnation.state.on_events(kind, events);
                told = Some((kind, heard));
            }
            // What the store said already is newer than any snapshot.
            Message::SnapshotRead(..) if incarnation.state.is_loaded() => return Ok(()),
            Message::SnapshotRead(snapshot, _) => {
                tracing::warn!(
                    revision = snapshot.revision.0,
                    "the store does not answer: functions, subscriptions and all other records are those of the snapshot on disk"
                );
                for kind in Kind::ALL {
                    let listing = snapshot.listing(kind.prefix());
                    incarnation.state.on_listing(kind, listing);
                }
            }
        }
        incarnation.publish(told);
        Ok(())
    }
}

impl Incarnation {
    fn publish(&self, told: Option<(Kind, Instant)>) {
        // What is known in part is nothing to start from: neither for readers nor for the next start.
        if self.state.is_loaded() {
            self.publisher.store(self.state.registry());
            if let Some((kind, heard)) = told {
                metrics::histogram!("hearth_registry_swap_seconds", "records" => kind.name())
                    .record(heard.elapsed());
            }
            self.disk.write(self.state.snapshot());
        }
    }
}

/// Lists the store and follows its changes; reads the snapshot on disk when the store takes too long.
async fn follow(args: Args, mailbox: Mailbox<Message>) {
    let listings = {
        let list = join_all(Kind::ALL.map(|kind| list_until_done(&*args.store, kind.prefix())));
        tokio::pin!(list);
        match tokio::time::timeout(STORE_PATIENCE, &mut list).await {
            Ok(listings) => listings,
            Err(_) => {
                if let Some(snapshot) =
                    disk::read(args.snapshot_path.clone(), args.cluster_id.clone()).await
                    && !mailbox
                        .send(|pending| Message::SnapshotRead(snapshot, pending))
                        .await
                {
                    return;
                }
                list.await
            }
        }
    };
    let follow = Kind::ALL.into_iter().zip(listings);
    join_all(follow.map(|(kind, listing)| follow_kind(&args, &mailbox, kind, listing))).await;
}

/// Follows the changes of one kind after a listing; returns when the actor is gone.
async fn follow_kind(args: &Args, mailbox: &Mailbox<Message>, kind: Kind, mut listing: Listing) {
    loop {
        let mut watch = args.store.watch(kind.prefix(), listing.revision);
        let mut is_heard = mailbox
            .send(|pending| Message::StoreListed(kind, listing, pending))
            .await;
        let mut events = Vec::new();
        while is_heard && watch.recv_many(&mut events, EVENTS_AT_ONCE).await > 0 {
            let (events, heard) = (std::mem::take(&mut events), Instant::now());
            is_heard = mailbox
                .send(|pending| Message::StoreChanged(kind, events, heard, pending))
                .await;
        }
        if !is_heard {
            return;
        }
        tracing::error!("the store's watch ended; listing anew");
        tokio::time::sleep(patience::PAUSE_MAX).await;
        listing = list_until_done(&*args.store, kind.prefix()).await;
    }
}
