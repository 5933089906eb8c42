//! What a queue of deliveries does, whatever keeps them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use protocol::{
    Component, Effect, ErrorCode, ExecutionId, Failure, FunctionId, Space, SubscriptionId,
};
use tokio::time::Instant;

mod books;
mod clock;
#[cfg(any(test, feature = "test-util"))]
pub mod conformance;
mod deaths;
pub mod embedded;
pub mod etcd;
#[cfg(feature = "jetstream")]
pub mod jetstream;
mod lanes;
pub mod limits;
pub mod memory;
mod record;
mod turns;

pub use books::{Audit, Books, Change, Counters};
pub use deaths::Deaths;
pub use embedded::EmbeddedQueue;
pub use etcd::EtcdQueue;
#[cfg(feature = "jetstream")]
pub use jetstream::JetStreamQueue;
pub use limits::Limits;
pub use memory::MemoryQueue;

/// Names one delivery, in every queue and for ever.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId(uuid::Uuid);

/// Why a text names no delivery.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the id of a delivery is a UUID, got \"{0}\"")]
pub struct InvalidDeliveryId(String);

/// One event on its way to one subscriber, or one invocation on its way to its function.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its name.
    pub id: DeliveryId,
    /// The event or the invocation as it was written by whoever accepted it. All deliveries of an event share it.
    pub event: Bytes,
    /// The function's space.
    pub space: Space,
    /// The function to call.
    pub function_id: FunctionId,
    /// What it is for.
    pub origin: Origin,
    /// Its place among the deliveries of its event, from 0.
    pub ordinal: u32,
    /// When the event was accepted.
    pub accepted_at: SystemTime,
    /// It is not leased before this moment; nothing when it may be at once.
    pub not_before: Option<SystemTime>,
}

/// What a delivery is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An event, for the subscription that asked for it.
    Subscription(SubscriptionId),
    /// An asynchronous invocation, for the execution that tells how it goes.
    Execution(ExecutionId),
    /// The end of a delivery or an execution, for where it is to be told. That is its id.
    End(DeliveryId),
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
    /// How often it was leased before, since it was accepted or redriven, but for leases that did not count: see [`Outcome::Again`].
    pub attempts: u32,
    /// How long ago it was accepted or redriven, by the clock of the queue.
    pub age: Duration,
}

/// How a lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The function took the event: the delivery is done with.
    Delivered,
    /// There was nothing to do any more, as what the delivery was for has ended.
    Void,
    /// It is over without success, and whoever delivered has written that down elsewhere.
    Failed,
    /// It is leased again, no sooner than after this long.
    Again {
        /// The pause.
        after: Duration,
        /// Whether this was an attempt, for [`Leased::attempts`].
        counts: bool,
    },
    /// It is over without success.
    DeadLetter {
        /// Why.
        reason: Failure,
        /// What the function answered last, as whoever delivered wrote it; empty when it answered nothing. Bounding it is theirs.
        answer: Bytes,
    },
}

/// A delivery that ended without success, kept for whoever looks into it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Its place among the dead letters of a queue: a later one has a greater one.
    pub position: u64,
    /// The delivery.
    pub delivery: Delivery,
    /// How often it was leased.
    pub attempts: u32,
    /// When it ended.
    pub died_at: SystemTime,
    /// Why.
    pub reason: Failure,
    /// What the function answered last; empty when it answered nothing.
    pub answer: Bytes,
}

/// What becomes of a delivery whose lease was lost, or whose node died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// It is gone, and nobody knows whether it was made. Dead letters are not kept.
    AtMostOnce,
    /// It is leased again until it is settled. Dead letters are kept.
    AtLeastOnce,
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
    /// Deliveries that wait, those that wait for their time or another attempt included.
    pub waiting: usize,
    /// The bytes they count for: their events, for each delivery anew, and some for the delivery itself.
    pub waiting_bytes: usize,
    /// Deliveries that are leased.
    pub leased: usize,
    /// Dead letters that are kept.
    pub dead: usize,
}

