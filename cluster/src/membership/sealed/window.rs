//! Which counters of one sender were seen.

const WORDS: usize = 16;

/// How far a datagram may be overtaken by later ones of its sender and still be taken.
pub(super) const WIDTH: u64 = 64 * WORDS as u64;

/// A sliding window over the counters of one sender: accepts each at most once, and none that is older than the window.
///
/// Bit `counter % WIDTH` says whether `counter` was seen, for the counters in `highest - WIDTH < counter <= highest`.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// One more than the highest counter seen; 0 before the first.
    next: u64,
    seen: [u64; WORDS],
}

impl Window {
    pub(super) fn new() -> Self {
        Self {
            next: 0,
            seen: [0; WORDS],
        }
    }

    /// Whether this counter is new; it is not from now on.
    pub(super) fn accept(&mut self, counter: u64) -> bool {
        if counter == u64::MAX {
            return false; // `next` could not be one more; no sender ever counts that far.
        }
        if counter >= self.next {
            self.advance_past(counter);
        } else if self.next - counter > WIDTH {
            return false;
        }
        let (word, bit) = position(counter);
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }

    fn advance_past(&mut self, counter: u64) {
        if counter - self.next >= WIDTH {
            self.seen = [0; WORDS];
        } else {
            for skipped in self.next..=counter {
                let (word, bit) = position(skipped);
                self.seen[word] &= !bit;
            }
        }
        self.next = counter + 1;
    }
}

fn position(counter: u64) -> (usize, u64) {
    let index = usize::try_from(counter % WIDTH).expect("less than WIDTH");
    (index / 64, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The same rule in the plainest way: a set of all that was seen.
    #[derive(Default)]
    struct Model {
        seen: BTreeSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> bool {
            let highest = self.seen.last().copied().unwrap_or(0);
            counter != u64::MAX
                && highest.saturating_sub(counter) < WIDTH
                && self.seen.insert(counter)
        }
    }

    fn counters() -> impl Strategy<Value = Vec<u64>> {
        let near = (0_u64..6 * WIDTH).boxed();
        let far = prop_oneof![any::<u64>(), Just(u64::MAX), Just(u64::MAX - 1), Just(0)].boxed();
        prop_oneof![
            proptest::collection::vec(near.clone(), 0..600),
            proptest::collection::vec(prop_oneof![20 => near, 1 => far], 0..600),
        ]
    }

    proptest! {
        #[test]
        fn agrees_with_a_set(counters in counters()) {
            let (mut window, mut model) = (Window::new(), Model::default());
            for counter in counters {
                prop_assert_eq!(window.accept(counter), model.accept(counter), "{}", counter);
            }
        }

        #[test]
        fn accepts_nothing_twice(counters in counters()) {
            let mut window = Window::new();
            let mut accepted = BTreeSet::new();
            for counter in counters.iter().chain(&counters) {
                if window.accept(*counter) {
                    prop_assert!(accepted.insert(*counter));
                }
            }
        }

        #[test]
        fn accepts_all_that_are_overtaken_by_less_than_its_width(start in 0..u64::MAX - 4 * WIDTH, swaps in proptest::collection::vec((0..WIDTH, 0..WIDTH), 0..64)) {
            let mut order: Vec<u64> = (start..start + WIDTH).collect();
            for (one, other) in swaps {
                order.swap(usize::try_from(one).unwrap(), usize::try_from(other).unwrap());
            }
            let mut window = Window::new();
            for counter in order {
                prop_assert!(window.accept(counter));
            }
        }
    }
}
