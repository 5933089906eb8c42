//! What became of deliveries, and how that is told to etcd.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Spot;
use crate::backend::etcd::keys::{DeadKey, Keys, SessionId};
use crate::backend::etcd::transaction::{BYTES_MAX, OPS_MAX, Op};
use crate::backend::record::{Death, Put, Record, Row};
use crate::backend::turns::Entry;

/// How far one delivery of a batch is, in etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Progress {
    #[serde(rename = "a")]
    pub(in super::super) attempts: u32,
    /// It is not leased sooner.
    #[serde(rename = "u")]
    pub(in super::super) due: u64,
    #[serde(rename = "e", default)]
    pub(in super::super) is_ended: bool,
}

#[derive(Debug)]
pub(super) enum Change {
    Progress(Progress),
    Ended { awaited: Option<u64> },
    Died { letter: Letter, awaited: u64 },
}

/// A dead letter on its way.
#[derive(Debug)]
pub(super) struct Letter {
    key: DeadKey,
    value: Vec<u8>,
}

/// What is to be told next.
#[derive(Debug, Default)]
pub(in super::super) struct Told {
    pub(in super::super) ops: Vec<Op>,
    /// Dead letters among it.
    pub(in super::super) dead: usize,
    pub(super) awaited: Vec<u64>,
    /// The last batch goes on in the next transaction: etcd takes no put of a key beside the deletion of it.
    pub(super) is_split: bool,
}

/// What a transaction has room for.
#[derive(Debug)]
pub(in super::super) struct Room {
    ops: usize,
    bytes: usize,
    pub(super) is_empty: bool,
}

/// Where a batch is, and whether it ends.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) keys: &'a Keys,
    pub(super) session: SessionId,
    pub(super) number: u64,
    pub(super) is_over: bool,
}

impl Letter {
    pub(super) fn write(entry: &Entry<Spot>, death: Death) -> Self {
        let delivery = &entry.kept.delivery;
        let said = death.answer.len() + death.reason.message.len();
        let key = DeadKey {
            position: death.position,
            id: delivery.id,
            bytes: u64::from(entry.room) + said as u64,
        };
        let mut put = Put::accepted(std::slice::from_ref(&**delivery), entry.since);
        if let Some(row) = put.deliveries.first_mut() {
            row.attempts = entry.attempts;
            row.death = Some(death);
        }
        let value = Record::Put(put).write();
        Self { key, value }
    }
}

impl Room {
    /// That of a transaction.
    pub(in super::super) fn new() -> Self {
        Self {
            ops: OPS_MAX,
            bytes: BYTES_MAX,
            is_empty: true,
        }
    }

    /// Leaves so many operations for others, or gives them back.
    pub(in super::super) fn leave(&mut self, ops: usize) -> usize {
        let left = ops.min(self.ops);
        self.ops -= left;
        left
    }

    pub(in super::super) fn give_back(&mut self, ops: usize) {
        self.ops += ops;
    }

    /// Takes the room for these. What is too large for any transaction of several is let into one of its own.
    pub(in super::super) fn take(&mut self, ops: &[Op]) -> bool {
        let bytes: usize = ops.iter().map(Op::bytes).sum();
        if ops.len() > self.ops || (bytes > self.bytes && !self.is_empty) {
            return false;
        }
        self.ops -= ops.len();
        self.bytes = self.bytes.saturating_sub(bytes);
        self.is_empty &= ops.is_empty();
        true
    }
}

impl Told {
    pub(super) fn add(&mut self, ops: Vec<Op>, changes: impl IntoIterator<Item = (u32, Change)>) {
        self.ops.extend(ops);
        for (_, change) in changes {
            self.dead += usize::from(matches!(change, Change::Died { .. }));
            self.awaited.extend(change.awaited());
        }
    }
}

impl Change {
    pub(super) fn ops(&self, place: &Place<'_>, at: u32) -> Vec<Op> {
        let put = |progress: Progress| {
            let key = || place.keys.progress(place.session, place.number, at);
            // With the end of the batch all of its keys go.
            (!place.is_over).then(|| Op::Put(key(), progress.write()))
        };
        match self {
            Self::Progress(progress) => put(*progress).into_iter().collect(),
            Self::Ended { .. } => put(Progress::ENDED).into_iter().collect(),
            Self::Died { letter, .. } => {
                let key = place.keys.dead(letter.key);
                let name = place.keys.dead_name(letter.key.id);
                let name = Op::Put(name, key.clone().into_bytes());
                let dead = Op::Put(key, letter.value.clone());
                put(Progress::ENDED)
                    .into_iter()
                    .chain([dead, name])
                    .collect()
            }
        }
    }

    pub(super) fn awaited(&self) -> Option<u64> {
        match self {
            Self::Progress(_) => None,
            Self::Ended { awaited } => *awaited,
            Self::Died { awaited, .. } => Some(*awaited),
        }
    }
}

impl Progress {
    pub(in super::super) const ENDED: Self = Self {
        attempts: 0,
        due: 0,
        is_ended: true,
    };

    pub(in super::super) fn write(&self) -> Vec<u8> {
        rmp_serde::to_vec_named(self).expect("a progress is made of numbers")
    }

    pub(in super::super) fn read(value: &[u8]) -> Option<Self> {
        rmp_serde::from_slice(value).ok()
    }
}

/// What is left of a batch of another node, for the one that takes it over; nothing when all of it ended.
pub(in super::super) fn left_of<'a>(
    put: &Put<'a>,
    progress: &HashMap<u32, Progress>,
    adds_attempt: bool,
) -> Option<Put<'a>> {
    let rows = (0..).zip(&put.deliveries).filter_map(|(place, row)| {
        let told = progress.get(&place);
        let is_ended = told.is_some_and(|told| told.is_ended);
        (!is_ended).then(|| Row {
            attempts: told.map_or(row.attempts, |told| told.attempts) + u32::from(adds_attempt),
            due: told.map_or(row.due, |told| told.due),
            ..row.clone()
        })
    });
    let rows: Vec<_> = rows.collect();
    (!rows.is_empty()).then(|| put.only(rows))
}
