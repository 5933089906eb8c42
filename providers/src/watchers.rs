//! Who is told of instances that change without being asked to.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::{Life, Update};

/// Who is told.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    watcher: Mutex<Watcher>,
}

#[derive(Debug, Default)]
struct Watcher {
    sender: Option<mpsc::Sender<Update>>,
    /// An update was lost because the watcher was slow: it has to list again.
    owes_restored: bool,
}

/// Updates a watcher may be behind.
const UPDATES_MAX: usize = 256;

impl Watchers {
    pub(crate) fn subscribe(&self) -> mpsc::Receiver<Update> {
        let (sender, receiver) = mpsc::channel(UPDATES_MAX);
        *self.lock() = Watcher {
            sender: Some(sender),
            owes_restored: false,
        };
        receiver
    }

    /// Tells without waiting; a watcher that is too far behind is told to list later.
    pub(crate) fn tell(&self, update: Update) {
        let mut watcher = self.lock();
        let Some(sender) = watcher.sender.clone() else {
            return;
        };
        if watcher.owes_restored {
            watcher.owes_restored = sender.try_send(Life::Restored).is_err();
        }
        if let Err(TrySendError::Full(_)) = sender.try_send(update) {
            watcher.owes_restored = true;
        }
    }

    /// Tries again to tell a slow watcher that it has to list.
    pub(crate) fn settle(&self) {
        let mut watcher = self.lock();
        if watcher.owes_restored
            && let Some(sender) = watcher.sender.clone()
        {
            watcher.owes_restored = sender.try_send(Life::Restored).is_err();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watcher> {
        self.watcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
