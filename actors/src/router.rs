//! The router owns what this node knows of its peers and publishes [`RouteTable`].
//!
//! It hears gossip and a timer: it probes peers that have calls in flight or missed a probe, and tells gossip how this node is.
//! Outcomes of calls correct the table at once, without it.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cluster::{Members, PeerClient};
use protocol::NodeId;
use ractor::{Actor, ActorProcessingErr, ActorRef};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub mod announce;
pub mod pick;
pub mod table;

pub use announce::Announcer;
pub use table::{PeerRoute, RouteTable};

use crate::snapshot::Publisher;
use crate::tasks::{Depth, Mailbox, Pending};
use table::Change;

/// All that the router is made from; lent to each incarnation.
#[derive(Debug, Clone)]
pub(crate) struct Args {
    pub(crate) probe_interval: Duration,
    pub(crate) gossip_interval: Duration,
    pub(crate) misses_max: u32,
    pub(crate) members: watch::Receiver<Arc<Members>>,
    pub(crate) client: Arc<dyn PeerClient>,
    pub(crate) announcer: Announcer,
    pub(crate) publisher: Publisher<RouteTable>,
    pub(crate) tracker: TaskTracker,
    pub(crate) depth: Depth,
}

#[derive(Debug)]
#[expect(
    dead_code,
    reason = "a Pending is dropped when the message was handled, never read"
)]
pub(crate) enum Message {
    MembersChanged(Pending),
    ProbeDue(Pending),
    PeerProbed(NodeId),
    AnnounceDue(Pending),
}

pub(crate) struct Router;

pub(crate) struct Incarnation {
    args: Args,
    mailbox: Mailbox<Message>,
    probing: HashSet<NodeId>,
    token: CancellationToken,
    _stops_tasks: DropGuard,
}

impl Actor for Router {
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
        mailbox.every(
            &args.tracker,
            &token,
            args.probe_interval,
            Message::ProbeDue,
        );
        mailbox.every(
            &args.tracker,
            &token,
            args.gossip_interval,
            Message::AnnounceDue,
        );
        let (router, mut members) = (mailbox.clone(), args.members.clone());
        members.mark_changed();
        args.tracker
            .spawn(token.clone().run_until_cancelled_owned(async move {
                while members.changed().await.is_ok() && router.send(Message::MembersChanged).await
                {
                }
            }));
        let guard = token.clone().drop_guard();
        Ok(Incarnation {
            args,
            mailbox,
            probing: HashSet::new(),
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
        match message {
            Message::MembersChanged(_) => incarnation.on_members(),
            Message::ProbeDue(_) => incarnation.probe(),
            Message::PeerProbed(id) => {
                incarnation.probing.remove(&id);
            }
            Message::AnnounceDue(_) => incarnation.args.announcer.announce(),
        }
        Ok(())
    }
}

fn tell(route: &PeerRoute, change: Change) {
    let peer = &route.peer;
    let (name, id, address) = (&peer.name, &peer.id, &peer.address);
    match change {
        Change::Joined => tracing::info!(peer = %name, %id, %address, "peer joined"),
        Change::Restarted => tracing::info!(peer = %name, %id, %address, "peer restarted"),
        Change::Left => tracing::info!(peer = %name, "peer left"),
        Change::Lost => tracing::info!(peer = %name, "peer is no longer heard"),
    }
}

impl Incarnation {
    fn on_members(&self) {
        let members = Arc::clone(&self.args.members.borrow());
        let before = self.args.publisher.reader().get();
        let next = before.next(&members, self.args.misses_max, Instant::now());
        // A node that leaves loses sight of the others, which says nothing of them.
        if !self.args.announcer.is_draining.load(Ordering::Acquire) {
            for (route, change) in next.changes(&before) {
                tell(&route, change);
            }
        }
        self.args.publisher.store(Arc::new(next));
    }

    fn probe(&mut self) {
        let routes = self.args.publisher.reader().get();
        let needs =
            |route: &&Arc<PeerRoute>| route.health.in_flight() > 0 || route.health.is_suspect();
        for route in routes.peers.values().filter(needs) {
            if !self.probing.insert(route.peer.id.clone()) {
                continue;
            }
            let (router, client) = (self.mailbox.clone(), Arc::clone(&self.args.client));
            let (route, timeout) = (Arc::clone(route), self.args.probe_interval);
            let task = async move {
                match client.probe(&route.peer, timeout).await {
                    Ok(()) => {
                        if route.health.is_silent() {
                            tracing::info!(peer = %route.peer.name, "peer answers again");
                        }
                        route.health.note_answered();
                    }
                    Err(error) => {
                        let was_silent = route.health.is_silent();
                        route.health.note_missed();
                        if route.health.is_silent() && !was_silent {
                            tracing::warn!(peer = %route.peer.name, %error, "peer is silent and is routed around");
                        }
                    }
                }
                router.cast(Message::PeerProbed(route.peer.id.clone()));
            };
            self.args
                .tracker
                .spawn(self.token.clone().run_until_cancelled_owned(task));
        }
    }
}
