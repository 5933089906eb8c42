//! What a node holds of a bucket, and gives to calls without asking anybody.

use std::sync::atomic::{AtomicI64, Ordering};

use crate::bucket::TOKEN;

/// Tokens of one node, in millionths; below zero what was given on trust and is owed to the bucket.
#[derive(Debug)]
pub(crate) struct Hand {
    held: AtomicI64,
    floor: AtomicI64,
    asked: AtomicI64,
}

impl Hand {
    /// A hand with nothing in it, that may give `trust` before it has seen the bucket.
    pub(crate) fn on_trust(trust: i64) -> Self {
        Self {
            held: AtomicI64::new(0),
            floor: AtomicI64::new(-trust),
            asked: AtomicI64::new(0),
        }
    }

    /// Takes a token for one call, if there is one.
    pub(crate) fn ask(&self) -> bool {
        // Relaxed: each count stands alone, and nothing else is read by what it says.
        self.asked.fetch_add(TOKEN, Ordering::Relaxed);
        let floor = self.floor.load(Ordering::Relaxed);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let taken = (self.held).fetch_update(set, fetch, |held| {
            (held - TOKEN >= floor).then_some(held - TOKEN)
        });
        taken.is_ok()
    }

    pub(crate) fn held(&self) -> i64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether more than half of the trust is used, so that the next settlement should not wait. Not when there is no trust: then the
    /// bucket is empty, and asking it again gives nothing.
    pub(crate) fn is_low(&self) -> bool {
        let floor = self.floor.load(Ordering::Relaxed);
        floor < 0 && self.held() <= floor / 2
    }

    /// What was asked for since this was last called, refusals too.
    pub(crate) fn take_asked(&self) -> i64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// Changes what is held by what was exchanged; calls may have taken some meanwhile, which stays taken.
    pub(crate) fn change(&self, by: i64) {
        self.held.fetch_add(by, Ordering::Relaxed);
    }

    /// Adds to what is held, up to a bound.
    pub(crate) fn add_up_to(&self, more: i64, most: i64) {
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        // It can not fail: the closure always has a value.
        let _ = self.held.fetch_update(set, fetch, |held| {
            Some(held.saturating_add(more).min(most.max(held)))
        });
    }

    pub(crate) fn trust(&self, trust: i64) {
        self.floor.store(-trust, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_it_holds_and_what_it_is_trusted_with_and_no_more() {
        let hand = Hand::on_trust(2 * TOKEN);
        hand.change(TOKEN);
        let given = (0..10).filter(|_| hand.ask()).count();
        assert_eq!((given, hand.held()), (3, -2 * TOKEN));
        assert!(hand.is_low());
        hand.trust(0);
        assert!(!hand.is_low());
        assert_eq!(hand.take_asked(), 10 * TOKEN);
        assert_eq!(hand.take_asked(), 0);
    }

    #[test]
    fn threads_do_not_get_more_than_is_held() {
        let hand = Hand::on_trust(0);
        hand.change(1_000 * TOKEN);
        let given: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).filter(|_| hand.ask()).count()))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .sum()
        });
        assert_eq!(given, 1_000);
    }
}
