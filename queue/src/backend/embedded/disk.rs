//! The little that a journal asks of a disk, so that tests can put one in its place that fails and crashes when they want it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that says that a process has the directory.
const LOCK_FILE: &str = "lock";

/// A directory of its own.
pub(super) trait Disk: Send + Sync + fmt::Debug + 'static {
    /// Where it is, for people.
    fn path(&self) -> &Path;
    /// The names of all files in it.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes an empty file; one of that name is emptied.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that exists.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file. Handles to it stay usable.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all files that were made or removed so far outlive a crash.
    fn sync_directory(&self) -> io::Result<()>;
}

/// An open file. Reads and writes do not disturb each other.
pub(super) trait DiskFile: Send + Sync + fmt::Debug + 'static {
    /// Its length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Reads the whole of `buffer`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes the whole of `bytes`; after an error some of them may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts it off, or fills it with zeros, to this length.
    fn set_len(&self, bytes: u64) -> io::Result<()>;
    /// Makes all that was written so far, and the length, outlive a crash.
    fn sync(&self) -> io::Result<()>;
}

/// A directory of the file system, locked against other processes until it is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    directory: File,
    _lock: File,
}

impl Directory {
    /// Opens it, and makes it where it is missing. [`io::ErrorKind::WouldBlock`] when another process has it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.join(LOCK_FILE))?;
        lock.try_lock()?;
        // It may have been made just now.
        let parent = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        Ok(Self {
            path: path.to_owned(),
            directory: File::open(path)?,
            _lock: lock,
        })
    }
}

impl Disk for Directory {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

impl DiskFile for File {
    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        File::set_len(self, bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}
