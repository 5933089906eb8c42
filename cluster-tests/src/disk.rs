//! A small disk that can be filled up, so that writes fail with ENOSPC. Needs root, to mount a tmpfs.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// A tmpfs of its own; it goes when this value is dropped.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
}

impl Disk {
    /// Mounts a disk of so many MiB on a directory of its own.
    ///
    /// # Panics
    /// When it can not, for want of root for instance.
    pub fn mount(mebibytes: u32) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "a disk that can be filled needs root, to mount it"
        );
        let dir = tempfile::Builder::new().prefix("hearth-disk-").tempdir();
        let dir = dir.expect("make the directory of a disk");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "hearth"])
            .arg(dir.path())
            .output()
            .expect("run mount");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount a tmpfs: {errors}");
        Self { dir }
    }

    /// Where it is mounted.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Takes all the room that is left.
    ///
    /// # Panics
    /// When writing fails for another reason than that.
    pub fn fill(&self) {
        let mut filler = File::create(self.filler()).expect("make the filler of a disk");
        for size in [1 << 20, 4 << 10] {
            let zeros = vec![0; size];
            loop {
                match filler.write(&zeros) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("fill {}: {error}", self.dir().display()),
                }
            }
        }
    }

    /// Gives that room back.
    pub fn free(&self) {
        let _ = std::fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.dir().join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whoever still has a file open there keeps the room, and the directory can be removed all the same.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.dir())
            .stderr(Stdio::null())
            .status();
    }
}
