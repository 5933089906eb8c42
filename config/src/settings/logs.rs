//! `[logs]`: logs of the node and output of functions.

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::Error;
use super::error::{above_zero, require};
use super::field::{Kind, Setting, section, size};

section! {
    /// Logs of the node and output of functions.
    pub struct LogsSettings {
        /// What the node logs: a level, or directives such as `info,cluster=debug`.
        pub level: String = "info".into(),
        /// `text` or `json`.
        pub format: LogFormat = LogFormat::Text,
        /// Output kept of each function on this node, newest last.
        #[serde(with = "size")]
        pub function_max: ByteSize = ByteSize::mib(1),
        /// Output kept of all functions on this node; the longest unread go first.
        #[serde(with = "size")]
        pub total_max: ByteSize = ByteSize::mib(64),
        /// The longest line; the rest of a longer one is cut.
        #[serde(with = "size")]
        pub line_max: ByteSize = ByteSize::kib(16),
    }
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

impl Setting for LogFormat {
    const KIND: Kind = Kind::Choice(&["text", "json"]);
}

impl LogsSettings {
    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("logs", self: function_max, total_max, line_max);
        let level =
            "a level (error, warn, info, debug, trace) or directives such as info,cluster=debug";
        require(
            !self.level.trim().is_empty(),
            "logs.level",
            format!("{:?}", self.level),
            level,
        )?;
        let total = super::field::size::text(self.total_max);
        require(
            self.total_max >= self.function_max,
            "logs.total_max",
            total,
            "at least logs.function_max",
        )
    }
}
