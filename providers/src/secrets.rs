//! Secrets as an instance gets them: as environment variables, and as files that are in memory only.

#[cfg(any(feature = "docker", feature = "process"))]
mod dirs;

use vault::Plain;

#[cfg(any(feature = "docker", feature = "process"))]
pub use dirs::SecretDirs;
#[cfg(any(feature = "docker", feature = "process"))]
pub(crate) use dirs::{Readers, SecretDir};

/// The secrets of one instance, opened for its start. Their values are not shown.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    /// Environment variables.
    pub env: Vec<(String, Plain)>,
    /// Files, by their names.
    pub files: Vec<(String, Plain)>,
}
