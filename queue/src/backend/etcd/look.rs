//! The task that looks at what the other nodes do, twice a second.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use config::etcd::Member;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Deaths;
use super::keys::{Range, SessionId};
use super::shared::{Shared, of_etcd};
use super::takeover::Takeover;
use super::transaction::Standing;
use super::upkeep::Upkeep;
use crate::backend::{DeliveryId, Error};
use protocol::NodeId;

/// How often.
const EVERY: Duration = Duration::from_millis(500);
/// A node that gossip takes for dead has lost its session when etcd has not heard it for so much of its lease, either.
const SILENT_SHARE: (i64, i64) = (3, 10);

/// What there is in etcd beside what nodes hold, all of it as of one revision.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) revision: i64,
    pub(super) sessions: Vec<Seen>,
    pub(super) owners: HashMap<SessionId, Owner>,
    pub(super) asks: HashMap<u64, Ask>,
    pub(super) dead: i64,
}

/// A session of some node.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) id: SessionId,
    pub(super) standing: Standing,
    pub(super) created: i64,
    lease: i64,
}

/// Under whose name something is held, or was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Owner {
    #[serde(rename = "n")]
    pub(super) node: NodeId,
    /// It ended in order: nothing of what it held ran then.
    #[serde(rename = "l", default)]
    pub(super) has_left: bool,
    /// It is the name of what a node had no permits for, and never had a session.
    #[serde(rename = "h", default)]
    pub(super) is_handed: bool,
}

/// Somebody asks all to end a delivery.
#[derive(Debug, Default)]
pub(super) struct Ask {
    pub(super) id: Option<DeliveryId>,
    pub(super) asker: Option<SessionId>,
    /// Of the question's last change.
    pub(super) revision: i64,
    /// Who has answered, and whether it had the delivery.
    pub(super) answers: HashMap<SessionId, bool>,
}

impl Owner {
    pub(super) fn write(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("an owner is a text and a truth")
    }
}

impl View {
    pub(super) fn has(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|seen| seen.id == session)
    }

    /// Those whose session is gone.
    pub(super) fn orphans(&self) -> impl Iterator<Item = (SessionId, &Owner)> {
        let owners = self.owners.iter().map(|(id, owner)| (*id, owner));
        owners.filter(|(id, _)| !self.has(*id))
    }

    /// Whether a session is the oldest one, whose node does what one does for all.
    pub(super) fn is_oldest(&self, session: SessionId) -> bool {
        let oldest = self.sessions.iter().min_by_key(|seen| seen.created);
        oldest.is_some_and(|oldest| oldest.id == session)
    }
}

