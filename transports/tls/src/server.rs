//! The server's side: its certificate, and those that it asks of clients.

use core::time::Duration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::files::{self, FileError, Stamp, Validity};
use crate::handshakes::{Handshakes, Threads};

/// How often the files are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What is spoken inside, which a client may name (ALPN, RFC 7301). One that names nothing is served; one that names other
/// protocols alone is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `http/1.1`, WebSockets among it.
    Http,
    /// `mqtt`.
    Mqtt,
}

impl Protocol {
    /// As it is called in a handshake.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::Http => "http/1.1",
            Self::Mqtt => "mqtt",
        }
    }

    /// As it is called in a sentence.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Mqtt => "MQTT",
        }
    }
}

/// Which certificates are asked of clients, and the file with the authorities that issue them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None.
    #[default]
    Off,
    /// A client may show one; one that cannot be verified is refused.
    Optional(PathBuf),
    /// Each client has to show one.
    Required(PathBuf),
}

impl ClientCertificates {
    fn authorities(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Optional(path) | Self::Required(path) => Some(path),
        }
    }
}

/// The bounds of handshakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Handshakes at a time, over all listeners; further connections wait. Default 1,024.
    pub handshakes: usize,
    /// Connections that wait for one; one more is closed. Default 16,384.
    pub waiting: usize,
    /// How long one may take, waiting included. Default 10 s.
    pub timeout: Duration,
    /// How long one may take when others wait. Default 1 s.
    pub crowded_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes: 1_024,
            waiting: 16_384,
            timeout: Duration::from_secs(10),
            crowded_timeout: Duration::from_secs(1),
        }
    }
}

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The certificate, with those between it and an authority that clients know (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM: PKCS#8, PKCS#1 or SEC1, not encrypted).
    pub key: PathBuf,
    /// Which certificates are asked of clients.
    pub client_certificates: ClientCertificates,
    /// The bounds of handshakes.
    pub limits: Limits,
}

impl Options {
    /// No certificates of clients, and the usual bounds.
    pub fn new(certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        Self {
            certificate: certificate.into(),
            key: key.into(),
            client_certificates: ClientCertificates::Off,
            limits: Limits::default(),
        }
    }
}

/// A server's certificate, which can be replaced while it runs. Clones are handles to one.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: Options,
    /// Never held over an await.
    current: RwLock<Current>,
    handshakes: Handshakes,
    threads: Threads,
}

#[derive(Debug)]
struct Current {
    http: Arc<ServerConfig>,
    mqtt: Arc<ServerConfig>,
    /// Of the files when they were read, or when they could not be used.
    stamps: Vec<Stamp>,
}

