//! What an invocation found out on its way, over all its attempts.

use protocol::{Effect, Failure, NodeId, Phases};
use tokio::time::Instant;

use super::micros;

/// What one invocation found out on its way; survives its attempts.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) begun: Instant,
    pub(super) phases: Phases,
    /// Nodes that refused it: not asked again.
    pub(super) refused_by: Vec<NodeId>,
    /// Nodes whose free slots were gone when it came: they may start an instance or queue it all the same.
    pub(super) without_slot: Vec<NodeId>,
    pub(super) is_refused_here: bool,
    /// Peers that were asked in vain.
    pub(super) peer_refusals: u32,
    /// Attempts on this node that came to nothing.
    pub(super) local_failures: u32,
    /// Whether an attempt may have run, so that the caller is not told otherwise when a later one is refused.
    pub(super) may_have_run: bool,
    pub(super) last_failure: Option<Failure>,
    pub(super) is_forwarded: bool,
}

impl Attempt {
    pub(super) fn new() -> Self {
        Self {
            begun: Instant::now(),
            phases: Phases::default(),
            refused_by: Vec::new(),
            without_slot: Vec::new(),
            is_refused_here: false,
            peer_refusals: 0,
            local_failures: 0,
            may_have_run: false,
            last_failure: None,
            is_forwarded: false,
        }
    }

    pub(super) fn routed(&mut self) {
        self.phases.route = Some(micros(self.begun.elapsed()));
    }

    /// What the caller is told: of all attempts, not only of the last.
    pub(super) fn told(&self, mut failure: Failure) -> Failure {
        if self.may_have_run && failure.effect == Effect::Refused {
            failure.effect = Effect::Interrupted;
        }
        failure
    }
}
