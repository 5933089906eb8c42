//! The directories that files with secrets are in: one an instance, in memory, below one that only the node's user may enter.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
use protocol::NodeId;
use vault::Plain;

use crate::Error;

/// What directories of processes are named by; they end with the node, so whatever is there at its start is left over.
const PROCESS_PREFIX: &str = "process-";

/// As in linux/magic.h.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);

/// Who reads the files of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readers {
    /// The node's user, whose processes functions are.
    #[cfg_attr(
        not(feature = "process"),
        expect(dead_code, reason = "of processes only")
    )]
    Own,
    /// Whatever user the image says: only its container has the directory.
    #[cfg_attr(
        not(feature = "docker"),
        expect(dead_code, reason = "of containers only")
    )]
    Any,
}

/// Makes and finds the directories of one node; cheap to clone.
#[derive(Debug, Clone)]
pub struct SecretDirs(Arc<Root>);

#[derive(Debug)]
struct Root {
    /// A directory of a file system in memory.
    parent: PathBuf,
    /// This node's own below it.
    path: PathBuf,
}

/// The directory of one instance; dropping it removes it.
#[derive(Debug)]
pub(crate) struct SecretDir {
    path: PathBuf,
}

impl SecretDirs {
    /// Those of a node below `parent`. What processes of an earlier incarnation left is removed.
    pub fn open(parent: &Path, node: &NodeId) -> Self {
        let path = parent.join(format!("hearth-{node}"));
        let dirs = Self(Arc::new(Root {
            parent: parent.to_owned(),
            path,
        }));
        for name in dirs.names() {
            if name.starts_with(PROCESS_PREFIX) {
                remove(&dirs.0.path.join(name));
            }
        }
        dirs
    }

    /// Writes the files of an instance that is about to start; none where it has none.
    ///
    /// # Errors
    /// When the directory is not in memory, not this node's own, or full.
    pub(crate) fn make(
        &self,
        name: &str,
        files: &[(String, Plain)],
        readers: Readers,
    ) -> Result<Option<SecretDir>, Error> {
        if files.is_empty() {
            return Ok(None);
        }
        let failed = |why: String| Error::StartFailed {
            why: format!("the files of its secrets can not be made: {why}"),
        };
        let parent = self.0.parent.display();
        let kind = statfs(&self.0.parent)
            .map_err(|error| failed(format!("secrets.dir {parent}: {error}")))?
            .filesystem_type();
        if ![TMPFS_MAGIC, RAMFS_MAGIC].contains(&kind) {
            return Err(failed(format!(
                "secrets.dir is {parent}, expected a directory of a tmpfs, so that no disk has them"
            )));
        }
        let made = self.make_in(name, files, readers);
        made.map(Some)
            .map_err(|error| failed(format!("{}: {error}", self.0.path.display())))
    }

    /// Takes over what was made for an instance by an earlier incarnation.
    #[cfg(feature = "docker")]
    pub(crate) fn adopt(&self, name: &str) -> Option<SecretDir> {
        let path = self.0.path.join(name);
        path.is_dir().then_some(SecretDir { path })
    }

    /// The names of the directories that are there.
    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.0.path) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.collect()
    }

    /// Removes what no container needs any more. Those of processes are not looked at.
    #[cfg(feature = "docker")]
    pub(crate) fn keep(&self, before: &[String], is_needed: impl Fn(&str) -> bool) {
        let left = before
            .iter()
            .filter(|name| !name.starts_with(PROCESS_PREFIX) && !is_needed(name));
        for name in left {
            remove(&self.0.path.join(name));
        }
    }

    fn make_in(
        &self,
        name: &str,
        files: &[(String, Plain)],
        readers: Readers,
    ) -> io::Result<SecretDir> {
        let (dir_mode, file_mode) = match readers {
            Readers::Own => (0o700, 0o400),
            Readers::Any => (0o755, 0o444),
        };
        self.0.make()?;
        let path = self.0.path.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        // From here on it goes with this value.
        let dir = SecretDir { path };
        for (name, value) in files {
            let path = dir.path.join(name);
            let mut options = OpenOptions::new();
            let mut file = options
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)?;
            file.write_all(value.expose())?;
            // Whatever the umask is.
            file.set_permissions(Permissions::from_mode(file_mode))?;
        }
        fs::set_permissions(&dir.path, Permissions::from_mode(dir_mode))?;
        Ok(dir)
    }
}

