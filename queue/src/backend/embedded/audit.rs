//! Counts what the queue holds: what has its turn or a lease in memory, as far as the file that has it is on disk.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use super::disk::Disk;
use super::index::{Index, Status};
use super::{Audit, EmbeddedQueue, Error, segment};

/// What is needed of one file.
#[derive(Debug, Default)]
struct Needed {
    deliveries: u64,
    /// The file is at least so long.
    bytes: u64,
}

impl EmbeddedQueue {
    pub(super) async fn look_up(&self) -> Result<Audit, Error> {
        let (books, known, files) = {
            let index = self.shared.index();
            (index.ledger.books(), index.turns.count(), needed(&index))
        };
        let disk = Arc::clone(&self.disk);
        let looked = tokio::task::spawn_blocking(move || missing(&*disk, &files)).await;
        let missing = looked.map_err(|error| Error::Unavailable(error.to_string()))?;
        let missing = missing.map_err(|error| {
            Error::Unavailable(format!("{}: {error}", self.disk.path().display()))
        })?;
        // A file that was released meanwhile is needed by nothing.
        let lost: u64 = match missing.is_empty() {
            true => 0,
            false => {
                let still = needed(&self.shared.index());
                let still = missing.iter().filter_map(|number| still.get(number));
                still.map(|needed| needed.deliveries).sum()
            }
        };
        Ok(Audit {
            books,
            held: (known as u64).saturating_sub(lost),
        })
    }
}

/// What is needed of each file for what has not ended.
fn needed(index: &Index) -> BTreeMap<u32, Needed> {
    let mut files = BTreeMap::<u32, Needed>::new();
    for entry in index.turns.entries.values() {
        if matches!(entry.status, Status::Dead(_)) {
            continue;
        }
        let place = entry.kept.place;
        let file = files.entry(place.segment).or_default();
        file.deliveries += 1;
        file.bytes = file
            .bytes
            .max(u64::from(place.offset) + u64::from(place.bytes));
    }
    files
}

/// The files that are not there, or are too short.
fn missing(disk: &dyn Disk, needed: &BTreeMap<u32, Needed>) -> io::Result<Vec<u32>> {
    let mut missing = Vec::new();
    for (number, needed) in needed {
        let bytes = disk
            .open(&segment::file_name(*number))
            .and_then(|file| file.len());
        match bytes {
            Ok(bytes) if bytes >= needed.bytes => {}
            Ok(_) => missing.push(*number),
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(*number),
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}
