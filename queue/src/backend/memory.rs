//! Deliveries in the memory of the node, each made at most once: what waits is lost with the process, and what died is only
//! counted.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use metrics::{Counter, Gauge};
use protocol::Space;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::books::Ledger;
use super::lanes::{Held, LaneKey, Lanes};
pub use super::limits::Limits;
use super::limits::{count, room};
use super::{
    Audit, Change, Counters, DeadLetter, Delivery, DeliveryId, Error, Lease, Leased, Outcome,
    Permits, Promise, Queue, Stats,
};

/// What is told of a queue while it runs.
#[derive(Clone)]
pub struct Meters {
    /// Deliveries that wait.
    pub backlog: Gauge,
    /// Deliveries whose lease was lost, so that nobody knows how they ended.
    pub lost: Counter,
    /// What happens to deliveries.
    pub changes: Counters,
}

/// A queue in memory. A delivery whose lease was lost may have been made, so it is not made again.
pub struct MemoryQueue {
    limits: Limits,
    state: Mutex<State>,
    changed: Notify,
    meters: Meters,
}

#[derive(Debug, Default)]
struct State {
    lanes: Lanes<Waiting>,
    /// What waits for its pause to end, the first one due on top.
    paused: BinaryHeap<Paused>,
    leased: HashMap<DeliveryId, Out>,
    held: Held,
    ledger: Ledger,
    epoch: u64,
    /// No lease is over before this.
    next_expiry: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    delivery: Arc<Delivery>,
    since: Instant,
    attempts: u32,
}

#[derive(Debug)]
struct Paused {
    until: Instant,
    waiting: Waiting,
}

/// A delivery out on lease.
#[derive(Debug)]
struct Out {
    waiting: Waiting,
    epoch: u64,
    until: Instant,
}

impl MemoryQueue {
    /// Makes an empty queue.
    pub fn new(limits: Limits, meters: Meters) -> Self {
        let state = State {
            ledger: Ledger::new(meters.changes.clone()),
            ..State::default()
        };
        Self {
            limits,
            state: Mutex::new(state),
            changed: Notify::new(),
            meters,
        }
    }

    /// As [`Queue::enqueue`], at once.
    ///
    /// # Errors
    /// [`Error::Full`]; nothing was taken.
    pub fn try_enqueue(&self, deliveries: Vec<Delivery>) -> Result<(), Error> {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.held.len;
        let taken = state.take_all(deliveries, &self.limits, now);
        self.meters.tell(before, &state);
        drop(state);
        if taken.is_ok() {
            self.changed.notify_one();
        }
        taken
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    fn promise(&self) -> Promise {
        Promise::AtMostOnce
    }

    async fn enqueue(&self, deliveries: Vec<Delivery>) -> Result<(), Error> {
        self.try_enqueue(deliveries)
    }

    async fn lease(&self, mut permits: Permits) -> Result<Vec<Leased>, Error> {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.held.len;
        let lost = state.drop_expired(now);
        state.ledger.note(Change::Lost, lost);
        state.end_pauses(now);
        let mut leased = Vec::with_capacity(permits.free.min(state.held.len));
        while let Some(waiting) = state.lanes.take(permits, Waiting::bytes) {
            permits.free -= 1;
            leased.push(state.lease(waiting, now, self.limits.lease_timeout));
        }
        self.meters.tell(before, &state);
        drop(state);
        if lost > 0 {
            tracing::error!(
                lost,
                "deliveries were neither settled nor extended, so nobody knows how they ended"
            );
            self.meters.lost.increment(lost as u64);
        }
        Ok(leased)
    }

    async fn ready(&self) {
        let due = self.state().next_due();
        match due {
            // A pause or lease that is shorter begins with a notification, so this is looked up again then.
            Some(due) => tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep_until(due) => {}
            },
            None => self.changed.notified().await,
        }
    }

    async fn extend(&self, lease: &Lease) -> Result<(), Error> {
        let until = Instant::now() + self.limits.lease_timeout;
        let mut state = self.state();
        match state.leased.get_mut(&lease.id) {
            Some(out) if out.epoch == lease.epoch => {
                out.until = until;
                Ok(())
            }
            _ => Err(Error::LeaseLost(*lease)),
        }
    }

    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error> {
        let now = Instant::now();
        let mut state = self.state();
        let before = state.held.len;
        let Some(out) = state.end_lease(lease) else {
            return Err(Error::LeaseLost(*lease));
        };
        state.ledger.note(outcome.change(), 1);
        if let Outcome::Again { after, counts } = outcome {
            let mut waiting = out.waiting;
            waiting.attempts -= u32::from(!counts);
            state.pause(waiting, now + after);
        }
        self.meters.tell(before, &state);
        // The function may have another lease now.
        let is_worth_a_look = state.held.len > 0;
        drop(state);
        if is_worth_a_look {
            self.changed.notify_one();
        }
        Ok(())
    }

    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error> {
        let mut state = self.state();
        let before = state.held.len;
        let is_cancelled = state.cancel(id);
        state
            .ledger
            .note(Change::Cancelled, usize::from(is_cancelled));
        self.meters.tell(before, &state);
        let is_worth_a_look = is_cancelled && state.held.len > 0;
        drop(state);
        if is_worth_a_look {
            self.changed.notify_one();
        }
        Ok(is_cancelled)
    }

