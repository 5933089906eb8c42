//! A limit on what goes on at once, as a node applies it: a share of the whole, settled with the shares of the others in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::Revision;
use config::store::{self, Precondition, Store};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, timeout_at};

use crate::bucket::Timeline;
use crate::error::Error;
use crate::shares::{Share, Shares};

/// How often a settlement is tried when others change the record meanwhile.
const TRIES_MAX: usize = 8;

/// Counts what goes on besides what entered here, such as what a queue holds.
pub type Besides = Arc<dyn Fn() -> u64 + Send + Sync>;

/// What may go on at once on all nodes together.
pub(crate) struct AtOnce {
    key: String,
    /// The name of this run of the node among the shares.
    own: String,
    max: AtomicU32,
    besides: Option<Besides>,
    /// In one word, so that nothing enters by what was allowed before.
    room: AtomicU64,
    /// The most that was used since the last settlement.
    peak: AtomicU32,
    waiting: AtomicU32,
    is_short_elsewhere: AtomicBool,
    /// One of those who wait may try again.
    freed: Notify,
    /// A settlement should not wait for its interval.
    pub(crate) soon: Notify,
    /// The revision of the last write.
    written: AtomicU64,
    settling: Mutex<Settling>,
}

/// What is used, and what may be used, at most what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    allowed: u32,
    used: u32,
}

/// What only a settlement needs.
#[derive(Debug, Default)]
struct Settling {
    timeline: Timeline,
    settled_at: Option<Duration>,
}

/// Something that goes on; dropped when it ends.
#[derive(Debug)]
pub struct Permit {
    of: Arc<AtOnce>,
    count: u32,
}

/// One who waits.
struct Waiting<'a>(&'a AtOnce);

impl std::fmt::Debug for AtOnce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AtOnce")
            .field("key", &self.key)
            .field("room", &self.room())
            .finish_non_exhaustive()
    }
}

impl AtOnce {
    pub(crate) fn new(key: String, own: String, max: u32, besides: Option<Besides>) -> Self {
        Self {
            key,
            own,
            max: AtomicU32::new(max),
            besides,
            room: AtomicU64::new(0),
            peak: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            is_short_elsewhere: AtomicBool::new(false),
            freed: Notify::new(),
            soon: Notify::new(),
            written: AtomicU64::new(0),
            settling: Mutex::default(),
        }
    }

    /// The limit may be set anew at any time.
    pub(crate) fn set_max(&self, max: u32) {
        if self.max.swap(max, Ordering::Relaxed) != max {
            self.soon.notify_one();
        }
    }

    /// Enters if there is room in this node's share.
    pub(crate) fn try_enter(self: &Arc<Self>, count: u32) -> Option<Permit> {
        let besides = self.besides();
        let before = self.change_room(|Room { allowed, used }| {
            let used = used.checked_add(count)?;
            (besides + u64::from(used) <= u64::from(allowed)).then_some(Room { allowed, used })
        });
        let used = before?.used + count;
        self.peak.fetch_max(used, Ordering::Relaxed);
        Some(Permit {
            of: Arc::clone(self),
            count,
        })
    }

