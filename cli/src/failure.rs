//! How the command fails: the message a human reads and the exit code a script reads.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// The exit codes, as the help states them.
pub const EXIT_CODES: &str = "\
Exit codes:
  0   It worked
  1   The API said no, or the function failed
  64  Bad usage or bad input: nothing was sent
  69  The API could not be reached, or gave no answer
  77  Not authorised: the token is missing, wrong, or does not allow it";

/// Why the command ends with another code than 0.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code's kind.
    pub(crate) exit: Exit,
    /// What went wrong; empty where nothing is left to be said.
    pub(crate) message: String,
    /// What the user may try.
    pub(crate) hints: Vec<String>,
    /// The API's error body, where it is JSON.
    pub(crate) body: Option<String>,
}

/// The kinds of failure that scripts tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The reader of our output went away: no failure of ours.
    OutputClosed,
    /// The API said no, or the function failed.
    Failed,
    /// Bad usage or bad input; `EX_USAGE` of sysexits.h.
    Usage,
    /// The API can not be reached; `EX_UNAVAILABLE`.
    Unreachable,
    /// No or the wrong credential; `EX_NOPERM`.
    Unauthorised,
    /// Stopped by SIGINT, where that is told of in the subcommand's help; the code that shells give it.
    Interrupted,
}

impl Exit {
    /// The process's exit code.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::OutputClosed => 0,
            Self::Failed => 1,
            Self::Usage => 64,
            Self::Unreachable => 69,
            Self::Unauthorised => 77,
            Self::Interrupted => 130,
        }
    }
}

impl Failure {
    /// Builds a failure; hints and the API's body are added by whoever knows them.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hints: Vec::new(),
            body: None,
        }
    }

    /// Builds a failure of the user's input.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what the user may try.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hearth: {}", self.message)?;
        for hint in &self.hints {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

impl From<io::Error> for Failure {
    /// A failed write of our own output; input and network errors are mapped where they happen.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::OutputClosed, ""),
            _ => Self::new(Exit::Failed, format!("cannot write the output: {error}")),
        }
    }
}

/// Prints what clap has to say and returns the exit code: 0 for help and version, 64 for all else.
pub fn usage_error(error: &clap::Error) -> ExitCode {
    // Nothing can be said any more to a reader who went away.
    let _ = error.print();
    usage_exit(error.kind()).into()
}

fn usage_exit(kind: clap::error::ErrorKind) -> u8 {
    use clap::error::ErrorKind;
    match kind {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => 0,
        _ => Exit::Usage.code(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::parse;

    #[test]
    fn clap_errors_exit_64_and_help_exits_0() {
        let check = |line: &str, expected: u8| {
            let error = parse(line).expect_err(line);
            assert_eq!(usage_exit(error.kind()), expected, "{line}");
        };
        check("--help", 0);
        check("function register --help", 0);
        check("function", 64);
        check("no-such-command", 64);
        check("function get", 64);
        check("function get a/b", 64);
        check("function get ..", 64);
        check("--space ab cluster", 64);
        check("--api localhost:4001 cluster", 64);
        check("--timeout 0s cluster", 64);
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            Exit::Failed,
            Exit::Usage,
            Exit::Unreachable,
            Exit::Unauthorised,
        ] {
            assert!(
                EXIT_CODES.contains(&format!("\n  {:<4}", exit.code())),
                "{exit:?}"
            );
        }
    }
}
