//! The slots of one instance key: taken without a mailbox, waited for oldest first.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use protocol::invocation::StartKind;
use protocol::{Failure, InstanceId, InstanceKey, Phases};
use providers::Invoke;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::attention::Attention;
use super::budget::Reservation;
use super::journal::{Entry, Journal};

/// The slots of one instance key. The executor alone adds and removes instances; anyone takes slots.
#[derive(Debug)]
pub struct Pool {
    key: InstanceKey,
    concurrency: u32,
    waiters_max: usize,
    attention: Attention,
    journal: Journal,
    /// Whether the executor was already told to look here; at most one notice is under way.
    is_noticed: AtomicBool,
    slots: Mutex<Slots>,
}

#[derive(Debug, Default)]
struct Slots {
    seats: Vec<Seat>,
    waiters: VecDeque<Waiter>,
    is_closed: bool,
}

/// One instance, as the pool sees it.
#[derive(Debug)]
struct Seat {
    id: InstanceId,
    invoke: Arc<dyn Invoke>,
    entry: Entry,
    busy: u32,
    state: SeatState,
    idle_since: Instant,
    /// Slots that calls of an earlier generation may still hold, and until when.
    inherited: Option<(u32, Instant)>,
    reservation: Reservation,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SeatState {
    /// Takes work.
    Open,
    /// Takes none: it is suspect, or the executor drains it.
    Draining,
}

#[derive(Debug)]
struct Waiter {
    since: Instant,
    grant: oneshot::Sender<Grant>,
}

/// What a waiter gets.
#[derive(Debug)]
enum Grant {
    Slot(Box<Checkout>),
    Failed(Failure),
    Closed,
}

/// Why a wait ended without a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitError {
    /// As many wait already as may.
    Full,
    /// No slot came free in time.
    TimedOut,
    /// The function was replaced or deleted: look it up anew.
    Closed,
    /// The instance that was to serve it could not be started.
    Failed(Failure),
}

/// A pool at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Slots free now.
    pub free_slots: u32,
    /// Slots in use.
    pub busy: u32,
    /// Instances that take work.
    pub open: u32,
    /// Instances that are up.
    pub up: u32,
    /// Invocations that wait.
    pub waiters: usize,
    /// Whether the function was replaced or deleted.
    pub is_closed: bool,
}

/// An instance at one moment, for the executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SeatStatus {
    pub(crate) id: InstanceId,
    pub(crate) busy: u32,
    pub(crate) is_open: bool,
    pub(crate) idle_since: Instant,
}

/// A slot in use. Dropped without [`Checkout::finish`] after the payload was handed over, it marks its instance suspect:
/// nobody knows what it still does.
pub struct Checkout {
    pool: Arc<Pool>,
    id: InstanceId,
    invoke: Arc<dyn Invoke>,
    entry: Entry,
    /// How long the start took, when the caller waited for it.
    start_phases: Option<Phases>,
    has_payload: bool,
    is_returned: bool,
}

