//! Processor time that the servers have used: unlike latency, it hardly depends on what else the machine does.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

/// Processor time used so far by all processes that this one has started, and by those that they have started.
pub(super) fn of_servers() -> Duration {
    let parents = parents();
    let own = std::process::id();
    let is_server = |id: u32| {
        let mut ancestors = std::iter::successors(parents.get(&id), |parent| parents.get(parent));
        ancestors.any(|ancestor| *ancestor == own)
    };
    let servers = parents.keys().copied().filter(|id| is_server(*id));
    servers.map(of_process).sum()
}

/// The parent of each process.
fn parents() -> HashMap<u32, u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    let ids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The program's name comes before, in parentheses, and may hold anything.
        let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
        Some((id, parent.parse().ok()?))
    })
    .collect()
}

/// What the threads of a process have used; nothing once it has ended.
fn of_process(id: u32) -> Duration {
    let Ok(threads) = fs::read_dir(format!("/proc/{id}/task")) else {
        return Duration::ZERO;
    };
    let used = threads.flatten().filter_map(|thread| {
        let stat = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(used.sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_time_counts_for_us_and_not_for_servers() {
        assert!(of_process(std::process::id()) > Duration::ZERO);
        assert!(parents().contains_key(&std::process::id()));
        assert_eq!(of_process(0), Duration::ZERO);
    }
}
