//! The bearer token of a request: of a login, or read from a file so that it stands in no process list and no shell history.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use reqwest::header::HeaderValue;

use crate::failure::Failure;

/// No token is longer; the file is something else.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// The value of the header for the token of a login.
///
/// # Errors
/// When no header can carry it, as when the credentials file was edited.
pub(super) fn of_login(token: &str) -> Result<HeaderValue, Failure> {
    match HeaderValue::from_str(&format!("Bearer {token}")) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(value)
        }
        Err(_) => Err(Failure::usage("the credentials file does not hold a token")
            .hint("`hearth login` writes it anew")),
    }
}

/// Reads the file and returns the value of the `Authorization` header. White space around the token is passed over.
///
/// # Errors
/// When the file can not be read, is empty, or holds what no header can carry. No message shows the token.
pub(super) fn bearer(path: &Path) -> Result<HeaderValue, Failure> {
    let shown = path.display();
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| Failure::usage(format!("cannot read the token file {shown}: {error}")))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(Failure::usage(format!("the token file {shown} is empty")));
    }
    let is_token =
        text.len() as u64 <= TOKEN_BYTES_MAX && token.bytes().all(|byte| byte.is_ascii_graphic());
    match HeaderValue::from_str(&format!("Bearer {token}")) {
        Ok(mut value) if is_token => {
            value.set_sensitive(true);
            Ok(value)
        }
        _ => Err(Failure::usage(format!(
            "the token file {shown} does not hold one token on one line"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    fn check(content: &str, expected: Result<&str, &str>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        match (bearer(file.path()), expected) {
            (Ok(value), Ok(expected)) => assert_eq!(value, expected),
            (Err(failure), Err(expected)) => {
                assert_eq!(failure.exit, Exit::Usage);
                assert!(failure.message.contains(expected), "{}", failure.message);
            }
            (outcome, _) => panic!("{content:?} gave {outcome:?}"),
        }
    }

    #[test]
    fn a_token_file_holds_one_token() {
        check("  secret-token\n", Ok("Bearer secret-token"));
        check("\n", Err("is empty"));
        check("two tokens", Err("one token on one line"));
        check("two\ntokens", Err("one token on one line"));
        check(&"x".repeat(70_000), Err("one token on one line"));
    }

    #[test]
    fn a_missing_token_file_is_named() {
        let failure = bearer(Path::new("/does/not/exist")).unwrap_err();
        assert!(
            failure.message.contains("/does/not/exist"),
            "{}",
            failure.message
        );
    }
}