/// The deliveries a node accepted. One conformance suite holds for every backend; how much of it outlives the process, and
/// whether a delivery whose lease was lost is leased again, is the backend's to say: see [`Promise`].
#[async_trait]
pub trait Queue: Send + Sync + fmt::Debug + 'static {
    /// What it promises.
    fn promise(&self) -> Promise;

    /// Takes all of these or none. When it returns they are as safe as the backend makes them. Where it promises at least once, a
    /// delivery that waits or runs on this node by the same name is taken by that: whoever does not know whether it enqueued may do it again.
    ///
    /// # Errors
    /// [`Error::Full`], [`Error::TooLarge`] and [`Error::Unavailable`]; nothing was taken then.
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

    /// Ends a lease. A node that dies right after it may make the delivery once more.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; nothing is changed then.
    async fn settle(&self, lease: &Lease, outcome: Outcome) -> Result<(), Error>;

    /// Ends a delivery that waits or is leased; false when there is none of that name. Whoever has it on lease loses that,
    /// and learns of it when it extends or settles.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it may be back after a restart.
    async fn cancel(&self, id: DeliveryId) -> Result<bool, Error>;

    /// The dead letters after this position, oldest first, `max` at most, but that a page ends behind all of one position. 0 is before all.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn dead_letters(&self, after: u64, max: usize) -> Result<Vec<DeadLetter>, Error>;

    /// The dead letter of that name, if there is one.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn dead_letter(&self, id: DeliveryId) -> Result<Option<DeadLetter>, Error>;

    /// Makes a dead letter wait again, as if it had just been accepted; false when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Full`], and nothing is changed; [`Error::Unavailable`] when it may be dead again after a restart.
    async fn redrive(&self, id: DeliveryId) -> Result<bool, Error>;

    /// Forgets a dead letter; false when there is none of that name.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it may be back after a restart.
    async fn purge(&self, id: DeliveryId) -> Result<bool, Error>;

    /// How much it holds, as this node knows. Cheap.
    fn stats(&self) -> Stats;

    /// How many deliveries of a space wait here. Cheap.
    fn waiting_of(&self, space: &Space) -> usize;

    /// What was written down of the deliveries of this node, and how many it has, looked up where they are kept. Not cheap.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    async fn audit(&self) -> Result<Audit, Error>;

    /// Ends it by this moment: what happened is told to what keeps the deliveries, and what waits is left to whoever may make it. Nothing
    /// is accepted or leased from then on. Dropping a queue that was not closed is what a crash is.
    async fn close(&self, _until: Instant) {}
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
    /// No queue of this kind takes so much at once; nothing was taken.
    #[error("{bytes} bytes are too much to be queued at once, at most {max} are taken")]
    TooLarge {
        /// What it would take.
        bytes: usize,
        /// What it may take.
        max: usize,
    },
    /// What keeps the deliveries failed.
    #[error("the queue is not available: {0}")]
    Unavailable(String),
    /// What keeps the deliveries did not say whether it took them.
    #[error("the queue did not answer, and may have taken it all the same: {0}")]
    MayBeTaken(String),
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
    /// The bytes on disk.
    Disk(u64),
    /// The bytes of all nodes together.
    Cluster(u64),
    /// What keeps the deliveries of all nodes, and why.
    Storage(String),
}

impl Outcome {
    /// What it is in the books.
    fn change(&self) -> Change {
        match self {
            Self::Delivered => Change::Delivered,
            Self::Void => Change::Void,
            Self::Failed => Change::Failed,
            Self::Again { .. } => Change::Retried,
            Self::DeadLetter { .. } => Change::DeadLettered,
        }
    }
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

    /// The name in 16 bytes.
    pub fn into_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The name that these bytes are.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(uuid::Uuid::from_bytes(bytes))
    }
}

impl FromStr for DeliveryId {
    type Err = InvalidDeliveryId;

    fn from_str(value: &str) -> Result<Self, InvalidDeliveryId> {
        let parsed = uuid::Uuid::parse_str(value);
        parsed
            .map(Self)
            .map_err(|_| InvalidDeliveryId(value.to_owned()))
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

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Subscription(id) => write!(f, "subscription {id}"),
            Self::Execution(id) => write!(f, "execution {id}"),
            Self::End(id) => write!(f, "the end of {id}"),
        }
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
            Self::Disk(max) => write!(f, "it takes {max} bytes of this node's disk"),
            Self::Cluster(max) => write!(
                f,
                "events of {max} bytes wait in the cluster (queue.cluster_bytes_max)"
            ),
            Self::Storage(why) => f.write_str(why),
        }
    }
}

impl Error {
    /// The error's code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Full(_) => ErrorCode::Overloaded,
            Self::LeaseLost(_) => ErrorCode::Conflict,
            Self::TooLarge { .. } => ErrorCode::PayloadTooLarge,
            Self::Unavailable(_) | Self::MayBeTaken(_) => ErrorCode::StoreUnavailable,
        }
    }

    /// Whether something may have been changed.
    pub fn effect(&self) -> Effect {
        match self {
            Self::Full(_) | Self::LeaseLost(_) | Self::TooLarge { .. } | Self::Unavailable(_) => {
                Effect::Refused
            }
            Self::MayBeTaken(_) => Effect::Interrupted,
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