    async fn dead_letters(&self, _after: u64, _max: usize) -> Result<Vec<DeadLetter>, Error> {
        Ok(Vec::new())
    }

    async fn dead_letter(&self, _id: DeliveryId) -> Result<Option<DeadLetter>, Error> {
        Ok(None)
    }

    async fn redrive(&self, _id: DeliveryId) -> Result<bool, Error> {
        Ok(false)
    }

    async fn purge(&self, _id: DeliveryId) -> Result<bool, Error> {
        Ok(false)
    }

    fn stats(&self) -> Stats {
        let state = self.state();
        Stats {
            waiting: state.held.len,
            waiting_bytes: state.held.bytes,
            leased: state.leased.len(),
            dead: 0,
        }
    }

    fn waiting_of(&self, space: &Space) -> usize {
        self.state().lanes.waiting_of(space)
    }

    async fn audit(&self) -> Result<Audit, Error> {
        let state = self.state();
        let held = state.lanes.len() + state.paused.len() + state.leased.len();
        Ok(Audit {
            books: state.ledger.books(),
            held: held as u64,
        })
    }
}

impl fmt::Debug for MemoryQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryQueue")
            .field("limits", &self.limits)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl State {
    /// Takes all or none.
    fn take_all(
        &mut self,
        deliveries: Vec<Delivery>,
        limits: &Limits,
        now: Instant,
    ) -> Result<(), Error> {
        let added = limits.admit(&mut self.held, &mut self.lanes, &deliveries)?;
        self.ledger.note(Change::Accepted, deliveries.len());
        let wall = SystemTime::now();
        for (delivery, (key, _)) in deliveries.into_iter().zip(added) {
            let delay = delivery
                .not_before
                .and_then(|moment| moment.duration_since(wall).ok());
            let waiting = Waiting {
                delivery: Arc::new(delivery),
                since: now,
                attempts: 0,
            };
            match delay {
                Some(delay) => self.paused.push(Paused {
                    until: now + delay,
                    waiting,
                }),
                None => self.lanes.push(&key, waiting),
            }
        }
        Ok(())
    }

    fn lease(&mut self, mut waiting: Waiting, now: Instant, lease_timeout: Duration) -> Leased {
        self.held.remove(waiting.bytes());
        self.epoch += 1;
        let until = now + lease_timeout;
        let attempts = waiting.attempts;
        waiting.attempts += 1;
        let leased = Leased {
            lease: Lease {
                id: waiting.delivery.id,
                epoch: self.epoch,
            },
            delivery: Arc::clone(&waiting.delivery),
            attempts,
            age: now.saturating_duration_since(waiting.since),
        };
        self.next_expiry = Some(self.next_expiry.map_or(until, |next| next.min(until)));
        let out = Out {
            waiting,
            epoch: self.epoch,
            until,
        };
        self.leased.insert(leased.lease.id, out);
        leased
    }

    fn end_lease(&mut self, lease: &Lease) -> Option<Out> {
        let is_held = |out: &Out| out.epoch == lease.epoch;
        self.leased.get(&lease.id).filter(|out| is_held(out))?;
        let out = self.leased.remove(&lease.id)?;
        self.lanes.end_lease(&LaneKey::of(&out.waiting.delivery));
        Some(out)
    }

    fn pause(&mut self, waiting: Waiting, until: Instant) {
        let bytes = waiting.bytes();
        // It had its room before, so it is not refused now, even if others took that meanwhile.
        self.held.add(bytes);
        self.lanes.hold(&LaneKey::of(&waiting.delivery), bytes);
        self.paused.push(Paused { until, waiting });
    }

    fn end_pauses(&mut self, now: Instant) {
        while self.paused.peek().is_some_and(|paused| paused.until <= now) {
            let Some(Paused { waiting, .. }) = self.paused.pop() else {
                return;
            };
            self.lanes.push(&LaneKey::of(&waiting.delivery), waiting);
        }
    }

    /// Forgets deliveries whose lease is over, and says how many.
    fn drop_expired(&mut self, now: Instant) -> usize {
        if self.next_expiry.is_none_or(|next| now < next) {
            return 0;
        }
        let expired: Vec<Lease> = self
            .leased
            .iter()
            .filter(|(_, out)| out.until <= now)
            .map(|(id, out)| Lease {
                id: *id,
                epoch: out.epoch,
            })
            .collect();
        for lease in &expired {
            self.end_lease(lease);
        }
        self.next_expiry = self.leased.values().map(|out| out.until).min();
        expired.len()
    }

    fn next_due(&self) -> Option<Instant> {
        let paused = self.paused.peek().map(|paused| paused.until);
        paused.into_iter().chain(self.next_expiry).min()
    }

    fn cancel(&mut self, id: DeliveryId) -> bool {
        if let Some(epoch) = self.leased.get(&id).map(|out| out.epoch) {
            return self.end_lease(&Lease { id, epoch }).is_some();
        }
        let is_it = |waiting: &Waiting| waiting.delivery.id == id;
        let found = match self.lanes.remove(is_it) {
            Some(found) => Some(found),
            None => {
                let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.paused)
                    .into_iter()
                    .partition(|paused| is_it(&paused.waiting));
                self.paused = rest.into();
                let waiting = found.into_iter().next().map(|paused| paused.waiting);
                waiting.map(|waiting| (LaneKey::of(&waiting.delivery), waiting))
            }
        };
        let Some((key, waiting)) = found else {
            return false;
        };
        self.held.remove(waiting.bytes());
        self.lanes.release(&key, waiting.bytes());
        true
    }
}

