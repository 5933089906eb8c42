//! What a loop counts, with handles that are looked up once.

use std::fmt;

use metrics::{Counter, Histogram};

use crate::backend::{Leased, Origin, Outcome};

/// What a loop counts.
#[derive(Clone)]
pub struct Meters {
    delivered: Counter,
    void: Counter,
    again: Counter,
    failed: Counter,
    pub(super) lost: Counter,
    processed: Counter,
    waited: Histogram,
}

impl Meters {
    /// Those of custom events; the recorder must be installed by then.
    pub fn custom() -> Self {
        Self {
            waited: metrics::histogram!("gateway_events_custom_processing_seconds"),
            ..Self::of("custom")
        }
    }

    /// Those of system events; the recorder must be installed by then.
    pub fn system() -> Self {
        Self::of("system")
    }

    fn of(lane: &'static str) -> Self {
        let ended = |outcome| metrics::counter!("hearth_deliveries_total", "lane" => lane, "outcome" => outcome);
        Self {
            delivered: ended("delivered"),
            void: ended("void"),
            again: ended("refused"),
            failed: ended("failed"),
            lost: ended("lost"),
            // The original counts system events among the custom ones.
            processed: metrics::counter!("gateway_events_processed_total", "space" => "", "type" => "custom"),
            waited: Histogram::noop(),
        }
    }

    /// Counts what was lost, for the queue that these meters belong to.
    pub fn lost(&self) -> Counter {
        self.lost.clone()
    }

    /// Counts the first attempt of a delivery, by how long it waited for that. An event counts with the first of its deliveries.
    pub(super) fn made(&self, leased: &Leased, outcome: &Outcome) {
        // An invocation is no event, nor is an end.
        if !matches!(leased.delivery.origin, Origin::Subscription(_)) {
            return;
        }
        if leased.attempts > 0 || matches!(outcome, Outcome::Again { counts: false, .. }) {
            return;
        }
        self.waited.record(leased.age);
        if leased.delivery.ordinal == 0 {
            self.processed.increment(1);
        }
    }

    pub(super) fn ended(&self, outcome: &Outcome) -> &Counter {
        match outcome {
            Outcome::Delivered => &self.delivered,
            Outcome::Again { .. } => &self.again,
            Outcome::DeadLetter { .. } | Outcome::Failed => &self.failed,
            Outcome::Void => &self.void,
        }
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}
