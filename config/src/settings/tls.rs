//! `[tls]`: certificates of the client listeners.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Error;
use super::error::{NOT_SET, above_zero};
use super::field::section;

section! {
    /// Certificates of the client listeners. A listener without one speaks plain HTTP.
    pub struct TlsSettings {
        /// The certificate of all client listeners, PEM, followed by those between it and its authority.
        pub cert_file: Option<PathBuf> = None,
        /// Its private key, PEM.
        pub key_file: Option<PathBuf> = None,
        /// Another certificate for the functions API.
        pub functions: CertificateSettings = CertificateSettings::default(),
        /// Another certificate for the events API.
        pub events: CertificateSettings = CertificateSettings::default(),
        /// Another certificate for the config API.
        pub config: CertificateSettings = CertificateSettings::default(),
        /// How long a client may take to agree on TLS.
        #[serde(with = "humantime_serde")]
        pub handshake_timeout: Duration = Duration::from_secs(10),
        /// How often the files are looked at; a certificate that was replaced is used for new connections.
        #[serde(with = "humantime_serde")]
        pub reload_interval: Duration = Duration::from_secs(10),
        /// For how long browsers are told to come by TLS only (`Strict-Transport-Security`), once all three listeners have a certificate: it
        /// holds for all ports of a host. 0 tells them nothing.
        #[serde(with = "humantime_serde")]
        pub hsts_max_age: Duration = Duration::from_secs(365 * 24 * 60 * 60),
    }
}

section! {
    /// A certificate for one listener.
    pub struct CertificateSettings {
        /// The certificate, PEM, followed by those between it and its authority.
        pub cert_file: Option<PathBuf> = None,
        /// Its private key, PEM.
        pub key_file: Option<PathBuf> = None,
    }
}

/// Where a listener's certificate is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CertificateFiles<'a> {
    /// The setting that names the certificate.
    pub certificate_setting: &'static str,
    /// The certificate and those that follow it.
    pub certificate: &'a Path,
    /// The setting that names the key.
    pub key_setting: &'static str,
    /// The private key.
    pub key: &'a Path,
}

impl TlsSettings {
    /// What browsers are told of TLS; nothing while a listener is plain, since they would not come to that any more.
    pub fn hsts(&self) -> Option<Duration> {
        let is_everywhere = self.schemes().iter().all(|scheme| *scheme == "https");
        (is_everywhere && !self.hsts_max_age.is_zero()).then_some(self.hsts_max_age)
    }

    /// Where the certificate of the functions API is, if it has one.
    pub fn functions(&self) -> Option<CertificateFiles<'_>> {
        let keys = ("tls.functions.cert_file", "tls.functions.key_file");
        self.functions.files(keys).or_else(|| self.of_all())
    }

    /// Where the certificate of the events API is, if it has one.
    pub fn events(&self) -> Option<CertificateFiles<'_>> {
        let keys = ("tls.events.cert_file", "tls.events.key_file");
        self.events.files(keys).or_else(|| self.of_all())
    }

    /// Where the certificate of the config API is, if it has one.
    pub fn config(&self) -> Option<CertificateFiles<'_>> {
        let keys = ("tls.config.cert_file", "tls.config.key_file");
        self.config.files(keys).or_else(|| self.of_all())
    }

    /// What the URLs of the functions, events and config API begin with.
    pub fn schemes(&self) -> [&'static str; 3] {
        let all = [self.functions(), self.events(), self.config()];
        all.map(|files| if files.is_some() { "https" } else { "http" })
    }

    fn of_all(&self) -> Option<CertificateFiles<'_>> {
        let keys = ("tls.cert_file", "tls.key_file");
        files(keys, self.cert_file.as_deref(), self.key_file.as_deref())
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        above_zero!("tls", self: handshake_timeout, reload_interval);
        let pairs = [
            ("tls", &self.cert_file, &self.key_file),
            (
                "tls.functions",
                &self.functions.cert_file,
                &self.functions.key_file,
            ),
            ("tls.events", &self.events.cert_file, &self.events.key_file),
            ("tls.config", &self.config.cert_file, &self.config.key_file),
        ];
        for (section, certificate, key) in pairs {
            let (missing, expected) = match (certificate, key) {
                (Some(_), None) => ("key_file", "the private key of the certificate"),
                (None, Some(_)) => ("cert_file", "the certificate of the private key"),
                _ => continue,
            };
            let expected = format!("{expected}, since there is one without the other");
            return Err(Error::new(
                format!("{section}.{missing}"),
                NOT_SET,
                expected,
            ));
        }
        Ok(())
    }
}

impl CertificateSettings {
    fn files(&self, keys: (&'static str, &'static str)) -> Option<CertificateFiles<'_>> {
        files(keys, self.cert_file.as_deref(), self.key_file.as_deref())
    }
}

fn files<'a>(
    (certificate_setting, key_setting): (&'static str, &'static str),
    certificate: Option<&'a Path>,
    key: Option<&'a Path>,
) -> Option<CertificateFiles<'a>> {
    Some(CertificateFiles {
        certificate_setting,
        certificate: certificate?,
        key_setting,
        key: key?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_has_its_own_certificate_or_that_of_all() {
        let pair = |name: &str| CertificateSettings {
            cert_file: Some(format!("{name}.pem").into()),
            key_file: Some(format!("{name}.key").into()),
        };
        let all = TlsSettings {
            cert_file: Some("all.pem".into()),
            key_file: Some("all.key".into()),
            events: pair("events"),
            ..TlsSettings::default()
        };
        let of = |files: Option<CertificateFiles<'_>>| files.map(|it| it.certificate.to_owned());
        assert_eq!(of(all.functions()), Some("all.pem".into()));
        assert_eq!(of(all.events()), Some("events.pem".into()));
        assert_eq!(of(all.config()), Some("all.pem".into()));
        let one = TlsSettings {
            config: pair("config"),
            ..TlsSettings::default()
        };
        assert_eq!(of(one.functions()), None);
        assert_eq!(of(one.config()), Some("config.pem".into()));
    }

    #[test]
    fn a_certificate_without_a_key_is_refused_and_so_is_a_key_without_one() {
        let check = |section: &str, is_key: bool, missing: &str| {
            let mut settings = TlsSettings::default();
            let file = Some(PathBuf::from("file"));
            let (certificate, key) = match section {
                "tls" => (&mut settings.cert_file, &mut settings.key_file),
                "tls.functions" => settings.functions.both(),
                "tls.events" => settings.events.both(),
                _ => settings.config.both(),
            };
            *if is_key { key } else { certificate } = file;
            assert_eq!(
                settings.check().unwrap_err().key,
                format!("{section}.{missing}")
            );
        };
        for section in ["tls", "tls.functions", "tls.events", "tls.config"] {
            check(section, false, "key_file");
            check(section, true, "cert_file");
        }
        assert_eq!(TlsSettings::default().check(), Ok(()));
    }

    impl CertificateSettings {
        fn both(&mut self) -> (&mut Option<PathBuf>, &mut Option<PathBuf>) {
            (&mut self.cert_file, &mut self.key_file)
        }
    }
}
