//! What the Runtime API of one instance knows: which requests for `next` wait, which invocations do, which run, and what became of
//! the last few. No I/O and no clock.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// `K` names an invocation, `N` is a request for `next` that waits for its answer, `W` an invocation that waits for such a request, and
/// `R` is where the answer of one that runs goes.
#[derive(Debug)]
pub(super) struct State<K, N, W, R> {
    /// How many invocations the instance may run at once.
    slots: usize,
    phase: Phase,
    /// By the number of their connection, the longest waiting first.
    asking: VecDeque<(u64, N)>,
    waiting: VecDeque<W>,
    running: HashMap<K, R>,
    /// The last few that run no more, and how they ended.
    past: VecDeque<(K, Past)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// It has not asked for an invocation yet.
    Starting,
    Up,
    /// Its runtime broke the protocol, and said or did this.
    Broken(String),
    /// It is gone, or stopped.
    Ended,
}

/// How an invocation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Past {
    /// It was answered.
    Answered,
    /// Its time was over, or nobody waits for its answer any more.
    Abandoned,
}

/// What comes of a request for `next`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked<N, W> {
    /// It waits.
    Kept,
    /// It waits, and closed the oldest one that did, whose connection was given up for this one.
    Replaced(N),
    /// An invocation waits for it, or did when it was looked at last.
    Wanted(W, N),
    /// All slots run an invocation: the runtime asks for more than it may run.
    TooMany(N),
    /// The instance takes no more.
    Over(N),
}

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// No such invocation was given to this instance, or long ago.
    Unknown,
    /// It was answered before.
    Twice,
    /// Its time was over.
    Late,
}

/// Invocations that are remembered when they run no more, besides one for each slot.
const PAST_MAX: usize = 16;

