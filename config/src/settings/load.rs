//! Merges, reads and checks the settings, once, at start.

use std::collections::BTreeMap;
use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};

use super::Settings;

/// Flags that were given, by dotted key, such as `listen.peer`.
pub type Flags = BTreeMap<String, serde_json::Value>;

/// Why the settings can not be used; the process exits with 64.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("setting {key} is {value}, expected {expected}")]
pub struct Error {
    /// The dotted key, such as `listen.functions`.
    pub key: String,
    /// The value as it was given; `<redacted>` for a secret.
    pub value: String,
    /// What would have been right.
    pub expected: String,
}

impl Settings {
    /// Merges defaults, the file, the environment and the flags, and checks the result.
    ///
    /// # Errors
    /// The first key that is unknown, of the wrong type or out of range.
    pub fn load(file: Option<&Path>, flags: &Flags) -> Result<Self, Error> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            figment = figment.merge(Toml::file_exact(file));
        }
        figment = figment.merge(Env::prefixed("HEARTH_").split("__"));
        for (key, value) in flags {
            figment = figment.merge(Serialized::default(key, value));
        }
        figment.extract().map_err(|error| Error {
            key: error.path.join("."),
            value: String::new(),
            expected: error.to_string(),
        })
    }
}
