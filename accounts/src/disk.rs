//! What a node knows of accounts, on disk, so that it can check credentials when it starts while the store is away.
//!
//! Passwords and refresh tokens are not in it, neither is the half of a signing key that signs in the open.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::now_ms;
use crate::records::Millis;
use crate::{Accounts, known};

const FORMAT: u32 = 1;

const FILE: &str = "accounts.snapshot";

/// The shortest time between two writes: what changes within it is written once.
const INTERVAL: Duration = Duration::from_secs(1);

/// The file.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    format: u32,
    cluster: String,
    pub(crate) written_at_ms: Millis,
    pub(crate) known: known::Snapshot,
}

/// Writes what is known whenever it changed.
pub(crate) async fn keep_written(accounts: Accounts, data_dir: PathBuf) {
    let mut reached = accounts.inner.reached.subscribe();
    reached.mark_changed();
    while reached.changed().await.is_ok() {
        // What is known in part is nothing to start from, and what the disk said is there already.
        if !reached.borrow_and_update().is_listed() {
            continue;
        }
        let snapshot = Snapshot {
            format: FORMAT,
            cluster: accounts.inner.cluster_id.to_string(),
            written_at_ms: now_ms(),
            known: accounts.known().snapshot(),
        };
        let data_dir = data_dir.clone();
        let written = tokio::task::spawn_blocking(move || write(&data_dir, &snapshot)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, file = FILE, "what is known of accounts can not be written to the data directory; a start without the store would miss the newest");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Reads the snapshot of this cluster, if there is one that is whole.
pub(crate) async fn read(data_dir: PathBuf, cluster_id: String) -> Option<Snapshot> {
    let read = tokio::task::spawn_blocking(move || read_file(&data_dir, &cluster_id));
    match read.await.ok()? {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, file = FILE, "the snapshot of accounts can not be used");
            None
        }
    }
}

fn write(data_dir: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let path = data_dir.join(FILE);
    let new = path.with_extension("new");
    // A file that is left from before keeps its mode, so it goes first.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    let mut file = io::BufWriter::new(file);
    serde_json::to_writer(&mut file, snapshot)?;
    file.flush()?;
    file.get_ref().sync_all()?;
    std::fs::rename(new, path)
}

fn read_file(data_dir: &Path, cluster_id: &str) -> io::Result<Snapshot> {
    let file = std::fs::File::open(data_dir.join(FILE))?;
    let snapshot: Snapshot = serde_json::from_reader(io::BufReader::new(file))?;
    match snapshot.format == FORMAT && snapshot.cluster == cluster_id {
        true => Ok(snapshot),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "it is of cluster {} and format {}",
                snapshot.cluster, snapshot.format
            ),
        )),
    }
}
