//! How tasks feed an actor: counted, and one message under way at a time, so that an unbounded mailbox stays short.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ractor::ActorRef;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How many messages wait in a mailbox; ractor does not tell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Depth(Arc<AtomicU64>);

/// The sending end of one incarnation of an actor.
pub(crate) struct Mailbox<M> {
    actor: ActorRef<M>,
    depth: Depth,
}

/// Travels in a message; its sender waits until the actor has handled the message and dropped it.
#[derive(Debug)]
pub(crate) struct Pending(#[expect(dead_code, reason = "dropping it is the answer")] oneshot::Sender<()>);

impl Depth {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Notes that the actor took a message.
    pub(crate) fn taken(&self) {
        // Not every message is counted: the supervisor's come without a mailbox.
        let less = |depth: u64| depth.checked_sub(1);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

impl<M: ractor::Message> Mailbox<M> {
    /// The mailbox of a new incarnation: what waited in the last one is gone.
    pub(crate) fn new(actor: ActorRef<M>, depth: Depth) -> Self {
        depth.0.store(0, Ordering::Relaxed);
        Self { actor, depth }
    }

    /// Sends a message; false when the actor is gone.
    pub(crate) fn cast(&self, message: M) -> bool {
        self.depth.0.fetch_add(1, Ordering::Relaxed);
        let is_sent = self.actor.cast(message).is_ok();
        if !is_sent {
            self.depth.taken();
        }
        is_sent
    }

    /// Sends a message and waits until it was handled; false when the actor is gone.
    pub(crate) async fn send(&self, message: impl FnOnce(Pending) -> M) -> bool {
        let (sender, handled) = oneshot::channel();
        if !self.cast(message(Pending(sender))) {
            return false;
        }
        // The sender is never used: its end, not a value, is what is waited for.
        let _ = handled.await;
        true
    }

    /// Sends a message at an interval; ticks that come while one is under way are put off.
    pub(crate) fn every(
        &self,
        tracker: &TaskTracker,
        token: &CancellationToken,
        interval: Duration,
        message: impl Fn(Pending) -> M + Send + Sync + 'static,
    ) {
        let mailbox = self.clone();
        tracker.spawn(token.clone().run_until_cancelled_owned(async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                if !mailbox.send(&message).await {
                    return;
                }
            }
        }));
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self { actor: self.actor.clone(), depth: self.depth.clone() }
    }
}
