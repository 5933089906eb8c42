//! `[process]`: functions of type `process`.

use serde::{Deserialize, Serialize};

/// Functions of type `process`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProcessSettings {
    /// Whether local commands may be registered and run; `dev` turns it on. Default: false.
    pub allow: bool,
}
