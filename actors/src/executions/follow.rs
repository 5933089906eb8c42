//! What a node does for the executions besides those that it delivers: it hears which are cancelled, and sweeps in turn with the others.

use std::sync::Arc;
use std::time::Duration;

use config::recurring::Recurring;
use config::store::{Change, Watch, WatchEvent};
use tokio::time::{Instant, MissedTickBehavior};

use super::{AWAY_PAUSE_MAX, CANCELLED, Executions, Tell};

impl Executions {
    /// Cancels what runs here when another node ends it, removes what is kept no longer, and has ends told that a node left untold. It
    /// has no end.
    ///
    /// # Cancel safety
    /// Safe: what is not done yet is done by another node, or by the next start.
    pub async fn keep_house(self, tell: Arc<dyn Tell>) {
        let sweeping = self.sweep_again_and_again(&*tell);
        tokio::join!(self.hear_cancellations(), sweeping);
    }

    async fn hear_cancellations(&self) {
        loop {
            let mut watch = self.watch_cancellations().await;
            while let Some(event) = watch.recv().await {
                match event {
                    WatchEvent::Changes { changes, .. } => {
                        let put = changes
                            .iter()
                            .filter(|change| matches!(change, Change::Put(_)));
                        put.for_each(|change| self.cancel_here(change.key()));
                    }
                    WatchEvent::Reset(listing) => {
                        let entries = listing.entries.iter();
                        entries.for_each(|entry| self.cancel_here(&entry.key));
                    }
                }
            }
            // It ends with the store only, and then so does the node.
            tokio::time::sleep(AWAY_PAUSE_MAX).await;
        }
    }

    /// A watch from now on; what was cancelled before is what nothing here can have begun since.
    async fn watch_cancellations(&self) -> Watch {
        let (mut away, mut pause) = (Recurring::default(), Duration::from_millis(50));
        loop {
            match self.store.list(CANCELLED).await {
                Ok(listing) => {
                    let entries = listing.entries.iter();
                    entries.for_each(|entry| self.cancel_here(&entry.key));
                    return self.store.watch(CANCELLED, listing.revision);
                }
                Err(error) => {
                    if let Some(due) = away.note(Instant::now()) {
                        let seconds = due.seconds;
                        tracing::warn!(%error, seconds, "cancelled executions are not heard of: the config store can not be read");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(AWAY_PAUSE_MAX);
        }
    }

    fn cancel_here(&self, key: &str) {
        let id = key.strip_prefix(CANCELLED).map(str::parse);
        if let Some(Ok(id)) = id {
            self.running().cancel(id);
        }
    }

    async fn sweep_again_and_again(&self, tell: &dyn Tell) {
        let mut ticks = tokio::time::interval(self.settings.sweep_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut away = Recurring::default();
        loop {
            ticks.tick().await;
            match self.sweep_in_turn(tell).await {
                Ok(_) => {
                    away.end(Instant::now());
                }
                Err(error) => {
                    if let Some(due) = away.note(Instant::now()) {
                        let seconds = due.seconds;
                        tracing::warn!(%error, seconds, "executions that are kept no longer are not removed");
                    }
                }
            }
        }
    }
}
