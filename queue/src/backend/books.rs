//! What a node wrote down of its deliveries, each where it happened, so that it can be held against what is there.

use std::fmt;

use metrics::Counter;

/// What happened to a delivery on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It was accepted here.
    Accepted,
    /// It was found when the queue was opened, from an earlier process.
    Found,
    /// Another node, or this one before it started again, held it; or it was put there by what was not answered.
    TakenOver,
    /// It was a dead letter, and waits again.
    Redriven,
    /// An attempt came to nothing, and there is to be another one.
    Retried,
    /// Its function took it.
    Delivered,
    /// It ended without success and is a dead letter, or only counted where there are none.
    DeadLettered,
    /// It ended without success, and that is written down elsewhere: in its execution.
    Failed,
    /// What it was for had ended before: an execution that was cancelled.
    Void,
    /// It was cancelled in the queue.
    Cancelled,
    /// Another node has it, or may have it.
    GivenUp,
    /// Nobody knows how it ended, and it is not made again.
    Lost,
}

/// How often each of it happened since the queue was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Books([u64; Change::ALL.len()]);

/// The books of a queue, and the counters that tell of them at once.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    books: Books,
    counters: Counters,
}

/// A counter for each change.
#[derive(Clone)]
pub struct Counters([Counter; Change::ALL.len()]);

/// What the books say at one moment, and what the queue really holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Audit {
    /// What was written down.
    pub books: Books,
    /// Deliveries that wait or are leased, and are where they are kept.
    pub held: u64,
}

impl Change {
    /// All of them, in the order in which they are declared.
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::Found,
        Self::TakenOver,
        Self::Redriven,
        Self::Retried,
        Self::Delivered,
        Self::DeadLettered,
        Self::Failed,
        Self::Void,
        Self::Cancelled,
        Self::GivenUp,
        Self::Lost,
    ];

    /// What it is called in metrics and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Found => "found",
            Self::TakenOver => "taken_over",
            Self::Redriven => "redriven",
            Self::Retried => "retried",
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
            Self::Failed => "failed",
            Self::Void => "void",
            Self::Cancelled => "cancelled",
            Self::GivenUp => "given_up",
            Self::Lost => "lost",
        }
    }

    /// Whether there is one more on this node by it, one less, or neither.
    const fn adds(self) -> i64 {
        match self {
            Self::Accepted | Self::Found | Self::TakenOver | Self::Redriven => 1,
            Self::Retried => 0,
            _ => -1,
        }
    }
}

impl Books {
    /// How often it happened.
    pub fn count(&self, change: Change) -> u64 {
        self.0[change as usize]
    }

    /// All that came to this node.
    pub fn taken_in(&self) -> u64 {
        self.sum(1)
    }

    /// All that left it or ended here.
    pub fn over(&self) -> u64 {
        self.sum(-1)
    }

    /// What must be there.
    pub fn pending(&self) -> i64 {
        signed(self.taken_in()) - signed(self.over())
    }

    fn sum(&self, adds: i64) -> u64 {
        let those = Change::ALL.iter().filter(|change| change.adds() == adds);
        those.map(|change| self.count(*change)).sum()
    }
}

impl Audit {
    /// How many more there should be than there are; below 0: how many are there that should not be.
    pub fn drift(&self) -> i64 {
        self.books.pending() - signed(self.held)
    }
}

impl Ledger {
    pub(super) fn new(counters: Counters) -> Self {
        Self {
            books: Books::default(),
            counters,
        }
    }

    /// Writes down what happened to so many deliveries.
    pub(super) fn note(&mut self, change: Change, deliveries: usize) {
        let deliveries = deliveries as u64;
        self.books.0[change as usize] += deliveries;
        self.counters.0[change as usize].increment(deliveries);
    }

    pub(super) fn books(&self) -> Books {
        self.books
    }
}

impl Counters {
    /// Those that are exported; the recorder must be installed by then.
    pub fn exported() -> Self {
        Self(Change::ALL.map(
            |change| metrics::counter!("hearth_queue_deliveries_total", "change" => change.name()),
        ))
    }

    /// Tells nobody.
    pub fn none() -> Self {
        Self(Change::ALL.map(|_| Counter::noop()))
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self::none()
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}

impl fmt::Display for Books {
    /// All that happened, as `accepted 3, delivered 2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let happened = Change::ALL.iter().filter(|change| self.count(**change) > 0);
        let mut is_first = true;
        for change in happened {
            let comma = if is_first { "" } else { ", " };
            write!(f, "{comma}{} {}", change.name(), self.count(*change))?;
            is_first = false;
        }
        if is_first {
            f.write_str("nothing")?;
        }
        Ok(())
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_is_what_is_over_and_what_is_there() {
        let mut ledger = Ledger::default();
        for (place, change) in Change::ALL.into_iter().enumerate() {
            assert_eq!(change as usize, place, "{change:?}");
            let before = ledger.books().pending();
            ledger.note(change, 3);
            assert_eq!(ledger.books().pending(), before + 3 * change.adds());
        }
        let books = ledger.books();
        assert_eq!((books.taken_in(), books.over()), (12, 21));
        for (held, drift) in [(0, -9), (1, -10)] {
            assert_eq!(Audit { books, held }.drift(), drift);
        }
        assert_eq!(Books::default().to_string(), "nothing");
        let mut few = Ledger::default();
        few.note(Change::Accepted, 2);
        few.note(Change::Void, 1);
        assert_eq!(few.books().to_string(), "accepted 2, void 1");
    }
}
