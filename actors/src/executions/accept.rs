//! From a call to a record: one execution for each key.
//!
//! A record and its key are written together, before the invocation is put into a queue, and the client is told after both. A node that
//! dies between the two leaves a record that says `accepted`, of which no client was told. Whoever comes with the same key
//! meanwhile waits for a while, then claims the record and puts the invocation into its own queue; what the first node may have put into
//! its queue all the same is void, as it carries an earlier claim. A record that nobody claims is swept, with its key.

use std::time::SystemTime;

use bytes::Bytes;
use config::Revision;
use config::store::{Error as StoreError, Precondition, Transaction, Write};
use protocol::execution::Status;
use protocol::{Execution, ExecutionId, FunctionId, Space};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Duration, Instant};

use super::{Error, Executions, KEYS, Kept, Record, count, execution_key, millis, pause};

/// How long a call goes on trying beyond `executions.claim_after`, while others do the same.
const CONTENDED_MAX: Duration = Duration::from_secs(5);

/// An asynchronous invocation that a client asks for.
#[derive(Debug)]
pub struct New<'a> {
    /// The function's space.
    pub space: &'a Space,
    /// The function.
    pub function_id: &'a FunctionId,
    /// Now.
    pub accepted_at: SystemTime,
    /// It is not begun sooner.
    pub not_before: Option<SystemTime>,
    /// It is not begun later.
    pub expires_at: SystemTime,
    /// Where its end is to be told.
    pub callback: Option<&'a str>,
    /// Its idempotency key, where it has one.
    pub key: Option<Key<'a>>,
}

/// What a client calls its invocation, so that it may ask for it twice.
#[derive(Debug)]
pub struct Key<'a> {
    /// The `Idempotency-Key`.
    pub text: &'a str,
    /// The payload: the same key with another one is refused.
    pub payload: &'a [u8],
}

/// What becomes of a call.
#[derive(Debug)]
pub enum Accepted {
    /// It is this caller's to put into a queue, and to say so by [`Executions::queued`] or [`Executions::withdraw`].
    New(Box<Claim>),
    /// The key names this execution already, and it is in a queue or further.
    Known(ExecutionId, Status),
    /// The key names this execution, and that is kept no longer.
    Forgotten(ExecutionId),
}

/// The right, and the duty, to put an execution into a queue.
#[derive(Debug)]
pub struct Claim {
    /// The execution.
    pub id: ExecutionId,
    /// Which of the claims on it this is; the delivery carries it.
    pub number: u32,
    space: Space,
    revision: Revision,
    record: Record,
}

/// Which execution a key names.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct KeyRecord {
    pub(super) execution: ExecutionId,
    /// SHA-256, in hexadecimal.
    payload: String,
    pub(super) created_at_ms: u64,
}

/// What a key says of a call.
enum Named {
    /// Nothing: it may name another execution, if this holds of its record.
    Free(Precondition),
    Done(Accepted),
    /// It named an execution that was removed a moment ago.
    Gone,
    /// Its execution is on its way into a queue.
    OnItsWay(Box<Kept>),
}

