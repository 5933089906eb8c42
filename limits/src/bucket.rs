//! The bucket that all nodes share, and the time that it is filled by.
//!
//! Clocks of nodes may differ by seconds, so the bucket has a time of its own. A node that sees it at `v` knows that it is at least
//! `v + d` when its own monotonic clock has gone on by `d`. Whoever writes sets the latest time it can vouch for; so the bucket's time
//! never runs faster than real time, whatever the clocks say, and the death of a node costs what only that node knew: milliseconds.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A token in the unit of all counts here: with millionths, a rate a second adds as many a microsecond, without rounding.
pub(crate) const TOKEN: i64 = 1_000_000;

/// How many calls a second, and how many at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls a second.
    pub per_second: NonZeroU32,
    /// Calls at once, after as long a pause as fills the bucket.
    pub burst: NonZeroU32,
}

impl Rate {
    /// The rate with a burst of at least what comes in an interval and a quarter: a smaller bucket would spill over between two
    /// settlements, and the rate would not be reached.
    pub(crate) fn settled_every(self, interval: Duration) -> Self {
        let micros = interval.as_micros().saturating_mul(5) / 4;
        let spilled = u128::from(self.per_second.get())
            .saturating_mul(micros)
            .div_ceil(1_000_000);
        let least = u32::try_from(spilled).unwrap_or(u32::MAX);
        Self {
            burst: NonZeroU32::new(least).map_or(self.burst, |least| least.max(self.burst)),
            ..self
        }
    }

    pub(crate) fn capacity(self) -> i64 {
        i64::from(self.burst.get()) * TOKEN
    }

    /// How long it takes until so much is added.
    pub(crate) fn added_after(self, amount: i64) -> Duration {
        let micros = u64::try_from(amount).unwrap_or_default();
        Duration::from_micros(micros.div_ceil(self.per_second.get().into()))
    }

    /// What is added in a while, at most the whole bucket.
    pub(crate) fn added_in(self, micros: u64) -> i64 {
        let micros = i64::try_from(micros).unwrap_or(i64::MAX);
        i64::from(self.per_second.get())
            .saturating_mul(micros)
            .min(self.capacity())
    }
}

/// The record of a limit in the store. A limit without a record is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bucket {
    /// Told apart from the record before, whose time has nothing to do with this one's.
    pub(crate) epoch: u64,
    /// Its own time, as of which `left` holds.
    pub(crate) at_micros: u64,
    /// Millionths of a token; below zero what was given on trust.
    pub(crate) left: i64,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, epoch: u64) -> Self {
        Self {
            epoch,
            at_micros: 0,
            left: rate.capacity(),
        }
    }

    pub(crate) fn refill(&mut self, rate: Rate, to_micros: u64) {
        let passed = to_micros.saturating_sub(self.at_micros);
        self.left = self
            .left
            .saturating_add(rate.added_in(passed))
            .min(rate.capacity());
        self.at_micros = self.at_micros.max(to_micros);
    }

    /// Takes a hand back, pays what it owes, and fills it up to what is wanted as far as that is there in whole tokens. Returns by how
    /// much the hand changes.
    pub(crate) fn exchange(&mut self, rate: Rate, hand: i64, wanted: i64) -> i64 {
        self.left = self.left.saturating_add(hand).min(rate.capacity());
        let there = self.left.max(0) / TOKEN * TOKEN;
        let taken = wanted.min(there);
        self.left -= taken;
        taken - hand
    }
}

/// What one node knows of a record's time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Timeline {
    epoch: u64,
    /// The record's time where this node's clock was at zero.
    origin: i128,
}

impl Timeline {
    /// Notes a record that was read, of this epoch and time; `now` is this node's clock after the answer came.
    pub(crate) fn sight(&mut self, epoch: u64, at_micros: u64, now: Duration) {
        // Rounded up, and down when it is used: else the time would gain a microsecond with every node that hears it of another.
        let origin = i128::from(at_micros) - rounded_down(now) - 1;
        let is_new = epoch != self.epoch;
        if is_new || origin > self.origin {
            *self = Self { epoch, origin };
        }
    }

    /// The latest time of the record that this node can vouch for.
    pub(crate) fn at(&self, now: Duration) -> u64 {
        u64::try_from((self.origin + rounded_down(now)).max(0)).unwrap_or(u64::MAX)
    }
}

