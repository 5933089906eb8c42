//! Who is served next: a lane for each function, and a turn for each lane.

use std::collections::{HashMap, VecDeque};

use protocol::{FunctionId, Space};

use super::{Delivery, Permits};

/// The function that a lane belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LaneKey {
    pub(super) space: Space,
    pub(super) function_id: FunctionId,
}

/// Items of type `T` by function, oldest first, with what each function has out on lease.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: HashMap<LaneKey, Lane<T>>,
    /// The lanes that have something to give, the next one first.
    turns: VecDeque<LaneKey>,
    /// How many wait in each space, here or for another attempt.
    spaces: HashMap<Space, usize>,
}

#[derive(Debug)]
struct Lane<T> {
    items: VecDeque<T>,
    leased: usize,
    /// What waits in all, here or for another attempt.
    held: Held,
}

/// The room that waiting deliveries take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) len: usize,
    pub(super) bytes: usize,
}

impl LaneKey {
    pub(super) fn of(delivery: &Delivery) -> Self {
        Self {
            space: delivery.space.clone(),
            function_id: delivery.function_id.clone(),
        }
    }
}

impl Held {
    pub(super) fn add(&mut self, bytes: usize) {
        self.len += 1;
        self.bytes += bytes;
    }

    pub(super) fn remove(&mut self, bytes: usize) {
        self.len -= 1;
        self.bytes -= bytes;
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            spaces: HashMap::new(),
        }
    }
}

impl<T> Lanes<T> {
    /// The room that a function's waiting deliveries take.
    pub(super) fn held(&self, key: &LaneKey) -> Held {
        self.lanes
            .get(key)
            .map(|lane| lane.held)
            .unwrap_or_default()
    }

    /// Counts one that waits: it is pushed now, or when its pause is over.
    pub(super) fn hold(&mut self, key: &LaneKey, bytes: usize) {
        self.lane(key).held.add(bytes);
        match self.spaces.get_mut(&key.space) {
            Some(waiting) => *waiting += 1,
            None => {
                self.spaces.insert(key.space.clone(), 1);
            }
        }
    }

    /// How many of a space wait.
    pub(super) fn waiting_of(&self, space: &Space) -> usize {
        self.spaces.get(space).copied().unwrap_or_default()
    }

    /// Counts one less that waits without being pushed.
    pub(super) fn release(&mut self, key: &LaneKey, bytes: usize) {
        self.lane(key).held.remove(bytes);
        count_one_less(&mut self.spaces, &key.space);
        self.forget_if_empty(key);
    }

    /// The key of a lane that there is, whose texts all that name the lane can share.
    pub(super) fn shared(&self, key: &LaneKey) -> LaneKey {
        let found = self.lanes.get_key_value(key);
        found.map_or(key, |(shared, _)| shared).clone()
    }

    /// How many items there are, each counted where it is.
    pub(super) fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.items.len()).sum()
    }

    /// Puts an item at the end of its lane.
    pub(super) fn push(&mut self, key: &LaneKey, item: T) {
        let lane = self.lane(key);
        lane.items.push_back(item);
        if lane.items.len() == 1 {
            self.turns.push_back(key.clone());
        }
    }

    /// Takes the oldest item of the lane whose turn it is; a lane that may not have another lease is passed over.
    pub(super) fn take(&mut self, permits: Permits, bytes: impl Fn(&T) -> usize) -> Option<T> {
        for _ in 0..self.turns.len() {
            let key = self.turns.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&key) else {
                continue;
            };
            if !permits.allow_another(lane.leased) {
                self.turns.push_back(key);
                continue;
            }
            let Some(item) = lane.items.pop_front() else {
                continue;
            };
            lane.leased += 1;
            lane.held.remove(bytes(&item));
            count_one_less(&mut self.spaces, &key.space);
            if !lane.items.is_empty() {
                self.turns.push_back(key);
            }
            return Some(item);
        }
        None
    }

    /// Counts one lease less.
    pub(super) fn end_lease(&mut self, key: &LaneKey) {
        let lane = self.lane(key);
        lane.leased -= 1;
        self.forget_if_empty(key);
    }

    /// Takes out the first item that satisfies `test`, with its lane; looks at all of them.
    pub(super) fn remove(&mut self, test: impl Fn(&T) -> bool) -> Option<(LaneKey, T)> {
        let (key, item) = self.lanes.iter_mut().find_map(|(key, lane)| {
            let index = lane.items.iter().position(&test)?;
            Some((key.clone(), lane.items.remove(index)?))
        })?;
        if self.lane(&key).items.is_empty() {
            self.turns.retain(|turn| *turn != key);
        }
        Some((key, item))
    }

    /// The bytes of memory that the items take.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        let items = self.lanes.values().map(|lane| lane.items.capacity());
        items.sum::<usize>() * size_of::<T>()
    }

    fn lane(&mut self, key: &LaneKey) -> &mut Lane<T> {
        // Looked up first: most often the lane is there, and a key is two counters to raise.
        if !self.lanes.contains_key(key) {
            self.lanes.insert(key.clone(), Lane::default());
        }
        self.lanes.get_mut(key).expect("it was inserted above")
    }

    fn forget_if_empty(&mut self, key: &LaneKey) {
        if self
            .lanes
            .get(key)
            .is_some_and(|lane| lane.leased == 0 && lane.held.len == 0)
        {
            self.lanes.remove(key);
        }
    }
}

