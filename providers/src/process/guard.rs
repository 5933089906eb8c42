//! The program between a node and a command: it kills the command and all its descendants when the node is gone.
//!
//! Its stdin is a socket to the node. The node first sends the payload, if there is one, then at most commands of one byte; when
//! the socket ends the node is dead, even by `kill -9`, or wants the instance killed. The guard answers with [`report`]s.

mod descendants;
mod memory;
pub(crate) mod report;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

use self::memory::Memory;
use self::report::{KILLED, Report};

pub use self::report::TERMINATE;

/// What the guard is told on its command line: `[--memory-mb N] [--payload-bytes N] -- PROGRAM [ARGUMENT..]`.
#[derive(Debug, Default)]
struct Task {
    memory_mb: Option<u64>,
    payload_bytes: Option<usize>,
    command: Vec<OsString>,
}

/// What the guard waits for.
enum Event {
    NodeGone,
    Terminate,
    CommandEnded(i64),
}

/// How often the memory of the command and its descendants is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// The exit code for a wrong command line, as of the shell's tools.
const EXIT_USAGE: u8 = 64;
/// The exit code for a command that can not be run, as of the shell.
const EXIT_NOT_RUN: u8 = 127;

/// Runs the guard until its command is gone, and returns the command's exit code.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let Some(task) = parse(arguments) else {
        return ExitCode::from(EXIT_USAGE);
    };
    let link = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from);
    let Ok(mut link) = link else {
        return ExitCode::from(EXIT_USAGE);
    };
    if take_signals().is_err() {
        return ExitCode::from(EXIT_USAGE);
    }
    match begin(&task, &mut link) {
        Ok(command) => {
            let code = watch(&task, &mut link, command);
            tell(&mut link, Report::Exited(code));
            ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
        }
        Err(why) => {
            tell(&mut link, Report::Failed(why));
            tell(&mut link, Report::Exited(EXIT_NOT_RUN.into()));
            ExitCode::from(EXIT_NOT_RUN)
        }
    }
}

/// Takes the signals of a terminal and does nothing with them: they are for the node, and the guard ends with its link. They are
/// neither blocked nor ignored, because the command would inherit that and never hear a request to stop.
fn take_signals() -> io::Result<()> {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        signal_hook::flag::register(signal as i32, Arc::default())?;
    }
    Ok(())
}

/// Tells the node in one write. With the link broken there is nobody to tell.
fn tell(link: &mut UnixStream, report: Report) {
    let _ = link.write_all(format!("{report}\n").as_bytes());
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Task> {
    let mut task = Task::default();
    let mut arguments = arguments.into_iter();
    loop {
        match arguments.next()?.to_str()? {
            "--memory-mb" => task.memory_mb = Some(arguments.next()?.to_str()?.parse().ok()?),
            "--payload-bytes" => {
                task.payload_bytes = Some(arguments.next()?.to_str()?.parse().ok()?);
            }
            "--" => break,
            _ => return None,
        }
    }
    task.command = arguments.collect();
    (!task.command.is_empty()).then_some(task)
}

fn begin(task: &Task, link: &mut UnixStream) -> Result<Child, String> {
    let mut payload = vec![0; task.payload_bytes.unwrap_or(0)];
    link.read_exact(&mut payload)
        .map_err(|error| format!("reading the payload: {error}"))?;
    // Descendants whose parent ends become ours, whatever group or session they moved to.
    set_child_subreaper(true).map_err(|error| format!("becoming the subreaper: {error}"))?;
    let (program, arguments) = task.command.split_first().ok_or("no command")?;
    let stdin = if task.payload_bytes.is_some() {
        Stdio::piped()
    } else {
        Stdio::null()
    };
    let spawned = Command::new(program)
        .args(arguments)
        .stdin(stdin)
        .process_group(0)
        .spawn();
    let mut command = spawned.map_err(|error| format!("running {}: {error}", program.display()))?;
    if let Some(mut stdin) = command.stdin.take() {
        // A command that does not read its input must not keep the guard from noticing that the node is gone.
        thread::spawn(move || stdin.write_all(&payload));
    }
    let _ = writeln!(
        link,
        "{}",
        Report::Started(i32::try_from(command.id()).unwrap_or(i32::MAX))
    );
    Ok(command)
}

/// Waits for what comes first, and leaves no process behind.
fn watch(task: &Task, link: &mut UnixStream, command: Child) -> i64 {
    let group = Pid::from_raw(i32::try_from(command.id()).unwrap_or(i32::MAX));
    let mut memory = task
        .memory_mb
        .map(|limit_mb| Memory::bound(group, limit_mb));
    let (events, received) = mpsc::channel();
    if let Ok(link) = link.try_clone() {
        let events = events.clone();
        thread::spawn(move || listen(link, &events));
    }
    thread::spawn(move || reap(group, &events));
    let code = loop {
        match received.recv_timeout(SAMPLE_INTERVAL) {
            Ok(Event::CommandEnded(code)) => {
                if let Some(why) = memory.as_ref().and_then(Memory::was_killed_for) {
                    tell(link, Report::Killed(why));
                }
                break code;
            }
            Ok(Event::Terminate) => {
                let _ = killpg(group, Signal::SIGTERM);
            }
            Ok(Event::NodeGone) | Err(RecvTimeoutError::Disconnected) => break KILLED,
            Err(RecvTimeoutError::Timeout) => {
                if let Some(why) = memory.as_mut().and_then(Memory::exceeded) {
                    tell(link, Report::Killed(why));
                    break KILLED;
                }
            }
        }
    };
    descendants::kill(group);
    if let Some(memory) = memory {
        memory.release();
    }
    code
}

fn listen(mut link: UnixStream, events: &Sender<Event>) {
    let mut byte = [0];
    loop {
        let event = match link.read(&mut byte) {
            Ok(1) if byte[0] == TERMINATE => Event::Terminate,
            Ok(1) => continue,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(_) | Err(_) => Event::NodeGone,
        };
        let is_last = matches!(event, Event::NodeGone);
        if events.send(event).is_err() || is_last {
            return;
        }
    }
}

/// Reaps all descendants, and tells of the command itself.
fn reap(command: Pid, events: &Sender<Event>) {
    loop {
        let (pid, code) = match wait() {
            Ok(WaitStatus::Exited(pid, code)) => (pid, i64::from(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i64),
            Ok(_) | Err(nix::errno::Errno::EINTR) => continue,
            // No child is left.
            Err(_) => return,
        };
        if pid == command && events.send(Event::CommandEnded(code)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: Option<(Option<u64>, Option<usize>, usize)>) {
        let parsed = parse(line.split_whitespace().map(OsString::from));
        assert_eq!(
            parsed.map(|task| (task.memory_mb, task.payload_bytes, task.command.len())),
            expected,
            "{line}"
        );
    }

    #[test]
    fn the_command_line_is_read() {
        check("-- sleep 5", Some((None, None, 2)));
        check(
            "--memory-mb 64 --payload-bytes 3 -- cat",
            Some((Some(64), Some(3), 1)),
        );
        check("-- cmd --memory-mb 1", Some((None, None, 3)));
        check("--memory-mb x -- cat", None);
        check("--", None);
        check("", None);
    }
}
