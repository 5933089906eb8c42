//! Where the command reads and writes: the process's own streams, or buffers in tests.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::Path;

use crate::failure::Failure;

/// The largest payload a record can allow (`limits.bodyBytes`); a larger file is a mistake.
const INPUT_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The streams of one run of the command.
pub(crate) struct Console<'a> {
    /// Results.
    pub(crate) out: &'a mut (dyn Write + Send),
    /// Messages and details about the result.
    pub(crate) err: &'a mut (dyn Write + Send),
    /// Input named `-`.
    pub(crate) input: &'a mut (dyn Read + Send),
    /// Whether a human reads `out`, so that JSON is laid out for reading.
    pub(crate) is_terminal: bool,
    /// Whether a human watches `err`, which is the process's own then.
    pub(crate) is_watched: bool,
}

impl Console<'_> {
    /// Prints JSON text: laid out on a terminal, as it came otherwise.
    ///
    /// # Errors
    /// The write's.
    pub(crate) fn json(&mut self, text: &str) -> io::Result<()> {
        if self.is_terminal {
            self.text(&crate::json::pretty(text))
        } else {
            self.text(text)
        }
    }

    /// Prints text with exactly one line end after it, unless it is empty.
    ///
    /// # Errors
    /// The write's.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    /// Reads a file whole, or the input for `-`. It blocks, which holds nothing up: no request is in flight.
    ///
    /// # Errors
    /// When it can not be read or is larger than any payload may be.
    pub(crate) fn read(&mut self, path: &Path) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        let read = if path == Path::new("-") {
            (&mut *self.input)
                .take(INPUT_BYTES_MAX + 1)
                .read_to_end(&mut bytes)
        } else {
            File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes))
        };
        let shown = shown(path);
        match read {
            Err(error) => Err(Failure::usage(format!("cannot read {shown}: {error}"))),
            Ok(_) if bytes.len() as u64 > INPUT_BYTES_MAX => Err(Failure::usage(format!(
                "{shown} has more than {INPUT_BYTES_MAX} bytes"
            ))),
            Ok(_) => Ok(bytes),
        }
    }
}

/// How messages name an input.
pub(crate) fn shown(path: &Path) -> Cow<'_, str> {
    if path == Path::new("-") {
        "standard input".into()
    } else {
        path.to_string_lossy()
    }
}

/// Runs `body` with the process's own streams.
pub(crate) async fn with_process_streams<T>(body: impl AsyncFnOnce(Console<'_>) -> T) -> T {
    let (mut out, mut err, mut input) = (io::stdout(), io::stderr(), io::stdin());
    let (is_terminal, is_watched) = (out.is_terminal(), err.is_terminal());
    body(Console {
        out: &mut out,
        err: &mut err,
        input: &mut input,
        is_terminal,
        is_watched,
    })
    .await
}
