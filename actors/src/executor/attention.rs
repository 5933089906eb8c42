//! How pools tell the executor that they need it: a set of keys, so that however many ask, one notice is under way.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use protocol::InstanceKey;
use tokio::sync::Notify;

/// The keys of pools the executor should look at; outlives the executor's incarnations. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Attention {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    keys: Mutex<HashSet<InstanceKey>>,
    notify: Notify,
}

impl Attention {
    /// Asks the executor to look at a pool.
    pub(crate) fn ask(&self, key: InstanceKey) {
        self.shared
            .keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key);
        self.shared.notify.notify_one();
    }

    /// Waits until somebody asked, and takes all keys.
    ///
    /// # Cancel safety
    /// Safe: keys are taken only when the future completes.
    pub(crate) async fn next(&self) -> HashSet<InstanceKey> {
        loop {
            let keys = std::mem::take(
                &mut *self
                    .shared
                    .keys
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner),
            );
            if !keys.is_empty() {
                return keys;
            }
            self.shared.notify.notified().await;
        }
    }
}
