//! How a delivery is ended that this node, or another one, holds.
//!
//! Nobody but its holder knows where a delivery is. So who can not find it asks all others by a record, and each says in another one
//! whether it had the delivery, and has ended it.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::answered;
use super::keys::SessionId;
use super::look::{Ask, View};
use super::shared::{Job, Shared, State, unavailable};
use super::transaction::{Changes, Guard, Op};
use crate::backend::{Change, DeliveryId, Error};

/// How often the answers are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

impl Shared {
    /// Ends a delivery that this node holds; false when it does not.
    pub(super) async fn cancel_here(&self, id: DeliveryId) -> Result<bool, Error> {
        {
            let mut state = self.state();
            state.accepting()?;
            if state.held.is_giving(id) {
                return Err(unavailable("it is on its way to another node"));
            }
            if state.held.cancel(id).is_none() {
                return Ok(false);
            }
            state.ledger.note(Change::Cancelled, 1);
            self.tell_meters(&mut state);
        }
        fault_point!("etcd.cancel.noted");
        self.wake.notify_one();
        // A function that had a lease may have another one.
        self.changed.notify_one();
        self.all_told().await?;
        fault_point!("etcd.cancel.told");
        Ok(true)
    }

    /// Ends a delivery that another node holds; false when none does.
    pub(super) async fn cancel_elsewhere(&self, id: DeliveryId) -> Result<bool, Error> {
        let session = self.state().accepting()?;
        let view = self.view().await?;
        if view.sessions.iter().all(|seen| seen.id == session) {
            return no_orphans(&view).map(|()| false);
        }
        let ask = rand::random();
        let asked = Op::PutForNow(self.keys.ask(ask), Ask::write(id, session));
        self.write_now(None, asked).await?;
        let found = self.answers(ask, session).await;
        // It goes with the session if it can not be removed now.
        let _ = self
            .write_now(None, Op::DeleteAll(self.keys.whole_ask(ask)))
            .await;
        found
    }

    async fn answers(&self, ask: u64, session: SessionId) -> Result<bool, Error> {
        let deadline = Instant::now() + self.options.operation_timeout;
        loop {
            let view = self.view().await?;
            let answers = view.asks.get(&ask).map(|ask| &ask.answers);
            let said = |session| answers.and_then(|answers| answers.get(&session)).copied();
            if answers.is_some_and(|answers| answers.values().any(|has| *has)) {
                return Ok(true);
            }
            let mut others = view.sessions.iter().filter(|seen| seen.id != session);
            let Some(silent) = others.find(|seen| said(seen.id).is_none()) else {
                return no_orphans(&view).map(|()| false);
            };
            if Instant::now() >= deadline {
                let node = &silent.standing.node;
                return Err(unavailable(format!(
                    "node {node} does not say whether it has the delivery"
                )));
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Answers what others ask.
    pub(super) async fn answer_asks(&self, view: &View, session: SessionId) {
        for (number, ask) in &view.asks {
            let is_answered = ask.asker == Some(session) || ask.answers.contains_key(&session);
            let Some(id) = ask.id.filter(|_| !is_answered) else {
                continue;
            };
            let answered = match self.cancel_here(id).await {
                Ok(found) => {
                    let answer = if found { Ask::YES } else { Ask::NO };
                    let key = self.keys.answer(*number, session);
                    // Who asked may have taken its question back by now: then an answer would lie there until this session ends.
                    let asked = Guard {
                        key: self.keys.ask(*number),
                        revision: ask.revision,
                    };
                    self.write_now(Some(asked), Op::PutForNow(key, answer.to_vec()))
                        .await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, delivery = %id, "another node is not told whether this one had a delivery");
            }
        }
    }

    /// Writes at once, if what the guard names has not been changed.
    async fn write_now(&self, guard: Option<Guard>, op: Op) -> Result<(), Error> {
        let job = Job {
            changes: Changes {
                guards: guard.into_iter().collect(),
                ops: vec![op],
            },
            batches: Vec::new(),
            gives: Vec::new(),
            has_room: false,
            dead: 0,
            reply: None,
        };
        let written = {
            let mut state = self.state();
            State::accepting(&state)?;
            self.push(&mut state, job)
        };
        answered(written).await.map(|_| ())
    }
}

impl Ask {
    pub(super) const YES: &[u8] = b"1";
    pub(super) const NO: &[u8] = b"0";

    fn write(id: DeliveryId, asker: SessionId) -> Vec<u8> {
        format!("{id} {asker}").into_bytes()
    }

    pub(super) fn read(value: &[u8]) -> (Option<DeliveryId>, Option<SessionId>) {
        let text = std::str::from_utf8(value).unwrap_or_default();
        let (id, asker) = text.split_once(' ').unwrap_or_default();
        let asker = u64::from_str_radix(asker, 16).ok();
        (id.parse().ok(), asker.map(SessionId))
    }
}

/// Nobody answers for what is being taken over.
fn no_orphans(view: &View) -> Result<(), Error> {
    match view.orphans().next() {
        None => Ok(()),
        Some((_, owner)) => Err(unavailable(format!(
            "what node {} held is being taken over",
            owner.node
        ))),
    }
}
