//! The record of a run: a file that is only appended to, by writers and functions that outlive the nodes.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{History, Line};

/// The record on disk.
#[derive(Debug)]
pub struct Ledger {
    path: PathBuf,
    file: File,
}

impl Ledger {
    /// Begins a record, or goes on with it.
    ///
    /// # Panics
    /// When the file can not be opened.
    pub fn open(path: &Path) -> Self {
        let file = File::options().create(true).append(true).open(path);
        Self {
            path: path.to_owned(),
            file: file.unwrap_or_else(|error| panic!("open {}: {error}", path.display())),
        }
    }

    /// Appends a line, in one write.
    ///
    /// # Panics
    /// When it can not be written: a record with a hole proves nothing.
    pub fn note(&self, line: &Line) {
        let written = (&self.file).write_all(format!("{line}\n").as_bytes());
        written.unwrap_or_else(|error| panic!("write {}: {error}", self.path.display()));
    }

    /// Reads all that was written.
    ///
    /// # Panics
    /// When it can not be read, or something else wrote into it.
    pub fn read(&self) -> History {
        let text = std::fs::read_to_string(&self.path);
        let text = text.unwrap_or_else(|error| panic!("read {}: {error}", self.path.display()));
        let mut history = History::default();
        // A line that is being written is read the next time.
        for line in text
            .split_inclusive('\n')
            .filter_map(|line| line.strip_suffix('\n'))
        {
            history.add(line.parse().unwrap_or_else(|error| panic!("{error}")));
        }
        history
    }
}
