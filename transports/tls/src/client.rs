//! The client's side: whom it trusts, and the certificate that it shows.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, Error, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
pub use tokio_rustls::client::TlsStream;

use crate::files::{self, FileError};
use crate::server::Protocol;

/// How a client is set up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// The authorities that it trusts (PEM); none: those of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate that it shows, and its key (PEM).
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A client. Clones are handles to one.
#[derive(Debug, Clone)]
pub struct Client {
    http: Arc<ClientConfig>,
    mqtt: Arc<ClientConfig>,
}

impl Client {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open(options: &Options) -> Result<Self, FileError> {
        let roots = match &options.authorities {
            Some(path) => files::authorities(path)?,
            None => system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(crate::provider());
        let builder = builder
            .with_protocol_versions(crate::VERSIONS)
            .map_err(FileError::setup)?
            .with_root_certificates(roots);
        let mqtt = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                // Says what is wrong with a pair.
                files::pair(certificate, key)?;
                let (chain, key) = (files::certificates(certificate)?, files::private_key(key)?);
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(FileError::setup)?
            }
        };
        // A listener for several protocols may know `http/1.1` alone; brokers that know `mqtt` also serve clients that name none.
        let mut http = mqtt.clone();
        http.alpn_protocols = vec![Protocol::Http.alpn().as_bytes().to_vec()];
        Ok(Self {
            http: Arc::new(http),
            mqtt: Arc::new(mqtt),
        })
    }

    /// What its handshakes use.
    pub fn config(&self, protocol: Protocol) -> Arc<ClientConfig> {
        Arc::clone(match protocol {
            Protocol::Http => &self.http,
            Protocol::Mqtt => &self.mqtt,
        })
    }

    /// The handshake with a server of this name or address. Bound it in time.
    ///
    /// # Errors
    /// When the server is not the one that it should be, or the connection fails: [`explain`] has words for it. With TLS 1.3 a
    /// server that refuses the client's certificate says so only in answer to what the client sends next.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
        protocol: Protocol,
    ) -> io::Result<TlsStream<S>> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(self.config(protocol));
        connector.connect(name, stream).await
    }
}

/// Why a handshake has failed, as far as the error of a stream tells.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The server speaks something else.
    #[error("what answers there does not speak TLS")]
    NotTls,
    /// Its certificate is not one of a trusted authority, or not for this name, or its time is over.
    #[error("the server's certificate is not trusted: {0}")]
    NotTrusted(String),
    /// It asks for a certificate.
    #[error("the server asks for a certificate, and none was shown that it accepts")]
    CertificateRequired,
    /// It speaks TLS, and in it none of the protocols that were offered (ALPN).
    #[error("what answers there speaks another protocol over TLS")]
    OtherProtocol,
    /// It does not accept what the client offers.
    #[error("the server ends the TLS handshake: {0}")]
    Refused(String),
    /// Anything else.
    #[error("TLS: {0}")]
    Other(String),
}

/// What an error of a stream says of TLS; none where it says nothing.
pub fn explain(error: &io::Error) -> Option<HandshakeError> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    Some(match inner {
        Error::InvalidMessage(_) => HandshakeError::NotTls,
        Error::InvalidCertificate(error) => HandshakeError::NotTrusted(error.to_string()),
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA => HandshakeError::CertificateRequired,
            // What a server answers to bytes that are not of its protocol.
            AlertDescription::UnexpectedMessage => HandshakeError::NotTls,
            AlertDescription::NoApplicationProtocol => HandshakeError::OtherProtocol,
            alert => HandshakeError::Refused(format!("{alert:?}")),
        },
        error => HandshakeError::Other(error.to_string()),
    })
}

fn system_roots() -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Some systems have certificates among them that nothing can be done with.
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        true => Err(FileError::NoSystemRoots),
        false => Ok(roots),
    }
}