fn rounded_down(now: Duration) -> i128 {
    i128::try_from(now.as_micros()).unwrap_or(i128::MAX / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(per_second: u32, burst: u32) -> Rate {
        Rate {
            per_second: NonZeroU32::new(per_second).unwrap(),
            burst: NonZeroU32::new(burst).unwrap(),
        }
    }

    /// A node of the test: how far its clock is off, and what it knows and holds.
    struct Node {
        ahead: Duration,
        timeline: Timeline,
        hand: i64,
    }

    /// One node's turn at the bucket, `late` after it was read.
    fn turn(node: &mut Node, bucket: &mut Bucket, rate: Rate, real: Duration, wanted: i64) {
        let now = real + node.ahead;
        node.timeline.sight(bucket.epoch, bucket.at_micros, now);
        bucket.refill(rate, node.timeline.at(now));
        node.hand += bucket.exchange(rate, node.hand, wanted * TOKEN);
    }

    proptest! {
        /// Whatever the clocks say and in whatever order nodes come, lose what they hold and die, no more is ever given than the burst
        /// and what the rate has added in real time.
        #[test]
        fn never_more_than_the_rate_allows(
            per_second in 1_u32..5_000,
            burst in 1_u32..5_000,
            ahead in prop::collection::vec(0_u64..10_000_000_000, 3),
            turns in prop::collection::vec((0_usize..3, 0_u64..400_000, 0_i64..2_000, 0_u8..10), 1..200),
        ) {
            let rate = rate(per_second, burst);
            let mut bucket = Bucket::full(rate, 1);
            let mut nodes: Vec<Node> = ahead
                .iter()
                .map(|nanos| Node { ahead: Duration::from_nanos(*nanos), timeline: Timeline::default(), hand: 0 })
                .collect();
            let (mut real, mut used) = (Duration::ZERO, 0_i64);
            for (index, micros, wanted, fate) in turns {
                real += Duration::from_nanos(micros * 997);
                let node = &mut nodes[index];
                turn(node, &mut bucket, rate, real, wanted);
                match fate {
                    // It died, and another one starts in its place, with a clock of its own.
                    0 => *node = Node { ahead: Duration::from_secs(3), timeline: Timeline::default(), hand: 0 },
                    // All of it is used up, or half.
                    1..6 => { used += node.hand.max(0); node.hand = node.hand.min(0); }
                    _ => { used += node.hand.max(0) / 2; node.hand -= node.hand.max(0) / 2; }
                }
                let allowed = i128::from(rate.capacity())
                    + i128::from(per_second) * i128::try_from(real.as_micros()).unwrap();
                prop_assert!(i128::from(used) <= allowed, "{used} of {allowed}");
            }
        }

        /// A node whose clock is ahead dies: the others get the whole rate from then on, at once.
        #[test]
        fn the_death_of_a_node_that_is_ahead_starves_nobody(ahead in 1_u64..60, per_second in 10_u32..1_000) {
            let rate = rate(per_second, per_second);
            let mut bucket = Bucket::full(rate, 1);
            let mut fast = Node { ahead: Duration::from_secs(ahead), timeline: Timeline::default(), hand: 0 };
            let mut slow = Node { ahead: Duration::ZERO, timeline: Timeline::default(), hand: 0 };
            let all = i64::from(u32::MAX);
            turn(&mut fast, &mut bucket, rate, Duration::ZERO, all);
            // What the other first sees of the bucket is two seconds old; it learns the time of the node that dies then.
            let mut real = Duration::from_secs(2);
            slow.timeline.sight(bucket.epoch, bucket.at_micros, real);
            for _ in 0..8 {
                real += Duration::from_millis(250);
                turn(&mut fast, &mut bucket, rate, real, all);
                fast.hand = 0;
            }
            let mut given = 0;
            for _ in 0..400 {
                real += Duration::from_millis(10);
                turn(&mut slow, &mut bucket, rate, real, all);
                given += slow.hand;
                slow.hand = 0;
            }
            // Four seconds' worth, but for the turn that only sees the bucket and a token that is not whole yet.
            prop_assert!(given >= i64::from(per_second) * TOKEN * 39 / 10 - TOKEN, "{given}");
        }
    }

    #[test]
    fn what_is_owed_is_paid_before_more_is_given() {
        let rate = rate(10, 5);
        let mut bucket = Bucket::full(rate, 1);
        assert_eq!(bucket.exchange(rate, -8 * TOKEN, 4 * TOKEN), 8 * TOKEN);
        assert_eq!(bucket.left, -3 * TOKEN);
        bucket.refill(rate, 400_000);
        assert_eq!(bucket.exchange(rate, 0, 4 * TOKEN), TOKEN);
    }

    #[test]
    fn a_new_record_begins_a_new_time() {
        let mut timeline = Timeline::default();
        timeline.sight(1, 1_000_000_000, Duration::from_secs(1));
        let now = Duration::from_secs(2);
        timeline.sight(2, 0, now);
        assert_eq!(timeline.at(now), 0);
    }
}
