//! Programs of this machine that build functions: found on `PATH`, run to their end, their output shown as it comes.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::failure::{Exit, Failure};

/// Whether there is such a file in a directory of `PATH`.
pub(crate) fn is_on_path(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| is_program(&dir.join(name)))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

/// Runs a program to its end. All that it prints goes to standard error: standard output is for results.
///
/// # Errors
/// When it can not be run, fails, or does not end within `limit`; it is killed then.
///
/// # Cancel safety
/// Dropping the future kills the program.
pub(crate) async fn run(mut command: Command, limit: Duration) -> Result<(), Failure> {
    let shown = shown(&command);
    let program = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let cannot = |error: io::Error| {
        // A directory that is not there is told of in the same way, but this one has been read from.
        let why = match error.kind() {
            io::ErrorKind::NotFound => format!("there is no program {program} on PATH"),
            _ => error.to_string(),
        };
        Failure::new(Exit::Failed, format!("cannot run `{shown}`: {why}"))
    };
    command
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(cannot)?;
    match tokio::time::timeout(limit, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(Failure::new(
            Exit::Failed,
            format!("`{shown}` failed: {status}"),
        )),
        Ok(Err(error)) => Err(cannot(error)),
        Err(_) => {
            let limit = humantime::format_duration(limit);
            let message = format!("`{shown}` did not end within {limit}");
            Err(Failure::new(Exit::Failed, message).hint("--build-timeout waits longer"))
        }
    }
}

/// The command as a user would write it.
fn shown(command: &Command) -> String {
    let command = command.as_std();
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