impl Executions {
    /// Writes down an execution, or finds the one that its key names.
    ///
    /// # Errors
    /// [`Error::KeyReused`], [`Error::Contended`], or the store's; nothing is accepted then.
    ///
    /// # Cancel safety
    /// A record may be left that nobody was told of; it is claimed by the next call with its key, or swept.
    pub async fn accept(&self, new: &New<'_>) -> Result<Accepted, Error> {
        let begun = Instant::now();
        let key = new.key.as_ref().map(|key| key_of(new, key));
        let payload = new
            .key
            .as_ref()
            .map(|key| hex::encode(Sha256::digest(key.payload)));
        let mut attempt = 0;
        loop {
            let named = match (&key, &payload) {
                (Some(key), Some(payload)) => self.named(new, key, payload).await?,
                _ => Named::Free(Precondition::Absent),
            };
            let outcome = match named {
                Named::Done(accepted) => return Ok(accepted),
                Named::Free(precondition) => {
                    let key = key.as_ref().zip(payload.as_ref());
                    self.record(new, key, precondition).await.map(Some)
                }
                Named::Gone => Ok(None),
                Named::OnItsWay(_) if begun.elapsed() < self.settings.claim_after => Ok(None),
                Named::OnItsWay(kept) => self.claim(new.space, *kept).await.map(Some),
            };
            match outcome {
                Ok(Some(claim)) => return Ok(Accepted::New(Box::new(claim))),
                Ok(None) | Err(StoreError::Precondition { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            if begun.elapsed() > self.settings.claim_after + CONTENDED_MAX {
                return Err(Error::Contended);
            }
            pause(attempt).await;
            attempt += 1;
        }
    }

    /// Notes that an execution is in a queue, after which its client may be told.
    ///
    /// # Errors
    /// [`Error::GivenUp`], or the store's; the client must not be told that it is accepted then.
    pub async fn queued(&self, claim: Box<Claim>) -> Result<Status, Error> {
        let Claim {
            id,
            number,
            space,
            revision,
            mut record,
        } = *claim;
        record.execution.status = Status::Queued;
        let at = Some(Precondition::At(revision));
        let key = execution_key(&space, id);
        match self.store.put(&key, record.write(), at).await {
            Ok(_) => {}
            // It was begun already, cancelled, claimed or swept.
            Err(StoreError::Precondition { .. }) => {
                let kept = self.read(&space, id).await?;
                let record = kept.ok_or(Error::GivenUp(id))?.record;
                let status = record.execution.status;
                if status == Status::Accepted || record.claim != number {
                    return Err(Error::GivenUp(id));
                }
                count(Status::Accepted);
                return Ok(status);
            }
            Err(error) => return Err(error.into()),
        }
        count(Status::Accepted);
        Ok(Status::Queued)
    }

    /// Removes an execution that no queue took, with its key.
    pub async fn withdraw(&self, claim: Box<Claim>) {
        let Claim {
            id,
            space,
            revision,
            record,
            ..
        } = *claim;
        let key = execution_key(&space, id);
        let writes = [Some(key.clone()), record.key].into_iter().flatten();
        let transaction = Transaction {
            preconditions: vec![(key, Precondition::At(revision))],
            writes: writes.map(Write::Delete).collect(),
        };
        if let Err(error) = self.store.commit(transaction).await {
            tracing::info!(execution = %id, %error, "an execution that was refused is left to be swept");
        }
    }

    /// What the key of a call says now.
    async fn named(&self, new: &New<'_>, key: &str, payload: &str) -> Result<Named, Error> {
        let Some(entry) = self.store.get(key).await? else {
            return Ok(Named::Free(Precondition::Absent));
        };
        let at = Precondition::At(entry.revision);
        let found: KeyRecord = match serde_json::from_slice(&entry.value) {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(key, %error, "the record of an idempotency key can not be read, and is replaced");
                return Ok(Named::Free(at));
            }
        };
        if !self.is_in_window(&found, millis(new.accepted_at)) {
            return Ok(Named::Free(at));
        }
        let id = found.execution;
        if found.payload != payload {
            return Err(Error::KeyReused(id));
        }
        Ok(match self.read(new.space, id).await? {
            // It was removed with its key, or is kept no longer, and the key still is.
            None => match self.store.get(key).await? {
                Some(still) if still.revision == entry.revision => {
                    Named::Done(Accepted::Forgotten(id))
                }
                _ => Named::Gone,
            },
            Some(kept) => match kept.record.execution.status {
                Status::Accepted => Named::OnItsWay(Box::new(kept)),
                status => Named::Done(Accepted::Known(id, status)),
            },
        })
    }

    pub(super) fn is_in_window(&self, key: &KeyRecord, now: u64) -> bool {
        let age = Duration::from_millis(now.saturating_sub(key.created_at_ms));
        age < self.settings.key_window
    }

    /// Writes the record of a new execution, with its key.
    async fn record(
        &self,
        new: &New<'_>,
        key: Option<(&String, &String)>,
        precondition: Precondition,
    ) -> Result<Claim, StoreError> {
        let id = ExecutionId::at(new.accepted_at);
        let record = Record {
            execution: Execution {
                id,
                space: new.space.clone(),
                function_id: new.function_id.clone(),
                status: Status::Accepted,
                accepted_at_ms: millis(new.accepted_at),
                accepted_by: self.node_name.to_string(),
                not_before_ms: new.not_before.map(millis),
                ended_at_ms: None,
                attempts_made: 0,
                attempts: Vec::new(),
                error: None,
                callback: new.callback.map(str::to_owned),
                told: Vec::new(),
            },
            claim: 1,
            expires_at_ms: millis(new.expires_at),
            is_waited_for: false,
            key: key.map(|(key, _)| key.clone()),
            is_untold: false,
        };
        let own = execution_key(new.space, id);
        let mut transaction = Transaction {
            preconditions: vec![(own.clone(), Precondition::Absent)],
            writes: vec![Write::Put(own, record.write())],
        };
        if let Some((key, payload)) = key {
            let named = KeyRecord {
                execution: id,
                payload: payload.clone(),
                created_at_ms: millis(new.accepted_at),
            };
            let named = serde_json::to_vec(&named).expect("a key's record has texts for keys");
            transaction.preconditions.push((key.clone(), precondition));
            let write = Write::Put(key.clone(), Bytes::from(named));
            transaction.writes.push(write);
        }
        let revision = self.store.commit(transaction).await?;
        Ok(Claim {
            id,
            number: record.claim,
            space: new.space.clone(),
            revision,
            record,
        })
    }

    /// Takes an execution over from a node that did not put it into a queue in time.
    async fn claim(&self, space: &Space, kept: Kept) -> Result<Claim, StoreError> {
        let Kept {
            mut record,
            revision,
        } = kept;
        record.claim += 1;
        let id = record.execution.id;
        let at = Some(Precondition::At(revision));
        let key = execution_key(space, id);
        let revision = self.store.put(&key, record.write(), at).await?;
        tracing::info!(execution = %id, node = record.execution.accepted_by, "an execution that its node did not queue in time is queued here");
        Ok(Claim {
            id,
            number: record.claim,
            space: space.clone(),
            revision,
            record,
        })
    }
}

/// The store's key of an idempotency key. Its text is a client's, so it is hashed.
fn key_of(new: &New<'_>, key: &Key<'_>) -> String {
    let hash = hex::encode(Sha256::digest(key.text));
    format!("{KEYS}{}/{}/{hash}", new.space, new.function_id)
}
