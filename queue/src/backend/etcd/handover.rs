//! How a node that has no permits left leaves what waits to those that have some.
//!
//! It puts a slice of it under the name of an owner that never had a session, so that it is taken over like the work of a node that left
//! in order. Owner and slice are one transaction, and nothing is added later: who finds nothing under that name may forget it.

use std::time::Duration;

use super::answered;
use super::held::{Given, Room};
use super::keys::SessionId;
use super::look::{Owner, View};
use super::shared::{Job, Shared, State};
use super::transaction::{Changes, Op};
use crate::backend::record::{Put, Record};
use crate::backend::turns::micros;

/// How long a delivery waits at least until it is left to others.
const WAITS_FOR: Duration = Duration::from_secs(1);
/// Slices between two looks around.
const SLICES_MAX: usize = 8;
/// Deliveries of one slice: each takes two operations.
const SLICE_MAX: usize = 60;

impl Shared {
    /// Leaves to others what has waited for too long, if this node has no permits and another one has.
    pub(super) async fn hand_over(&self, view: &View, session: SessionId) {
        let others = view.sessions.iter().filter(|seen| seen.id != session);
        if !others.into_iter().any(|seen| seen.standing.has_permits) {
            return;
        }
        let mut handed = 0;
        for _ in 0..SLICES_MAX {
            let (len, written) = {
                let mut state = self.state();
                if state.accepting().ok() != Some(session) || state.has_permits {
                    break;
                }
                let Some(job) = self.slice(&mut state, session) else {
                    break;
                };
                self.tell_meters(&mut state);
                (job.gives.len(), self.push(&mut state, job))
            };
            match answered(written).await {
                Ok(true) => handed += len,
                // It waits here again.
                Ok(false) | Err(_) => break,
            }
        }
        if handed > 0 {
            tracing::debug!(
                deliveries = handed,
                "this node has no permits left: others are left what waits"
            );
        }
    }

    fn slice(&self, state: &mut State, session: SessionId) -> Option<Job> {
        let owner = SessionId(rand::random());
        let record = Owner {
            node: self.options.node.clone(),
            has_left: true,
            is_handed: true,
        };
        let mut changes = Changes::default();
        changes
            .ops
            .push(Op::Put(self.keys.owner(owner), record.write()));
        let mut room = Room::new();
        room.take(&changes.ops);
        let waits_since = self.clock.now().saturating_sub(micros(WAITS_FOR));
        let mut gives = Vec::new();
        for given in state.held.give(waits_since, SLICE_MAX) {
            let number = given.entry.kept.batch;
            let put = Op::Put(self.keys.batch(owner, number), given.write());
            let ops = [Op::DeleteAll(self.keys.whole_batch(session, number)), put];
            if !gives.is_empty() && !room.take(&ops) {
                state.held.take_back(given);
                continue;
            }
            changes.ops.extend(ops);
            gives.push(given);
        }
        (!gives.is_empty()).then(|| Job {
            changes,
            batches: Vec::new(),
            gives,
            has_room: false,
            dead: 0,
            reply: None,
        })
    }
}

impl Given {
    fn write(&self) -> Vec<u8> {
        let delivery = std::slice::from_ref(&*self.entry.kept.delivery);
        let mut put = Put::accepted(delivery, self.entry.since);
        for row in &mut put.deliveries {
            (row.attempts, row.due) = (self.entry.attempts, self.entry.due);
        }
        Record::Put(put).write()
    }
}
