//! Dead letters: any node lists them, and makes them wait or forgets them.

use etcd_client::{GetOptions, KeyValue};

use super::answered;
use super::held::Batch;
use super::keys::{DeadKey, Range};
use super::shared::{Job, Shared};
use super::transaction::{Changes, Guard, Op};
use crate::backend::record::{Put, Record, moment};
use crate::backend::{DeadLetter, DeliveryId, Error};

/// Dead letters that are read at once: each may take 1 MiB, and an answer 64.
const PAGE: usize = 32;

/// A dead letter, and where it is.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) letter: DeadLetter,
    key: DeadKey,
    revision: i64,
}

impl Shared {
    /// A page ends behind all of one position, as that is what the next page begins after: two nodes may bury in the same microsecond.
    pub(super) async fn list_dead(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error> {
        self.all_told().await?;
        let Range { from, end } = self.keys.dead_after(after);
        let mut next = Some(from.into_bytes());
        let mut letters = Vec::new();
        while letters.len() < max
            && let Some(from) = next
        {
            let limit = PAGE.min(max - letters.len());
            next = self
                .read_dead(from, end.clone(), limit, &mut letters)
                .await?;
        }
        if let Some(last) = letters.last().map(|letter| letter.position) {
            let end = self.keys.dead_after(last).from.into_bytes();
            while let Some(from) = next.filter(|from| *from < end) {
                next = self
                    .read_dead(from, end.clone(), PAGE, &mut letters)
                    .await?;
            }
        }
        Ok(letters)
    }

    /// Reads so many dead letters of a range at most, and says where those begin that follow.
    async fn read_dead(
        &self,
        from: Vec<u8>,
        end: Vec<u8>,
        limit: usize,
        letters: &mut Vec<DeadLetter>,
    ) -> Result<Option<Vec<u8>>, Error> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let options = GetOptions::new().with_range(end).with_limit(limit);
        let mut page = self.get(from, options).await?;
        let more = page.more();
        let records = page.take_kvs();
        let found = records.iter().filter_map(|record| self.read_or_log(record));
        letters.extend(found.map(|found| found.letter));
        let last = records.last().filter(|_| more);
        Ok(last.map(|last| [last.key(), b"\0"].concat()))
    }

    pub(super) async fn find_dead(&self, id: DeliveryId) -> Result<Option<Found>, Error> {
        self.all_told().await?;
        let name = self.keys.dead_name(id).into_bytes();
        let named = self.get(name, GetOptions::new()).await?;
        let Some(named) = named.kvs().first() else {
            return Ok(None);
        };
        let found = self.get(named.value().to_vec(), GetOptions::new()).await?;
        Ok(found
            .kvs()
            .first()
            .and_then(|found| self.read_or_log(found)))
    }

    pub(super) async fn redrive(&self, id: DeliveryId) -> Result<bool, Error> {
        let Some(found) = self.find_dead(id).await? else {
            return Ok(false);
        };
        let (now, mut ops) = (self.clock.now(), self.ends_of(&found));
        let deliveries = vec![found.letter.delivery];
        let put = Record::Put(Put::accepted(&deliveries, now)).write();
        let written = {
            let mut state = self.state();
            let session = state.accepting()?;
            let bytes = found.key.bytes;
            state.room_for(bytes, self.options.cluster_bytes_max)?;
            let lanes = state.held.turns.admit(&deliveries)?;
            let number = state.held.number();
            ops.push(Op::Put(self.keys.batch(session, number), put));
            let batch = Batch::accepted(number, deliveries, lanes, std::iter::once(now));
            let mut job = Job::holding(batch, true, ops);
            job.changes
                .guards
                .push(self.guard(found.key, found.revision));
            job.dead = -1;
            self.tell_meters(&mut state);
            self.push(&mut state, job)
        };
        fault_point!("etcd.redrive.before_commit");
        let is_redriven = answered(written).await?;
        fault_point!("etcd.redrive.committed");
        Ok(is_redriven)
    }

    pub(super) async fn purge(&self, id: DeliveryId) -> Result<bool, Error> {
        let Some(found) = self.find_dead(id).await? else {
            return Ok(false);
        };
        let written = {
            let mut state = self.state();
            state.accepting()?;
            let job = Job {
                changes: Changes {
                    guards: vec![self.guard(found.key, found.revision)],
                    ops: self.ends_of(&found),
                },
                batches: Vec::new(),
                gives: Vec::new(),
                has_room: false,
                dead: -1,
                reply: None,
            };
            self.push(&mut state, job)
        };
        fault_point!("etcd.purge.before_commit");
        let is_purged = answered(written).await?;
        fault_point!("etcd.purge.committed");
        Ok(is_purged)
    }

    fn guard(&self, key: DeadKey, revision: i64) -> Guard {
        let key = self.keys.dead(key);
        Guard { key, revision }
    }

    fn ends_of(&self, found: &Found) -> Vec<Op> {
        vec![
            Op::Delete(self.keys.dead(found.key)),
            Op::Delete(self.keys.dead_name(found.key.id)),
        ]
    }

    fn read_or_log(&self, record: &KeyValue) -> Option<Found> {
        let read = self.read(record);
        if read.is_none() {
            let key = String::from_utf8_lossy(record.key());
            tracing::error!(%key, "a dead letter in etcd can not be read: it was written by a later version, or changed by hand");
        }
        read
    }

    fn read(&self, record: &KeyValue) -> Option<Found> {
        let key = self.keys.dead_of(record.key())?;
        let Ok(Record::Put(put)) = Record::read(record.value()) else {
            return None;
        };
        let delivery = put.deliveries(|_| true).pop()?;
        let row = put.deliveries.into_iter().next()?;
        let death = row.death?;
        Some(Found {
            letter: DeadLetter {
                position: key.position,
                delivery,
                attempts: row.attempts,
                died_at: moment(death.at),
                reason: death.reason,
                answer: death.answer,
            },
            key,
            revision: record.mod_revision(),
        })
    }
}
