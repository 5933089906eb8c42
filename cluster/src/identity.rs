//! Who this node is to its peers: lasting id, generation, certificate.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use protocol::{Generation, NodeId};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::peer::Fingerprint;

#[cfg(test)]
mod tests;

/// This node, as its peers know it. Holds the lock on the data directory for as long as it lives; clones share it.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    node_id: NodeId,
    generation: Generation,
    credentials: Arc<Credentials>,
    _lock: File,
}

/// The certificate of one incarnation and its key: what TLS needs, without the hold on the data directory.
pub(crate) struct Credentials {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

impl Credentials {
    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the data directory.
    #[error(
        "data directory {directory} is in use by another node; give each node its own --data-dir"
    )]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// The disk said no.
    #[error("could not {what} {path}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What came back.
        #[source]
        source: io::Error,
    },
    /// A file of the data directory holds something else than this program writes.
    #[error("{path} should hold {expected}, it holds \"{found}\"")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// How it begins.
        found: String,
    },
    /// The certificate could not be made.
    #[error("could not make this node's certificate")]
    Certificate(#[source] rcgen::Error),
}

impl Identity {
    /// Takes the data directory for this process, creating it when missing: reads or makes the lasting node id, moves to the next
    /// generation, and makes a fresh certificate.
    ///
    /// The generation grows at each start, also when the clock went back, and is on disk before this returns.
    ///
    /// # Errors
    /// When another node holds the directory, the disk refuses, or a file there is not one this program wrote.
    pub fn load(data_dir: &Path) -> Result<Self, Error> {
        create_directory(data_dir)?;
        let lock = lock(data_dir)?;
        let node_id = load_node_id(data_dir)?;
        let generation = next_generation(data_dir)?;
        let credentials = Arc::new(make_credentials()?);
        Ok(Self(Arc::new(Inner {
            node_id,
            generation,
            credentials,
            _lock: lock,
        })))
    }

    /// The lasting id.
    pub fn node_id(&self) -> &NodeId {
        &self.0.node_id
    }

    /// This incarnation.
    pub fn generation(&self) -> Generation {
        self.0.generation
    }

    /// The fingerprint of this incarnation's certificate, as gossiped.
    pub fn fingerprint(&self) -> Fingerprint {
        self.0.credentials.fingerprint
    }

    pub(crate) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.0.credentials)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("node_id", &self.0.node_id)
            .field("generation", &self.0.generation)
            .field("fingerprint", &self.fingerprint())
            .finish_non_exhaustive()
    }
}

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

fn disk<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| Error::Disk {
        what,
        path: path.to_owned(),
        source,
    }
}

fn create_directory(path: &Path) -> Result<(), Error> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(path)
        .map_err(disk("create the data directory", path))
}

fn lock(data_dir: &Path) -> Result<File, Error> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(disk("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse {
            directory: data_dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(disk("lock", &path)(source)),
    }
}

fn load_node_id(data_dir: &Path) -> Result<NodeId, Error> {
    let path = data_dir.join("node-id");
    if let Some(text) = read(&path)? {
        return text
            .trim()
            .parse()
            .map_err(|_| malformed(&path, "a node id", &text));
    }
    let node_id = NodeId::random();
    write(data_dir, &path, node_id.as_str())?;
    Ok(node_id)
}

fn next_generation(data_dir: &Path) -> Result<Generation, Error> {
    let path = data_dir.join("generation");
    let stored: u64 = match read(&path)? {
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| malformed(&path, "a number", &text))?,
        None => 0,
    };
    let since_epoch = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let now_ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    let generation = now_ms.max(stored.saturating_add(1));
    write(data_dir, &path, &generation.to_string())?;
    Ok(Generation(generation))
}

fn malformed(path: &Path, expected: &'static str, text: &str) -> Error {
    Error::Malformed {
        path: path.to_owned(),
        expected,
        found: text.trim().chars().take(64).collect(),
    }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(disk("read", path)(error)),
    }
}

/// Replaces a file so that a crash leaves either the old text or the new one.
fn write(directory: &Path, path: &Path, text: &str) -> Result<(), Error> {
    let new = path.with_extension("new");
    let written = || -> io::Result<()> {
        let mut file = File::create(&new)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        File::open(directory)?.sync_all()
    };
    written().map_err(disk("write", path))
}

fn make_credentials() -> Result<Credentials, Error> {
    let key = rcgen::KeyPair::generate().map_err(Error::Certificate)?;
    let certificate = rcgen::CertificateParams::new(vec![crate::peer::TLS_NAME.to_owned()])
        .and_then(|params| params.self_signed(&key))
        .map_err(Error::Certificate)?;
    let certificate = certificate.der().clone();
    Ok(Credentials {
        fingerprint: Fingerprint::of(&certificate),
        certificate,
        key: PrivatePkcs8KeyDer::from(key.serialize_der()),
    })
}
