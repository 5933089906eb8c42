//! Who of the other nodes is dead, as whoever watches them knows.

use std::fmt;

use protocol::{Generation, NodeId};

/// Who of the other nodes is dead, so that nobody need wait until it is missed.
pub trait Deaths: Send + Sync + fmt::Debug + 'static {
    /// Whether this incarnation of a node is dead.
    fn is_dead(&self, node: &NodeId, generation: Generation) -> bool;
}
