//! Bounds the resident memory of a command and its descendants: by a memory cgroup where one can be made, and by sampling.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;

use super::descendants;

/// The bound on one command.
#[derive(Debug)]
pub(super) struct Memory {
    limit_mb: u64,
    group: Option<Cgroup>,
}

/// A memory cgroup of our own.
#[derive(Debug)]
struct Cgroup {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy)]
enum Version {
    One,
    Two,
}

impl Memory {
    /// Bounds a command that was just spawned. Its descendants inherit the bound of the cgroup; what was forked before is sampled.
    pub(super) fn bound(command: Pid, limit_mb: u64) -> Self {
        Self {
            limit_mb,
            group: Cgroup::make(command, limit_mb).ok(),
        }
    }

    /// Looks at the memory of all descendants: why they must be killed, if it is over the limit.
    pub(super) fn exceeded(&mut self) -> Option<String> {
        let limit_kib = self.limit_mb * 1024;
        let pids = descendants::all();
        // The sum counts pages that processes share more than once, so it only decides whether to look closer.
        let resident: u64 = pids
            .iter()
            .map(|pid| field_kib(*pid, "status", "VmRSS:"))
            .sum();
        if resident <= limit_kib {
            return None;
        }
        let shared_once: u64 = pids
            .iter()
            .map(|pid| field_kib(*pid, "smaps_rollup", "Pss:"))
            .sum();
        (shared_once > limit_kib).then(|| self.reason())
    }

    /// Why the kernel killed the command, if it did for its memory.
    pub(super) fn was_killed_for(&self) -> Option<String> {
        self.group
            .as_ref()
            .is_some_and(Cgroup::has_killed)
            .then(|| self.reason())
    }

    /// Removes the cgroup, once all its processes are gone.
    pub(super) fn release(self) {
        if let Some(group) = self.group {
            // One that is left is empty and bounds nobody.
            let _ = fs::remove_dir(&group.path);
        }
    }

    fn reason(&self) -> String {
        format!(
            "resident memory over limits.memoryMb of {} MiB",
            self.limit_mb
        )
    }
}

impl Cgroup {
    fn make(command: Pid, limit_mb: u64) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let (parent, version) = parent(&own).ok_or(io::ErrorKind::NotFound)?;
        let path = parent.join(format!("hearth-{command}"));
        fs::create_dir(&path)?;
        let group = Self { path, version };
        let limited = group.limit(command, limit_mb);
        if limited.is_err() {
            let _ = fs::remove_dir(&group.path);
        }
        limited.map(|()| group)
    }

    fn limit(&self, command: Pid, limit_mb: u64) -> io::Result<()> {
        let file = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        let limit = self.path.join(file);
        // Writing would make a file where the memory controller is off.
        if !limit.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        fs::write(limit, (limit_mb * 1024 * 1024).to_string())?;
        fs::write(self.path.join("cgroup.procs"), command.to_string())
    }

    fn has_killed(&self) -> bool {
        let file = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let text = fs::read_to_string(self.path.join(file)).unwrap_or_default();
        text.lines()
            .filter_map(|line| line.strip_prefix("oom_kill "))
            .any(|count| count.trim() != "0")
    }
}

/// The directory of this process's own memory cgroup.
fn parent(own: &str) -> Option<(PathBuf, Version)> {
    let entries = || {
        own.lines()
            .filter_map(|line| line.split_once(':')?.1.split_once(':'))
    };
    let below = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let one = entries().find(|(controllers, _)| {
        controllers
            .split(',')
            .any(|controller| controller == "memory")
    });
    if let Some((_, path)) = one {
        return Some((below("/sys/fs/cgroup/memory", path), Version::One));
    }
    let two = entries().find(|(controllers, _)| controllers.is_empty());
    two.map(|(_, path)| (below("/sys/fs/cgroup", path), Version::Two))
}

/// A value in KiB from a file of a process; 0 when the process is gone.
fn field_kib(pid: Pid, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(own: &str, expected: Option<&str>) {
        assert_eq!(
            parent(own).map(|(path, _)| path),
            expected.map(PathBuf::from),
            "{own}"
        );
    }

    #[test]
    fn the_own_memory_cgroup_is_found() {
        check(
            "5:cpu,cpuacct:/a\n4:memory:/b/c\n0::/d\n",
            Some("/sys/fs/cgroup/memory/b/c"),
        );
        check("0::/user.slice/x\n", Some("/sys/fs/cgroup/user.slice/x"));
        check("3:memory:/\n", Some("/sys/fs/cgroup/memory/"));
        check("", None);
    }
}
