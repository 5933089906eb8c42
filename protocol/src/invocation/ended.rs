//! How a run ended whose whole output is its answer.

use serde::{Deserialize, Serialize};

/// How a run ended whose whole output is its answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Whether it succeeded.
    pub outcome: Outcome,
    /// The exit code, of a run that ended by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
    /// Why it did not succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Bytes at the end of its output that were not kept, as it printed more than an answer may have.
    #[serde(default)]
    pub cut_bytes: u64,
}

/// Whether a run succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It ended with exit code 0.
    Ok,
    /// It ended with another exit code.
    Failed,
    /// It was over its time limit and was stopped.
    Timeout,
}

impl Outcome {
    /// The value of the `x-hearth-outcome` header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
        }
    }
}
