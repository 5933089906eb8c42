//! Counts what this node holds: what has its turn or a lease in memory, as far as etcd has its batch.

use std::collections::HashSet;

use etcd_client::{GetOptions, KeyValue};

use super::keys::{Range, SessionId};
use super::shared::{Shared, unavailable};
use crate::backend::{Audit, Error};

/// Keys that are listed at once.
const PAGE: i64 = 1_000;

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
        let Range { from, end } = self.keys.held(session);
        let mut from = from.into_bytes();
        let mut batches = HashSet::new();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(PAGE)
                .with_keys_only();
            let page = self.get(from, options).await?;
            let keys = page.kvs().iter().map(KeyValue::key);
            let named = keys.filter_map(|key| self.keys.held_by(key));
            batches.extend(named.filter_map(|(number, place)| place.is_none().then_some(number)));
            match page.kvs().last() {
                Some(last) if page.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => return Ok(batches),
            }
        }
    }
}