impl Pool {
    pub(crate) fn new(
        key: InstanceKey,
        concurrency: u32,
        waiters_max: usize,
        attention: Attention,
        journal: Journal,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            concurrency,
            waiters_max,
            attention,
            journal,
            is_noticed: AtomicBool::new(false),
            slots: Mutex::default(),
        })
    }

    /// The pool's instance key.
    pub fn key(&self) -> InstanceKey {
        self.key
    }

    /// Slots of one instance.
    pub fn concurrency(&self) -> u32 {
        self.concurrency
    }

    /// Takes a free slot of the instance that has been up longest, so that younger ones fall idle and stop.
    pub fn try_checkout(self: &Arc<Self>) -> Option<Checkout> {
        let mut slots = self.lock();
        if slots.is_closed || !self.is_queue_empty(&mut slots) {
            return None;
        }
        self.take(&mut slots)
    }

    /// Takes a slot, or waits for one behind those who wait already. The executor is told that there is demand.
    ///
    /// # Errors
    /// [`WaitError`]; nothing ran.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the queue; a slot that was granted meanwhile is passed on.
    pub async fn checkout(self: &Arc<Self>, until: Instant) -> Result<Checkout, WaitError> {
        let receiver = {
            let mut slots = self.lock();
            if slots.is_closed {
                return Err(WaitError::Closed);
            }
            if self.is_queue_empty(&mut slots)
                && let Some(checkout) = self.take(&mut slots)
            {
                return Ok(checkout);
            }
            slots.drop_those_who_gave_up();
            if slots.waiters.len() >= self.waiters_max {
                return Err(WaitError::Full);
            }
            let (grant, receiver) = oneshot::channel();
            let since = Instant::now();
            slots.waiters.push_back(Waiter { since, grant });
            receiver
        };
        self.notice();
        match tokio::time::timeout_at(until, receiver).await {
            Ok(Ok(Grant::Slot(checkout))) => Ok(*checkout),
            Ok(Ok(Grant::Failed(failure))) => Err(WaitError::Failed(failure)),
            Ok(Ok(Grant::Closed) | Err(_)) => Err(WaitError::Closed),
            Err(_) => Err(WaitError::TimedOut),
        }
    }

    /// The pool at this moment.
    pub fn status(&self) -> PoolStatus {
        let slots = self.lock();
        let now = Instant::now();
        let mut status = PoolStatus {
            waiters: slots
                .waiters
                .iter()
                .filter(|waiter| !waiter.grant.is_closed())
                .count(),
            is_closed: slots.is_closed,
            ..PoolStatus::default()
        };
        for seat in &slots.seats {
            status.up += 1;
            status.busy += seat.busy;
            if seat.state == SeatState::Open {
                status.open += 1;
                status.free_slots += seat.free(self.concurrency, now);
            }
        }
        if status.waiters > 0 || status.is_closed {
            status.free_slots = 0;
        }
        status
    }

    /// Since when the invocation waits that waits longest.
    pub(crate) fn waited_since(&self) -> Option<Instant> {
        let slots = self.lock();
        let mut waiting = (slots.waiters.iter()).filter(|waiter| !waiter.grant.is_closed());
        waiting.next().map(|waiter| waiter.since)
    }

    /// Whether one more invocation may wait.
    pub fn may_wait(&self) -> bool {
        let mut slots = self.lock();
        if slots.waiters.len() >= self.waiters_max {
            slots.drop_those_who_gave_up();
        }
        !slots.is_closed && slots.waiters.len() < self.waiters_max
    }

    /// The ids of the instances that are up.
    pub fn instance_ids(&self) -> Vec<InstanceId> {
        self.lock()
            .seats
            .iter()
            .map(|seat| seat.id.clone())
            .collect()
    }

    /// Adds an instance that is ready and hands its slots to those who wait.
    pub(crate) fn add(
        self: &Arc<Self>,
        id: InstanceId,
        invoke: Arc<dyn Invoke>,
        start_phases: Option<Phases>,
        inherited: Option<(u32, Instant)>,
        reservation: Reservation,
    ) {
        let mut slots = self.lock();
        let entry = self.journal.open(&id);
        if inherited.is_none() {
            // Whatever an earlier generation left there has ended by now.
            entry.settle();
        }
        slots.seats.push(Seat {
            id,
            invoke,
            entry,
            busy: 0,
            state: SeatState::Open,
            idle_since: Instant::now(),
            inherited,
            reservation,
        });
        self.grant(&mut slots, start_phases.as_ref());
    }

    /// Lets an instance take no more work unless something runs on it; true when it drains now.
    pub(crate) fn drain_if_idle(&self, id: &InstanceId) -> bool {
        let mut slots = self.lock();
        let idle =
            |seat: &&mut Seat| seat.id == *id && seat.busy == 0 && seat.state == SeatState::Open;
        match slots.seats.iter_mut().find(idle) {
            Some(seat) => {
                seat.state = SeatState::Draining;
                true
            }
            None => false,
        }
    }

    /// Removes an instance, whatever runs on it; its share of the budget is the caller's to give back.
    pub(crate) fn remove(&self, id: &InstanceId) -> Option<Reservation> {
        let mut slots = self.lock();
        let index = slots.seats.iter().position(|seat| seat.id == *id)?;
        let seat = slots.seats.remove(index);
        self.journal.close(&seat.entry);
        Some(seat.reservation)
    }

    /// Takes no more work for good: those who wait look the function up anew, instances drain.
    pub(crate) fn close(&self) {
        let mut slots = self.lock();
        slots.is_closed = true;
        for seat in &mut slots.seats {
            seat.state = SeatState::Draining;
        }
        for waiter in slots.waiters.drain(..) {
            // A waiter that gave up needs no answer.
            let _ = waiter.grant.send(Grant::Closed);
        }
    }

    /// Whether the function was replaced or deleted.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Takes work again: the function is back as it was. Instances that drain go on draining.
    pub(crate) fn reopen(&self) {
        self.lock().is_closed = false;
    }

    /// Tells all who wait why nothing will come.
    pub(crate) fn fail_waiters(&self, failure: &Failure) {
        for waiter in self.lock().waiters.drain(..) {
            let _ = waiter.grant.send(Grant::Failed(failure.clone()));
        }
    }

    /// The instances at this moment.
    pub(crate) fn seats(&self) -> Vec<SeatStatus> {
        let seat_status = |seat: &Seat| SeatStatus {
            id: seat.id.clone(),
            busy: seat.busy,
            is_open: seat.state == SeatState::Open,
            idle_since: seat.idle_since,
        };
        self.lock().seats.iter().map(seat_status).collect()
    }

    /// Hands free slots to those who wait; needed when slots of an earlier generation come free by time alone.
    pub(crate) fn grant_waiters(self: &Arc<Self>) {
        let mut slots = self.lock();
        let now = Instant::now();
        for seat in &mut slots.seats {
            if seat.inherited.take_if(|(_, until)| now >= *until).is_some() {
                seat.entry.settle();
            }
        }
        self.grant(&mut slots, None);
    }

    /// Marks that the executor looks now; what changes from here on tells it again.
    pub(crate) fn clear_notice(&self) {
        self.is_noticed.store(false, Ordering::Release);
    }

    fn notice(&self) {
        if !self.is_noticed.swap(true, Ordering::AcqRel) {
            self.attention.ask(self.key);
        }
    }

    /// Whether nobody waits. Those who do may be served first: slots of an earlier generation come free by time alone.
    fn is_queue_empty(self: &Arc<Self>, slots: &mut Slots) -> bool {
        if !slots.waiters.is_empty() {
            self.grant(slots, None);
        }
        slots.waiters.is_empty()
    }

    fn take(self: &Arc<Self>, slots: &mut Slots) -> Option<Checkout> {
        // The clock is read only where a call of an earlier generation may still hold slots.
        let has_inherited = slots.seats.iter().any(|seat| seat.inherited.is_some());
        let now = has_inherited.then(Instant::now);
        let seat = slots.seats.iter_mut().find(|seat| {
            let free = match now {
                Some(now) => seat.free(self.concurrency, now),
                None => self.concurrency.saturating_sub(seat.busy),
            };
            seat.state == SeatState::Open && free > 0
        })?;
        seat.busy += 1;
        Some(Checkout {
            pool: Arc::clone(self),
            id: seat.id.clone(),
            invoke: Arc::clone(&seat.invoke),
            entry: seat.entry.clone(),
            start_phases: None,
            has_payload: false,
            is_returned: false,
        })
    }

    /// Hands free slots to those who wait, oldest first; `start_phases` are those of the start they waited for.
    fn grant(self: &Arc<Self>, slots: &mut Slots, start_phases: Option<&Phases>) {
        while let Some(waiter) = slots.waiters.front() {
            if waiter.grant.is_closed() {
                slots.waiters.pop_front();
                continue;
            }
            let Some(mut checkout) = self.take(slots) else {
                return;
            };
            let Some(waiter) = slots.waiters.pop_front() else {
                return;
            };
            checkout.start_phases = start_phases.copied();
            if let Err(Grant::Slot(mut unwanted)) =
                waiter.grant.send(Grant::Slot(Box::new(checkout)))
            {
                // The waiter gave up this very moment: nothing ran, so the slot goes to the next.
                unwanted.is_returned = true;
                give_back(slots, &unwanted.id, true);
            }
        }
    }

    fn release(self: &Arc<Self>, id: &InstanceId, is_healthy: bool) {
        let needs_executor = {
            let mut slots = self.lock();
            let is_draining = give_back(&mut slots, id, is_healthy);
            if !slots.waiters.is_empty() {
                self.grant(&mut slots, None);
            }
            is_draining
        };
        if needs_executor {
            self.notice();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives a slot back; true when its instance drains, so that the executor must look.
fn give_back(slots: &mut Slots, id: &InstanceId, is_healthy: bool) -> bool {
    let Some(seat) = slots.seats.iter_mut().find(|seat| seat.id == *id) else {
        return false;
    };
    seat.busy = seat.busy.saturating_sub(1);
    seat.idle_since = Instant::now();
    if !is_healthy {
        seat.state = SeatState::Draining;
    }
    seat.state == SeatState::Draining
}

impl Slots {
    fn drop_those_who_gave_up(&mut self) {
        self.waiters.retain(|waiter| !waiter.grant.is_closed());
    }
}

impl Seat {
    fn free(&self, concurrency: u32, now: Instant) -> u32 {
        let inherited = self
            .inherited
            .filter(|(_, until)| now < *until)
            .map_or(0, |(slots, _)| slots);
        concurrency
            .saturating_sub(self.busy)
            .saturating_sub(inherited)
    }
}

impl Checkout {
    /// The instance.
    pub fn instance_id(&self) -> &InstanceId {
        &self.id
    }

    /// The instance, to call.
    pub fn invoke(&self) -> &Arc<dyn Invoke> {
        &self.invoke
    }

    /// Whether the caller waited for this instance to start.
    pub fn start(&self) -> StartKind {
        match self.start_phases {
            Some(_) => StartKind::Cold,
            None => StartKind::Warm,
        }
    }

    /// How long the start took, when the caller waited for it.
    pub fn start_phases(&self) -> Option<&Phases> {
        self.start_phases.as_ref()
    }

    /// Notes that the payload is about to be handed over, for this process and for the node's next incarnation.
    pub fn hand_over(&mut self) {
        self.has_payload = true;
        self.entry.begin();
    }

    /// Gives the slot back. An instance that is not healthy takes no more work and is recycled.
    pub fn finish(mut self, is_healthy: bool) {
        self.give_back(is_healthy);
    }

    fn give_back(&mut self, is_healthy: bool) {
        if std::mem::replace(&mut self.is_returned, true) {
            return;
        }
        if self.has_payload {
            self.entry.end();
        }
        self.pool.release(&self.id, is_healthy);
    }
}

impl Drop for Checkout {
    fn drop(&mut self) {
        let is_healthy = !self.has_payload;
        self.give_back(is_healthy);
    }
}

impl std::fmt::Debug for Checkout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkout")
            .field("instance", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
