//! One transaction, done once even when it has to be tried twice.
//!
//! A write whose answer is lost may have happened, and trying it again would then fail its own precondition. So every transaction
//! also writes a number of its own, drawn at random, to one of a fixed set of marker records beside the cluster's, and does nothing
//! when it finds its number there already. A later attempt thus sees that an earlier one happened, and at which revision, and one
//! that arrives late does nothing. Two transactions that share a marker at the same time can hide each other's number; the marker's
//! revision tells, and then the outcome is called unknown instead of guessed.

use std::sync::Arc;

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse};
use protocol::Effect;

use super::Cluster;
use crate::etcd::{FaultKind, Member, refused};
use crate::store::{Error, Precondition, Revision, Transaction, Write};

/// Marker records of one cluster; more of them, fewer chance meetings.
const MARKERS: u32 = 1024;

/// What an attempt found out.
enum Answer {
    /// It wrote, or an earlier one had.
    Written(Revision),
    /// The precondition of this key does not hold, and the marker, if any, was last written at this revision.
    Refused { key: String, marked_at: i64 },
}

impl Cluster {
    /// Carries out a transaction; tries other members while its time lasts.
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        let marker = self.marker(rand::random_range(0..MARKERS));
        let number = format!("{:032x}", rand::random::<u128>()).into_bytes();
        let request = self.request(&transaction, &marker, &number)?;
        let begun_at = self.newest();
        let mut may_have_happened = false;
        let mut attempts = self.members.attempts();
        while let Some(attempt) = attempts.next().await {
            let call = self.send(
                Arc::clone(&attempt.member),
                request.clone(),
                &number,
                &transaction,
            );
            match attempt.run(call).await {
                Ok(Answer::Written(revision)) => {
                    attempts.answered();
                    return Ok(revision);
                }
                Ok(Answer::Refused { key, marked_at }) => {
                    attempts.answered();
                    if may_have_happened && marked_at > begun_at {
                        let why = "an earlier attempt of the write got no answer, and others wrote meanwhile".to_owned();
                        return Err(Error::Unavailable {
                            why,
                            effect: Effect::Interrupted,
                        });
                    }
                    return Err(Error::Precondition { key });
                }
                Err(fault) => {
                    may_have_happened |= fault.kind == FaultKind::Unknown;
                    let failed = attempts.failed(&attempt, fault).await;
                    failed.map_err(|error| {
                        if may_have_happened {
                            interrupted(error)
                        } else {
                            error
                        }
                    })?;
                }
            }
        }
        Err(attempts.exhausted(if may_have_happened {
            Effect::Interrupted
        } else {
            Effect::Refused
        }))
    }

    /// When the preconditions hold: the writes and the marker, unless the marker has our number. Else: what is there.
    fn request(
        &self,
        transaction: &Transaction,
        marker: &str,
        number: &[u8],
    ) -> Result<Txn, Error> {
        let mut compares = Vec::with_capacity(transaction.preconditions.len());
        let mut found = vec![TxnOp::get(marker, None)];
        for (key, precondition) in &transaction.preconditions {
            let key = self.full(key);
            compares.push(match precondition {
                Precondition::Absent => Compare::create_revision(key.clone(), CompareOp::Equal, 0),
                Precondition::Present => {
                    Compare::create_revision(key.clone(), CompareOp::Greater, 0)
                }
                Precondition::At(revision) => {
                    let revision = i64::try_from(revision.0)
                        .map_err(|_| refused(format!("no revision {}", revision.0)))?;
                    Compare::mod_revision(key.clone(), CompareOp::Equal, revision)
                }
            });
            found.push(TxnOp::get(key, Some(GetOptions::new().with_keys_only())));
        }
        let mut writes = vec![TxnOp::put(marker, number, None)];
        writes.extend(transaction.writes.iter().map(|write| match write {
            Write::Put(key, value) => TxnOp::put(self.full(key), &value[..], None),
            Write::Delete(key) => TxnOp::delete(self.full(key), None),
        }));
        let once = Txn::new()
            .when([Compare::value(marker, CompareOp::Equal, number)])
            .and_then([TxnOp::get(marker, None)])
            .or_else(writes);
        Ok(Txn::new()
            .when(compares)
            .and_then([TxnOp::txn(once)])
            .or_else(found))
    }

    async fn send(
        &self,
        member: Arc<Member>,
        request: Txn,
        number: &[u8],
        transaction: &Transaction,
    ) -> Result<Answer, etcd_client::Error> {
        let response = member.kv().await?.txn(request).await?;
        let head = self.heard(response.header());
        let answers = response.op_responses();
        if response.succeeded() {
            // An earlier attempt's revision is the marker's; our own is that of the answer.
            let earlier = match answers.first() {
                Some(TxnOpResponse::Txn(once)) if once.succeeded() => {
                    once.op_responses().first().and_then(first_record)
                }
                _ => None,
            };
            return Ok(Answer::Written(
                earlier.map_or(head.revision, |marker| revision_of(&marker)),
            ));
        }
        let marker = answers.first().and_then(first_record);
        if let Some(marker) = marker.as_ref().filter(|marker| marker.value() == number) {
            return Ok(Answer::Written(revision_of(marker)));
        }
        let key = refused_key(transaction, answers.get(1..).unwrap_or_default());
        Ok(Answer::Refused {
            key,
            marked_at: marker.map_or(0, |marker| marker.mod_revision()),
        })
    }
}

/// The first key whose precondition does not hold of what was found.
fn refused_key(transaction: &Transaction, found: &[TxnOpResponse]) -> String {
    let refused = transaction
        .preconditions
        .iter()
        .zip(found)
        .find(|((_, precondition), found)| {
            let found = first_record(found).map(|record| revision_of(&record));
            match precondition {
                Precondition::Absent => found.is_some(),
                Precondition::Present => found.is_none(),
                Precondition::At(revision) => found != Some(*revision),
            }
        });
    refused.map_or_else(String::new, |((key, _), _)| key.clone())
}

fn first_record(answer: &TxnOpResponse) -> Option<KeyValue> {
    match answer {
        TxnOpResponse::Get(found) => found.kvs().first().cloned(),
        _ => None,
    }
}

fn revision_of(record: &KeyValue) -> Revision {
    Revision(u64::try_from(record.mod_revision()).unwrap_or_default())
}

/// The same error for a write that may have happened in an earlier attempt.
fn interrupted(error: Error) -> Error {
    match error {
        Error::Unavailable { why, .. } => Error::Unavailable {
            why,
            effect: Effect::Interrupted,
        },
        error => error,
    }
}
