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
    let text = read_text(file, key)?;
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

/// Reads the secrets that a setting names the file of, one a line; empty lines do not count. None where no file is set.
pub(super) fn read_lines(
    file: Option<&Path>,
    key: &str,
    len_min: usize,
    count_max: usize,
) -> Result<Vec<Secret>, Error> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let text = read_text(file, key)?;
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let wrong = |expected: String| Err(Error::new(key, file.display(), expected));
    if lines.is_empty() || lines.len() > count_max {
        let found = lines.len();
        return wrong(format!(
            "a file with 1 to {count_max} secrets, one a line, found {found}"
        ));
    }
    for (position, line) in lines.iter().enumerate() {
        let number = position + 1;
        if line.len() < len_min {
            let found = line.len();
            return wrong(format!(
                "a file with secrets of at least {len_min} bytes, one a line, found {found} in secret {number}"
            ));
        }
        if let Some(other) = lines[..position].iter().position(|other| other == line) {
            let other = other + 1;
            return wrong(format!(
                "a file with each secret once, found secret {number} to be secret {other}"
            ));
        }
    }
    Ok(lines.into_iter().map(Secret::new).collect())
}

fn read_text(file: &Path, key: &str) -> Result<String, Error> {
    std::fs::read_to_string(file).map_err(|error| {
        Error::new(
            key,
            file.display(),
            format!("a file with a secret text that can be read: {error}"),
        )
    })
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
    fn several_secrets_stand_in_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secrets");
        let read = |text: &str| {
            std::fs::write(&file, text).unwrap();
            read_lines(Some(&file), "cluster.secret_file", 4, 2)
        };
        let texts = |text| {
            let secrets: Vec<Secret> = read(text).unwrap();
            secrets
                .iter()
                .map(|secret| secret.expose().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(texts(" abcd \n\n\tefgh\r\n"), ["abcd", "efgh"]);
        assert_eq!(texts("ab cd"), ["ab cd"]);
        let error = |text| read(text).unwrap_err().to_string();
        for (text, expected) in [
            ("", "1 to 2 secrets, one a line, found 0"),
            ("\n \n", "found 0"),
            ("abcd\nefgh\nijkl", "found 3"),
            (
                "abcd\nefg",
                "at least 4 bytes, one a line, found 3 in secret 2",
            ),
            ("abcd\nabcd", "found secret 2 to be secret 1"),
        ] {
            let error = error(text);
            assert!(error.contains(expected), "{text:?}: {error}");
            assert!(!error.contains("efg"), "{error}");
        }
        assert_eq!(read_lines(None, "cluster.secret_file", 4, 2), Ok(vec![]));
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
