//! How far the slots of a schedule are dealt with, as the store has it. Each change is a transaction that asks for the revision before.

use protocol::{Generation, NodeId};
use serde::{Deserialize, Serialize};

/// The prefix of the records; a record's key is `scheduler/progress/<space>/<id>`.
pub(crate) const PROGRESS_PREFIX: &str = "scheduler/progress/";

/// How far the slots of a schedule are dealt with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// Slots up to this moment are dealt with, in milliseconds since 1970. It never goes back.
    pub until_ms: u64,
    /// Who is firing the slot of that moment; none when it is queued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// What was fired last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<Fired>,
}

/// A node that is firing a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The node.
    pub node: NodeId,
    /// Its incarnation; a later one knows nothing of the claim.
    pub generation: Generation,
    /// When it claimed the slot, by the clock of the cluster.
    pub at_ms: u64,
}

/// A slot that was fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fired {
    /// The slot.
    pub slot_ms: u64,
    /// When it was queued.
    pub at_ms: u64,
    /// The `--name` of the node that did.
    pub node: String,
}

impl Progress {
    /// Reads a record; one that can not be read is as good as none.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value)
            .inspect_err(|error| tracing::error!(%error, "the progress of a schedule in the store can not be read"))
            .ok()
    }

    pub(super) fn write(&self) -> bytes::Bytes {
        let value = serde_json::to_vec(self).expect("numbers and texts have a JSON form");
        value.into()
    }
}

/// The key of a schedule's progress.
pub(crate) fn progress_key(space: &str, id: &str) -> String {
    format!("{PROGRESS_PREFIX}{space}/{id}")
}

/// What the keys of a space begin with.
pub(crate) fn progress_prefix(space: &str) -> String {
    format!("{PROGRESS_PREFIX}{space}/")
}
