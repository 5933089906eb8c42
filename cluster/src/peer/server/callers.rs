//! Who may call: whoever shows a certificate that gossip knows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::membership::Members;
use crate::peer::Fingerprint;

/// How long a caller that gossip does not know may wait to be known: it may have heard of this node before this node of it.
const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// The callers that have connections here.
pub(super) struct Callers {
    members: watch::Receiver<Arc<Members>>,
    stop: CancellationToken,
    /// Cancelled when the caller is forgotten or has restarted: what its former self waits for, nobody waits for.
    present: Mutex<HashMap<Fingerprint, CancellationToken>>,
}

impl Callers {
    pub(super) fn new(members: watch::Receiver<Arc<Members>>, stop: CancellationToken) -> Self {
        Self {
            members,
            stop,
            present: Mutex::default(),
        }
    }

    /// Waits until the holder of a certificate is a member; gives the token that ends its connections. `None` when it is not.
    pub(super) async fn admit(&self, fingerprint: Fingerprint) -> Option<CancellationToken> {
        let mut members = self.members.clone();
        let known = members.wait_for(|members| is_member(members, fingerprint));
        timeout(UNKNOWN_TIMEOUT, known).await.ok()?.ok()?;
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        Some(
            present
                .entry(fingerprint)
                .or_insert_with(|| self.stop.child_token())
                .clone(),
        )
    }

    fn keep_members(&self, members: &Members) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = present.extract_if(|fingerprint, _| !is_member(members, *fingerprint));
        gone.for_each(|(_, token)| token.cancel());
    }
}

/// Ends the connections of callers that are no members any more.
pub(super) async fn watch_members(shared: Arc<Shared>) {
    let mut members = shared.callers.members.clone();
    loop {
        tokio::select! {
            () = shared.quiet.cancelled() => return,
            changed = members.changed() => match changed {
                Ok(()) => {
                    let members = Arc::clone(&members.borrow_and_update());
                    shared.callers.keep_members(&members);
                }
                Err(_) => return,
            },
        }
    }
}

/// A dead member counts: it may be alive and only this node does not hear it.
fn is_member(members: &Members, fingerprint: Fingerprint) -> bool {
    members
        .values()
        .any(|member| member.peer.fingerprint == fingerprint)
}
