//! The registry cache owns this node's copy of the functions and publishes [`Registry`].
//!
//! It hears the store's watch. While the store is away it keeps what it knows, also across a restart: a snapshot on disk is
//! read when the store does not answer at the start.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use config::recurring::{Due, Recurring};
use config::store::{Listing, WatchEvent};
use config::{Revision, Store};
use protocol::{Function, FunctionId, InstanceKey, Space};
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub mod disk;
mod state;

use crate::snapshot::Publisher;
use crate::tasks::{Depth, Mailbox, Pending};
use state::State;

/// The prefix of function records in the store; a record's key is `functions/<space>/<id>`.
pub const FUNCTIONS_PREFIX: &str = "functions/";

/// How long the store may take at the start before the snapshot on disk is read as well.
const STORE_PATIENCE: Duration = Duration::from_millis(250);

/// The longest pause between attempts to list the store.
const LIST_PAUSE_MAX: Duration = Duration::from_secs(2);

/// The functions this node knows, as of a revision of the store.
#[derive(Debug, Default)]
pub struct Registry {
    /// The store's revision it was built from.
    pub revision: Revision,
    /// Whether it was read from the store or the disk snapshot; empty and without meaning until then.
    pub is_loaded: bool,
    /// The functions.
    pub functions: HashMap<Space, BTreeMap<FunctionId, Arc<Registered>>>,
}

/// A function as the warm path needs it.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The record.
    pub function: Arc<Function>,
    /// Its instance key.
    pub key: InstanceKey,
    /// The revision of its last change.
    pub revision: Revision,
}

impl Registry {
    /// Finds a function.
    pub fn function(&self, space: &Space, id: &FunctionId) -> Option<&Arc<Registered>> {
        self.functions.get(space)?.get(id)
    }

    /// All functions of all spaces.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.functions.values().flat_map(BTreeMap::values)
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
    StoreListed(Listing, Pending),
    StoreChanged(WatchEvent, Pending),
    SnapshotRead(Listing, Pending),
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
        match message {
            Message::StoreListed(listing, _) => incarnation.state.on_listing(&listing),
            Message::StoreChanged(event, _) => incarnation.state.on_event(&event),
            // What the store said already is newer than any snapshot.
            Message::SnapshotRead(..) if incarnation.state.is_loaded() => return Ok(()),
            Message::SnapshotRead(listing, _) => {
                tracing::warn!(
                    revision = listing.revision.0,
                    "the store does not answer: functions are those of the snapshot on disk"
                );
                incarnation.state.on_listing(&listing);
            }
        }
        incarnation.publish();
        Ok(())
    }
}

impl Incarnation {
    fn publish(&self) {
        self.publisher.store(Arc::new(self.state.registry()));
        self.disk.write(self.state.listing());
    }
}

/// Lists the store and follows its changes; reads the snapshot on disk when the store takes too long.
async fn follow(args: Args, mailbox: Mailbox<Message>) {
    let listing = {
        let list = list_until_done(&*args.store);
        tokio::pin!(list);
        match tokio::time::timeout(STORE_PATIENCE, &mut list).await {
            Ok(listing) => listing,
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
    let mut listing = listing;
    loop {
        let mut watch = args.store.watch(FUNCTIONS_PREFIX, listing.revision);
        let mut is_heard = mailbox
            .send(|pending| Message::StoreListed(listing, pending))
            .await;
        while let Some(event) = watch.recv().await {
            is_heard = is_heard
                && mailbox
                    .send(|pending| Message::StoreChanged(event, pending))
                    .await;
            if !is_heard {
                return;
            }
        }
        if !is_heard {
            return;
        }
        tracing::error!("the store's watch ended; listing anew");
        tokio::time::sleep(LIST_PAUSE_MAX).await;
        listing = list_until_done(&*args.store).await;
    }
}

async fn list_until_done(store: &dyn Store) -> Listing {
    let mut pause = Duration::from_millis(50);
    let mut failing = Recurring::default();
    loop {
        match store.list(FUNCTIONS_PREFIX).await {
            Ok(listing) => {
                if let Some(seconds) = failing.end(Instant::now()) {
                    tracing::info!(seconds, "the config store answers");
                }
                return listing;
            }
            Err(error) => {
                if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                    tracing::warn!(%error, times, seconds, "functions can not be listed; trying again");
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LIST_PAUSE_MAX);
    }
}
