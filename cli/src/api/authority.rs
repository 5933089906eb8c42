//! The certificates that a node's own is trusted by, where the system does not know them.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use reqwest::Certificate;

use crate::failure::Failure;

/// All authorities that a system trusts have less than half of it.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reads the certificates of a file.
///
/// # Errors
/// When it can not be read, or holds no certificate.
pub(super) fn read(path: &Path) -> Result<Vec<Certificate>, Failure> {
    let shown = path.display();
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut text))
        .map_err(|error| Failure::usage(format!("cannot read --ca-file {shown}: {error}")))?;
    match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(Failure::usage(format!(
            "--ca-file {shown} holds no certificate; expected PEM (-----BEGIN CERTIFICATE-----)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn what_holds_no_certificate_is_refused() {
        for content in [
            "",
            "secret",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        ] {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            let failure = read(file.path()).unwrap_err();
            assert_eq!(failure.exit, Exit::Usage);
            assert!(
                failure.message.contains("holds no certificate"),
                "{failure:?}"
            );
        }
        let failure = read(Path::new("/nonexistent/ca.pem")).unwrap_err();
        assert!(failure.message.contains("cannot read"), "{failure:?}");
    }
}
