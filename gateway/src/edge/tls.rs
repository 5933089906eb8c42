//! TLS on a client listener: its certificate, how that is replaced while connections go on, and the handshake.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use config::settings::CertificateFiles;
use metrics::{Gauge, gauge};
use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::Listener;

/// The first byte of each record of a handshake (RFC 8446, 5.1). No method of HTTP begins with it.
const HANDSHAKE: u8 = 22;

/// The largest file that is read: a chain of certificates has some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A certificate that can not be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting} {}: {why}", file.display())]
pub struct CertificateError {
    /// The setting that names the file, such as `tls.key_file`.
    pub setting: &'static str,
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it, and what was expected.
    pub why: String,
}

/// A listener's certificate, and how its connections begin.
#[derive(Debug)]
pub(crate) struct Certificate {
    listener: Listener,
    certificate: Named,
    key: Named,
    handshake_timeout: Duration,
    current: ArcSwap<Loaded>,
}

/// A file and the setting that names it.
#[derive(Debug)]
struct Named {
    setting: &'static str,
    file: PathBuf,
}

/// What stood in both files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// A certificate in use.
#[derive(Debug)]
struct Loaded {
    contents: Contents,
    config: Arc<ServerConfig>,
    /// When it ends, in seconds since 1970.
    ends_at: i64,
}

/// How a client began.
pub(super) enum Greeting<S> {
    /// With a handshake, which is done.
    Secure(Box<TlsStream<S>>),
    /// With something else, such as a request of plain HTTP.
    Plain(S),
}

impl Certificate {
    /// Reads a listener's certificate and its key.
    ///
    /// # Errors
    /// When one of them can not be read, or they do not belong together.
    pub(super) fn load(
        listener: Listener,
        files: CertificateFiles<'_>,
        handshake_timeout: Duration,
    ) -> Result<Arc<Self>, CertificateError> {
        let named = |setting, file: &std::path::Path| Named {
            setting,
            file: file.to_owned(),
        };
        let certificate = named(files.certificate_setting, files.certificate);
        let key = named(files.key_setting, files.key);
        let contents = Contents::read(&certificate, &key)?;
        let loaded = Loaded::new(contents, &certificate, &key)?;
        Ok(Arc::new(Self {
            listener,
            certificate,
            key,
            handshake_timeout,
            current: ArcSwap::from_pointee(loaded),
        }))
    }

    /// Looks at the files again and again, until the node stops accepting. A pair that can not be used changes nothing: the
    /// certificate that was read before is used on.
    pub(super) async fn keep_fresh(
        self: Arc<Self>,
        interval: Duration,
        closing: CancellationToken,
    ) {
        let label = self.listener.label();
        let ends_at = gauge!("hearth_tls_certificate_end_seconds", "listener" => label);
        self.tell(&ends_at);
        let mut refused = None;
        while closing
            .run_until_cancelled(time::sleep(interval))
            .await
            .is_some()
        {
            let this = Arc::clone(&self);
            let seen = tokio::task::spawn_blocking(move || this.look()).await;
            let outcome = match seen {
                Ok(Ok(None)) => {
                    refused = None;
                    continue;
                }
                Ok(Ok(Some(loaded))) => {
                    self.current.store(Arc::new(loaded));
                    self.tell(&ends_at);
                    refused = None;
                    "replaced"
                }
                Ok(Err(error)) => {
                    // Of two files one is written first, so the first look may find half of it; and once is enough for the log.
                    let text = error.to_string();
                    match &mut refused {
                        Some((last, count)) if *last == text => *count += 1,
                        _ => refused = Some((text, 1)),
                    }
                    if let Some((text, 2)) = &refused {
                        tracing::error!(
                            listener = self.listener.key(),
                            error = text,
                            "a certificate was changed to one that can not be used; the one before is used on"
                        );
                    }
                    "refused"
                }
                Err(_) => continue,
            };
            metrics::counter!("hearth_tls_reloads_total", "listener" => label, "outcome" => outcome).increment(1);
        }
    }

