//! What functions write to stdout and stderr: kept by function, bounded, readable while it grows.

mod keep;
mod running;
mod writer;

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use config::settings::LogsSettings;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use protocol::{FunctionId, Space};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use self::keep::{Era, Keep};
pub(crate) use self::running::{OwnedRun, Running, now_us};
pub use self::writer::Stream;
pub(crate) use self::writer::Writer;

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it was read, in milliseconds since 1970.
    pub at_ms: u64,
    /// The node's name.
    pub node: String,
    /// `stdout` or `stderr`; `hearth` for a remark of the node's own, such as how many lines are missing.
    pub stream: String,
    /// The instance that wrote it.
    pub instance: String,
    /// The invocations that ran on the instance then: one at concurrency 1, all that overlap otherwise.
    pub invocations: Vec<String>,
    /// The text, without its line end.
    pub text: String,
}

/// The output of all functions on this node. Clones share it.
#[derive(Debug, Clone)]
pub struct Outputs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    node: String,
    line_bytes_max: usize,
    function_bytes_max: usize,
    keep: Mutex<Keep>,
}

/// One line as its reader hands it over; the time and the node are added here.
#[derive(Debug)]
struct Entry<'a> {
    /// When it was written, in microseconds since 1970.
    at_us: u64,
    /// The stream.
    stream: Stream,
    /// The instance that wrote it.
    instance: &'a str,
    /// The invocations that ran then.
    invocations: Vec<String>,
    /// The text, without its line end.
    text: String,
}

impl Outputs {
    /// Makes an empty keep with the bounds of the settings; `node` is the node's name.
    pub fn new(settings: &LogsSettings, node: &str) -> Self {
        let bytes = |size: bytesize::ByteSize| usize::try_from(size.as_u64()).unwrap_or(usize::MAX);
        let function_bytes_max = bytes(settings.function_max);
        Self {
            shared: Arc::new(Shared {
                node: node.to_owned(),
                line_bytes_max: bytes(settings.line_max).max(1),
                function_bytes_max,
                keep: Mutex::new(Keep::new(function_bytes_max, bytes(settings.total_max))),
            }),
        }
    }

    /// Begins to write for a function.
    fn open(&self, space: &Space, function_id: &FunctionId) -> Era {
        self.keep().open(space, function_id)
    }

    /// Adds a line to a function's output and drops the oldest ones over the bounds. What was opened before the function was
    /// forgotten adds nothing any more.
    fn append(&self, space: &Space, function_id: &FunctionId, era: Era, entry: Entry<'_>) {
        let line = Line {
            at_ms: entry.at_us / 1000,
            node: self.shared.node.clone(),
            stream: entry.stream.as_str().to_owned(),
            instance: entry.instance.to_owned(),
            invocations: entry.invocations,
            text: entry.text,
        };
        self.keep().push(space, function_id, era, render(&line));
    }

    /// Reads what is kept of a function, oldest first, as one JSON object a line ([`Line`]); with `follow` it goes on with what
    /// comes. A reader that is too slow gets a line saying how many it missed.
    pub fn read(
        &self,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> BoxStream<'static, io::Result<Bytes>> {
        let (kept, live) = self.keep().read(space, function_id, follow);
        let kept = stream::iter(kept).map(Ok);
        let Some(live) = live else {
            return kept.boxed();
        };
        let outputs = self.clone();
        let live = stream::unfold((live, outputs), |(mut live, outputs)| async move {
            let line = next(&mut live, &outputs).await?;
            Some((Ok(line), (live, outputs)))
        });
        kept.chain(live).boxed()
    }

    /// Drops all that is kept of a function, and what its instances write from now on; followers end.
    pub fn forget(&self, space: &Space, function_id: &FunctionId) {
        self.keep().forget(space, function_id);
    }

    fn remark(&self, text: String) -> Bytes {
        render(&Line {
            at_ms: now_us() / 1000,
            node: self.shared.node.clone(),
            stream: Stream::Hearth.as_str().to_owned(),
            instance: String::new(),
            invocations: Vec::new(),
            text,
        })
    }

    fn keep(&self) -> std::sync::MutexGuard<'_, Keep> {
        self.shared
            .keep
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn next(live: &mut broadcast::Receiver<Bytes>, outputs: &Outputs) -> Option<Bytes> {
    match live.recv().await {
        Ok(line) => Some(line),
        Err(RecvError::Lagged(lines)) => Some(outputs.remark(format!(
            "{lines} lines are missing, the reader was too slow"
        ))),
        Err(RecvError::Closed) => None,
    }
}

fn render(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).expect("a line holds only texts and numbers");
    text.push(b'\n');
    Bytes::from(text)
}

#[cfg(test)]
mod tests;
