//! A process is killed at each point there is, again at a later time that it is there, and what its queue promises holds.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use config::etcd::server::Etcd;
use tempfile::TempDir;

use super::judge::judge;
use super::process::{ORDER, Order, Place, VICTIM};

#[path = "../../tests/jetstream/server.rs"]
#[expect(dead_code, reason = "other tests need more of it")]
mod nats;

use nats::Nats;

/// A process is killed when it is at a point for that time. Each point is reached once at least.
const TIMES: [i64; 3] = [1, 4, 11];
/// What leaves something to whoever comes next.
const BEFORE_TAKEOVER: (&str, i64) = ("loop.called", 5);
/// Points that are tried at once.
const AT_ONCE: usize = 4;
/// Of a process that was killed.
const SIGKILL: i32 = 9;

/// A directory of one try.
struct Try {
    directory: TempDir,
    place: Place,
    kills: usize,
    generation: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_on_disk_loses_nothing_wherever_it_is_killed() {
    let on_disk = |_: &str, directory: &Path| Place::Directory(directory.join("queue"));
    tokio::task::block_in_place(|| check_all("embedded.", &on_disk));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_in_etcd_loses_nothing_wherever_it_is_killed() {
    let etcd = Etcd::start().await;
    let in_etcd = |name: &str, _: &Path| Place::Etcd {
        url: etcd.url.clone(),
        cluster: name.to_owned(),
    };
    tokio::task::block_in_place(|| check_all("etcd.", &in_etcd));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_in_nats_loses_nothing_wherever_it_is_killed() {
    let nats = Nats::start().await;
    let in_nats = |name: &str, _: &Path| Place::JetStream {
        url: nats.url(),
        cluster: name.to_owned(),
    };
    tokio::task::block_in_place(|| check_all("jetstream.", &in_nats));
}

/// Kills a process at each point of this backend and of the loop, some at once.
fn check_all(backend: &str, place: &(dyn Fn(&str, &Path) -> Place + Sync)) {
    let points = points().into_iter();
    let mut points: Vec<_> = points
        .filter(|point| point.starts_with(backend) || point.starts_with("loop."))
        .collect();
    points.sort_unstable();
    assert!(points.len() > 10, "{points:?}");
    let tries = TIMES.into_iter().flat_map(|nth| {
        let points = points.iter().cloned();
        points.map(move |point| (point, nth))
    });
    let tries = Mutex::new(tries.collect::<VecDeque<_>>());
    let next = || tries.lock().unwrap().pop_front();
    let broken = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((point, nth)) = next() {
                    let found = check(&point, nth, place);
                    let found = found.into_iter();
                    let found = found.map(|what| format!("{point}:{nth}: {what}"));
                    broken.lock().unwrap().extend(found);
                }
            });
        }
    });
    let broken = broken.into_inner().unwrap();
    assert!(broken.is_empty(), "{broken:#?}");
}

fn check(point: &str, nth: i64, place: &(dyn Fn(&str, &Path) -> Place + Sync)) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let name = format!("{}-{nth}", point.replace('.', "-"));
    std::fs::write(directory.path().join("history"), "").unwrap();
    let mut one = Try {
        place: place(&name, directory.path()),
        directory,
        kills: 0,
        generation: 0,
    };
    if point.contains(".takeover.") {
        let (before, nth) = BEFORE_TAKEOVER;
        one.run(Some((before, nth)), true);
    }
    let is_killed = one.run(Some((point, nth)), true);
    let is_killed_again = one.run(None, false);
    let mut broken = judge(&one.history(), one.kills);
    if nth == 1 && !is_killed {
        broken.push("no process came to this point".to_owned());
    }
    if is_killed_again {
        broken.push("a process was killed for no reason".to_owned());
    }
    broken
}

impl Try {
    /// Runs a process; true when it was killed, as it should have been.
    fn run(&mut self, ends_at: Option<(&str, i64)>, has_callers: bool) -> bool {
        self.generation += 1;
        let order = Order {
            place: self.place.clone(),
            generation: self.generation,
            ends_at: ends_at.map(|(point, nth)| (point.to_owned(), nth)),
            has_callers,
            history: self.directory.path().join("history"),
        };
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", VICTIM, "--nocapture"])
            .env(ORDER, serde_json::to_string(&order).unwrap())
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let is_killed = ran.status.signal() == Some(SIGKILL);
        self.kills += usize::from(is_killed);
        let said = || String::from_utf8_lossy(&ran.stderr).into_owned() + &self.history();
        assert!(
            is_killed || ExitStatus::success(&ran.status),
            "{order:?}: {}",
            said()
        );
        is_killed
    }

    fn history(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("history")).unwrap()
    }
}

/// All points, as the sources name them.
fn points() -> Vec<String> {
    let mut points = Vec::new();
    let mut directories = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let named = text.split(concat!("fault_point", "!(\"")).skip(1);
            points.extend(named.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
        }
    }
    points
}
