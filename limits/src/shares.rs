//! The record of a limit on what goes on at once: how much of it each node has, and how much each would need.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The record in the store. A limit that nobody uses has none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shares {
    /// Told apart from the record before, whose time has nothing to do with this one's.
    pub(crate) epoch: u64,
    /// Its own time, as that of a [`Bucket`](crate::bucket::Bucket).
    pub(crate) at_micros: u64,
    /// What each run of a node has.
    pub(crate) nodes: BTreeMap<String, Share>,
}

/// What one node has of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Share {
    /// Nobody else may use it.
    pub(crate) held: u64,
    /// What it would use if it could.
    pub(crate) demand: u64,
    /// When it said so, in the record's time.
    pub(crate) at_micros: u64,
}

impl Shares {
    pub(crate) fn new(epoch: u64) -> Self {
        Self {
            epoch,
            at_micros: 0,
            nodes: BTreeMap::new(),
        }
    }

    /// Lets the record's time go on, and forgets nodes that have said nothing for so long.
    pub(crate) fn advance(&mut self, to_micros: u64, own: &str, lost_after_micros: u64) {
        self.at_micros = self.at_micros.max(to_micros);
        let now = self.at_micros;
        self.nodes.retain(|node, share| {
            node == own || now.saturating_sub(share.at_micros) < lost_after_micros
        });
    }

    /// What a node may use of `max` that needs so much: what it needs and a part of what nobody needs, or its part in proportion where all
    /// need more than there is; never what others hold.
    pub(crate) fn part_of(&self, own: &str, max: u64, demand: u64) -> u64 {
        let others = || self.others(own).map(|(_, share)| share);
        let held: u64 = others().map(|share| share.held).sum();
        let wanted = demand + others().map(|share| share.demand).sum::<u64>();
        let fair = match max.checked_sub(wanted) {
            Some(idle) => demand + idle / (others().count() as u64 + 1),
            None => self.proportion(own, max, demand, wanted),
        };
        fair.min(max.saturating_sub(held))
    }

    /// The part of a node where all together want more than there is. What is left by rounding goes to the first of them, one each.
    fn proportion(&self, own: &str, max: u64, demand: u64, wanted: u64) -> u64 {
        // Widened, so that no product overflows.
        let part = |demand: u64| {
            let part = u128::from(max) * u128::from(demand) / u128::from(wanted);
            u64::try_from(part).unwrap_or(max)
        };
        let others = || self.others(own).filter(|(_, share)| share.demand > 0);
        let given: u64 = others().map(|(_, share)| part(share.demand)).sum();
        let left = max - given - part(demand);
        let before = others().filter(|(node, _)| node.as_str() < own).count() as u64;
        part(demand) + u64::from(demand > 0 && before < left)
    }

    /// Whether another node needs more than it has.
    pub(crate) fn is_short_elsewhere(&self, own: &str) -> bool {
        self.others(own).any(|(_, share)| share.demand > share.held)
    }

    /// What nobody holds.
    pub(crate) fn free(&self, max: u64) -> u64 {
        max.saturating_sub(self.nodes.values().map(|share| share.held).sum())
    }

    fn others(&self, own: &str) -> impl Iterator<Item = (&String, &Share)> {
        let nodes = self.nodes.iter();
        nodes.filter(move |(node, _)| *node != own)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(nodes: &[(&str, u64, u64)]) -> Shares {
        let share = |held, demand| Share {
            held,
            demand,
            at_micros: 0,
        };
        let nodes = nodes.iter();
        Shares {
            nodes: nodes
                .map(|(node, held, demand)| ((*node).to_owned(), share(*held, *demand)))
                .collect(),
            ..Shares::new(1)
        }
    }

    #[test]
    fn one_node_alone_may_use_all() {
        assert_eq!(Shares::new(1).part_of("a", 20, 1), 20);
        assert_eq!(Shares::new(1).part_of("a", 20, 100), 20);
    }

    #[test]
    fn what_nobody_needs_is_shared_and_what_others_hold_is_not_touched() {
        let others = shares(&[("b", 2, 2)]);
        assert_eq!(others.part_of("a", 20, 4), 11);
        let others = shares(&[("b", 20, 2)]);
        assert_eq!(others.part_of("a", 20, 4), 0);
        assert!(shares(&[("a", 0, 4), ("b", 20, 2)]).is_short_elsewhere("b"));
    }

    #[test]
    fn where_all_need_more_each_gets_its_part_and_nothing_is_left() {
        let others = shares(&[("b", 5, 30)]);
        assert_eq!(others.part_of("a", 20, 10), 5);
        let others = shares(&[("b", 0, 9), ("c", 0, 9)]);
        assert_eq!(others.part_of("a", 4, 9), 2);
        let others = shares(&[("a", 2, 9), ("c", 0, 9)]);
        assert_eq!(others.part_of("b", 4, 9), 1);
        let others = shares(&[("b", 10, 1_000)]);
        assert_eq!(others.part_of("a", 10, 1), 0);
    }

    #[test]
    fn who_says_nothing_is_lost() {
        let mut all = shares(&[("a", 1, 1), ("b", 1, 1)]);
        all.advance(4_999_999, "a", 5_000_000);
        assert_eq!(all.nodes.len(), 2);
        all.advance(5_000_000, "a", 5_000_000);
        assert_eq!(all.nodes.keys().collect::<Vec<_>>(), ["a"]);
    }

    proptest! {
        /// In whatever order nodes come and whatever they need: together they never hold more than there is, as long as each gives up only
        /// what it does not use; and when nothing changes any more, nobody is left without while there is something that nobody needs.
        #[test]
        fn together_they_hold_no_more_than_there_is(
            max in 1_u64..50,
            turns in prop::collection::vec((0_usize..3, 0_u64..60), 1..100),
        ) {
            const NAMES: [&str; 3] = ["a", "b", "c"];
            let mut all = Shares::new(1);
            let mut demands = [0; 3];
            let turn = |all: &mut Shares, index: usize, demand: u64| {
                let held = all.part_of(NAMES[index], max, demand);
                all.nodes.insert(NAMES[index].to_owned(), Share { held, demand, at_micros: 0 });
            };
            for (index, demand) in turns {
                demands[index] = demand;
                turn(&mut all, index, demand);
                let held: u64 = all.nodes.values().map(|share| share.held).sum();
                prop_assert!(held <= max, "{held} of {max}");
            }
            for _ in 0..8 {
                for (index, demand) in demands.into_iter().enumerate() {
                    turn(&mut all, index, demand);
                }
            }
            let total: u64 = demands.iter().sum();
            for (name, demand) in NAMES.into_iter().zip(demands) {
                let held = all.nodes[name].held;
                prop_assert!(total > max || held >= demand, "{name} has {held} of {demand}");
            }
            let held: u64 = all.nodes.values().map(|share| share.held).sum();
            prop_assert!(total <= max || held == max, "{held} of {max} are held");
        }
    }
}