impl Shared {
    /// Looks until this node's session is gone; says why that is.
    pub(super) async fn look_around(
        &self,
        session: SessionId,
        lease: i64,
        deaths: &dyn Deaths,
    ) -> String {
        let mut takeover = Takeover::new(session);
        let mut upkeep = Upkeep::default();
        let mut tick = interval(EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.look.notified() => {}
            }
            let asked_at = Instant::now();
            let view = match self.view().await {
                Ok(view) => view,
                Err(error) => {
                    tracing::debug!(%error, "etcd does not say what the other nodes do");
                    continue;
                }
            };
            if !view.has(session) {
                return "others took this node for dead, or etcd did not hear of it".to_owned();
            }
            self.note(&view, session, asked_at);
            self.answer_asks(&view, session).await;
            self.end_sessions_of_the_dead(&view, session, lease, deaths)
                .await;
            takeover.go_on(self, &view).await;
            self.hand_over(&view, session).await;
            upkeep.go_on(self, &view, session).await;
        }
    }

    /// What there is in etcd now.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub(super) async fn view(&self) -> Result<View, Error> {
        let keys = &self.keys;
        let all =
            |range: Range| TxnOp::get(range.from, Some(GetOptions::new().with_range(range.end)));
        let dead = keys.all_dead();
        let count = GetOptions::new().with_range(dead.end).with_count_only();
        let request = Txn::new().and_then([
            all(keys.sessions()),
            all(keys.owners()),
            all(keys.asks()),
            TxnOp::get(dead.from, Some(count)),
        ]);
        let read = async |member: Arc<Member>| member.kv().await?.txn(request.clone()).await;
        let response = self.members.read(read).await;
        let response = response.map_err(of_etcd)?;
        let mut view = View {
            revision: response.header().map_or(0, |header| header.revision()),
            ..View::default()
        };
        let mut answers = response
            .op_responses()
            .into_iter()
            .filter_map(|answer| match answer {
                TxnOpResponse::Get(found) => Some(found),
                _ => None,
            });
        let mut records = || {
            let next = answers.next();
            next.map(|mut found| (found.count(), found.take_kvs()))
                .unwrap_or_default()
        };
        view.sessions = records()
            .1
            .iter()
            .filter_map(|record| self.seen(record))
            .collect();
        let owners = records().1;
        let owners = owners.iter().filter_map(|record| self.owner(record));
        view.owners = owners.collect();
        for record in records().1 {
            self.read_ask(&mut view.asks, &record);
        }
        view.dead = records().0;
        Ok(view)
    }

    fn seen(&self, record: &KeyValue) -> Option<Seen> {
        Some(Seen {
            id: self.keys.session_of(record.key())?,
            standing: Standing::read(record.value())?,
            created: record.create_revision(),
            lease: record.lease(),
        })
    }

    fn owner(&self, record: &KeyValue) -> Option<(SessionId, Owner)> {
        let id = self.keys.session_of(record.key())?;
        Some((id, rmp_serde::from_slice(record.value()).ok()?))
    }

    fn read_ask(&self, asks: &mut HashMap<u64, Ask>, record: &KeyValue) {
        let Some((number, session)) = self.keys.ask_of(record.key()) else {
            return;
        };
        let ask = asks.entry(number).or_default();
        match session {
            Some(session) => {
                ask.answers.insert(session, record.value() == Ask::YES);
            }
            None => {
                (ask.id, ask.asker) = Ask::read(record.value());
                ask.revision = record.mod_revision();
            }
        }
    }

    fn note(&self, view: &View, session: SessionId, asked_at: Instant) {
        let others = view.sessions.iter().filter(|seen| seen.id != session);
        let mut state = self.state();
        if let Some(current) = &mut state.session {
            current.was_seen(asked_at);
        }
        state.cluster.bytes_elsewhere = others.map(|seen| seen.standing.bytes).sum();
        state.cluster.count_dead(view.dead, view.revision);
        self.tell_meters(&mut state);
    }

    /// Ends sessions whose nodes are dead before their leases do: those of this node's past, and those that neither gossip nor etcd hears.
    async fn end_sessions_of_the_dead(
        &self,
        view: &View,
        own: SessionId,
        own_lease: i64,
        deaths: &dyn Deaths,
    ) {
        for seen in view.sessions.iter().filter(|seen| seen.id != own) {
            let Standing {
                node, generation, ..
            } = &seen.standing;
            let is_own_past = *node == self.options.node && seen.lease != own_lease;
            let is_dead = is_own_past
                || (deaths.is_dead(node, *generation) && self.is_silent(seen.lease).await);
            if is_dead && self.end_session_of(seen).await {
                tracing::info!(%node, session = %seen.id, "a node is dead: what it held in the queue is taken over");
                self.look.notify_one();
            }
        }
    }

    /// Whether etcd has not heard of a lease for a while.
    async fn is_silent(&self, lease: i64) -> bool {
        let ask = async |member: Arc<Member>| {
            let told = member.leases().await?.time_to_live(lease, None).await?;
            Ok((told.ttl(), told.granted_ttl()))
        };
        let (silent, all) = SILENT_SHARE;
        match self.members.read(ask).await {
            // Etcd tells whole seconds, rounded down.
            Ok((left, granted)) => (left + 1) * all <= granted * (all - silent),
            Err(_) => false,
        }
    }

    async fn end_session_of(&self, seen: &Seen) -> bool {
        let key = self.keys.session(seen.id);
        let is_same = Compare::create_revision(key.as_str(), CompareOp::Equal, seen.created);
        let end = Txn::new()
            .when([is_same])
            .and_then([TxnOp::delete(key, None)]);
        let end = async |member: Arc<Member>| member.kv().await?.txn(end.clone()).await;
        let ended = self.members.read(end).await;
        ended.is_ok_and(|ended| ended.succeeded())
    }

    /// Ends the session of this node in order: nothing that it held runs any more.
    pub(super) async fn end_session(&self, session: SessionId) -> Result<(), Error> {
        let key = self.keys.session(session);
        let owner = Owner {
            node: self.options.node.clone(),
            has_left: true,
            is_handed: false,
        };
        let end = Txn::new()
            .when([Compare::version(key.as_str(), CompareOp::Greater, 0)])
            .and_then([
                TxnOp::delete(key, None),
                TxnOp::put(self.keys.owner(session), owner.write(), None),
            ]);
        let end = async |member: Arc<Member>| member.kv().await?.txn(end.clone()).await;
        let ended = self.members.read(end).await;
        ended.map(|_| ()).map_err(of_etcd)
    }
}

/// Since when something is so.
pub(super) type Since = HashMap<SessionId, Instant>;
