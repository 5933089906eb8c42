//! A text that is never shown.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize, Serializer};

use super::Error;

/// A secret text: read like any other setting, printed and serialised as `<redacted>`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// What is shown instead of the text.
    pub const REDACTED: &str = "<redacted>";

    /// Wraps a secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that must send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::REDACTED)
    }
}

/// Reads the secret that a setting names the file of. The whole file counts, without the white space around it, because editors
/// and `echo` end a file with a line break.
pub(super) fn read(
    file: Option<&Path>,
    key: &str,
    len_min: usize,
) -> Result<Option<Secret>, Error> {
    let Some(file) = file else { return Ok(None) };
    let text = std::fs::read_to_string(file).map_err(|error| {
        Error::new(
            key,
            file.display(),
            format!("a file with a secret text that can be read: {error}"),
        )
    })?;
    let text = text.trim();
    if text.len() < len_min {
        let expected = format!(
            "a file with a secret of at least {len_min} bytes, found {}",
            text.len()
        );
        return Err(Error::new(key, file.display(), expected));
    }
    Ok(Some(Secret::new(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_secret_without_the_white_space_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("\n {} \n", "s".repeat(32))).unwrap();
        let secret = read(Some(&file), "cluster.secret_file", 32)
            .unwrap()
            .unwrap();
        assert_eq!(secret.expose(), "s".repeat(32));
        assert_eq!(format!("{secret:?}"), "<redacted>");
    }

    #[test]
    fn refuses_a_secret_that_is_short_or_can_not_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secret");
        std::fs::write(&file, format!("{}\n", "s".repeat(31))).unwrap();
        let error = read(Some(&file), "cluster.secret_file", 32)
            .unwrap_err()
            .to_string();
        assert!(error.contains("at least 32 bytes, found 31"), "{error}");
        let error = read(Some(&dir.path().join("none")), "cluster.secret_file", 32)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cluster.secret_file") && error.contains("No such file"),
            "{error}"
        );
        assert_eq!(read(None, "cluster.secret_file", 32), Ok(None));
    }
}
