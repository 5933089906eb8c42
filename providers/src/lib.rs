//! What runs a function. *Pooled* providers launch instances that take invocations; *remote* ones only take invocations.

#[cfg(any(feature = "docker", feature = "process"))]
pub mod contract;
#[cfg(feature = "docker")]
pub mod docker;
mod error;
#[cfg(feature = "http")]
pub mod http;
mod launch;
pub mod output;
#[cfg(feature = "process")]
pub mod process;

pub use error::Error;
pub use launch::{Found, Invoke, Launch, LaunchSpec, Launched, Life, Remote, Update};
pub use output::Outputs;
