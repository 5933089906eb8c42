//! Follows the store's records of accounts, and has them from the disk when the store does not answer at the start.

use std::path::PathBuf;
use std::time::Duration;

use config::Revision;
use config::store::patience::{self, list_until_done};
use config::store::{Listing, WatchEvent};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::disk;
use crate::known::Kind;
use crate::{Accounts, clock};

/// How long the store may take at the start before the disk is read as well.
const STORE_PATIENCE: Duration = Duration::from_millis(250);

/// How often the metric of staleness is set.
const STALENESS_INTERVAL: Duration = Duration::from_millis(500);

/// Events of the watch that are applied together.
const EVENTS_AT_ONCE: usize = 256;

/// As of which revision the node knows the records of each kind.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reached {
    revisions: [Revision; Kind::ALL.len()],
    /// Kinds that the store listed.
    listed: [bool; Kind::ALL.len()],
    /// Whether all was read from the disk.
    is_from_disk: bool,
}

impl Reached {
    /// The revision of a kind.
    pub(crate) fn of(&self, kind: Kind) -> Revision {
        self.revisions[kind as usize]
    }

    /// Whether something is known at all.
    pub(crate) fn is_loaded(&self) -> bool {
        self.is_from_disk || self.is_listed()
    }

    /// Whether all that is known is the store's.
    pub(crate) fn is_listed(&self) -> bool {
        self.listed.iter().all(|listed| *listed)
    }
}

/// Starts to follow; returns when the node knows something, or the store took too long and the disk has nothing.
pub(crate) async fn start(
    accounts: &Accounts,
    data_dir: PathBuf,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    for kind in Kind::ALL {
        let follow = follow(accounts.clone(), kind);
        tracker.spawn(stop.clone().run_until_cancelled_owned(follow));
    }
    let tell = tell_staleness(accounts.clone());
    tracker.spawn(stop.clone().run_until_cancelled_owned(tell));
    let mut reached = accounts.inner.reached.subscribe();
    let listed = reached.wait_for(Reached::is_listed);
    if tokio::time::timeout(STORE_PATIENCE, listed).await.is_err() {
        let cluster_id = accounts.inner.cluster_id.to_string();
        if let Some(snapshot) = disk::read(data_dir.clone(), cluster_id).await {
            take_snapshot(accounts, snapshot);
        }
    }
    let write = disk::keep_written(accounts.clone(), data_dir);
    tracker.spawn(stop.clone().run_until_cancelled_owned(write));
}

/// Tells for how long revocations may have gone unheard.
async fn tell_staleness(accounts: Accounts) {
    let staleness = metrics::gauge!("hearth_accounts_staleness_seconds");
    loop {
        staleness.set(accounts.staleness().as_secs_f64());
        tokio::time::sleep(STALENESS_INTERVAL).await;
    }
}

/// What the store said already is newer than the disk; some of it without the rest would let nobody in.
fn take_snapshot(accounts: &Accounts, snapshot: disk::Snapshot) {
    accounts.inner.reached.send_if_modified(|reached| {
        if reached.listed.iter().any(|listed| *listed) {
            return false;
        }
        tracing::warn!(
            age_seconds = clock::now_ms().saturating_sub(snapshot.written_at_ms) / 1000,
            "the store does not answer: users, sessions and keys are those of the snapshot on disk"
        );
        accounts.learn(|known| known.on_snapshot(snapshot.known));
        reached.is_from_disk = true;
        true
    });
}

async fn follow(accounts: Accounts, kind: Kind) {
    loop {
        let listing = list_until_done(&*accounts.inner.store, kind.prefix()).await;
        let mut watch = accounts.inner.store.watch(kind.prefix(), listing.revision);
        on_listing(&accounts, kind, &listing);
        let mut events = Vec::new();
        while watch.recv_many(&mut events, EVENTS_AT_ONCE).await > 0 {
            for event in events.drain(..) {
                on_event(&accounts, kind, event);
            }
        }
        tracing::error!(
            prefix = kind.prefix(),
            "the store's watch ended; listing anew"
        );
        tokio::time::sleep(patience::PAUSE_MAX).await;
    }
}

fn on_listing(accounts: &Accounts, kind: Kind, listing: &Listing) {
    // Under the lock of what was reached, so that a snapshot from the disk never comes after what the store said.
    accounts.inner.reached.send_modify(|reached| {
        accounts.learn(|known| known.on_listing(kind, listing));
        reached.revisions[kind as usize] = listing.revision;
        reached.listed[kind as usize] = true;
    });
}

fn on_event(accounts: &Accounts, kind: Kind, event: WatchEvent) {
    match event {
        WatchEvent::Reset(listing) => on_listing(accounts, kind, &listing),
        WatchEvent::Changes { revision, changes } => {
            accounts.learn(|known| {
                for change in &changes {
                    known.on_change(kind, change);
                }
            });
            accounts
                .inner
                .reached
                .send_modify(|reached| reached.revisions[kind as usize] = revision);
        }
    }
}
