//! Cuts what an instance writes into lines and bounds how much of it is taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use protocol::{Function, FunctionId, Space};
use tokio::time::Instant;

use super::keep::Era;
use super::{Entry, Outputs, Running, now_us};

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The function's standard output.
    Stdout,
    /// The function's standard error.
    Stderr,
    /// The node itself.
    Hearth,
}

impl Stream {
    /// The name as it stands in [`super::Line`].
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
            Self::Hearth => "hearth",
        }
    }
}

/// Takes the output of one instance. Over a second at most as much is kept as the function may keep in all; the rest is counted.
#[derive(Debug)]
pub(crate) struct Writer {
    outputs: Outputs,
    space: Space,
    function_id: FunctionId,
    era: Era,
    instance: String,
    running: Arc<Running>,
    stdout: Partial,
    stderr: Partial,
    tail: VecDeque<String>,
    tail_bytes: usize,
    window: Window,
}

#[derive(Debug, Default)]
struct Partial {
    text: Vec<u8>,
    at_us: u64,
    is_cut: bool,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    bytes: usize,
    left_out: u64,
}

/// How much of the end of the output an error repeats.
const TAIL_BYTES_MAX: usize = 1024;
const WINDOW: Duration = Duration::from_secs(1);

impl Writer {
    pub(crate) fn new(
        outputs: &Outputs,
        function: &Function,
        instance: &str,
        running: Arc<Running>,
    ) -> Self {
        Self {
            outputs: outputs.clone(),
            space: function.space.clone(),
            function_id: function.function_id.clone(),
            era: outputs.open(&function.space, &function.function_id),
            instance: instance.to_owned(),
            running,
            stdout: Partial::default(),
            stderr: Partial::default(),
            tail: VecDeque::new(),
            tail_bytes: 0,
            window: Window {
                began: Instant::now(),
                bytes: 0,
                left_out: 0,
            },
        }
    }

    /// Takes a piece of output; `at_us` is when it was written, where that is known.
    pub(crate) fn write(&mut self, stream: Stream, piece: &[u8], at_us: Option<u64>) {
        let at_us = at_us.unwrap_or_else(now_us);
        let line_bytes_max = self.outputs.shared.line_bytes_max;
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let partial = self.partial(stream);
            if partial.text.is_empty() {
                partial.at_us = at_us;
            }
            let room = line_bytes_max - partial.text.len();
            partial.is_cut |= text.len() > room;
            partial
                .text
                .extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                self.end_line(stream);
            }
        }
    }

    /// Ends lines that have no line end; to be called when the instance is gone.
    pub(crate) fn flush(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if !self.partial(stream).text.is_empty() {
                self.end_line(stream);
            }
        }
        self.tell_left_out();
    }

    /// The end of what was written, for an error's text.
    pub(crate) fn tail(&self) -> String {
        self.tail
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn partial(&mut self, stream: Stream) -> &mut Partial {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr | Stream::Hearth => &mut self.stderr,
        }
    }

    fn end_line(&mut self, stream: Stream) {
        let partial = std::mem::take(self.partial(stream));
        let mut text = String::from_utf8_lossy(&partial.text).into_owned();
        if text.ends_with('\r') {
            text.pop();
        }
        self.keep_tail(&text);
        if partial.is_cut {
            text.push_str(" [cut]");
        }
        if self.window.began.elapsed() >= WINDOW {
            self.tell_left_out();
            self.window = Window {
                began: Instant::now(),
                bytes: 0,
                left_out: 0,
            };
        }
        self.window.bytes += text.len();
        if self.window.bytes > self.outputs.shared.function_bytes_max {
            self.window.left_out += 1;
            return;
        }
        let invocations = self.running.at(partial.at_us);
        self.append(Entry {
            at_us: partial.at_us,
            stream,
            instance: &self.instance,
            invocations,
            text,
        });
    }

    fn tell_left_out(&mut self) {
        let lines = std::mem::take(&mut self.window.left_out);
        if lines > 0 {
            let text = format!("{lines} lines were left out, the instance writes too fast");
            let at_us = now_us();
            self.append(Entry {
                at_us,
                stream: Stream::Hearth,
                instance: &self.instance,
                invocations: Vec::new(),
                text,
            });
        }
    }

    fn append(&self, entry: Entry<'_>) {
        self.outputs
            .append(&self.space, &self.function_id, self.era, entry);
    }

    fn keep_tail(&mut self, text: &str) {
        let mut start = text.len().saturating_sub(TAIL_BYTES_MAX);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        self.tail_bytes += text.len() - start;
        self.tail.push_back(text[start..].to_owned());
        while self.tail_bytes > TAIL_BYTES_MAX && self.tail.len() > 1 {
            self.tail_bytes -= self.tail.pop_front().map_or(0, |line| line.len());
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}
