//! The nouns and wire shapes of Hearth: validated ids, records, invocations, errors and the messages of peers.
//!
//! This crate does no I/O, reads no clock and knows no runtime; every other crate may depend on it.

pub mod api;
pub mod code;
pub mod cors;
pub mod destination;
pub mod event;
pub mod event_type;
pub mod execution;
pub mod function;
pub mod id;
pub mod invocation;
pub mod path;
pub mod peer;
pub mod quota;
pub mod schedule;
mod schema;
pub mod secret;
pub mod secret_id;
pub mod subscription;
pub mod version;

pub use code::{Answered, Component, Effect, ErrorCode, Failure};
pub use cors::{CorsId, CorsRecord};
pub use destination::Destination;
pub use event::Event;
pub use event_type::EventTypeRecord;
pub use execution::{Execution, ExecutionId};
pub use function::Function;
pub use id::{
    AliasName, FunctionId, Generation, InstanceId, InstanceKey, InvocationId, NodeId, SecretName,
    Space,
};
pub use invocation::{Deadline, Hop, Invocation, Phases, Reply};
pub use path::PathTree;
pub use quota::{RateSpec, SpaceLimits, UserLimits};
pub use schedule::{ScheduleId, ScheduleRecord};
pub use secret::{SecretRecord, SecretUse};
pub use secret_id::secret_id;
pub use subscription::{Subscription, SubscriptionId};
pub use version::{Alias, PublishedVersion, Qualifier, Version};
