//! The clock of the cluster: the middle one of the clocks of its nodes, the earlier one of two.
//!
//! Each node tells its clock to the others through the store. What one said goes on here by the monotonic clock of this node, so a clock
//! that is set, here or there, moves the middle only once it is told, and not at all while it is one of three. What is heard late counts
//! as too early, so slots come late by that and not early.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use protocol::NodeId;
use tokio::time::Instant;

/// So many intervals without a word, and a clock does not count any more.
const SILENT_INTERVALS: u32 = 3;

/// How long nodes that hear of each other have to tell their clocks; they do so at once.
const SETTLE: Duration = Duration::from_secs(1);

/// The clocks that this node has heard.
#[derive(Debug)]
pub(super) struct Clocks {
    interval: Duration,
    heard: HashMap<NodeId, Heard>,
    /// Before this the clocks of nodes that nobody knows of yet may come.
    settles_at: Instant,
    /// Nodes that have told their clocks some time, or have reason to, and did not yet.
    awaited: BTreeSet<NodeId>,
    /// They are not waited for any longer than this.
    until: Instant,
}

#[derive(Debug)]
struct Heard {
    clock_ms: u64,
    at: Instant,
}

impl Clocks {
    /// Begins with the nodes that have told their clocks some time.
    pub(super) fn new(interval: Duration, awaited: BTreeSet<NodeId>, now: Instant) -> Self {
        Self {
            interval,
            heard: HashMap::new(),
            settles_at: now + SETTLE,
            awaited,
            until: patience(interval, now),
        }
    }

    /// These nodes have reason to tell their clocks now, and have not told them lately.
    pub(super) fn wait_for(&mut self, nodes: impl Iterator<Item = NodeId>, now: Instant) {
        self.settles_at = now + SETTLE;
        self.awaited.extend(nodes);
        self.until = patience(self.interval, now);
    }

    /// A node told its clock. Whether it had been silent, and so should be told this one's.
    pub(super) fn hear(&mut self, node: NodeId, clock_ms: u64, now: Instant) -> bool {
        self.awaited.remove(&node);
        self.heard
            .retain(|_, heard| is_fresh(heard, self.interval, now));
        let heard = Heard { clock_ms, at: now };
        self.heard.insert(node, heard).is_none()
    }

    /// A node said that it goes.
    pub(super) fn forget(&mut self, node: &NodeId) {
        self.awaited.remove(node);
        self.heard.remove(node);
    }

    /// Until when this node may not know the clock of the cluster yet; none when it does.
    pub(super) fn unknown_until(&self, now: Instant) -> Option<Instant> {
        let until = match self.awaited.is_empty() {
            true => self.settles_at,
            false => self.settles_at.max(self.until),
        };
        (now < until).then_some(until)
    }

    /// The nodes that were waited for in vain.
    pub(super) fn take_silent(&mut self) -> BTreeSet<NodeId> {
        std::mem::take(&mut self.awaited)
    }

    /// The time of the cluster, where this node's own clock shows `own_ms`.
    pub(super) fn now_ms(&self, own_ms: u64, now: Instant) -> u64 {
        let fresh = self.heard.values();
        let fresh = fresh.filter(|heard| is_fresh(heard, self.interval, now));
        let shown = fresh.map(|heard| {
            let since = now.saturating_duration_since(heard.at);
            let since = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
            heard.clock_ms.saturating_add(since)
        });
        let mut shown: Vec<u64> = shown.chain([own_ms]).collect();
        shown.sort_unstable();
        shown[(shown.len() - 1) / 2]
    }
}

/// All others tell their clocks within an interval, and at once who hears of a new node.
fn patience(interval: Duration, now: Instant) -> Instant {
    now + interval + interval / 4
}

fn is_fresh(heard: &Heard, interval: Duration, now: Instant) -> bool {
    now.saturating_duration_since(heard.at) < interval * SILENT_INTERVALS
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    fn node(number: usize) -> NodeId {
        format!("n{number}").parse().unwrap()
    }

    /// The own clock and those heard, and the time that they make.
    fn check(own: u64, others: &[u64], expected: u64) {
        let now = Instant::now();
        let mut clocks = Clocks::new(Duration::from_secs(5), BTreeSet::new(), now);
        for (number, other) in others.iter().enumerate() {
            assert!(clocks.hear(node(number), *other, now));
        }
        assert_eq!(clocks.now_ms(own, now), expected, "{own} and {others:?}");
    }

    #[test]
    fn one_clock_of_three_moves_nothing_and_of_two_the_earlier_one_counts() {
        check(7 * HOUR, &[], 7 * HOUR);
        check(8 * HOUR, &[7 * HOUR, 7 * HOUR + 5], 7 * HOUR + 5);
        check(6 * HOUR, &[7 * HOUR, 7 * HOUR + 5], 7 * HOUR);
        check(7 * HOUR, &[8 * HOUR, 7 * HOUR + 5], 7 * HOUR + 5);
        check(8 * HOUR, &[7 * HOUR], 7 * HOUR);
        check(7 * HOUR, &[8 * HOUR], 7 * HOUR);
        check(8 * HOUR, &[7 * HOUR, 7 * HOUR, 8 * HOUR], 7 * HOUR);
    }

    #[test]
    fn a_clock_goes_on_and_is_forgotten_when_its_node_is_silent() {
        let (interval, begun) = (Duration::from_secs(5), Instant::now());
        let mut clocks = Clocks::new(interval, BTreeSet::new(), begun);
        clocks.hear(node(1), HOUR, begun);
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(clocks.now_ms(9 * HOUR, at(10)), HOUR + 10_000);
        assert_eq!(clocks.now_ms(9 * HOUR, at(15)), 9 * HOUR);
        assert!(clocks.hear(node(1), HOUR, at(20)), "as if it were new");
        assert!(!clocks.hear(node(1), HOUR, at(21)));
        clocks.forget(&node(1));
        assert_eq!(clocks.now_ms(9 * HOUR, at(21)), 9 * HOUR);
    }

    #[test]
    fn a_node_that_begins_waits_for_those_that_spoke_before() {
        let (interval, begun) = (Duration::from_secs(4), Instant::now());
        let (settled, until) = (begun + SETTLE, begun + Duration::from_secs(5));
        let new = || Clocks::new(interval, BTreeSet::from([node(1), node(2)]), begun);
        let mut clocks = new();
        assert_eq!(clocks.unknown_until(begun), Some(until));
        clocks.hear(node(1), 0, begun);
        assert_eq!(clocks.unknown_until(settled), Some(until));
        clocks.hear(node(2), 0, begun);
        assert_eq!(
            clocks.unknown_until(begun),
            Some(settled),
            "there may be more"
        );
        assert_eq!(clocks.unknown_until(settled), None);
        let mut clocks = new();
        assert_eq!(clocks.unknown_until(until), None, "not for ever");
        assert_eq!(clocks.take_silent().len(), 2);
        clocks.wait_for([node(3)].into_iter(), until);
        assert!(clocks.unknown_until(until).is_some());
    }
}
