//! What a queue of deliveries does, whatever keeps them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{Component, Effect, ErrorCode, Failure, FunctionId, Space, SubscriptionId};

#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod lanes;
pub mod memory;

pub use memory::MemoryQueue;

/// Names one delivery, in every queue and for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(uuid::Uuid);

/// One event on its way to one subscriber.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// The event as it was written by whoever accepted it. All deliveries of an event share it.
    pub event: Bytes,
    /// The function's space.
    pub space: Space,
    /// The function to call.
    pub function_id: FunctionId,
    /// The subscription that asked for it.
    pub subscription_id: SubscriptionId,
    /// Its place among the deliveries of its event, from 0.
    pub ordinal: u32,
    /// When the event was accepted.
    pub accepted_at: SystemTime,
}

/// The right to deliver, until it ends by [`Queue::settle`] or is lost because it was not extended in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The delivery.
    pub id: DeliveryId,
    /// Grows with each lease of a delivery, so that one that was lost settles nothing.
    pub epoch: u64,
}

/// A delivery with the right to deliver it.
#[derive(Debug, Clone)]
pub struct Leased {
    /// The right.
    pub lease: Lease,
    /// The delivery.
    pub delivery: Arc<Delivery>,
    /// How often it was leased before.
    pub attempts: u32,
    /// How long ago it was accepted, by the clock of the queue.
    pub age: Duration,
}

/// How a lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function took the event: the delivery is done with.
    Delivered,
    /// Nothing ran: it is leased again, no sooner than after this long.
    Again {
        /// The pause.
        after: Duration,
    },
    /// It is over without success, and this is the reason.
    DeadLetter(Failure),
}

/// How many deliveries may run at once, and how many more may begin now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permits {
    /// Those that are not taken.
    pub free: usize,
    /// All of them.
    pub total: usize,
}

/// How much a queue holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Deliveries that wait, those that wait for another attempt included.
    pub waiting: usize,
    /// The bytes they count for: their events, for each delivery anew, and some for the delivery itself.
    pub waiting_bytes: usize,
    /// Deliveries that are leased.
    pub leased: usize,
}

/// The deliveries a node accepted. One conformance suite holds for every backend; how much of it outlives the process, and
/// whether a delivery whose lease was lost is leased again, is the backend's to say.
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug + 'static {
    /// Takes all of these or none. When it returns they are as safe as the backend makes them.
    ///
    /// # Errors
    /// [`Error::Full`].
    async fn enqueue(&self, deliveries: Vec<Delivery>) -> Result<(), Error>;

    /// Leases what may be delivered now, one for each free permit at most. Functions are served in turn, each as
    /// [`Permits::allow_another`] says. Does not wait.
    ///
    /// # Errors
    /// When the backend does not answer in time; what it leased meanwhile comes back when those leases end.
    async fn lease(&self, permits: Permits) -> Result<Vec<Leased>, Error>;

    /// Waits until [`Queue::lease`] may find something that it did not find before.
    ///
    /// # Cancel safety
    /// Safe: nothing is lost when the future is dropped. There is one waiter at a time.
    async fn ready(&self);

    /// Keeps a lease for another lease time.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    async fn extend(&self, lease: &Lease) -> Result<(), Error>;

    /// Ends a lease.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; nothing is changed then.
    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error>;

    /// Takes back a delivery that waits; false when there is none of that name, or it is leased.
    ///
    /// # Errors
    /// When the backend does not answer in time.
    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error>;

    /// How much it holds, as this node knows. Cheap.
    fn stats(&self) -> Stats;
}

/// Why an operation on a queue failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no room; nothing was taken.
    #[error("the queue is full: {0}")]
    Full(Bound),
    /// Another one has the delivery meanwhile, or it is done with.
    #[error("the lease of delivery {} was lost", .0.id)]
    LeaseLost(Lease),
}

/// What of a queue is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// The number of deliveries.
    Len(usize),
    /// The bytes of their events.
    Bytes(usize),
    /// The share of one function.
    Function(FunctionId),
}

impl Permits {
    /// Whether a function that has `leased` deliveries may have another one. Half of the permits are for functions that have
    /// none; of the other half a function may take another one while it has fewer than it leaves. So one that hangs holds a
    /// quarter of all, many that hang share, and it takes more than half as many functions as there are permits to delay
    /// the next one.
    pub fn allow_another(self, leased: usize) -> bool {
        match leased {
            0 => self.free > 0,
            leased => leased + self.total / 2 < self.free,
        }
    }
}

impl DeliveryId {
    /// Makes a new random name.
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4())
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Len(max) => write!(f, "{max} deliveries wait on this node (queue.len_max)"),
            Self::Bytes(max) => {
                write!(
                    f,
                    "events of {max} bytes wait on this node (queue.bytes_max)"
                )
            }
            Self::Function(id) => write!(
                f,
                "function {id} has its share of this node's queue (queue.function_share)"
            ),
        }
    }
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::Overloaded,
            Self::LeaseLost(_) => ErrorCode::Conflict,
        }
    }

    /// Whether something may have been changed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Full(_) | Self::LeaseLost(_) => Effect::Refused,
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self::new(
            error.code(),
            Component::Queue,
            error.effect(),
            error.to_string(),
        )
    }
}
