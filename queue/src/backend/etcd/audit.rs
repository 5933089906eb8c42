//! Counts what this node holds: what has its turn or a lease in memory, as far as etcd has its batch.

use std::collections::HashSet;
use std::ops::ControlFlow;

use super::keys::SessionId;
use super::shared::{Shared, unavailable};
use crate::backend::{Audit, Error};

impl Shared {
    pub(super) async fn look_up(&self) -> Result<Audit, Error> {
        let (session, books, known, batches) = {
            let state = self.state();
            let session = state
                .current()
                .ok_or_else(|| unavailable("this node has no session with etcd"))?;
            let held = &state.held;
            (session, state.ledger.books(), held.len(), held.by_batch())
        };
        let there = self.batches_of(session).await?;
        let state = self.state();
        if state.current() != Some(session) {
            return Err(unavailable("the session of this node ended meanwhile"));
        }
        // What ended meanwhile is not missed.
        let still = state.held.by_batch();
        let missing = batches.iter().filter(|(number, _)| !there.contains(number));
        let missing = missing.filter_map(|(number, then)| Some((*then).min(*still.get(number)?)));
        Ok(Audit {
            books,
            held: known.saturating_sub(missing.sum()) as u64,
        })
    }

    /// The batches that etcd has under the name of a session.
    async fn batches_of(&self, session: SessionId) -> Result<HashSet<u64>, Error> {
        let mut batches = HashSet::new();
        let range = self.keys.held(session);
        self.each_key(range, |key| {
            if let Some((number, None)) = self.keys.held_by(key) {
                batches.insert(number);
            }
            ControlFlow::Continue(())
        })
        .await?;
        Ok(batches)
    }
}
