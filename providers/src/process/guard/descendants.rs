//! Finds and kills all descendants of this process.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill as send, killpg};
use nix::unistd::{Pid, getpid};

/// Rounds of killing; each one finds what was forked during the last.
const ROUNDS_MAX: u32 = 400;
const ROUND_PAUSE: Duration = Duration::from_millis(5);

/// Kills the process group and every descendant until none is left. Another thread reaps them.
pub(super) fn kill(group: Pid) {
    for _ in 0..ROUNDS_MAX {
        let alive = all();
        if alive.is_empty() {
            return;
        }
        // A group is killed at once, which also stops one that forks without end.
        let _ = killpg(group, Signal::SIGKILL);
        for pid in alive {
            let _ = send(pid, Signal::SIGKILL);
        }
        thread::sleep(ROUND_PAUSE);
    }
}

/// All descendants that are alive. This process is their subreaper, so the chain of parents always leads to it.
pub(super) fn all() -> Vec<Pid> {
    let own = getpid().as_raw();
    let parents: HashMap<i32, i32> = processes().collect();
    let is_descendant = |pid: i32| {
        let mut pid = pid;
        // A chain longer than this is a loop made of processes that ended while the list was read.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(parent) if *parent == own => return true,
                Some(parent) => pid = *parent,
                None => return false,
            }
        }
        false
    };
    parents
        .keys()
        .copied()
        .filter(|pid| is_descendant(*pid))
        .map(Pid::from_raw)
        .collect()
}

/// All processes that are no zombies, with their parents.
fn processes() -> impl Iterator<Item = (i32, i32)> {
    std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            parent(&stat).map(|parent| (pid, parent))
        })
}

/// The parent's pid from `/proc/PID/stat`, unless it is a zombie. The name before it is in brackets and may hold anything.
fn parent(stat: &str) -> Option<i32> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stat: &str, expected: Option<i32>) {
        assert_eq!(parent(stat), expected, "{stat}");
    }

    #[test]
    fn the_parent_is_found_behind_any_name() {
        check("12 (sh) S 7 12 12 0 -1", Some(7));
        check("12 (a) b) (c) R 8 12", Some(8));
        check("12 (sh) Z 7 12", None);
        check("12 (sh", None);
    }
}