impl Server {
    /// Reads the files. A certificate whose time has not begun or is over is used, with a warning in the log.
    ///
    /// It starts the threads that do the handshakes.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn open(options: Options) -> Result<Self, FileError> {
        let stamps = stamps(&options);
        let [http, mqtt] = load(&options)?;
        let limits = options.limits;
        Ok(Self(Arc::new(Inner {
            current: RwLock::new(Current { http, mqtt, stamps }),
            handshakes: Handshakes::new(&limits),
            threads: Threads::start().map_err(FileError::setup)?,
            options,
        })))
    }

    /// Reads the files again. The next handshakes use what is in them; open connections stay.
    ///
    /// # Errors
    /// See [`FileError`]. Then nothing has changed.
    pub fn reload(&self) -> Result<(), FileError> {
        let stamps = stamps(&self.0.options);
        let loaded = load(&self.0.options);
        let mut current = self
            .0
            .current
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        current.stamps = stamps;
        let [http, mqtt] = loaded?;
        current.http = http;
        current.mqtt = mqtt;
        Ok(())
    }

    /// Reads them again if they are not those that were read last: whether they were.
    ///
    /// # Errors
    /// As for [`reload`](Self::reload), once for each change.
    pub fn reload_if_changed(&self) -> Result<bool, FileError> {
        let current = self
            .0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let is_same = current.stamps == stamps(&self.0.options);
        drop(current);
        match is_same {
            true => Ok(false),
            false => self.reload().map(|()| true),
        }
    }

    /// Looks every two seconds whether the files have changed, and reads them then. Never ends.
    pub async fn watch(self) {
        let mut ticks = interval(LOOK_AGAIN);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = self.clone();
            let looked = tokio::task::spawn_blocking(move || this.reload_if_changed());
            match looked.await {
                Ok(reloaded) => self.say(reloaded),
                // The runtime ends.
                Err(_) => return,
            }
        }
    }

    /// Says in the log how a reload has ended; `false` is no news.
    pub fn say(&self, reloaded: Result<bool, FileError>) {
        let certificate = self.0.options.certificate.display();
        match reloaded {
            Ok(false) => {}
            Ok(true) => info!(target: "server", %certificate, "the TLS certificate is reloaded"),
            Err(error) => {
                let cause = core::error::Error::source(&error);
                let cause = cause.map(|cause| format!(": {cause}")).unwrap_or_default();
                warn!(
                    target: "server",
                    "the TLS certificate stays as it is: {error}{cause}"
                );
            }
        }
    }

    /// What the next handshake uses.
    pub fn config(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let current = self
            .0
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(match protocol {
            Protocol::Http => &current.http,
            Protocol::Mqtt => &current.mqtt,
        })
    }

    pub(crate) fn limits(&self) -> Limits {
        self.0.options.limits
    }

    pub(crate) fn handshakes(&self) -> &Handshakes {
        &self.0.handshakes
    }

    pub(crate) fn threads(&self) -> &Threads {
        &self.0.threads
    }
}

fn stamps(options: &Options) -> Vec<Stamp> {
    let files = [options.certificate.as_path(), options.key.as_path()];
    let authorities = options.client_certificates.authorities();
    files
        .into_iter()
        .chain(authorities)
        .map(Stamp::of)
        .collect()
}

fn load(options: &Options) -> Result<[Arc<ServerConfig>; 2], FileError> {
    let pair = files::pair(&options.certificate, &options.key)?;
    warn_of_validity(options, &pair);
    let pair = Arc::new(SingleCertAndKey::from(pair));
    let config = |protocol: Protocol, verifier: Option<&Arc<dyn ClientCertVerifier>>| {
        let builder = ServerConfig::builder_with_provider(crate::provider());
        let builder = builder
            .with_protocol_versions(crate::VERSIONS)
            .map_err(FileError::setup)?;
        let builder = match verifier {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(Arc::clone(verifier)),
        };
        let mut config = builder.with_cert_resolver(Arc::clone(&pair) as Arc<_>);
        config.alpn_protocols = vec![protocol.alpn().as_bytes().to_vec()];
        Ok(Arc::new(config))
    };
    let verifier = verifier(&options.client_certificates)?;
    Ok([
        config(Protocol::Http, verifier.as_ref())?,
        config(Protocol::Mqtt, verifier.as_ref())?,
    ])
}

fn verifier(
    certificates: &ClientCertificates,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, FileError> {
    let Some(path) = certificates.authorities() else {
        return Ok(None);
    };
    let roots = Arc::new(files::authorities(path)?);
    let builder = WebPkiClientVerifier::builder_with_provider(roots, crate::provider());
    let builder = match certificates {
        ClientCertificates::Optional(_) => builder.allow_unauthenticated(),
        ClientCertificates::Off | ClientCertificates::Required(_) => builder,
    };
    builder.build().map(Some).map_err(FileError::setup)
}

fn warn_of_validity(options: &Options, pair: &CertifiedKey) {
    let Ok(certificate) = pair.end_entity_cert() else {
        return;
    };
    let file = options.certificate.display();
    match Validity::of(certificate, SystemTime::now()) {
        Validity::Valid => {}
        Validity::NotYet => {
            warn!(target: "server", certificate = %file, "the TLS certificate is not valid yet");
        }
        Validity::Expired => {
            warn!(target: "server", certificate = %file, "the TLS certificate has expired");
        }
    }
}
