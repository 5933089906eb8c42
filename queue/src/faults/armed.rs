//! The point at which this process is to end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

static ARMED: OnceLock<(String, AtomicI64)> = OnceLock::new();

/// Has this process killed when it is at that point for the n-th time.
pub(super) fn arm(point: &str, nth: i64) {
    ARMED
        .set((point.to_owned(), AtomicI64::new(nth)))
        .expect("a process is killed once");
}

/// Kills the process by signal 9, so that nothing is written, told or dropped any more, if this is where it ends.
pub(crate) fn reach(point: &str) {
    let is_the_end = ARMED
        .get()
        .is_some_and(|(armed, left)| armed == point && left.fetch_sub(1, Ordering::AcqRel) == 1);
    if is_the_end {
        kill(Pid::this(), Signal::SIGKILL).expect("a process may kill itself");
        std::process::abort();
    }
}
