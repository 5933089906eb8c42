//! The snapshot on disk that lets a node start while the store is away.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use config::Revision;
use config::store::{Entry, Listing};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    format: u32,
    cluster: String,
    revision: Revision,
    entries: usize,
}

/// Each further line.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    key: String,
    value: serde_json::Value,
    revision: Revision,
}

const FORMAT: u32 = 1;

/// Everything that a node knows of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Snapshot {
    /// The newest revision it was built from.
    pub(crate) revision: Revision,
    /// The records of all kinds.
    pub(crate) entries: Vec<Arc<Entry>>,
}

impl Snapshot {
    /// The records under a prefix.
    pub(super) fn listing(&self, prefix: &str) -> Listing {
        let entries = self.entries.iter();
        let entries = entries.filter(|entry| entry.key.starts_with(prefix));
        Listing {
            entries: entries.map(|entry| Entry::clone(entry)).collect(),
            revision: self.revision,
        }
    }
}

/// Writes the newest snapshot in the background; those that come while one is written replace each other.
#[derive(Debug)]
pub(super) struct Writer {
    snapshot: watch::Sender<Option<Snapshot>>,
}

impl Writer {
    pub(super) fn start(
        path: PathBuf,
        cluster: String,
        tracker: &TaskTracker,
        token: &CancellationToken,
    ) -> Self {
        let (snapshot, mut newest) = watch::channel(None::<Snapshot>);
        tracker.spawn(token.clone().run_until_cancelled_owned(async move {
            while newest.changed().await.is_ok() {
                let Some(snapshot) = newest.borrow_and_update().clone() else { continue };
                let (path, cluster) = (path.clone(), cluster.clone());
                let written = tokio::task::spawn_blocking(move || write(&path, &cluster, &snapshot)).await;
                if let Ok(Err(error)) = written {
                    tracing::warn!(%error, "the snapshot of functions and subscriptions can not be written; a start without the store would miss the newest");
                }
            }
        }));
        Self { snapshot }
    }

    pub(super) fn write(&self, snapshot: Snapshot) {
        self.snapshot.send_replace(Some(snapshot));
    }
}

fn write(path: &Path, cluster: &str, snapshot: &Snapshot) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&new)?);
    let head = Head {
        format: FORMAT,
        cluster: cluster.to_owned(),
        revision: snapshot.revision,
        entries: snapshot.entries.len(),
    };
    serde_json::to_writer(&mut file, &head)?;
    for entry in &snapshot.entries {
        // A record that is no JSON could not be read from the store either.
        let Ok(value) = serde_json::from_slice(&entry.value) else {
            continue;
        };
        file.write_all(b"\n")?;
        serde_json::to_writer(
            &mut file,
            &Line {
                key: entry.key.clone(),
                value,
                revision: entry.revision,
            },
        )?;
    }
    file.write_all(b"\n")?;
    file.into_inner()?.sync_all()?;
    std::fs::rename(new, path)
}

/// Reads the snapshot of this cluster, if there is one that is whole.
pub(super) async fn read(path: PathBuf, cluster: String) -> Option<Snapshot> {
    let read = tokio::task::spawn_blocking(move || read_file(&path, &cluster))
        .await
        .ok()?;
    match read {
        Ok(snapshot) => Some(snapshot),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, "the snapshot of functions and subscriptions can not be used");
            None
        }
    }
}

fn read_file(path: &Path, cluster: &str) -> std::io::Result<Snapshot> {
    let other = |why: String| std::io::Error::new(std::io::ErrorKind::InvalidData, why);
    let mut lines = BufReader::new(std::fs::File::open(path)?).lines();
    let head: Head =
        serde_json::from_str(&lines.next().ok_or_else(|| other("it is empty".into()))??)?;
    if head.format != FORMAT || head.cluster != cluster {
        return Err(other(format!(
            "it is of cluster {} and format {}",
            head.cluster, head.format
        )));
    }
    let mut entries = Vec::with_capacity(head.entries.min(100_000));
    for line in lines {
        let Line {
            key,
            value,
            revision,
        } = serde_json::from_str(&line?)?;
        entries.push(Arc::new(Entry {
            key,
            value: serde_json::to_vec(&value)?.into(),
            revision,
        }));
    }
    Ok(Snapshot {
        entries,
        revision: head.revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back_by_the_same_cluster_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("functions.snapshot");
        let entry = Entry {
            key: "functions/default/a".into(),
            value: "{\"a\":1}".into(),
            revision: Revision(3),
        };
        let other = Entry {
            key: "subscriptions/default/a,f,%2F".into(),
            ..entry.clone()
        };
        let snapshot = Snapshot {
            entries: vec![Arc::new(entry.clone()), Arc::new(other)],
            revision: Revision(7),
        };
        write(&path, "one", &snapshot).unwrap();
        let read = read_file(&path, "one").unwrap();
        assert_eq!(read, snapshot);
        assert_eq!(read.listing("functions/").entries, [entry]);
        assert_eq!(read.listing("subscriptions/").entries.len(), 1);
        assert!(read_file(&path, "other").is_err());
        std::fs::write(&path, "{").unwrap();
        assert!(read_file(&path, "one").is_err());
    }
}
