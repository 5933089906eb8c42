//! Reading what a node can not do without: again and again, until the store answers.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{Listing, Store};
use crate::recurring::{Due, Recurring};

/// The pause after the first failure, which doubles up to the longest.
const PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
pub const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Reads all records under a prefix, however long that takes, and says in the log when it takes long.
///
/// # Cancel safety
/// Nothing is kept: the next call begins anew.
pub async fn list_until_done(store: &dyn Store, prefix: &str) -> Listing {
    let mut pause = PAUSE;
    let mut failing = Recurring::default();
    loop {
        match store.list(prefix).await {
            Ok(listing) => {
                if let Some(seconds) = failing.end(Instant::now()) {
                    tracing::info!(prefix, seconds, "the config store answers");
                }
                return listing;
            }
            Err(error) => {
                if let Some(Due { times, seconds }) = failing.note(Instant::now()) {
                    tracing::warn!(prefix, %error, times, seconds, "records can not be listed; trying again");
                }
            }
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}
