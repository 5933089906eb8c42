//! Cancelling a delivery on any node: the node that holds it is asked to, as it has it in memory, and may be running it.

use std::sync::Arc;

use bytes::Bytes;

use super::api::{Failed, Head};
use super::session::Standing;
use super::streams::BatchKey;
use super::tell::Lost;
use super::{Shared, run, unavailable};
use crate::backend::{DeliveryId, Error};

const DONE: &str = "true";
const NONE: &str = "false";

impl Shared {
    /// Ends a delivery that waits or is leased, wherever; false when there is none of that name.
    pub(super) async fn cancel(self: &Arc<Self>, id: DeliveryId) -> Result<bool, Error> {
        if self.cancel_held(id).await? {
            return Ok(true);
        }
        let Some(owner) = self.owner(id).await.map_err(unavailable)? else {
            return Ok(false);
        };
        match self.sessions.standing(&owner) {
            Standing::Own => {}
            Standing::Alive => return self.ask_to_cancel(&owner, id).await,
            Standing::Dead | Standing::Ended => {
                self.sweep().await.map_err(unavailable)?;
            }
        }
        self.cancel_held(id).await
    }

    /// What another node is answered that wants a delivery cancelled.
    pub(super) async fn cancel_asked(self: &Arc<Self>, id: &[u8]) -> Bytes {
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        let Some(id) = id else {
            return Bytes::from_static(NONE.as_bytes());
        };
        match self.cancel_held(id).await {
            Ok(true) => Bytes::from_static(DONE.as_bytes()),
            Ok(false) => Bytes::from_static(NONE.as_bytes()),
            Err(error) => Bytes::from(error.to_string()),
        }
    }

    async fn cancel_held(self: &Arc<Self>, id: DeliveryId) -> Result<bool, Error> {
        let cancelled = self.held().cancel(id);
        let Some(batch) = cancelled else {
            return Ok(false);
        };
        // Its function may have another lease.
        self.look_again();
        fault_point!("jetstream.cancel.noted");
        match self.tell(batch).await {
            Ok(()) => {
                fault_point!("jetstream.cancel.told");
                Ok(true)
            }
            Err(Lost) => Ok(false),
        }
    }

    /// The session that holds a delivery.
    async fn owner(&self, id: DeliveryId) -> Result<Option<String>, Failed> {
        let subject = self.names.batch(BatchKey { id, is_one: true });
        if let Some(stored) = self.api.last(&self.names.held, &subject).await? {
            return Ok(Some(stored.owner));
        }
        // Records of several deliveries are named by their first one only.
        let subject = self.names.batches_of_many();
        let name = id.to_string();
        let holds = |names: &str| names.split(',').any(|one| one == name);
        let mut owner = None;
        let look = |head: Head| {
            if head.deliveries.as_deref().is_some_and(holds) {
                owner = Some(head.owner);
            }
        };
        self.api.heads(&self.names.held, &subject, look).await?;
        Ok(owner)
    }

    async fn ask_to_cancel(&self, owner: &str, id: DeliveryId) -> Result<bool, Error> {
        let answer = run::ask(self, self.names.cancel(owner), id.to_string()).await;
        let answer = answer.map_err(|failed| {
            unavailable(format!(
                "session {owner} holds the delivery, and can not be asked to cancel it: {failed}; try again when it is back or taken over"
            ))
        })?;
        match std::str::from_utf8(&answer) {
            Ok(DONE) => Ok(true),
            Ok(NONE) => Ok(false),
            other => Err(unavailable(other.unwrap_or("an answer that is no text"))),
        }
    }
}