impl Root {
    /// Makes the node's own directory, or finds that it is its own: the parent is everybody's.
    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let found = fs::symlink_metadata(&self.path)?;
        let own = nix::unistd::geteuid().as_raw();
        let is_own = found.is_dir() && found.uid() == own && found.mode() & 0o077 == 0;
        match is_own {
            true => Ok(()),
            false => Err(io::Error::other(
                "it is there already, and is not a directory of this user with mode 0700",
            )),
        }
    }
}

/// With the last of them goes the node's own directory, if nothing is in it.
impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.path);
    }
}

impl SecretDir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SecretDir {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

fn remove(path: &Path) {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::error!(path = %path.display(), %error, "the files of an instance's secrets can not be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    fn files() -> Vec<(String, Plain)> {
        vec![("tls.key".to_owned(), b"a secret".to_vec().into())]
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn files_are_there_as_long_as_their_instance() {
        let parent = memory();
        let dirs = SecretDirs::open(parent.path(), &"n".parse().unwrap());
        assert!(dirs.make("none", &[], Readers::Own).unwrap().is_none());
        assert!(dirs.names().is_empty());
        for (name, readers, modes) in [
            ("process-1", Readers::Own, (0o700, 0o400)),
            ("hearth-1", Readers::Any, (0o755, 0o444)),
        ] {
            let dir = dirs.make(name, &files(), readers).unwrap().unwrap();
            let file = dir.path().join("tls.key");
            assert_eq!(fs::read(&file).unwrap(), b"a secret");
            assert_eq!((mode(dir.path()), mode(&file)), modes);
            assert_eq!(mode(dir.path().parent().unwrap()), 0o700);
            assert_eq!(dirs.names(), [name]);
            drop(dir);
            assert!(dirs.names().is_empty());
        }
        drop(dirs);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_an_earlier_incarnation_left_goes_or_is_taken_over() {
        let (parent, node) = (memory(), "n".parse().unwrap());
        let before = SecretDirs::open(parent.path(), &node);
        for name in ["process-7", "hearth-up", "hearth-gone"] {
            let dir = before.make(name, &files(), Readers::Any).unwrap();
            // As a node that is killed leaves it.
            std::mem::forget(dir);
        }
        let dirs = SecretDirs::open(parent.path(), &node);
        let mut names = dirs.names();
        names.sort();
        assert_eq!(names, ["hearth-gone", "hearth-up"]);
        dirs.keep(&names, |name| name == "hearth-up");
        let adopted = dirs.adopt("hearth-up").unwrap();
        assert!(dirs.adopt("hearth-gone").is_none());
        drop(adopted);
        assert!(dirs.names().is_empty());
    }

    #[test]
    fn a_disk_and_the_directory_of_another_take_no_secrets() {
        let node = "n".parse().unwrap();
        let disk = Path::new(env!("CARGO_MANIFEST_DIR"));
        let refused = SecretDirs::open(disk, &node).make("a", &files(), Readers::Own);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("expected a directory of a tmpfs")
        );
        let parent = memory();
        fs::create_dir(parent.path().join("hearth-n")).unwrap();
        fs::set_permissions(
            parent.path().join("hearth-n"),
            Permissions::from_mode(0o755),
        )
        .unwrap();
        let refused = SecretDirs::open(parent.path(), &node).make("a", &files(), Readers::Own);
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("not a directory of this user")
        );
    }
}
