//! The task that holds the books of a node's queue against what the queue has, again and again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, Gauge};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::backend::{Audit, Queue};

/// What the task is made from.
#[derive(Debug)]
pub struct Args {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// How often it looks, and how long a look may take.
    pub interval: Duration,
    /// The node, for the log.
    pub node: String,
    /// Where the queue keeps its deliveries, for the log.
    pub backend: &'static str,
    /// What it tells.
    pub meters: Meters,
}

/// What is told of the books.
#[derive(Clone)]
pub struct Meters {
    /// What the books say is there.
    pub pending: Gauge,
    /// How many more there should be than there are.
    pub drift: Gauge,
    /// Looks that came to an end.
    pub done: Counter,
    /// Looks that did not.
    pub failed: Counter,
}

/// What was told in the log.
#[derive(Debug, Default)]
struct Told {
    /// The drift of the look before, until one is told.
    last: i64,
    is_told: bool,
}

/// What the gauges have of this node.
#[derive(Debug, Clone, Copy, Default)]
struct Shown {
    pending: i64,
    drift: i64,
}

/// What is worth a line in the log.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// The books are wrong, and have been for two looks.
    Wrong,
    /// They are right again.
    Right,
}

/// Looks again and again, until it is dropped.
pub async fn run(args: Args) {
    let Args {
        queue,
        interval: every,
        node,
        backend,
        meters,
    } = args;
    let (mut told, mut shown) = (Told::default(), Shown::default());
    let mut tick = interval(every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let audit = match timeout(every, queue.audit()).await {
            Ok(Ok(audit)) => audit,
            Ok(Err(error)) => {
                meters.failed.increment(1);
                tracing::debug!(%node, backend, %error, "the books of the queue can not be audited");
                continue;
            }
            Err(_) => {
                meters.failed.increment(1);
                tracing::warn!(%node, backend, ?every, "an audit of the queue's books did not end in time; queue.audit_interval is how long it may take");
                continue;
            }
        };
        meters.tell(&audit, &mut shown);
        let (drift, held) = (audit.drift(), audit.held);
        let pending = audit.books.pending();
        match told.see(drift) {
            Some(News::Wrong) => tracing::error!(
                %node, backend, drift, pending, held, books = %audit.books,
                "the books of the queue do not balance: {} (docs/operations.md says what to do, under \"hearth_queue_drift\")",
                advice(drift)
            ),
            Some(News::Right) => {
                tracing::info!(%node, backend, pending, "the books of the queue balance again");
            }
            None => {}
        }
    }
}

const fn advice(drift: i64) -> &'static str {
    match drift > 0 {
        true => "so many deliveries that were accepted are not where they should be",
        false => "so many deliveries are there that ended already, and may be made once more",
    }
}

impl Told {
    fn see(&mut self, drift: i64) -> Option<News> {
        let last = std::mem::replace(&mut self.last, drift);
        match (drift != 0, self.is_told) {
            (true, false) if last != 0 => {
                self.is_told = true;
                Some(News::Wrong)
            }
            (false, true) => {
                self.is_told = false;
                Some(News::Right)
            }
            _ => None,
        }
    }
}

impl Meters {
    /// Those that are exported; the recorder must be installed by then.
    pub fn exported() -> Self {
        let audits = |outcome| metrics::counter!("hearth_queue_audits_total", "outcome" => outcome);
        Self {
            pending: metrics::gauge!("hearth_queue_pending"),
            drift: metrics::gauge!("hearth_queue_drift"),
            done: audits("done"),
            failed: audits("failed"),
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a node holds fewer than 2^52 deliveries"
    )]
    /// Tells by how much it changed, as other nodes of the process add to the same gauges.
    fn tell(&self, audit: &Audit, shown: &mut Shown) {
        let now = Shown {
            pending: audit.books.pending(),
            drift: audit.drift(),
        };
        let before = std::mem::replace(shown, now);
        self.pending
            .increment((now.pending - before.pending) as f64);
        self.drift.increment((now.drift - before.drift) as f64);
        self.done.increment(1);
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_for_two_looks_is_told_once() {
        let mut told = Told::default();
        let wrong = || Some(News::Wrong);
        let right = || Some(News::Right);
        for (look, (drift, news)) in [
            (0, None),
            (1, None),
            (0, None),
            (2, None),
            (3, wrong()),
            (3, None),
            (0, right()),
            (0, None),
            (-1, None),
            (-1, wrong()),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(told.see(drift), news, "look {look}");
        }
    }
}
