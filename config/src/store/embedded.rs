//! The embedded store: the records of a single node, in one file on its disk.
//!
//! Records are few and small, so all of them are held in memory as well: reads and watches never touch the disk. A commit is on
//! the disk, synced, before it is seen or acknowledged; commits that come at the same time share a sync.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use protocol::Effect;
use redb::{
    Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition,
};

use self::group::Waiting;
use super::records::{Commit, LocalRecords, Records};
use super::{Change, Entry, Error, Listing, Revision, Store, Transaction, Watch};

mod group;

/// Key to the revision of its last change, and its value.
const RECORDS: TableDefinition<&str, (u64, &[u8])> = TableDefinition::new("records");
/// `format` and `revision`.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
/// How this version writes the tables above.
const FORMAT: u64 = 1;
/// What the file's pages may take in memory; the records are held beside them.
const CACHE_BYTES: usize = 4 << 20;

/// A store in a file, for one node.
#[derive(Debug)]
pub struct EmbeddedStore {
    records: LocalRecords,
    file: Arc<Mutex<File>>,
    waiting: Arc<Waiting>,
}

/// The file and how it was found.
#[derive(Debug)]
struct File {
    path: PathBuf,
    database: Database,
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, which is made when missing, its directory too. Blocks on the disk.
    ///
    /// # Errors
    /// [`Error::Damaged`] when the file is not what was written to it; [`Error::Unavailable`] when another process has it open or
    /// the disk refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        if !path.exists() {
            create(path).map_err(|why| unavailable(path, why, Effect::Refused))?;
        }
        // In a damaged file the database may run into what it takes for impossible; that must not end the process without a word.
        let opened = catch_unwind(AssertUnwindSafe(|| open(path)));
        let (database, records) =
            opened.unwrap_or_else(|_| Err(damaged(path, "it is not what was written to it")))?;
        let file = File {
            path: path.to_owned(),
            database,
        };
        Ok(Self {
            records: LocalRecords::new(records),
            file: Arc::new(Mutex::new(file)),
            waiting: Arc::default(),
        })
    }
}

/// Makes an empty store under another name first, so that a process killed meanwhile leaves no half of one behind.
fn create(path: &Path) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(dir).map_err(text)?;
    let unfinished = path.with_extension(format!("new-{}", std::process::id()));
    let made = initialize(&unfinished)
        .map_err(|error| error.to_string())
        .and_then(|()| {
            // A link, unlike a rename, never replaces a store that another process made meanwhile.
            match std::fs::hard_link(&unfinished, path) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    Err(error.to_string())
                }
                _ => std::fs::File::open(dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(text),
            }
        });
    std::fs::remove_file(&unfinished).map_err(text)?;
    made
}

fn initialize(path: &Path) -> Result<(), redb::Error> {
    // One left behind by a killed process of the same number.
    let _ = std::fs::remove_file(path);
    let database = Builder::new().set_cache_size(CACHE_BYTES).create(path)?;
    let transaction = database.begin_write()?;
    {
        transaction.open_table(RECORDS)?;
        let mut about = transaction.open_table(ABOUT)?;
        about.insert("format", FORMAT)?;
        about.insert("revision", 0)?;
    }
    transaction.commit()?;
    Ok(())
}

fn open(path: &Path) -> Result<(Database, Records), Error> {
    let database = Builder::new()
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true)
        .open(path)
        .map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => unavailable(
                path,
                "another process has it open; each node needs a data directory of its own",
                Effect::Refused,
            ),
            DatabaseError::Storage(StorageError::Io(error))
                if error.kind() != std::io::ErrorKind::InvalidData =>
            {
                unavailable(path, error, Effect::Refused)
            }
            error => damaged(path, error),
        })?;
    let records = read(&database).map_err(|error| damaged(path, error))?;
    let (format, records) = records;
    if format != FORMAT {
        return Err(damaged(
            path,
            format!("it has format {format}, this version reads {FORMAT}"),
        ));
    }
    Ok((database, records))
}

fn read(database: &Database) -> Result<(u64, Records), redb::Error> {
    let transaction = database.begin_read()?;
    let about = transaction.open_table(ABOUT)?;
    let number = |name| -> Result<u64, redb::Error> {
        Ok(about.get(name)?.map_or(0, |number| number.value()))
    };
    let mut entries = Vec::new();
    for row in transaction.open_table(RECORDS)?.iter()? {
        let (key, value) = row?;
        let (revision, bytes) = value.value();
        entries.push(Entry {
            key: key.value().to_owned(),
            value: Bytes::copy_from_slice(bytes),
            revision: Revision(revision),
        });
    }
    Ok((
        number("format")?,
        Records::new(entries, Revision(number("revision")?)),
    ))
}

/// Writes commits, in their order, with one sync.
fn write(database: &Database, commits: &[Commit]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for change in commits.iter().flat_map(|commit| &commit.changes) {
            match change {
                Change::Put(entry) => {
                    records.insert(entry.key.as_str(), (entry.revision.0, &entry.value[..]))?;
                }
                Change::Deleted(key) => {
                    records.remove(key.as_str())?;
                }
            }
        }
        if let Some(last) = commits.last() {
            transaction
                .open_table(ABOUT)?
                .insert("revision", last.revision.0)?;
        }
    }
    transaction.commit()?;
    Ok(())
}

fn unavailable(path: &Path, why: impl std::fmt::Display, effect: Effect) -> Error {
    Error::Unavailable {
        why: format!("file {}: {why}", path.display()),
        effect,
    }
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> Error {
    Error::Damaged {
        why: format!(
            "file {}: {why}; restore it from a backup, or remove it to begin anew",
            path.display()
        ),
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>, Error> {
        Ok(self.records.get(key))
    }

    async fn list(&self, prefix: &str) -> Result<Listing, Error> {
        Ok(self.records.list(prefix))
    }

    async fn list_page(
        &self,
        prefix: &str,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<Entry>, Error> {
        Ok(self.records.list_page(prefix, after, max))
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, Error> {
        let (ticket, answered) = self.waiting.add(transaction);
        let writer = self.records.writer();
        let (file, waiting) = (Arc::clone(&self.file), Arc::clone(&self.waiting));
        // All in one blocking task, which runs to its end even when the caller goes away: memory and disk never differ.
        let writing = self.records.tasks().spawn_blocking(move || {
            let file = file.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.write(ticket, &file, &writer);
        });
        let broken_off = |error: &dyn std::fmt::Display| Error::Unavailable {
            why: format!("the write was broken off: {error}"),
            effect: Effect::Interrupted,
        };
        // The task has the file until its end.
        writing.await.map_err(|error| broken_off(&error))?;
        answered
            .await
            .unwrap_or_else(|error| Err(broken_off(&error)))
    }

    fn watch(&self, prefix: &str, after: Revision) -> Watch {
        self.records.watch(prefix, after)
    }

    fn staleness(&self) -> Duration {
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests;
