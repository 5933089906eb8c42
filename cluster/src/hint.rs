//! Warm-instance hints: what a node gossips of its most recent instance keys.

use protocol::InstanceKey;

/// What a node says of one instance key. Old by a gossip round or two: a hint to route by, never a promise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hint {
    /// The instance key.
    pub key: InstanceKey,
    /// Free slots, rounded down to 0, 1, 2, 4, 8, … so that it seldom changes.
    pub free_slots: u32,
    /// Instances that are up or starting.
    pub instances: u32,
}

impl Hint {
    /// Builds a hint; the free slots are rounded down by [`bucket`].
    pub fn new(key: InstanceKey, free_slots: u32, instances: u32) -> Self {
        Self {
            key,
            free_slots: bucket(free_slots),
            instances,
        }
    }

    /// The value as it is gossiped: `<free slots>/<instances>`.
    pub(crate) fn pack(&self) -> String {
        format!("{}/{}", bucket(self.free_slots), self.instances)
    }

    /// Reads a gossiped value; `None` when it is none.
    pub(crate) fn unpack(key: InstanceKey, value: &str) -> Option<Self> {
        let (free_slots, instances) = value.split_once('/')?;
        Some(Self::new(
            key,
            free_slots.parse().ok()?,
            instances.parse().ok()?,
        ))
    }
}

/// Rounds a count down to 0 or a power of two: a busy function's count changes at every call, its bucket seldom.
pub fn bucket(count: u32) -> u32 {
    match count.checked_ilog2() {
        Some(log) => 1 << log,
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts_are_rounded_down_to_powers_of_two() {
        let check = |count, expected| assert_eq!(bucket(count), expected, "{count}");
        check(0, 0);
        check(1, 1);
        check(2, 2);
        check(3, 2);
        check(4, 4);
        check(7, 4);
        check(8, 8);
        check(1000, 512);
        check(u32::MAX, 1 << 31);
    }

    proptest! {
        #[test]
        fn a_bucket_is_never_more_than_the_count_nor_less_than_half(count: u32) {
            let bucketed = bucket(count);
            prop_assert!(bucketed <= count);
            prop_assert!(count == 0 || u64::from(bucketed) * 2 > u64::from(count));
            prop_assert_eq!(bucket(bucketed), bucketed);
        }

        #[test]
        fn a_hint_survives_the_wire(free_slots: u32, instances: u32) {
            let hint = Hint::new(InstanceKey::hash([b"key".as_slice()]), free_slots, instances);
            prop_assert_eq!(Hint::unpack(hint.key, &hint.pack()), Some(hint));
        }

        #[test]
        fn any_text_is_read_without_a_panic(value: String) {
            let _ = Hint::unpack(InstanceKey::hash([]), &value);
        }
    }
}
