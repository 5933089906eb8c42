//! Passwords: asked for on a terminal without showing them, else a line of a file or of the input. None stands in a command line.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::console::{Console, shown};
use crate::failure::Failure;

/// Where a password comes from.
#[derive(Debug, Clone, Args)]
pub(crate) struct PasswordArgs {
    /// File whose first line is the password, `-` for standard input [default: asked for on the terminal]
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl PasswordArgs {
    /// Reads the password.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn read(&self, console: &mut Console<'_>) -> Result<String, Failure> {
        read_secret(self.password_file.as_deref(), "password", console)
    }
}

/// Reads a secret from the first line of a file, or from the terminal.
///
/// # Errors
/// When there is none.
pub(crate) fn read_secret(
    file: Option<&Path>,
    what: &str,
    console: &mut Console<'_>,
) -> Result<String, Failure> {
    let Some(path) = file else {
        let hint = format!("--{}-file FILE reads it", what.replace(' ', "-"));
        return ask(what, &hint, console);
    };
    let text = String::from_utf8(console.read(path)?);
    let text = text.map_err(|_| Failure::usage(format!("{} is no text", shown(path))))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => {
            let shown = shown(path);
            Err(Failure::usage(format!("the {what} in {shown} is empty")))
        }
    }
}

/// Asks for a secret on the terminal, without showing it; `hint` says how else it can be given.
///
/// # Errors
/// When there is no terminal.
pub(crate) fn ask(what: &str, hint: &str, console: &mut Console<'_>) -> Result<String, Failure> {
    let terminal = ::console::Term::stderr();
    if !console.is_watched || !terminal.is_term() {
        let message = format!("there is no terminal to ask for the {what} on");
        return Err(Failure::usage(message).hint(hint));
    }
    write!(console.err, "{what}: ")?;
    console.err.flush()?;
    Ok(terminal.read_secure_line()?)
}
