//! Real files, and a process that is killed while many callers use the queue.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;

/// Says to the process that is killed where its queue is.
const DIRECTORY: &str = "QUEUE_TEST_DIRECTORY";
const VICTIM: &str = "backend::embedded::tests::kill::a_process_uses_its_queue";

/// What a process said of its deliveries before it was killed.
#[derive(Default)]
struct Said {
    sent: BTreeSet<DeliveryId>,
    acknowledged: BTreeSet<DeliveryId>,
    settled: BTreeSet<DeliveryId>,
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_it_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let mut said = Said::default();
    for round in 1..=6 {
        run_and_kill(directory.path(), &mut said, 150 * round);
        let queue = on_files(directory.path(), Options::for_tests().limits);
        let open: BTreeSet<_> = queue.shared.index().turns.entries.keys().copied().collect();
        let mut expected = said.acknowledged.difference(&said.settled);
        let lost = expected.find(|id| !open.contains(*id));
        assert_eq!(lost, None, "round {round}");
        let never_sent = open.iter().find(|id| !said.sent.contains(*id));
        assert_eq!(never_sent, None, "round {round}");
        // What was being settled may have ended or not; from here on it is known.
        said.acknowledged = open;
        said.settled.clear();
    }
}

/// Reads what the process says until so many were acknowledged, kills it, and reads the rest.
fn run_and_kill(directory: &Path, said: &mut Said, count: usize) {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", VICTIM, "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    for line in BufReader::new(process.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some((what, Ok(id))) = line.split_once(' ').map(|(what, id)| (what, id.parse())) else {
            continue;
        };
        match what {
            "send" => said.sent.insert(id),
            "took" => said.acknowledged.insert(id),
            "ends" => said.settled.insert(id),
            _ => continue,
        };
        acknowledged += usize::from(what == "took");
        if acknowledged == count {
            process.kill().unwrap();
        }
    }
    assert!(!process.wait().unwrap().success());
    assert!(acknowledged >= count, "it ended by itself");
}

/// Callers that enqueue and one that delivers: for ever in the process that is killed, else until some were taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_uses_its_queue() {
    let own = tempfile::tempdir().unwrap();
    let given = std::env::var_os(DIRECTORY);
    let each = if given.is_some() { usize::MAX } else { 20 };
    let directory = given.as_deref().map_or_else(|| own.path(), Path::new);
    let queue = Arc::new(on_files(directory, Options::for_tests().limits));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..8 {
        let queue = Arc::clone(&queue);
        callers.spawn(async move {
            for _ in 0..each {
                let batch = conformance::deliveries(&format!("f{caller}"), 2);
                batch.iter().for_each(|sent| say("send", sent.id));
                queue.enqueue(batch.clone()).await.unwrap();
                batch.iter().for_each(|taken| say("took", taken.id));
                let few = Permits {
                    free: 3,
                    total: 100,
                };
                for leased in queue.lease(few).await.unwrap() {
                    say("ends", leased.lease.id);
                    let settled = queue.settle(&leased.lease, Outcome::Delivered).await;
                    settled.unwrap();
                }
            }
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.unwrap();
    }
}

/// A line at once, as there may be no time for another one.
fn say(what: &str, id: DeliveryId) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {id}").unwrap();
    out.flush().unwrap();
}
