//! `[logs]`: logs of the node and output of functions.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

/// Logs of the node and output of functions.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogsSettings {
    /// What the node logs: a level, or directives such as `info,cluster=debug`. Default: `info`.
    pub level: String,
    /// `text` or `json`. Default: `text`.
    pub format: LogFormat,
    /// Output kept of each function on this node, newest last. Default: 1 MiB.
    pub function_max: ByteSize,
    /// Output kept of all functions on this node; the longest unread go first. Default: 64 MiB.
    pub total_max: ByteSize,
    /// The longest line; the rest of a longer one is cut. Default: 16 KiB.
    pub line_max: ByteSize,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogsSettings {
    fn default() -> Self {
        Self {
            level: "info".into(),
            format: LogFormat::Text,
            function_max: ByteSize::mib(1),
            total_max: ByteSize::mib(64),
            line_max: ByteSize::kib(16),
        }
    }
}