fn count_one_less(spaces: &mut HashMap<Space, usize>, space: &Space) {
    if let Some(waiting) = spaces.get_mut(space) {
        *waiting -= 1;
        if *waiting == 0 {
            spaces.remove(space);
        }
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            leased: 0,
            held: Held::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(function: &str) -> LaneKey {
        LaneKey {
            space: Space::default_space(),
            function_id: function.parse().unwrap(),
        }
    }

    fn lanes(items: &[(&str, u32)]) -> Lanes<u32> {
        let mut lanes = Lanes::default();
        for (function, item) in items {
            lanes.hold(&key(function), 1);
            lanes.push(&key(function), *item);
        }
        lanes
    }

    fn taken(lanes: &mut Lanes<u32>, permits: &mut Permits) -> Vec<u32> {
        let mut taken = Vec::new();
        while let Some(item) = lanes.take(*permits, |_| 1) {
            taken.push(item);
            permits.free -= 1;
        }
        taken
    }

    fn all_free(total: usize) -> Permits {
        Permits { free: total, total }
    }

    #[test]
    fn lanes_take_turns_and_keep_their_order() {
        let mut lanes = lanes(&[("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6)]);
        assert_eq!(taken(&mut lanes, &mut all_free(100)), [1, 4, 5, 2, 6, 3]);
    }

    #[test]
    fn a_lane_takes_a_quarter_and_leaves_the_rest_to_others() {
        let mut lanes = Lanes::default();
        let mut permits = all_free(100);
        for item in 0..100 {
            lanes.hold(&key("a"), 1);
            lanes.push(&key("a"), item);
        }
        assert_eq!(taken(&mut lanes, &mut permits).len(), 25);
        lanes.hold(&key("b"), 1);
        lanes.push(&key("b"), 1_000);
        assert_eq!(taken(&mut lanes, &mut permits), [1_000]);
        for _ in 0..25 {
            lanes.end_lease(&key("a"));
            permits.free += 1;
        }
        assert_eq!(taken(&mut lanes, &mut permits).len(), 25);
    }

    #[test]
    fn as_many_functions_as_half_of_the_permits_may_hang() {
        let mut lanes = Lanes::default();
        let mut permits = all_free(100);
        for function in 0..50 {
            let key = key(&function.to_string());
            for item in 0..100 {
                lanes.hold(&key, 1);
                lanes.push(&key, item);
            }
            assert!(
                !taken(&mut lanes, &mut permits).is_empty(),
                "function {function} has to wait"
            );
        }
        assert!(permits.free > 0, "{permits:?}");
    }

    #[test]
    fn a_lane_without_anything_is_forgotten() {
        let mut lanes = lanes(&[("a", 1), ("b", 2)]);
        assert_eq!(taken(&mut lanes, &mut all_free(1)), [1]);
        lanes.end_lease(&key("a"));
        let removed = lanes.remove(|item| *item == 2).map(|(key, _)| key);
        assert_eq!(removed, Some(key("b")));
        lanes.release(&key("b"), 1);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty());
    }
}
