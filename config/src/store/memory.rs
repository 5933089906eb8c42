//! The memory store: records that live as long as this process. Nothing is kept on disk, and only the nodes within this process
//! that share one `Arc<MemoryStore>` see the same records.

use std::time::Duration;

use async_trait::async_trait;

use super::records::{LocalRecords, Records};
use super::{Entry, Error, Listing, Revision, Store, Transaction, Watch};

/// A store within this process, gone when it ends.
#[derive(Debug)]
pub struct MemoryStore {
    records: LocalRecords,
}

impl MemoryStore {
    /// Makes an empty store.
    pub fn new() -> Self {
        Self {
            records: LocalRecords::new(Records::default()),
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.records.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        Ok(self.records.list(prefix))
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        Ok(self.records.list_page(prefix, after, max))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        self.records.writer().commit(transaction)
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.records.watch(prefix, after)
    }

    fn staleness(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[tokio::test]
    async fn conforms() {
        conformance::all(|| async { MemoryStore::new() }).await;
    }
}
