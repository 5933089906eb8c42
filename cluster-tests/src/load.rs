//! Clients that call without pause and write down every result.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Answer, Lost};
use crate::node::Node;
use crate::wait::eventually;

/// Whom the clients call.
#[derive(Debug, Clone)]
pub enum Targets {
    /// Client n always calls node n, counted round.
    Each(Vec<Node>),
    /// Every client calls the ready nodes in turn, as a balancer does: it asks `/v1/ready`, and a refused connection makes it
    /// take the next node.
    Balanced(Vec<Node>),
}

/// One call and what came of it.
#[derive(Debug, Clone)]
pub struct Call {
    /// The node that was called.
    pub target: String,
    /// When it began.
    pub begun: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What came back.
    pub outcome: Result<Answer, Lost>,
}

impl Call {
    /// Whether the function ran and succeeded.
    pub fn is_ok(&self) -> bool {
        self.outcome.as_ref().is_ok_and(Answer::is_ok)
    }

    /// Whether it was under way at that moment.
    pub fn spans(&self, moment: Instant) -> bool {
        self.begun <= moment && moment <= self.ended
    }

    /// The error code, if the answer has one.
    pub fn error(&self) -> Option<&str> {
        self.outcome.as_ref().ok()?.error.as_deref()
    }

    /// `status code;component`, or that there was no answer.
    pub fn summary(&self) -> String {
        match &self.outcome {
            Ok(answer) => answer.summary(),
            Err(lost) if lost.is_refused => "connection refused".to_owned(),
            Err(_) => "no answer".to_owned(),
        }
    }
}

/// Clients that call without pause until [`Load::stop`].
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    tracker: TaskTracker,
    cancel: CancellationToken,
}

struct Shared {
    nodes: Vec<(Node, AtomicBool)>,
    is_balanced: bool,
    function: String,
    payload: Box<dyn Fn(u64) -> Value + Send + Sync>,
    next: AtomicU64,
    ended: AtomicUsize,
    calls: Mutex<Vec<Call>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("function", &self.function)
            .finish_non_exhaustive()
    }
}

impl Load {
    /// Starts `clients` that call `function` with `payload(n)` for the n-th call of all.
    pub fn start(
        targets: Targets,
        clients: usize,
        function: &str,
        payload: impl Fn(u64) -> Value + Send + Sync + 'static,
    ) -> Self {
        let (nodes, is_balanced) = match targets {
            Targets::Each(nodes) => (nodes, false),
            Targets::Balanced(nodes) => (nodes, true),
        };
        let shared = Arc::new(Shared {
            nodes: nodes
                .into_iter()
                .map(|node| (node, AtomicBool::new(true)))
                .collect(),
            is_balanced,
            function: function.to_owned(),
            payload: Box::new(payload),
            next: AtomicU64::new(0),
            ended: AtomicUsize::new(0),
            calls: Mutex::default(),
        });
        let tracker = TaskTracker::new();
        let cancel = CancellationToken::new();
        for client in 0..clients {
            tracker.spawn(Arc::clone(&shared).call_on(client, cancel.clone()));
        }
        if is_balanced {
            for place in 0..shared.nodes.len() {
                tracker.spawn(Arc::clone(&shared).watch_readiness(place, cancel.clone()));
            }
        }
        tracker.close();
        Self {
            shared,
            tracker,
            cancel,
        }
    }

    /// How many calls have ended.
    pub fn ended(&self) -> usize {
        self.shared.ended.load(Ordering::Relaxed)
    }

