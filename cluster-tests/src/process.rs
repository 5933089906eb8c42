//! A child process with its log, and what can be done to it; and the search for processes that should be gone.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait::eventually;

/// A child process that is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Process {
    /// Starts a command, its output appended to `log`.
    ///
    /// # Panics
    /// When the command can not be started.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Self {
        let mut output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("open the log of a process");
        let _ = writeln!(output, "--- {command:?}");
        let errors = output
            .try_clone()
            .expect("share the log between stdout and stderr");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("start {name} ({command:?}): {error}"));
        Self {
            name: name.to_owned(),
            log: log.to_owned(),
            child: Mutex::new(child),
        }
    }

    /// The process id.
    pub fn id(&self) -> i32 {
        let child = self.child.lock().expect("no holder panics");
        i32::try_from(child.id()).expect("Linux keeps process ids below 2^22")
    }

    /// Sends a signal; one to a process that has ended is no error.
    pub fn signal(&self, signal: Signal) {
        // A process that was waited for may have given its id away.
        if self.status().is_none() {
            let _ = kill(Pid::from_raw(self.id()), signal);
        }
    }

    /// Kills with SIGKILL and waits until the process is gone.
    pub fn kill9(&self) {
        let mut child = self.child.lock().expect("no holder panics");
        let _ = child.kill();
        let _ = child.wait();
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.child
            .lock()
            .expect("no holder panics")
            .try_wait()
            .expect("wait for a child of ours")
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it has not within `bound`.
    pub async fn exited(&self, bound: Duration) -> ExitStatus {
        eventually(&format!("{} ends", self.name), bound, || async {
            self.status().ok_or("it still runs")
        })
        .await
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Processes of this machine whose environment holds `text`, as `pid command line`; our own process left out.
pub fn with_environment(text: &str) -> Vec<String> {
    let needle = text.as_bytes();
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let Some(id) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        if id == std::process::id() {
            continue;
        }
        // A process that ends meanwhile, and a zombie, have nothing to read.
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .windows(needle.len())
            .any(|window| window == needle)
        {
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            found.push(format!("{id} {}", command.trim()));
        }
    }
    found
}

/// Resident memory of a process in bytes; `None` once it is gone.
pub fn resident_bytes(id: i32) -> Option<u64> {
    status_bytes(id, "VmRSS:")
}

/// The most resident memory that a process ever had, in bytes; `None` once it is gone.
pub fn peak_bytes(id: i32) -> Option<u64> {
    status_bytes(id, "VmHWM:")
}

fn status_bytes(id: i32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let kib = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: u64 = kib.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib * 1024)
}
