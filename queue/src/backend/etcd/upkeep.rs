//! What has to be done now and then: every node looks at how full etcd is, and the one with the oldest session drops old dead letters
//! and compacts old history.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use config::etcd::Member;
use config::recurring::{Due, Recurring};
use etcd_client::{Txn, TxnOp};
use tokio::time::Instant;

use super::keys::{DeadKey, SessionId};
use super::look::View;
use super::shared::{Shared, of_etcd};
use super::transaction::OPS_MAX;
use crate::backend::Error;
use crate::backend::turns::micros;

/// How often.
const EVERY: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Upkeep {
    last: Option<Instant>,
    last_compaction: Option<Instant>,
    /// What etcd's revision was when, oldest first.
    history: VecDeque<(Instant, i64)>,
    fullness: Recurring,
}

impl Upkeep {
    /// Does what is due.
    pub(super) async fn go_on(&mut self, shared: &Shared, view: &View, session: SessionId) {
        let now = Instant::now();
        if self.last.is_some_and(|last| now < last + EVERY) {
            return;
        }
        self.last = Some(now);
        self.look_at_storage(shared).await;
        self.history.push_back((now, view.revision));
        let is_old = |at: Instant| now >= at + shared.options.compact_after;
        let mut compactable = None;
        while let Some((_, revision)) = self.history.pop_front_if(|(at, _)| is_old(*at)) {
            compactable = Some(revision);
        }
        if !view.is_oldest(session) {
            return;
        }
        if let Err(error) = shared.trim_dead(view.dead).await {
            tracing::debug!(%error, "old dead letters are not dropped yet");
        }
        let pause = shared.options.compact_after / 2;
        let is_due = (self.last_compaction).is_none_or(|last| now >= last + pause);
        if let Some(revision) = compactable
            && is_due
            && !shared.options.compact_after.is_zero()
        {
            self.last_compaction = Some(now);
            shared.compact(revision).await;
        }
    }

    /// Nothing is accepted while etcd is so full that it might soon refuse everything.
    async fn look_at_storage(&mut self, shared: &Shared) {
        let status = async |member: Arc<Member>| {
            let status = member.maintenance().await?.status().await?;
            Ok((status.raft_used_db_size(), status.db_size()))
        };
        let Ok((used, size)) = shared.members.read(status).await else {
            return;
        };
        let [used, size] = [used, size].map(|bytes| u64::try_from(bytes).unwrap_or_default());
        let max = shared.options.storage_max;
        shared.meters.bytes(used);
        let full = if used > max / 2 {
            Some(format!(
                "etcd uses {used} bytes, which is more than half of {max} (queue.storage_max)"
            ))
        } else if size > max - max / 10 {
            Some(format!(
                "the files of etcd take {size} bytes, which is more than nine tenths of {max} (queue.storage_max): run etcdctl defrag"
            ))
        } else {
            None
        };
        match &full {
            Some(why) => {
                if let Some(Due { seconds, .. }) = self.fullness.note(Instant::now()) {
                    tracing::error!(why, seconds, "the queue in etcd accepts nothing");
                }
            }
            None => {
                if let Some(seconds) = self.fullness.end(Instant::now()) {
                    tracing::info!(seconds, "etcd has room for the queue again");
                }
            }
        }
        shared.state().cluster.storage = full;
    }
}

impl Shared {
    async fn compact(&self, revision: i64) {
        let compact = async |member: Arc<Member>| member.kv().await?.compact(revision, None).await;
        match self.members.read(compact).await {
            Ok(_) => tracing::debug!(revision, "the history of etcd was compacted"),
            // Others may have compacted more.
            Err(error) => {
                tracing::debug!(%error, revision, "the history of etcd was not compacted");
            }
        }
    }

    /// Drops the oldest dead letters that are beyond what is kept.
    async fn trim_dead(&self, dead: i64) -> Result<(), Error> {
        if dead == 0 {
            return Ok(());
        }
        let all = self.all_dead().await?;
        let oldest = self
            .clock
            .now()
            .saturating_sub(micros(self.options.dead_age_max));
        let mut left = all.len();
        let mut bytes: u64 = all.iter().map(|dead| dead.bytes).sum();
        let is_dropped = |dead: &&DeadKey| {
            let is_kept = left <= self.options.dead_len_max
                && bytes <= self.options.dead_bytes_max
                && dead.position >= oldest;
            left -= 1;
            bytes -= dead.bytes;
            !is_kept
        };
        let dropped: Vec<DeadKey> = all.iter().take_while(is_dropped).copied().collect();
        for dropped in dropped.chunks(OPS_MAX / 2) {
            self.drop_dead(dropped).await?;
        }
        if !dropped.is_empty() {
            self.meters.dropped.increment(dropped.len() as u64);
            tracing::warn!(
                dropped = dropped.len(),
                "the oldest dead letters were dropped: there are too many, or they are too old"
            );
        }
        Ok(())
    }

    /// All dead letters, oldest first.
    async fn all_dead(&self) -> Result<Vec<DeadKey>, Error> {
        let mut all = Vec::new();
        self.each_key(self.keys.all_dead(), |key| {
            all.extend(self.keys.dead_of(key));
            ControlFlow::Continue(())
        })
        .await?;
        Ok(all)
    }

    async fn drop_dead(&self, dead: &[DeadKey]) -> Result<(), Error> {
        let ends = dead.iter().flat_map(|dead| {
            let keys = [self.keys.dead(*dead), self.keys.dead_name(dead.id)];
            keys.map(|key| TxnOp::delete(key, None))
        });
        let request = Txn::new().and_then(ends.collect::<Vec<_>>());
        let end = async |member: Arc<Member>| member.kv().await?.txn(request.clone()).await;
        let ended = self.members.read(end).await;
        ended.map(|_| ()).map_err(of_etcd)
    }
}
