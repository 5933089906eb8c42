//! Deliveries of events: accepted into a queue, handed to their functions by a loop of the node.
//!
//! Invariants: an event is accepted for all its subscribers or for none; a full queue refuses and never drops; a lease that
//! was lost settles nothing; a function that is slow, fails or hangs takes neither the permits nor the room of the others.
//! Nothing here knows what a function is or how it is called: the loop calls a [`Deliver`].

#[macro_use]
mod faults;

pub mod audit;
pub mod backend;
pub mod delivery;

#[cfg(feature = "jetstream")]
pub use backend::JetStreamQueue;
pub use backend::{
    Audit, DeadLetter, Delivery, DeliveryId, EmbeddedQueue, Error, EtcdQueue, Lease, Leased,
    MemoryQueue, Origin, Outcome, Permits, Promise, Queue, Stats,
};
pub use delivery::{Deliver, DeliveryLoop, End};