    /// Takes out the calls that have ended, for a run so long that they can not all be kept.
    pub fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().expect("no holder panics"))
    }

    /// A copy of the calls that have ended and were not taken out.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().expect("no holder panics").clone()
    }

    /// Waits until `count` calls more have ended, whatever came of them.
    ///
    /// # Panics
    /// When they have not within `bound`.
    pub async fn more(&self, count: usize, bound: Duration) {
        let goal = self.ended() + count;
        eventually(&format!("{count} more calls end"), bound, || async {
            let ended = self.ended();
            if ended >= goal {
                Ok(())
            } else {
                Err(format!("{ended} of {goal}"))
            }
        })
        .await;
    }

    /// Waits until `count` calls that begin from now on have succeeded.
    ///
    /// # Panics
    /// When they have not within `bound`.
    pub async fn more_successes(&self, count: usize, bound: Duration) {
        let from = Instant::now();
        eventually(&format!("{count} more calls succeed"), bound, || async {
            let calls = self.calls();
            let good = calls
                .iter()
                .filter(|call| call.begun >= from && call.is_ok())
                .count();
            if good >= count {
                Ok(())
            } else {
                Err(format!("{good} of {count}: {}", counts(&calls)))
            }
        })
        .await;
    }

    /// Lets each client end its call, and returns all calls in the order they ended.
    pub async fn stop(self) -> Vec<Call> {
        self.cancel.cancel();
        self.tracker.wait().await;
        self.calls()
    }
}

impl Shared {
    async fn call_on(self: Arc<Self>, client: usize, cancel: CancellationToken) {
        while !cancel.is_cancelled() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let begun = Instant::now();
            let (target, outcome) = self.call(client, number).await;
            let was_refused = outcome.as_ref().is_err_and(|lost| lost.is_refused);
            let call = Call {
                target,
                begun,
                ended: Instant::now(),
                outcome,
            };
            self.calls.lock().expect("no holder panics").push(call);
            self.ended.fetch_add(1, Ordering::Relaxed);
            if was_refused {
                // A dead node refuses thousands of connections a second, which would drown the others.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    async fn call(&self, client: usize, number: u64) -> (String, Result<Answer, Lost>) {
        let count = self.nodes.len();
        let payload = (self.payload)(number);
        if !self.is_balanced {
            let node = &self.nodes[client % count].0;
            return (
                node.name().to_owned(),
                node.try_invoke(&self.function, payload).await,
            );
        }
        let first = usize::try_from(number).expect("usize has 64 bits") % count;
        let turn = (0..count).map(|step| &self.nodes[(first + step) % count]);
        // Nodes that say they are not ready come last, for when none is.
        let (ready, rest): (Vec<_>, Vec<_>) =
            turn.partition(|(_, is_ready)| is_ready.load(Ordering::Relaxed));
        let mut outcome = None;
        for (node, _) in ready.into_iter().chain(rest) {
            let answer = node.try_invoke(&self.function, payload.clone()).await;
            let is_refused = answer.as_ref().is_err_and(|lost| lost.is_refused);
            outcome = Some((node.name().to_owned(), answer));
            if !is_refused {
                break;
            }
        }
        outcome.expect("a load has at least one target")
    }

    async fn watch_readiness(self: Arc<Self>, place: usize, cancel: CancellationToken) {
        let (node, is_ready) = &self.nodes[place];
        while !cancel.is_cancelled() {
            is_ready.store(node.is_ready().await, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// The calls that did not succeed.
pub fn failures(calls: &[Call]) -> Vec<&Call> {
    calls.iter().filter(|call| !call.is_ok()).collect()
}

/// How many calls ended how, for messages.
pub fn counts(calls: &[Call]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for call in calls {
        *counts.entry(call.summary()).or_default() += 1;
    }
    counts
        .iter()
        .fold(String::new(), |mut text, (summary, count)| {
            let _ = write!(text, "{count} x [{summary}] ");
            text
        })
}

/// Panics with the first few failures when there are any.
///
/// # Panics
/// When a call did not succeed.
#[track_caller]
pub fn assert_all_ok(calls: &[Call]) {
    let failures = failures(calls);
    let first: Vec<_> = failures.iter().take(5).collect();
    assert!(
        failures.is_empty(),
        "{} calls failed, of {}; the first: {first:#?}",
        failures.len(),
        counts(calls)
    );
}
