//! How a node changes what it holds: in transactions, one after the other, each done once.
//!
//! Each of them puts the session's key anew, and happens only if that key has the version that the one before it left. So a node
//! whose session is gone changes nothing, one that arrives late changes nothing, and an answer that was lost is found again: the
//! session's value has the number of the last transaction.

use std::sync::Arc;
use std::time::Duration;

use config::etcd::{FaultKind, Member, Members};
use etcd_client::{
    Compare, CompareOp, DeleteOptions, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use protocol::{Effect, Generation, NodeId};
use serde::{Deserialize, Serialize};

use super::keys::{Keys, Range, SessionId};
use super::shared::why;

/// Operations of one transaction beside the session's own: etcd takes 128, unless it is told otherwise.
pub(super) const OPS_MAX: usize = 126;
/// Bytes that one transaction writes, about: etcd takes 1.5 MiB, unless it is told otherwise.
pub(super) const BYTES_MAX: usize = 1 << 20;

/// The right of a node to hold deliveries, as the node has it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: SessionId,
    pub(super) lease: i64,
    /// How long etcd keeps it that does not hear of it.
    pub(super) ttl: Duration,
    /// How many transactions it has made.
    version: i64,
}

/// What a session says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Standing {
    #[serde(rename = "n")]
    pub(super) node: NodeId,
    #[serde(rename = "g")]
    pub(super) generation: Generation,
    /// Deliveries that it holds.
    #[serde(rename = "l")]
    pub(super) len: u64,
    /// What they count for.
    #[serde(rename = "b")]
    pub(super) bytes: u64,
    /// Whether it could lease more than there was, the last time.
    #[serde(rename = "p", default)]
    pub(super) has_permits: bool,
    /// The number of its last transaction.
    #[serde(rename = "t")]
    pub(super) number: u64,
}

/// A change of one key, or of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    Put(String, Vec<u8>),
    /// It ends with the session.
    PutForNow(String, Vec<u8>),
    Delete(String),
    DeleteAll(Range),
}

/// What is to be changed, and what must be so for that.
#[derive(Debug, Default)]
pub(super) struct Changes {
    pub(super) guards: Vec<Guard>,
    pub(super) ops: Vec<Op>,
}

/// A key that must not have been changed since this revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) key: String,
    pub(super) revision: i64,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    /// At this revision.
    Written(i64),
    /// A key had been changed.
    Refused,
    /// The session is gone. Whether an earlier attempt had been written is not known.
    Lost,
}

/// Etcd did not say how it ended.
#[derive(Debug)]
pub(super) struct Silent {
    pub(super) why: String,
    pub(super) may_have_happened: bool,
}

impl Op {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) | Self::PutForNow(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
            Self::DeleteAll(range) => range.from.len() + range.end.len(),
        }
    }

    fn request(&self, lease: i64) -> TxnOp {
        match self {
            Self::Put(key, value) => TxnOp::put(key.as_str(), value.as_slice(), None),
            Self::PutForNow(key, value) => {
                let options = PutOptions::new().with_lease(lease);
                TxnOp::put(key.as_str(), value.as_slice(), Some(options))
            }
            Self::Delete(key) => TxnOp::delete(key.as_str(), None),
            Self::DeleteAll(range) => {
                let options = DeleteOptions::new().with_range(range.end.clone());
                TxnOp::delete(range.from.as_str(), Some(options))
            }
        }
    }
}

impl Standing {
    pub(super) fn write(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a standing is made of numbers and a text")
    }

    pub(super) fn read(value: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(value).ok()
    }
}

impl Session {
    /// One that its first transaction begins.
    pub(super) fn new(lease: i64, ttl: Duration) -> Self {
        Self {
            id: SessionId(rand::random()),
            lease,
            ttl,
            version: 0,
        }
    }

    /// Changes what it says, within the time of one operation. Whoever got [`Silent`] has to call it again with the same changes and
    /// the same number, until it is known how that ended.
    pub(super) async fn commit(
        &mut self,
        members: &Members,
        keys: &Keys,
        standing: &Standing,
        changes: &Changes,
    ) -> Result<Done, Silent> {
        let request = self.request(keys, standing, changes);
        let mut may_have_happened = false;
        let mut attempts = members.attempts();
        while let Some(attempt) = attempts.next().await {
            let call = send(Arc::clone(&attempt.member), request.clone());
            match attempt.run(call).await {
                Ok(response) => {
                    attempts.answered();
                    let done = self.read(&response, standing.number);
                    if matches!(done, Done::Written(_)) {
                        self.version += 1;
                    }
                    return Ok(done);
                }
                Err(fault) => {
                    may_have_happened |= fault.kind == FaultKind::Unknown;
                    if let Err(error) = attempts.failed(&attempt, fault).await {
                        let why = why(error);
                        return Err(Silent {
                            why,
                            may_have_happened,
                        });
                    }
                }
            }
        }
        Err(Silent {
            why: why(attempts.exhausted(Effect::Refused)),
            may_have_happened,
        })
    }

    fn request(&self, keys: &Keys, standing: &Standing, changes: &Changes) -> Txn {
        let own = keys.session(self.id);
        let mut guards = vec![Compare::version(
            own.as_str(),
            CompareOp::Equal,
            self.version,
        )];
        let others = changes.guards.iter();
        guards.extend(others.map(|guard| {
            Compare::mod_revision(guard.key.as_str(), CompareOp::Equal, guard.revision)
        }));
        let options = PutOptions::new().with_lease(self.lease);
        let mut ops = vec![TxnOp::put(own.as_str(), standing.write(), Some(options))];
        ops.extend(changes.ops.iter().map(|op| op.request(self.lease)));
        Txn::new()
            .when(guards)
            .and_then(ops)
            .or_else([TxnOp::get(own, None)])
    }

    fn read(&self, response: &TxnResponse, number: u64) -> Done {
        if response.succeeded() {
            return Done::Written(response.header().map_or(0, |header| header.revision()));
        }
        let found = response.op_responses().into_iter().next();
        let Some(TxnOpResponse::Get(mut found)) = found else {
            return Done::Lost;
        };
        let Some(found) = found.take_kvs().pop() else {
            // The first transaction of a session is guarded by nothing else, so it is not refused.
            return Done::Lost;
        };
        let is_ours = |standing: Standing| standing.number == number;
        match found.version() - self.version {
            0 => Done::Refused,
            1 if Standing::read(found.value()).is_some_and(is_ours) => {
                Done::Written(found.mod_revision())
            }
            _ => Done::Lost,
        }
    }
}

async fn send(member: Arc<Member>, request: Txn) -> Result<TxnResponse, etcd_client::Error> {
    member.kv().await?.txn(request).await
}
