//! A rate as a node applies it: a hand that calls take from, settled with the bucket in the store every interval.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::Revision;
use config::store::{self, Precondition, Store};
use tokio::sync::Mutex;

use crate::bucket::{Bucket, Rate, TOKEN, Timeline};
use crate::error::Error;
use crate::hand::Hand;

/// How often a settlement is tried when others change the bucket meanwhile.
const TRIES_MAX: usize = 8;

/// What a limit says of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may run.
    Given,
    /// It may not, as the rate is used up.
    Refused,
    /// This node has nothing, but the bucket may have: the next settlement tells.
    Unknown,
}

/// A rate that holds for all nodes together.
#[derive(Debug)]
pub(crate) struct RateLimit {
    key: String,
    rate: Rate,
    hand: Hand,
    interval: Duration,
    /// What the bucket had when this node saw it last; full until then.
    left: AtomicI64,
    settling: Mutex<Settling>,
}

/// What only a settlement needs.
#[derive(Debug, Default)]
struct Settling {
    timeline: Timeline,
    settled_at: Option<Duration>,
}

/// How a rate stands for its caller: what the headers of an answer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Calls at once after a pause.
    pub limit: NonZeroU32,
    /// Calls at once now, as this node knows.
    pub remaining: u32,
    /// Until all of it is there again, in whole seconds.
    pub reset_seconds: u32,
}

impl RateLimit {
    /// A limit whose bucket is the store's record `key`, which each node settles with at least every interval. A burst below what comes in
    /// an interval and a quarter counts as that much. Until it is first settled the node gives its part of an interval on trust, which
    /// the bucket is then owed.
    pub(crate) fn new(key: String, rate: Rate, interval: Duration, nodes: u32) -> Self {
        let rate = rate.settled_every(interval);
        Self {
            hand: Hand::on_trust(trust(rate, interval, nodes, rate.capacity())),
            left: AtomicI64::new(rate.capacity()),
            settling: Mutex::default(),
            key,
            rate,
            interval,
        }
    }

    /// Decides one call: no lock, no await, no store. A call that this node has nothing for, although the bucket had something when it
    /// was seen last, may ask again after a settlement.
    pub(crate) fn ask(&self) -> Verdict {
        match self.hand.ask() {
            true => Verdict::Given,
            false if self.left.load(Ordering::Relaxed) >= TOKEN => Verdict::Unknown,
            false => Verdict::Refused,
        }
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let there = self
            .hand
            .held()
            .saturating_add(self.left.load(Ordering::Relaxed));
        let there = there.clamp(0, self.rate.capacity());
        let missing = self.rate.capacity() - there;
        Standing {
            limit: self.rate.burst,
            remaining: u32::try_from(there / TOKEN).unwrap_or(u32::MAX),
            reset_seconds: rounded_up(self.rate.added_after(missing)),
        }
    }

    /// When a call that was refused may find something, at the earliest.
    pub(crate) fn retry_after(&self) -> Duration {
        let owed = TOKEN - self.left.load(Ordering::Relaxed).min(0);
        self.rate.added_after(owed).max(self.interval)
    }

    /// Whether a settlement should not wait for the interval's end, as this node will run out before although more may be left.
    pub(crate) fn is_low(&self) -> bool {
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
    pub(crate) async fn settle(
        &self,
        store: &dyn Store,
        now: impl Fn() -> Duration,
        nodes: u32,
    ) -> Result<bool, Error> {
        let mut settling = self.settling.lock().await;
        let asked = self.hand.take_asked();
        let wanted = self.expected(asked, settling.settled_at, now());
        for _ in 0..TRIES_MAX {
            let (mut bucket, found) = self.read(store).await?;
            // After the answer: the bucket's time is then no later than this node will say.
            let at = now();
            settling.timeline.sight(bucket.epoch, bucket.at_micros, at);
            bucket.refill(self.rate, settling.timeline.at(at));
            let by = bucket.exchange(
                self.rate,
                self.hand.held(),
                wanted.min(self.rate.capacity()),
            );
            let is_at_rest = asked == 0 && bucket.left == self.rate.capacity();
            match self.write(store, found, &bucket, is_at_rest).await {
                Ok(()) => {
                    self.hand.change(by);
                    settling.settled_at = Some(at);
                    self.left.store(bucket.left, Ordering::Relaxed);
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
            tries: TRIES_MAX,
        })
    }

    /// Adds this node's part of the rate for a while in which the store was away. `passed` is the time since this was last called, or since
    /// the limit was last settled.
    pub(crate) fn go_alone(&self, passed: Duration, nodes: u32) {
        let nodes = i64::from(nodes.max(1));
        self.hand.trust(0);
        self.left.store(0, Ordering::Relaxed);
        self.hand.add_up_to(
            self.rate.added_in(micros(passed)) / nodes,
            (self.rate.capacity() / nodes).max(TOKEN),
        );
    }

    /// What an interval will need. Some calls at once soon after a settlement do not make this node take more than an interval's part of
    /// the rate, which others may want.
    fn expected(&self, asked: i64, settled_at: Option<Duration>, now: Duration) -> i64 {
        let passed = settled_at
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

fn rounded_up(duration: Duration) -> u32 {
    let seconds = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