impl<K: Eq + Hash + Clone, N, W, R> State<K, N, W, R> {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            slots,
            phase: Phase::Starting,
            asking: VecDeque::new(),
            waiting: VecDeque::new(),
            running: HashMap::new(),
            past: VecDeque::new(),
        }
    }

    /// Whether it asked for an invocation already.
    pub(super) fn is_starting(&self) -> bool {
        self.phase == Phase::Starting
    }

    /// Whether it takes invocations, or will.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Up)
    }

    /// How its runtime broke the protocol, if it did.
    pub(super) fn broken(&self) -> Option<&str> {
        match &self.phase {
            Phase::Broken(why) => Some(why),
            Phase::Starting | Phase::Up | Phase::Ended => None,
        }
    }

    /// The runtime asks for an invocation. The first time, the instance is up.
    pub(super) fn ask(&mut self, connection: u64, next: N) -> Asked<N, W> {
        if !self.is_open() {
            return Asked::Over(next);
        }
        self.phase = Phase::Up;
        if let Some(waiting) = self.waiting.pop_front() {
            return Asked::Wanted(waiting, next);
        }
        if self.running.len() >= self.slots {
            return Asked::TooMany(next);
        }
        let is_full = self.asking.len() + self.running.len() >= self.slots;
        let replaced = is_full.then(|| self.asking.pop_front()).flatten();
        self.asking.push_back((connection, next));
        match replaced {
            None => Asked::Kept,
            Some((_, oldest)) => Asked::Replaced(oldest),
        }
    }

    /// A request for `next` was taken in vain: it waits again, before all others.
    pub(super) fn ask_again(&mut self, connection: u64, next: N) -> Asked<N, W> {
        if !self.is_open() {
            return Asked::Over(next);
        }
        match self.waiting.pop_front() {
            Some(waiting) => Asked::Wanted(waiting, next),
            None => {
                self.asking.push_front((connection, next));
                Asked::Kept
            }
        }
    }

    /// A connection is closed, or sends more before it was answered; whether it was one that asks.
    pub(super) fn leave(&mut self, connection: u64) -> bool {
        let before = self.asking.len();
        self.asking.retain(|(asking, _)| *asking != connection);
        self.asking.len() < before
    }

    /// Takes the request for `next` that waits longest, unless invocations wait already.
    pub(super) fn take(&mut self) -> Option<N> {
        if !self.waiting.is_empty() {
            return None;
        }
        self.asking.pop_front().map(|(_, next)| next)
    }

    /// An invocation waits for the runtime to ask.
    pub(super) fn wait(&mut self, waiting: W) {
        self.waiting.push_back(waiting);
    }

    /// Those that wait and are not to be any more go.
    pub(super) fn retain_waiting(&mut self, is_to_stay: impl FnMut(&W) -> bool) {
        self.waiting.retain(is_to_stay);
    }

    /// An invocation is given to the runtime; its name comes back where one runs that has it.
    pub(super) fn begin(&mut self, id: K, answer: R) -> Result<(), (K, R)> {
        if self.running.contains_key(&id) {
            return Err((id, answer));
        }
        self.past.retain(|(past, _)| *past != id);
        self.running.insert(id, answer);
        Ok(())
    }

    /// Whether an answer to this invocation would be taken.
    pub(super) fn look(&self, id: &K) -> Result<&R, Refused> {
        let found = self.running.get(id);
        found.ok_or_else(|| self.refusal(id))
    }

    /// The runtime answers an invocation.
    pub(super) fn answer(&mut self, id: &K) -> Result<R, Refused> {
        match self.running.remove(id) {
            Some(answer) => {
                self.remember(id.clone(), Past::Answered);
                Ok(answer)
            }
            None => Err(self.refusal(id)),
        }
    }

    /// Nobody waits for an answer any more.
    pub(super) fn abandon(&mut self, id: &K) {
        if let Some((id, _)) = self.running.remove_entry(id) {
            self.remember(id, Past::Abandoned);
        }
    }

    /// The runtime broke the protocol: nothing more is given to it, and what it runs is over. The first time counts.
    pub(super) fn break_off(&mut self, why: &str) {
        if self.is_open() {
            self.phase = Phase::Broken(why.to_owned());
        }
        self.clear();
    }

    /// The instance is gone.
    pub(super) fn end(&mut self) {
        if self.is_open() {
            self.phase = Phase::Ended;
        }
        self.clear();
    }

    fn clear(&mut self) {
        self.asking.clear();
        self.waiting.clear();
        self.running.clear();
    }

    fn refusal(&self, id: &K) -> Refused {
        let mut past = self.past.iter();
        match past.find(|(past, _)| past == id) {
            Some((_, Past::Answered)) => Refused::Twice,
            Some((_, Past::Abandoned)) => Refused::Late,
            None => Refused::Unknown,
        }
    }

    fn remember(&mut self, id: K, past: Past) {
        if self.past.len() >= PAST_MAX + self.slots {
            self.past.pop_front();
        }
        self.past.push_back((id, past));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything is named by a number.
    type Numbers = State<u32, u32, u32, u32>;

    fn up(slots: usize) -> Numbers {
        let mut state = Numbers::new(slots);
        state.phase = Phase::Up;
        state
    }

    #[test]
    fn an_instance_is_up_when_it_asks_for_the_first_time() {
        let mut state = Numbers::new(1);
        assert!(state.is_starting() && state.is_open());
        assert_eq!(state.ask(1, 1), Asked::Kept);
        assert!(!state.is_starting());
        assert_eq!(state.take(), Some(1));
        assert_eq!(state.take(), None);
    }

    #[test]
    fn who_waits_first_is_served_first_on_both_sides() {
        let mut state = up(2);
        state.wait(7);
        state.wait(8);
        assert_eq!(state.take(), None, "nobody overtakes who waits");
        assert_eq!(state.ask(1, 1), Asked::Wanted(7, 1));
        assert_eq!(state.ask(2, 2), Asked::Wanted(8, 2));
        assert_eq!(state.ask(1, 1), Asked::Kept);
        assert_eq!(state.ask(2, 2), Asked::Kept);
        assert_eq!(state.take(), Some(1));
        assert_eq!(state.ask_again(1, 1), Asked::Kept);
        assert_eq!((state.take(), state.take()), (Some(1), Some(2)));
        state.wait(9);
        state.wait(10);
        state.retain_waiting(|waiting| *waiting != 9);
        assert_eq!(state.ask_again(1, 1), Asked::Wanted(10, 1));
    }

    #[test]
    fn no_more_is_asked_for_than_there_are_slots() {
        let mut state = up(2);
        assert_eq!(state.ask(1, 1), Asked::Kept);
        assert_eq!(state.ask(2, 2), Asked::Kept);
        assert_eq!(state.ask(3, 3), Asked::Replaced(1), "a connection anew");
        assert!(state.leave(2) && !state.leave(2));
        state.begin(70, 0).unwrap();
        assert_eq!(state.ask(4, 4), Asked::Replaced(3));
        state.begin(71, 0).unwrap();
        assert_eq!(state.ask(5, 5), Asked::TooMany(5));
    }

    #[test]
    fn each_invocation_is_answered_once() {
        let mut state = up(1);
        state.begin(7, 70).unwrap();
        assert_eq!(state.begin(7, 71), Err((7, 71)));
        assert_eq!(state.look(&7), Ok(&70));
        assert_eq!(state.look(&8), Err(Refused::Unknown));
        assert_eq!(state.answer(&7), Ok(70));
        assert_eq!(state.answer(&7), Err(Refused::Twice));
        state.begin(8, 80).unwrap();
        state.abandon(&8);
        state.abandon(&9);
        assert_eq!(state.answer(&8), Err(Refused::Late));
        assert_eq!(state.answer(&9), Err(Refused::Unknown));
        // The same invocation may come again.
        state.begin(7, 72).unwrap();
        assert_eq!(state.answer(&7), Ok(72));
        for id in 100..100 + u32::try_from(PAST_MAX).unwrap() + 1 {
            state.begin(id, 0).unwrap();
            state.answer(&id).unwrap();
        }
        assert_eq!(state.answer(&7), Err(Refused::Unknown), "long ago");
    }

    #[test]
    fn what_is_over_takes_nothing_and_holds_nothing() {
        for is_broken in [true, false] {
            let mut state = up(2);
            state.ask(1, 1);
            state.begin(7, 70).unwrap();
            match is_broken {
                true => state.break_off("it talked nonsense"),
                false => state.end(),
            }
            assert_eq!(state.broken(), is_broken.then_some("it talked nonsense"));
            state.break_off("again");
            state.end();
            assert_eq!(state.broken(), is_broken.then_some("it talked nonsense"));
            assert!(!state.is_open());
            assert_eq!(state.take(), None);
            assert_eq!(state.ask(2, 2), Asked::Over(2));
            assert_eq!(state.ask_again(2, 2), Asked::Over(2));
            assert_eq!(state.answer(&7), Err(Refused::Unknown));
        }
    }

    #[derive(Debug, Clone)]
    enum Step {
        Ask(u64),
        Leave(u64),
        Invoke,
        Answer(u32),
        Abandon(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..6u64).prop_map(Step::Ask),
            (0..6u64).prop_map(Step::Leave),
            Just(Step::Invoke),
            (0..20u32).prop_map(Step::Answer),
            (0..20u32).prop_map(Step::Abandon),
        ]
    }

    proptest! {
        /// Whatever comes in whatever order: each request for `next` gets one invocation at most, each answer reaches the invocation
        /// that it names, and never more is kept than the slots allow.
        #[test]
        fn nothing_is_mixed_up(steps in proptest::collection::vec(step(), 0..80), slots in 1..4usize) {
            let mut state = up(slots);
            let mut invoked = 0;
            let mut next = 1000;
            for step in steps {
                match step {
                    Step::Ask(connection) => {
                        next += 1;
                        if let Asked::Wanted(id, given) = state.ask(connection, next) {
                            prop_assert_eq!(given, next);
                            state.begin(id, id + 500).unwrap();
                        }
                    }
                    Step::Leave(connection) => {
                        state.leave(connection);
                    }
                    // The pool gives no more than there are slots.
                    Step::Invoke if state.running.len() + state.waiting.len() < slots => {
                        invoked += 1;
                        match state.take() {
                            Some(_) => state.begin(invoked, invoked + 500).unwrap(),
                            None => state.wait(invoked),
                        }
                    }
                    Step::Invoke => {}
                    Step::Answer(id) => {
                        if let Ok(answer) = state.answer(&id) {
                            prop_assert_eq!(answer, id + 500);
                            prop_assert_eq!(state.answer(&id), Err(Refused::Twice));
                        }
                    }
                    Step::Abandon(id) => state.abandon(&id),
                }
                prop_assert!(state.asking.len() + state.running.len() <= slots + state.waiting.len());
                prop_assert!(state.waiting.is_empty() || state.asking.is_empty());
                prop_assert!(state.past.len() <= PAST_MAX + slots);
            }
        }
    }
}
