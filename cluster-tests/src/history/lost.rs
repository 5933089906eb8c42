//! What nodes say of themselves: a session or a lease that ended though nothing was done to its node, as the machine was too busy.

use std::time::{Duration, UNIX_EPOCH};

use super::{Cause, Line};

/// What is in the line of a log in which a node says so.
const SAID: [&str; 3] = [
    "lost its session",
    "were neither settled nor extended",
    "another node took deliveries over",
];

/// The times around such lines, in which a success may not have reached the queue. A session and a lease last for `timeout`.
pub(super) fn troubles(log: &str, timeout: Duration) -> Vec<Line> {
    let timeout = u64::try_from(timeout.as_millis()).expect("it is seconds");
    let lines = log
        .lines()
        .filter(|line| SAID.iter().any(|said| line.contains(said)));
    let times = lines.filter_map(|line| {
        let time = humantime::parse_rfc3339(line.split_whitespace().next()?).ok()?;
        let time = time.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(time.as_millis()).ok()
    });
    let troubles = times.map(|at_ms| Line::Trouble {
        from_ms: at_ms.saturating_sub(timeout),
        until_ms: at_ms + timeout,
        cause: Cause::Session,
    });
    troubles.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_lost_is_read_from_its_log() {
        let log = "--- HEARTH_QUEUE__BACKEND=etcd hearth node
            2026-11-28T02:30:15.237606Z  INFO queue: the queue in etcd has a session
            2026-11-28T02:30:24.248718Z  WARN queue: the queue in etcd lost its session: why";
        let at_ms = 1_795_833_024_248;
        let expected = Line::Trouble {
            from_ms: at_ms - 2_000,
            until_ms: at_ms + 2_000,
            cause: Cause::Session,
        };
        assert_eq!(troubles(log, Duration::from_secs(2)), [expected]);
    }
}
