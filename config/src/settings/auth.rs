//! `[auth]`: who may call.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Who may call.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthSettings {
    /// `off` (only while every client listener is loopback) or `required`. Default: `off`.
    pub mode: AuthMode,
    /// The file with the administrator's bearer token, at least 16 bytes. Needed with `required`.
    pub admin_token_file: Option<PathBuf>,
    /// Origins of web pages that may call the functions and config APIs, besides the node's own. Default: none.
    pub origins: Vec<String>,
}

/// Whether callers need a credential.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Nobody does; client listeners must be loopback.
    #[default]
    Off,
    /// Everybody does, except for status and ready.
    Required,
}
