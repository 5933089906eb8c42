//! The lines that are kept, by function, and the two bounds on them.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use protocol::{FunctionId, Space};
use tokio::sync::broadcast;

/// All lines kept on this node.
#[derive(Debug)]
pub(super) struct Keep {
    functions: HashMap<(Space, FunctionId), Book>,
    bytes: usize,
    function_bytes_max: usize,
    total_bytes_max: usize,
    /// Counts books, so that each has an era of its own.
    eras: u64,
    /// Counts reads, to find the output that was unread the longest.
    reads: u64,
}

/// The lines of one function.
#[derive(Debug)]
struct Book {
    era: Era,
    lines: VecDeque<Bytes>,
    bytes: usize,
    read_at: u64,
    live: Option<broadcast::Sender<Bytes>>,
}

/// Tells a function from one that had its name before and was forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Era(u64);

/// Lines a follower may be behind.
const BEHIND_LINES_MAX: usize = 1024;
/// What a line costs beside its text.
const LINE_OVERHEAD_BYTES: usize = 48;
/// How much is dropped at a time when the total is over its bound, so that the search for what to drop is rare.
const DROP_BYTES: usize = 64 * 1024;

impl Keep {
    pub(super) fn new(function_bytes_max: usize, total_bytes_max: usize) -> Self {
        Self {
            functions: HashMap::new(),
            bytes: 0,
            function_bytes_max,
            total_bytes_max,
            eras: 0,
            reads: 0,
        }
    }

    pub(super) fn open(&mut self, space: &Space, function_id: &FunctionId) -> Era {
        self.book((space.clone(), function_id.clone())).era
    }

    pub(super) fn push(&mut self, space: &Space, function_id: &FunctionId, era: Era, line: Bytes) {
        let key = (space.clone(), function_id.clone());
        let Some(book) = (self.functions.get_mut(&key)).filter(|book| book.era == era) else {
            return;
        };
        if let Some(live) = &book.live
            && live.send(line.clone()).is_err()
        {
            book.live = None;
        }
        let bytes = cost(&line);
        book.lines.push_back(line);
        book.bytes += bytes;
        self.bytes += bytes;
        while book.bytes > self.function_bytes_max {
            self.bytes -= book.drop_oldest();
        }
        while self.bytes > self.total_bytes_max {
            self.shrink();
        }
    }

    pub(super) fn read(
        &mut self,
        space: &Space,
        function_id: &FunctionId,
        follow: bool,
    ) -> (Vec<Bytes>, Option<broadcast::Receiver<Bytes>>) {
        self.reads += 1;
        let key = (space.clone(), function_id.clone());
        if !follow {
            let Some(book) = self.functions.get_mut(&key) else {
                return (Vec::new(), None);
            };
            book.read_at = self.reads;
            return (book.lines.iter().cloned().collect(), None);
        }
        let reads = self.reads;
        let book = self.book(key);
        book.read_at = reads;
        let live = book
            .live
            .get_or_insert_with(|| broadcast::channel(BEHIND_LINES_MAX).0);
        (book.lines.iter().cloned().collect(), Some(live.subscribe()))
    }

    pub(super) fn forget(&mut self, space: &Space, function_id: &FunctionId) {
        if let Some(book) = self.functions.remove(&(space.clone(), function_id.clone())) {
            self.bytes -= book.bytes;
        }
    }

    fn book(&mut self, key: (Space, FunctionId)) -> &mut Book {
        let (eras, read_at) = (&mut self.eras, self.reads);
        self.functions.entry(key).or_insert_with(|| {
            *eras += 1;
            Book {
                era: Era(*eras),
                lines: VecDeque::new(),
                bytes: 0,
                read_at,
                live: None,
            }
        })
    }

    /// Drops the oldest lines of the output that was unread the longest.
    fn shrink(&mut self) {
        let longest_unread = self
            .functions
            .values_mut()
            .filter(|book| book.bytes > 0)
            .min_by_key(|book| book.read_at);
        let Some(book) = longest_unread else { return };
        let mut dropped = 0;
        while dropped < DROP_BYTES && book.bytes > 0 {
            dropped += book.drop_oldest();
        }
        self.bytes -= dropped;
    }
}

impl Book {
    fn drop_oldest(&mut self) -> usize {
        let bytes = self.lines.pop_front().map_or(0, |line| cost(&line));
        self.bytes -= bytes;
        bytes
    }
}

fn cost(line: &Bytes) -> usize {
    line.len() + LINE_OVERHEAD_BYTES
}
