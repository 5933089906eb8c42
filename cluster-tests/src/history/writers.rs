//! Clients that emit events, each with an id of its own, and note what they were told.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use tokio::time::{Instant, timeout};

use super::{Ledger, Line, Told};
use crate::api::{Answer, Lost, send};
use crate::node::Node;
use crate::wait::until;

/// How long a writer waits until it asks another node.
const PATIENCE: Duration = Duration::from_secs(2);

/// How soon all events must be accepted, whatever is done to the nodes.
const WRITTEN: Duration = Duration::from_secs(240);

/// The pause of a writer that was not told 202, or is to wait.
const AGAIN: Duration = Duration::from_millis(50);

/// Writers, and what they have done so far.
#[derive(Debug)]
pub(super) struct Writers {
    pub(super) nodes: Vec<Node>,
    pub(super) ledger: Arc<Ledger>,
    /// How many events are to be accepted.
    pub(super) events: usize,
    /// How many write at once.
    pub(super) count: usize,
    /// How long it should take.
    pub(super) pace: Duration,
    /// How many may be accepted by now.
    allowed: AtomicUsize,
    accepted: AtomicUsize,
    emitted: AtomicUsize,
}

impl Writers {
    pub(super) fn new(
        nodes: Vec<Node>,
        ledger: Arc<Ledger>,
        events: usize,
        count: usize,
        pace: Duration,
    ) -> Self {
        Self {
            nodes,
            ledger,
            events,
            count,
            pace,
            allowed: AtomicUsize::new(0),
            accepted: AtomicUsize::new(0),
            emitted: AtomicUsize::new(0),
        }
    }

    /// Emits events until enough are accepted. One that was not accepted is followed by another one, with another id.
    ///
    /// # Panics
    /// When they are not accepted in time, or one is refused for what it says.
    pub(super) async fn write(&self) {
        let writers = (0..self.count).map(|_| self.write_some());
        timeout(WRITTEN, join_all(writers))
            .await
            .unwrap_or_else(|_| {
                let accepted = self.accepted.load(Ordering::Relaxed);
                panic!(
                    "{accepted} of {} events are accepted after {WRITTEN:?}",
                    self.events
                )
            });
    }

    /// Lets that part of the events come, of so many parts, and waits until the middle of it has been accepted.
    pub(super) async fn begin(&self, part: usize, parts: usize) {
        let end = self.events * (part + 1) / parts;
        self.allowed.store(end, Ordering::Relaxed);
        let middle = self.events * (2 * part + 1) / (2 * parts);
        let what = format!("{middle} events are accepted");
        until(&what, WRITTEN, || async {
            self.accepted.load(Ordering::Relaxed) >= middle
        })
        .await;
    }

    fn are_done(&self) -> bool {
        self.accepted.load(Ordering::Relaxed) >= self.events
    }

    async fn write_some(&self) {
        let share = u32::try_from(self.events / self.count).unwrap_or(u32::MAX);
        let pause = self.pace / share.max(1);
        let mut due = Instant::now();
        while !self.are_done() {
            let accepted = self.accepted.load(Ordering::Relaxed);
            if accepted >= self.allowed.load(Ordering::Relaxed) {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let number = self.emitted.fetch_add(1, Ordering::Relaxed);
            let (id, node) = (
                format!("e-{number}"),
                &self.nodes[number % self.nodes.len()],
            );
            let told = match timeout(PATIENCE, emit(node, &id)).await {
                Ok(answer) => told(&answer),
                Err(_) => Told::Unknown,
            };
            self.ledger.note(&Line::Emit { id, told });
            if told == Told::Accepted {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                due = (due + pause).max(Instant::now());
                tokio::time::sleep_until(due).await;
            } else {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Emits a CloudEvent.
async fn emit(node: &Node, id: &str) -> Result<Answer, Lost> {
    let request = node.request(Method::POST, &node.events_url("/"));
    let attributes = [
        ("ce-specversion", "1.0"),
        ("ce-type", "tick"),
        ("ce-source", "history"),
        ("ce-id", id),
        ("content-type", "application/json"),
    ];
    let request = attributes
        .into_iter()
        .fold(request, |request, (name, value)| {
            request.header(name, value)
        });
    send(request.body(format!("{{\"of\":\"{id}\"}}"))).await
}

/// What a writer may conclude from an answer.
fn told(answer: &Result<Answer, Lost>) -> Told {
    let answer = match answer {
        Ok(answer) => answer,
        Err(lost) if lost.is_refused => return Told::Refused,
        Err(_) => return Told::Unknown,
    };
    match answer.status {
        202 => Told::Accepted,
        503 if answer.body.contains("may have taken it") => Told::Unknown,
        503 | 429 => Told::Refused,
        _ => panic!("an event was answered with {answer:?}"),
    }
}
