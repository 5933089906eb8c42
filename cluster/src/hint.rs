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
