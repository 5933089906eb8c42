//! The secrets of the cluster at one time: the first one seals, all of them open. So a secret is replaced without a restart: every node
//! learns to open with the new one before any node seals with it, and forgets the old one when no node does any more.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use hkdf::Hkdf;
use sha2::Sha256;
use tokio::sync::watch;
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::settings::{self, ClusterSettings, Secret};

/// Where in its data directory a node keeps the secret that it made for itself.
const OWN_FILE: &str = "secret";

#[cfg(test)]
mod tests;

/// The cluster's secrets, as a node has them; cheap to clone. Never printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring(Arc<[ClusterSecret]>);

impl Keyring {
    /// Reads the file that the settings name. A node without one makes its own secret, so that nobody joins it, and keeps it in its data
    /// directory: what it seals at rest is opened after a restart too.
    ///
    /// # Errors
    /// As [`ClusterSettings::read_secrets`], also for the node's own file.
    pub fn read(settings: &ClusterSettings, data_dir: &Path) -> Result<Self, settings::Error> {
        if settings.secret_file.is_some() {
            return Ok(Self::of(&settings.read_secrets()?));
        }
        let own = data_dir.join(OWN_FILE);
        if let Err(error) = make(&own) {
            let expected = format!("a directory for the node's own secret, but {error}");
            let shown = data_dir.display();
            return Err(settings::Error::new("node.data_dir", shown, expected));
        }
        let settings = ClusterSettings {
            secret_file: Some(own),
            ..settings.clone()
        };
        Ok(Self::of(&settings.read_secrets()?))
    }

    fn of(secrets: &[Secret]) -> Self {
        let secret = |secret: &Secret| ClusterSecret::of(secret.expose());
        Self(secrets.iter().map(secret).collect())
    }

    /// One that has these secrets, for tests.
    ///
    /// # Panics
    /// Without any.
    #[cfg(any(test, feature = "test-util"))]
    pub fn with(texts: &[&str]) -> Self {
        assert!(!texts.is_empty());
        Self(texts.iter().map(|text| ClusterSecret::of(text)).collect())
    }

    /// All secrets, the one that seals first. There is at least one.
    pub fn secrets(&self) -> &[ClusterSecret] {
        &self.0
    }

    /// What names the secrets in this cluster without telling them, in their order.
    pub fn ids(&self, cluster_id: &str) -> Vec<String> {
        self.0.iter().map(|secret| secret.id(cluster_id)).collect()
    }

    /// Looks at the file again and again, and tells what changed. A file that can not be used changes nothing: the secrets that were
    /// read before are used on.
    pub async fn keep_fresh(
        settings: ClusterSettings,
        sender: watch::Sender<Self>,
        stop: CancellationToken,
    ) {
        let mut refused = None;
        if settings.secret_file.is_none() {
            return;
        }
        let (interval, cluster_id) = (settings.secret_reload_interval, settings.id.clone());
        while stop
            .run_until_cancelled(time::sleep(interval))
            .await
            .is_some()
        {
            let settings = settings.clone();
            let Ok(read) = tokio::task::spawn_blocking(move || settings.read_secrets()).await
            else {
                continue;
            };
            match read {
                Ok(secrets) => {
                    refused = None;
                    let fresh = Self::of(&secrets);
                    let is_new = sender.send_if_modified(|current| {
                        let is_new = *current != fresh;
                        *current = fresh;
                        is_new
                    });
                    if is_new {
                        let ids = sender.borrow().ids(&cluster_id).join(", ");
                        tracing::info!(
                            ids,
                            "the cluster's secrets were changed; the first seals, all open"
                        );
                    }
                }
                // Once is enough for the log; and half a file, which an editor was still writing, is worth no word.
                Err(error) => {
                    let text = error.to_string();
                    let count = match &refused {
                        Some((last, count)) if *last == text => count + 1,
                        _ => 1,
                    };
                    if count == 2 {
                        tracing::error!(
                            error = text,
                            "the cluster's secrets were changed to something that can not be used; those before are used on"
                        );
                    }
                    refused = Some((text, count));
                }
            }
        }
    }
}

/// A secret that an operator gives to every node of a cluster. Never printed; keys are derived from it, one for each use.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Arc<[u8]>);

impl ClusterSecret {
    /// Takes a text that was found to be long enough where it was read; white space around it does not count.
    fn of(text: &str) -> Self {
        Self(text.trim().as_bytes().into())
    }

    /// What names it in this cluster without telling it.
    pub fn id(&self, cluster_id: &str) -> String {
        protocol::secret_id(cluster_id, &self.0)
    }

    /// Derives the key for one use in one cluster (HKDF-SHA256). Keys of different uses or clusters tell nothing of each other.
    pub fn derive(&self, usage: &str, cluster_id: &str) -> [u8; 32] {
        let mut info = Vec::with_capacity(16 + usage.len() + cluster_id.len());
        for part in [usage, cluster_id] {
            info.extend_from_slice(&(part.len() as u64).to_be_bytes());
            info.extend_from_slice(part.as_bytes());
        }
        let mut key = [0; 32];
        Hkdf::<Sha256>::new(Some(b"hearth cluster secret"), &self.0)
            .expand(&info, &mut key)
            .expect("32 bytes are fewer than HKDF-SHA256 can give");
        key
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// Makes a file with a secret that nobody else has, unless it is there.
fn make(file: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    match made {
        Ok(mut made) => {
            writeln!(made, "{}", hex::encode(rand::random::<[u8; 32]>()))?;
            made.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
