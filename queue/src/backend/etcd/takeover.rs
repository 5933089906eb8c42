//! How work changes its node: each of those that are left takes its share of what is held under the name of a session that is gone.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use config::etcd::Member;
use etcd_client::{GetOptions, GetResponse, KeyValue, Txn, TxnOp, TxnOpResponse};
use tokio::time::Instant;

use super::answered;
use super::held::{Batch, Progress, left_of};
use super::keys::{Range, SessionId};
use super::look::{Owner, Since, View};
use super::shared::{Job, Shared, of_etcd};
use super::transaction::{BYTES_MAX, Changes, Guard, OPS_MAX, Op};
use crate::backend::Error;
use crate::backend::record::Record;

/// How long those whose share it is may take until anybody takes it.
const PATIENCE: Duration = Duration::from_secs(3);
/// Batches that are read at once: each may take 1 MiB, and an answer 64.
const READ_MAX: usize = 32;
/// Keys that are listed at once.
const KEYS_MAX: i64 = 1_000;
/// Batches that are taken between two looks around.
const TAKE_MAX: usize = 512;

/// What one session takes over from others.
#[derive(Debug)]
pub(super) struct Takeover {
    own: SessionId,
    /// Since when sessions are known to be gone.
    gone: Since,
    /// What can not be read, so that it is told once.
    unreadable: HashSet<(SessionId, u64)>,
}

/// A batch of another session, as it is in etcd.
#[derive(Debug)]
struct Found {
    number: u64,
    revision: i64,
    value: Vec<u8>,
    progress: HashMap<u32, Progress>,
}

impl Takeover {
    pub(super) fn new(own: SessionId) -> Self {
        Self {
            own,
            gone: Since::new(),
            unreadable: HashSet::new(),
        }
    }

    /// Takes over some of what is this node's to take, if there is anything.
    pub(super) async fn go_on(&mut self, shared: &Shared, view: &View) {
        self.gone
            .retain(|id, _| view.owners.contains_key(id) && !view.has(*id));
        for (owner, told) in view.orphans() {
            if let Err(error) = self.take_from(shared, view, owner, told).await {
                tracing::debug!(%error, node = %told.node, "work of a dead node is not taken over yet");
            }
        }
    }

    async fn take_from(
        &mut self,
        shared: &Shared,
        view: &View,
        owner: SessionId,
        told: &Owner,
    ) -> Result<(), Error> {
        let gone = *self.gone.entry(owner).or_insert_with(Instant::now);
        let is_overdue = gone.elapsed() >= PATIENCE;
        if told.is_handed && !is_overdue && !shared.state().has_permits {
            return Ok(());
        }
        let (numbers, is_empty) = self
            .list(shared, owner, |number| {
                is_overdue || picked(view, owner, told, number) == Some(self.own)
            })
            .await?;
        if is_empty {
            return shared.forget_owner(owner).await;
        }
        let mut taken = 0;
        for numbers in numbers.chunks(READ_MAX) {
            if !shared.has_room() {
                break;
            }
            let found = shared.read_batches(owner, numbers).await?;
            taken += self.take(shared, owner, found, !told.has_left).await?;
        }
        if taken > 0 {
            shared.meters.taken_over.increment(taken as u64);
            match told.is_handed {
                true => {
                    tracing::debug!(deliveries = taken, node = %told.node, "took over deliveries of a node without permits");
                }
                false => {
                    tracing::info!(deliveries = taken, node = %told.node, "took over deliveries of a node that is gone");
                }
            }
            shared.look.notify_one();
        }
        Ok(())
    }

