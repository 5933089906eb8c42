//! Processes that hold deliveries and are killed, or stopped for longer than they may be silent.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use queue::Outcome;

use super::*;

/// Says to the process where NATS is.
const URL: &str = "QUEUE_TEST_NATS";
const OTHER: &str = "process::another_process_holds_deliveries";

/// A process that accepts four deliveries, leases them, and settles them when it is told to.
struct Other {
    child: Child,
    says: BufReader<ChildStdout>,
    hears: ChildStdin,
}

impl Other {
    fn start(nats: &Nats) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", OTHER, "--nocapture"])
            .env(URL, nats.url())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let says = BufReader::new(child.stdout.take().unwrap());
        let hears = child.stdin.take().unwrap();
        Self { child, says, hears }
    }

    /// The next line that is of these.
    fn says(&mut self, words: &[&str]) -> String {
        let lines = self.says.by_ref().lines();
        let mut lines = lines.map(|line| line.unwrap().trim().to_owned());
        let found = lines.find(|line| words.contains(&line.as_str()));
        found.expect("it says something before it ends")
    }

    fn signal(&self, signal: Signal) {
        kill(
            Pid::from_raw(i32::try_from(self.child.id()).unwrap()),
            signal,
        )
        .unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn taken_over(survivor: &JetStreamQueue) -> Vec<Leased> {
    let mut taken = Vec::new();
    while taken.len() < 4 {
        taken.extend(next(survivor).await);
    }
    assert!(taken.iter().all(|leased| leased.attempts == 1), "{taken:?}");
    taken
}

async fn settle_all(survivor: &JetStreamQueue, taken: &[Leased]) {
    for leased in taken {
        let settled = survivor.settle(&leased.lease, Outcome::Delivered).await;
        settled.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_process_had_is_taken_over() {
    let nats = Nats::start().await;
    let survivor = open(patient(options_of("survivor", &nats.url(), "c"))).await;
    let mut other = Other::start(&nats);
    other.says(&["leased"]);
    let killed = Instant::now();
    other.signal(Signal::SIGKILL);
    let taken = taken_over(&survivor).await;
    assert!(
        killed.elapsed() < 10 * Duration::from_secs(1),
        "{:?}",
        killed.elapsed()
    );
    settle_all(&survivor, &taken).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_stopped_for_too_long_settles_nothing() {
    let nats = Nats::start().await;
    let survivor = open(patient(options_of("survivor", &nats.url(), "c"))).await;
    let mut other = Other::start(&nats);
    other.says(&["leased"]);
    other.signal(Signal::SIGSTOP);
    let taken = taken_over(&survivor).await;
    writeln!(other.hears, "settle").unwrap();
    other.signal(Signal::SIGCONT);
    for _ in 0..4 {
        assert_eq!(other.says(&["settled", "lost"]), "lost");
    }
    settle_all(&survivor, &taken).await;
    assert_eq!(survivor.stats().dead, 0);
}

/// Two deliveries of one each and one record of two: all of it in the process that is killed or stopped, nothing where there is none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_holds_deliveries() {
    let Ok(url) = std::env::var(URL) else {
        return;
    };
    let queue = open(patient(options_of("other", &url, "c"))).await;
    for (function, count) in [("a", 1), ("b", 1), ("c", 2)] {
        let batch = conformance::deliveries(function, count);
        queue.enqueue(batch).await.unwrap();
    }
    let leased = queue.lease(MANY).await.unwrap();
    assert_eq!(leased.len(), 4);
    say("leased");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    for leased in leased {
        let settled = queue.settle(&leased.lease, Outcome::Delivered).await;
        say(if settled.is_ok() { "settled" } else { "lost" });
    }
    std::future::pending::<()>().await;
}

#[expect(clippy::print_stdout, reason = "that is how it is heard")]
fn say(word: &str) {
    // On a line of its own, whatever the test harness has begun to write.
    println!("\n{word}");
}