    /// Reads what stands in the files now, if that is something else than what is used.
    fn look(&self) -> Result<Option<Loaded>, CertificateError> {
        let contents = Contents::read(&self.certificate, &self.key)?;
        if contents == self.current.load().contents {
            return Ok(None);
        }
        Loaded::new(contents, &self.certificate, &self.key).map(Some)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a moment in seconds has 33 bits"
    )]
    fn tell(&self, ends_at: &Gauge) {
        let ends = self.current.load().ends_at;
        ends_at.set(ends as f64);
        let file = self.certificate.file.display();
        tracing::info!(listener = self.listener.key(), certificate = %file, ends_at_seconds = ends, "clients of this listener speak TLS");
    }

    /// Begins a connection. It is plain when the client's first byte is none of a handshake.
    ///
    /// # Errors
    /// When client and node do not come to terms, or not in time.
    pub(super) async fn greet<S>(
        &self,
        wrap: impl FnOnce(TcpStream) -> S,
        stream: TcpStream,
    ) -> io::Result<Greeting<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let greeting = async {
            let mut first = [0];
            stream.peek(&mut first).await?;
            let stream = wrap(stream);
            if first[0] != HANDSHAKE {
                return Ok(Greeting::Plain(stream));
            }
            let config = Arc::clone(&self.current.load().config);
            let stream = TlsAcceptor::from(config).accept(stream).await?;
            Ok(Greeting::Secure(Box::new(stream)))
        };
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, "tls.handshake_timeout is over");
        time::timeout(self.handshake_timeout, greeting)
            .await
            .map_err(late)?
    }
}

impl Named {
    fn read(&self) -> Result<Vec<u8>, CertificateError> {
        let read = std::fs::metadata(&self.file).and_then(|found| match found.len() {
            ..=FILE_BYTES_MAX => std::fs::read(&self.file),
            _ => Err(io::Error::other("it is larger than a megabyte")),
        });
        read.map_err(|error| self.wrong(format!("a file that can be read, but {error}")))
    }

    fn wrong(&self, expected: impl AsRef<str>) -> CertificateError {
        CertificateError {
            setting: self.setting,
            file: self.file.clone(),
            why: format!("expected {}", expected.as_ref()),
        }
    }
}

impl Contents {
    fn read(certificate: &Named, key: &Named) -> Result<Self, CertificateError> {
        Ok(Self {
            certificate: certificate.read()?,
            key: key.read()?,
        })
    }
}

impl Loaded {
    fn new(contents: Contents, certificate: &Named, key: &Named) -> Result<Self, CertificateError> {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(&contents.certificate).collect();
        let chain = chain
            .map_err(|error| certificate.wrong(format!("certificates as PEM, but {error}")))?;
        let first = chain.first().ok_or_else(|| {
            certificate.wrong("a certificate as PEM (-----BEGIN CERTIFICATE-----)")
        })?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first)
            .map_err(|error| certificate.wrong(format!("an X.509 certificate, but {error}")))?;
        let ends_at = parsed.validity().not_after.timestamp();
        // The error of the parser could repeat a line of the file.
        let private = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| {
            key.wrong("a private key as PEM (-----BEGIN PRIVATE KEY-----), without a password")
        })?;
        let provider = Arc::new(default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| certificate.wrong(error.to_string()))?
            .with_no_client_auth()
            .with_single_cert(chain, private)
            .map_err(|error| key.wrong(format!("the key of the certificate, but {error}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A client that comes again saves a round trip, whichever worker it meets.
        config.ticketer = Ticketer::new()
            .map_err(|error| certificate.wrong(format!("random numbers, but {error}")))?;
        Ok(Self {
            contents,
            config: Arc::new(config),
            ends_at,
        })
    }
}