    /// Enters, waiting for what others give back; nothing when so many wait already, or when nothing came in time.
    ///
    /// # Cancel safety
    /// Safe: who is dropped waits no longer.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        count: u32,
        until: Instant,
        waiting_max: u32,
    ) -> Option<Permit> {
        if count > self.max.load(Ordering::Relaxed)
            || self.waiting.load(Ordering::Relaxed) >= waiting_max
        {
            return None;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        self.soon.notify_one();
        loop {
            let freed = self.freed.notified();
            if let Some(permit) = self.try_enter(count) {
                return Some(permit);
            }
            if timeout_at(until, freed).await.is_err() {
                return None;
            }
        }
    }

    /// Settles with the store what this node needs, and takes its share. Answers whether the limit is at rest, so that the node may forget
    /// it. `now` reads a monotonic clock of this node, whatever its zero.
    ///
    /// # Errors
    /// When the store can not be reached, or when too many others changed the record meanwhile. The node then may use no more than before.
    pub(crate) async fn settle(
        &self,
        store: &dyn Store,
        now: impl Fn() -> Duration,
        lost_after: Duration,
    ) -> Result<bool, Error> {
        let mut settling = self.settling.lock().await;
        let used = self.room().used;
        let peak = self.peak.swap(used, Ordering::Relaxed).max(used);
        let max = u64::from(self.max.load(Ordering::Relaxed));
        for _ in 0..TRIES_MAX {
            let (mut shares, found) = self.read(store).await?;
            // After the answer, as with a bucket.
            let at = now();
            let before = shares.clone();
            (settling.timeline).sight(shares.epoch, shares.at_micros, at);
            shares.advance(settling.timeline.at(at), &self.own, micros(lost_after));
            // What was needed a moment ago is kept for what comes next, unless another one needs it.
            let used = match shares.is_short_elsewhere(&self.own) {
                true => self.room().used,
                false => peak,
            };
            let waiting = self.waiting.load(Ordering::Relaxed);
            let demand = self.besides() + u64::from(used) + u64::from(waiting);
            let allowed = shares.part_of(&self.own, max, demand);
            // Lowered at once, so that what is used can only become less while it is written; raised when it is.
            let held = allowed.max(self.besides() + u64::from(self.lower_to(allowed)));
            let share = Share {
                held,
                demand,
                at_micros: shares.at_micros,
            };
            let is_at_rest = demand == 0 && held == allowed;
            match is_at_rest {
                true => shares.nodes.remove(&self.own),
                false => shares.nodes.insert(self.own.clone(), share),
            };
            if !is_news(&before, &shares, &self.own, lost_after) {
                shares = before;
            } else {
                match self.write(store, found, &shares).await {
                    Ok(revision) => {
                        self.written.fetch_max(revision.0, Ordering::Relaxed);
                    }
                    Err(store::Error::Precondition { .. }) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            settling.settled_at = Some(at);
            let allowed = if is_at_rest { 0 } else { allowed };
            self.allow(allowed, shares.is_short_elsewhere(&self.own));
            return Ok(is_at_rest);
        }
        Err(Error::Contended {
            key: self.key.clone(),
            tries: TRIES_MAX,
        })
    }

    /// Goes on without the store: with the share that the others still leave to this node, and when they do not, with a node's part.
    pub(crate) async fn go_alone(&self, now: Duration, lost_after: Duration, nodes: u32) {
        let settling = self.settling.lock().await;
        let settled_at = settling.settled_at;
        if settled_at.is_some_and(|at| now.saturating_sub(at) < lost_after) {
            return;
        }
        let part = self.max.load(Ordering::Relaxed) / nodes.max(1);
        self.allow(u64::from(part.max(1)), false);
    }

    /// Notes that the record was changed: a settlement should not wait when another node needs what this one does not, or the other way round.
    pub(crate) fn on_change(&self, revision: Revision, value: &[u8]) {
        if revision.0 <= self.written.load(Ordering::Relaxed) {
            return;
        }
        let Ok(shares) = serde_json::from_slice::<Shares>(value) else {
            return;
        };
        let is_short = shares.is_short_elsewhere(&self.own);
        self.is_short_elsewhere.store(is_short, Ordering::Relaxed);
        let Room { allowed, used } = self.room();
        let may_give = is_short && self.besides() + u64::from(used) < u64::from(allowed);
        let max = u64::from(self.max.load(Ordering::Relaxed));
        let may_take = self.waiting.load(Ordering::Relaxed) > 0 && shares.free(max) > 0;
        if may_give || may_take {
            self.soon.notify_one();
        }
    }

    /// Whether nothing of it goes on or waits here.
    pub(crate) fn is_idle(&self) -> bool {
        self.room().used == 0 && self.waiting.load(Ordering::Relaxed) == 0
    }

    fn allow(&self, allowed: u64, is_short_elsewhere: bool) {
        self.is_short_elsewhere
            .store(is_short_elsewhere, Ordering::Relaxed);
        self.change_room(|room| {
            let allowed = u32::try_from(allowed).unwrap_or(u32::MAX);
            Some(Room { allowed, ..room })
        });
        self.freed.notify_waiters();
    }

    /// Allows no more than this, and says what is used.
    fn lower_to(&self, allowed: u64) -> u32 {
        let lowered = u32::try_from(allowed).unwrap_or(u32::MAX);
        let before = self.change_room(|room| {
            let allowed = room.allowed.min(lowered);
            Some(Room { allowed, ..room })
        });
        before.map_or(0, |room| room.used)
    }

    fn room(&self) -> Room {
        Room::of(self.room.load(Ordering::Relaxed))
    }

    /// Changes it, and says what it was before; nothing when it was not changed.
    fn change_room(&self, change: impl Fn(Room) -> Option<Room>) -> Option<Room> {
        // Relaxed: the word stands alone, and nothing else is read by what it says.
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let word = |word| change(Room::of(word)).map(Room::word);
        let before = self.room.fetch_update(set, fetch, word);
        before.ok().map(Room::of)
    }

    fn besides(&self) -> u64 {
        self.besides.as_ref().map_or(0, |count| count())
    }

    async fn read(&self, store: &dyn Store) -> Result<(Shares, Option<Revision>), Error> {
        let Some(entry) = store.get(&self.key).await? else {
            return Ok((Shares::new(rand::random()), None));
        };
        let shares = serde_json::from_slice(&entry.value).map_err(|source| Error::Damaged {
            key: self.key.clone(),
            source,
        })?;
        Ok((shares, Some(entry.revision)))
    }

    /// Writes the shares if they are still as they were read; where nobody has one there is no record.
    async fn write(
        &self,
        store: &dyn Store,
        found: Option<Revision>,
        shares: &Shares,
    ) -> Result<Revision, store::Error> {
        let as_read = Some(found.map_or(Precondition::Absent, Precondition::At));
        match (shares.nodes.is_empty(), found) {
            (true, None) => Ok(Revision::default()),
            (true, Some(_)) => store.delete(&self.key, as_read).await,
            (false, _) => {
                let value = serde_json::to_vec(shares).expect("numbers and names are always JSON");
                store.put(&self.key, Bytes::from(value), as_read).await
            }
        }
    }
}

impl Room {
    fn of(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_be_bytes();
        Self {
            allowed: u32::from_be_bytes([a, b, c, d]),
            used: u32::from_be_bytes([e, f, g, h]),
        }
    }

    fn word(self) -> u64 {
        u64::from(self.allowed) << 32 | u64::from(self.used)
    }
}

/// Whether what was read has to be written anew: others would see something else, or would soon take this node for lost.
fn is_news(before: &Shares, after: &Shares, own: &str, lost_after: Duration) -> bool {
    let told = |shares: &Shares| {
        let share = shares.nodes.get(own)?;
        Some((share.held, share.demand))
    };
    let heard = before.nodes.get(own).map_or(0, |share| share.at_micros);
    let is_old = after.at_micros.saturating_sub(heard) >= micros(lost_after) / 4;
    told(before) != told(after)
        || before.nodes.len() != after.nodes.len()
        || (told(after).is_some() && is_old)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Drop for Permit {
    fn drop(&mut self) {
        let of = &self.of;
        of.change_room(|Room { allowed, used }| {
            let used = used.saturating_sub(self.count);
            Some(Room { allowed, used })
        });
        of.freed.notify_one();
        if of.is_short_elsewhere.load(Ordering::Relaxed) {
            of.soon.notify_one();
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
