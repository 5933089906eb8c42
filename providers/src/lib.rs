//! What runs a function. *Pooled* providers launch instances that take invocations; *remote* ones only take invocations.

#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(any(feature = "docker", feature = "process"))]
mod callers;
#[cfg(feature = "http")]
mod cloud;
mod contract;
#[cfg(feature = "docker")]
pub mod docker;
mod error;
#[cfg(feature = "test-util")]
pub mod fake;
#[cfg(feature = "gcloud")]
pub mod gcloud;
#[cfg(feature = "http")]
pub mod http;
mod http1;
mod launch;
#[cfg(feature = "openwhisk")]
pub mod openwhisk;
pub mod output;
#[cfg(feature = "process")]
pub mod process;
mod secrets;
#[cfg(any(feature = "docker", feature = "process"))]
mod watchers;

#[cfg(any(feature = "docker", feature = "process"))]
pub use callers::{Callers, Instance};
pub use contract::AnswerLimits;
#[cfg(any(feature = "docker", feature = "process"))]
pub use contract::lambda::Lambda;
pub use error::Error;
pub use launch::{Found, Invoke, Launch, LaunchSpec, Launched, Life, Remote, Update};
pub use output::Outputs;
#[cfg(any(feature = "docker", feature = "process"))]
pub use secrets::SecretDirs;
pub use secrets::Secrets;
