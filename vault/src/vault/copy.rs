//! A copy of the wrapped data key in the node's data directory, so that what is known is opened also after a start while the store is away.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::Wrapped;

/// Its file.
const FILE: &str = "vault.key";

/// The copy of one node.
#[derive(Debug)]
pub(super) struct Copy(PathBuf);

impl Copy {
    pub(super) fn new(data_dir: &Path) -> Self {
        Self(data_dir.join(FILE))
    }

    /// Writes it, whole or not at all.
    pub(super) async fn write(&self, wrapped: &Wrapped) {
        let (path, value) = (self.0.clone(), serde_json::to_vec(wrapped));
        let value = value.expect("texts have a JSON form");
        let written = tokio::task::spawn_blocking(move || write(&path, &value)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, file = FILE, "the wrapped data key can not be copied to the data directory; a start without the store could open no secret");
        }
    }

    /// Reads it; none when it is not there or not whole.
    pub(super) async fn read(&self) -> Option<Wrapped> {
        let value = tokio::fs::read(&self.0).await.ok()?;
        serde_json::from_slice(&value).ok()
    }
}

fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    if std::fs::read(path).is_ok_and(|before| before == value) {
        return Ok(());
    }
    let new = path.with_extension("new");
    // A file that is left from before keeps its mode, so it goes first.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(value)?;
    file.sync_all()?;
    std::fs::rename(new, path)
}
