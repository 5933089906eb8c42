//! One node's control plane: four actors, the snapshots they publish, and the warm path that reads them.

pub mod backup;
pub mod catalog;
pub mod control;
pub mod executions;
pub mod executor;
#[cfg(test)]
mod fixtures;
pub mod images;
pub mod invoker;
pub mod output;
pub mod quotas;
pub mod registry_cache;
mod remotes;
pub mod router;
pub mod scheduler;
#[cfg(any(test, feature = "test-util"))]
pub mod scripted;
mod secrets;
pub mod serving;
pub mod snapshot;
pub mod supervisor;
mod tasks;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod view;

pub use backup::Backup;
pub use catalog::Catalog;
pub use control::Control;
pub use executions::Executions;
pub use invoker::Invoker;
pub use quotas::Quotas;
pub use registry_cache::Registry;
pub use remotes::Remotes;
pub use scheduler::Scheduler;
pub use snapshot::Reader;