    /// The batches of a session that are this node's to take, some of them at least, and whether there are none at all.
    async fn list(
        &self,
        shared: &Shared,
        owner: SessionId,
        is_ours: impl Fn(u64) -> bool,
    ) -> Result<(Vec<u64>, bool), Error> {
        let mut numbers = Vec::new();
        let mut is_empty = true;
        let see = |key: &[u8]| {
            let Some((number, place)) = shared.keys.held_by(key) else {
                return ControlFlow::Continue(());
            };
            is_empty = false;
            if place.is_none() && is_ours(number) && !self.unreadable.contains(&(owner, number)) {
                numbers.push(number);
            }
            match numbers.len() < TAKE_MAX {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        };
        shared.each_key(shared.keys.held(owner), see).await?;
        Ok((numbers, is_empty))
    }

    /// Makes this node hold what another one held; says how many deliveries these are.
    async fn take(
        &mut self,
        shared: &Shared,
        owner: SessionId,
        found: Vec<Found>,
        adds_attempt: bool,
    ) -> Result<usize, Error> {
        let mut jobs: Vec<Job> = Vec::new();
        for found in found {
            let Ok(Record::Put(put)) = Record::read(&found.value) else {
                self.unreadable.insert((owner, found.number));
                let key = shared.keys.batch(owner, found.number);
                tracing::error!(
                    key,
                    "deliveries in etcd can not be read: they were written by a later version, or changed by hand"
                );
                continue;
            };
            let mut state = shared.state();
            let number = state.held.number();
            drop(state);
            let mut ops = vec![Op::DeleteAll(shared.keys.whole_batch(owner, found.number))];
            let mut batches = Vec::new();
            if let Some(left) = left_of(&put, &found.progress, adds_attempt) {
                batches.push(Batch::read(number, &left));
                let key = shared.keys.batch(self.own, number);
                ops.push(Op::Put(key, Record::Put(left).write()));
            }
            let guard = Guard {
                key: shared.keys.batch(owner, found.number),
                revision: found.revision,
            };
            match jobs.last_mut().filter(|job| job.has_room_for(&ops)) {
                Some(job) => {
                    job.changes.guards.push(guard);
                    job.changes.ops.extend(ops);
                    job.batches.extend(batches);
                }
                None => jobs.push(Job {
                    changes: Changes {
                        guards: vec![guard],
                        ops,
                    },
                    batches,
                    gives: Vec::new(),
                    has_room: false,
                    dead: 0,
                    reply: None,
                }),
            }
        }
        let mut taken = 0;
        for job in jobs {
            let len: usize = job.batches.iter().map(|batch| batch.entries.len()).sum();
            let written = shared.push(&mut shared.state(), job);
            fault_point!("etcd.takeover.before_commit");
            // Another node may have taken some of them: what is left is looked at the next time.
            taken += match answered(written).await? {
                true => len,
                false => 0,
            };
            fault_point!("etcd.takeover.committed");
        }
        Ok(taken)
    }
}

impl Job {
    fn has_room_for(&self, ops: &[Op]) -> bool {
        let bytes = |ops: &[Op]| ops.iter().map(Op::bytes).sum::<usize>();
        self.changes.ops.len() + ops.len() <= OPS_MAX
            && bytes(&self.changes.ops) + bytes(ops) <= BYTES_MAX
    }
}

impl Shared {
    /// Whether this node may hold more.
    fn has_room(&self) -> bool {
        let stats = self.state().held.turns.stats();
        let limits = self.options.limits;
        stats.waiting < limits.len_max && stats.waiting_bytes < limits.bytes_max
    }

    /// Reads one range of keys.
    pub(super) async fn get(
        &self,
        from: Vec<u8>,
        options: GetOptions,
    ) -> Result<GetResponse, Error> {
        let get = async |member: Arc<Member>| {
            let mut client = member.kv().await?;
            client.get(from.clone(), Some(options.clone())).await
        };
        let got = self.members.read(get).await;
        got.map_err(of_etcd)
    }

    /// Reads the keys of a range in order, until `see` has enough.
    pub(super) async fn each_key(
        &self,
        Range { from, end }: Range,
        mut see: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut from = from.into_bytes();
        loop {
            let options = GetOptions::new()
                .with_range(end.clone())
                .with_limit(KEYS_MAX)
                .with_keys_only();
            let page = self.get(from, options).await?;
            if page.kvs().iter().any(|kept| see(kept.key()).is_break()) {
                return Ok(());
            }
            match page.kvs().last() {
                Some(last) if page.more() => {
                    from = last.key().to_vec();
                    from.push(0);
                }
                _ => return Ok(()),
            }
        }
    }

    async fn read_batches(&self, owner: SessionId, numbers: &[u64]) -> Result<Vec<Found>, Error> {
        let gets = numbers.iter().map(|number| {
            let Range { from, end } = self.keys.whole_batch(owner, *number);
            TxnOp::get(from, Some(GetOptions::new().with_range(end)))
        });
        let request = Txn::new().and_then(gets.collect::<Vec<_>>());
        let read = async |member: Arc<Member>| member.kv().await?.txn(request.clone()).await;
        let read = self.members.read(read).await;
        let read = read.map_err(of_etcd)?;
        let records = read.op_responses().into_iter().map(|answer| match answer {
            TxnOpResponse::Get(mut found) => found.take_kvs(),
            _ => Vec::new(),
        });
        Ok(records.filter_map(|records| self.found(records)).collect())
    }

    fn found(&self, records: Vec<KeyValue>) -> Option<Found> {
        let mut records = records.into_iter();
        // The batch comes first, as its key is the beginning of the others.
        let batch = records.next()?;
        let (number, None) = self.keys.held_by(batch.key())? else {
            return None;
        };
        let progress = records.filter_map(|record| {
            let (_, place) = self.keys.held_by(record.key())?;
            Some((place?, Progress::read(record.value())?))
        });
        Some(Found {
            number,
            revision: batch.mod_revision(),
            progress: progress.collect(),
            value: batch.into_key_value().1,
        })
    }

    /// Nothing is held under that name, and never will be again.
    async fn forget_owner(&self, owner: SessionId) -> Result<(), Error> {
        let key = self.keys.owner(owner);
        let forget =
            async |member: Arc<Member>| member.kv().await?.delete(key.as_str(), None).await;
        let forgotten = self.members.read(forget).await;
        forgotten.map(|_| ()).map_err(of_etcd)
    }
}

/// The session whose share a batch of another one is. All nodes agree about that, and when one goes only its own shares move.
/// What was handed over is for those that have permits.
fn picked(view: &View, owner: SessionId, told: &Owner, number: u64) -> Option<SessionId> {
    let rank = |session: SessionId| mixed(session.0 ^ mixed(owner.0 ^ mixed(number)));
    let sessions = view.sessions.iter();
    let sessions = sessions.filter(|seen| !told.is_handed || seen.standing.has_permits);
    let sessions = sessions.map(|seen| seen.id);
    sessions.max_by_key(|session| rank(*session))
}

/// A number that looks like chance (splitmix64).
fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
