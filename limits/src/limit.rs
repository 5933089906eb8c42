//! One limit as a node applies it: a hand that calls take from, settled with the bucket in the store every interval.

use std::time::Duration;

use bytes::Bytes;
use config::Revision;
use config::store::{self, Precondition, Store};

use crate::bucket::{Bucket, Rate, TOKEN, Timeline};
use crate::hand::{Hand, Verdict};

/// How often a settlement is tried when others change the bucket meanwhile.
const TRIES_MAX: usize = 8;

/// A rate that holds for all nodes together.
#[derive(Debug)]
pub struct Limit {
    key: String,
    rate: Rate,
    hand: Hand,
    timeline: Timeline,
    interval: Duration,
    settled_at: Option<Duration>,
}

impl Limit {
    /// A limit whose bucket is the store's record `key`, which each node settles with at least every interval. A burst below what comes in
    /// an interval and a quarter counts as that much. Until it is first settled the node gives its part of an interval on trust, which
    /// the bucket is then owed.
    pub fn new(key: String, rate: Rate, interval: Duration, nodes: u32) -> Self {
        let rate = rate.settled_every(interval);
        Self {
            hand: Hand::on_trust(trust(rate, interval, nodes, rate.capacity())),
            key,
            rate,
            timeline: Timeline::default(),
            interval,
            settled_at: None,
        }
    }

    /// Decides one call: no lock, no await, no store.
    pub fn ask(&self) -> Verdict {
        self.hand.ask()
    }

    /// Whether a settlement should not wait for the interval's end, as this node will run out before although more may be left.
    pub fn is_low(&self) -> bool {
        self.hand.is_low()
    }

    /// Settles with the store what this node gave, and takes what it will need in the next interval if calls go on as they came.
    /// Answers whether the limit is at rest, so that the node may forget it. `now` reads a monotonic clock of this node, whatever its zero.
    ///
    /// # Errors
    /// When the store can not be reached, or when too many others changed the bucket meanwhile. The hand then holds no more than it may.
    ///
    /// # Cancel safety
    /// None: dropped between the write and its answer, what was returned is held twice.
    pub async fn settle(
        &mut self,
        store: &dyn Store,
        now: impl Fn() -> Duration,
        nodes: u32,
    ) -> Result<bool, Error> {
        let asked = self.hand.take_asked();
        let wanted = self.expected(asked, now());
        for _ in 0..TRIES_MAX {
            let (mut bucket, found) = self.read(store).await?;
            // After the answer: the bucket's time is then no later than this node will say.
            let at = now();
            self.timeline.sight(&bucket, at);
            bucket.refill(self.rate, self.timeline.at(at));
            let by = bucket.exchange(
                self.rate,
                self.hand.held(),
                wanted.min(self.rate.capacity()),
            );
            let is_at_rest = asked == 0 && bucket.left == self.rate.capacity();
            match self.write(store, found, &bucket, is_at_rest).await {
                Ok(()) => {
                    self.hand.change(by);
                    self.settled_at = Some(at);
                    self.hand
                        .trust(trust(self.rate, self.interval, nodes, bucket.left));
                    return Ok(is_at_rest && self.hand.held() == 0);
                }
                Err(store::Error::Precondition { .. }) => {}
                Err(error) => {
                    // It may have happened. What was returned counts as gone and what was taken as not had: never too much.
                    self.hand.change(by.min(0));
                    return Err(error.into());
                }
            }
        }
        Err(Error::Contended {
            key: self.key.clone(),
        })
    }

    /// Adds this node's part of the rate for a while in which the store was away. `passed` is the time since this was last called, or since
    /// the limit was last settled.
    pub fn go_alone(&self, passed: Duration, nodes: u32) {
        let nodes = i64::from(nodes.max(1));
        self.hand.trust(0);
        self.hand.add_up_to(
            self.rate.added_in(micros(passed)) / nodes,
            (self.rate.capacity() / nodes).max(TOKEN),
        );
    }

    /// What an interval will need. Some calls at once soon after a settlement do not make this node take more than an interval's part of
    /// the rate, which others may want.
    fn expected(&self, asked: i64, now: Duration) -> i64 {
        let passed = self
            .settled_at
            .map_or(self.interval, |at| now.saturating_sub(at))
            .max(Duration::from_millis(1));
        let goes_on =
            i128::from(asked) * i128::from(micros(self.interval)) / i128::from(micros(passed));
        let part = self.rate.added_in(micros(self.interval));
        let goes_on = i64::try_from(goes_on).unwrap_or(i64::MAX);
        goes_on.min(part.max(asked)).min(self.rate.capacity())
    }

    async fn read(&self, store: &dyn Store) -> Result<(Bucket, Option<Revision>), Error> {
        let Some(entry) = store.get(&self.key).await? else {
            return Ok((Bucket::full(self.rate, rand::random()), None));
        };
        let bucket = serde_json::from_slice(&entry.value).map_err(|source| Error::Damaged {
            key: self.key.clone(),
            source,
        })?;
        Ok((bucket, Some(entry.revision)))
    }

    /// Writes the bucket if it is still as it was read; one that is full has no record.
    async fn write(
        &self,
        store: &dyn Store,
        found: Option<Revision>,
        bucket: &Bucket,
        is_at_rest: bool,
    ) -> Result<(), store::Error> {
        let as_read = Some(found.map_or(Precondition::Absent, Precondition::At));
        if is_at_rest {
            if found.is_some() {
                store.delete(&self.key, as_read).await?;
            }
            return Ok(());
        }
        let value = serde_json::to_vec(bucket).expect("three numbers are always JSON");
        store.put(&self.key, Bytes::from(value), as_read).await?;
        Ok(())
    }
}

/// What a node may give before it asks: its part of what is left, at most its part of an interval; a whole token where one is left.
fn trust(rate: Rate, interval: Duration, nodes: u32, left: i64) -> i64 {
    let part = rate.added_in(micros(interval)).min(left) / i64::from(nodes.max(1));
    if left >= TOKEN { part.max(TOKEN) } else { 0 }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Why a limit could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store did not answer, or refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Others changed the bucket at each try.
    #[error(
        "the limit {key} could not be settled in {TRIES_MAX} tries: other nodes changed it meanwhile"
    )]
    Contended {
        /// The bucket's key.
        key: String,
    },
    /// The record is not a bucket.
    #[error("the record {key} is not a limit's")]
    Damaged {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

#[cfg(test)]
mod tests;