impl Waiting {
    fn bytes(&self) -> usize {
        room(&self.delivery)
    }
}

impl Meters {
    /// Tells nobody.
    pub fn none() -> Self {
        Self {
            backlog: Gauge::noop(),
            lost: Counter::noop(),
            changes: Counters::none(),
        }
    }

    /// Tells by how much the queue grew or shrank, as other nodes of the process add to the same gauge.
    fn tell(&self, before: usize, state: &State) {
        self.backlog
            .increment(count(state.held.len) - count(before));
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}

impl PartialEq for Paused {
    fn eq(&self, other: &Self) -> bool {
        self.until == other.until
    }
}

impl Eq for Paused {}

impl PartialOrd for Paused {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// The one that is due first is the greatest, so that it is on top of the heap.
impl Ord for Paused {
    fn cmp(&self, other: &Self) -> Ordering {
        other.until.cmp(&self.until)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::conformance;
    use super::*;
    use crate::audit;

    #[tokio::test(start_paused = true)]
    async fn conforms() {
        let make = |limits| async move { MemoryQueue::new(limits, Meters::none()) };
        Box::pin(conformance::all(make)).await;
    }

    /// The task looks at its own pace, and its gauge says how much was forgotten for as long as it is.
    #[tokio::test(start_paused = true)]
    async fn an_audit_tells_what_was_forgotten() {
        let queue = Arc::new(MemoryQueue::new(conformance::limits(), Meters::none()));
        let sent = conformance::deliveries("f", 3);
        queue.enqueue(sent.clone()).await.unwrap();
        let (drift, pending, done) = Default::default();
        let meters = audit::Meters {
            drift: Gauge::from_arc(Arc::<AtomicU64>::clone(&drift)),
            pending: Gauge::from_arc(Arc::<AtomicU64>::clone(&pending)),
            done: Counter::from_arc(Arc::<AtomicU64>::clone(&done)),
            failed: Counter::noop(),
        };
        let mut auditing = tokio::task::JoinSet::new();
        auditing.spawn(audit::run(audit::Args {
            queue: queue.clone(),
            interval: Duration::from_secs(60),
            node: "n1".into(),
            backend: "memory",
            meters,
        }));
        let told = async |looks: u64| {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!(done.load(Relaxed), looks);
            [&drift, &pending].map(|gauge| f64::from_bits(gauge.load(Relaxed)))
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(told(2).await, [0.0, 3.0]);
        let forgotten = queue
            .state()
            .lanes
            .remove(|waiting| waiting.delivery.ordinal == 1);
        assert_eq!(told(3).await, [1.0, 3.0]);
        assert!(queue.cancel(sent[0].id).await.unwrap());
        assert_eq!(told(4).await, [1.0, 2.0]);
        let (lane, waiting) = forgotten.unwrap();
        queue.state().lanes.push(&lane, waiting);
        assert_eq!(told(5).await, [0.0, 2.0]);
    }

    /// A queue of the size a node has, filled, leaves nothing behind when it is worked off.
    #[tokio::test(start_paused = true)]
    async fn an_empty_queue_has_no_lanes_left() {
        let queue = MemoryQueue::new(conformance::limits(), Meters::none());
        for function in 0..100 {
            let function = format!("f{function}");
            let deliveries = conformance::deliveries(&function, 3);
            queue.enqueue(deliveries).await.unwrap();
        }
        let permits = Permits {
            free: 1_000,
            total: 1_000,
        };
        for leased in queue.lease(permits).await.unwrap() {
            queue
                .settle(&leased.lease, Outcome::Delivered)
                .await
                .unwrap();
        }
        assert_eq!(queue.stats(), Stats::default());
        assert_eq!(
            format!("{:?}", queue.state().lanes),
            "Lanes { lanes: {}, turns: [], spaces: {} }"
        );
    }
}
