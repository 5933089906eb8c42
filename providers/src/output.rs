//! What functions write to stdout and stderr: kept by function, bounded, readable while it grows.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::stream::BoxStream;
use protocol::{FunctionId, InstanceId, InvocationId, Space};
use serde::{Deserialize, Serialize};

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// The node's name.
    pub node: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The instance that wrote it.
    pub instance: String,
    /// The invocations that ran on the instance then: one at concurrency 1, all that overlap otherwise.
    pub invocations: Vec<String>,
    /// The text, without its line end.
    pub text: String,
}

/// The output of all functions on this node.
#[derive(Debug, Clone)]
pub struct Outputs {}
