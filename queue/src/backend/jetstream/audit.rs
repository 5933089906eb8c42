//! Counts what this node holds: what has its turn or a lease in memory, as far as NATS has its record.

use std::collections::HashSet;

use super::api::Head;
use super::held::Place;
use super::{Shared, unavailable};
use crate::backend::{Audit, Error};

impl Shared {
    pub(super) async fn look_up(&self) -> Result<Audit, Error> {
        let (books, known, batches) = {
            let held = self.held();
            (held.ledger.books(), held.len(), held.by_batch())
        };
        let mut there = HashSet::with_capacity(batches.len());
        let look = |head: Head| there.extend(self.names.batch_key(&head.subject));
        let (stream, subjects) = (&self.names.held, self.names.batches());
        let looked = self.api.heads(stream, &subjects, look).await;
        looked.map_err(unavailable)?;
        let mut missing = 0;
        for (key, (batch, then)) in batches {
            if there.contains(&key) {
                continue;
            }
            // Whoever writes it now learns by that what became of it.
            let Ok(kept) = batch.kept.try_lock() else {
                continue;
            };
            // What ended or was lost meanwhile is not missed.
            let now = self.held().left(&batch).len();
            if matches!(kept.place, Place::At(_)) {
                missing += then.min(now);
            }
        }
        Ok(Audit {
            books,
            held: known.saturating_sub(missing) as u64,
        })
    }
}
