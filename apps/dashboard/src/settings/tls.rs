//! TLS: the table `tls` of the file, and the flags that begin with it.

use std::path::PathBuf;

use latchbus_tls::server::{ClientCertificates, Limits, Options};
use serde::Deserialize;

use super::layer::LimitsLayer;
use super::values::Within;
use super::{SettingsError, set, set_within};

/// What one source says of TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsLayer {
    /// The certificate of the server, with its chain (PEM).
    pub cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub key: Option<PathBuf>,
    /// The authorities whose certificates clients show (PEM).
    pub client_ca: Option<PathBuf>,
    /// Whether they have to.
    pub client_certificates: Option<Demand>,
}

/// Which certificates are asked of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// None, also where there is a `client_ca`.
    Off,
    /// A client may show one.
    Optional,
    /// Each client has to show one. So it is where a `client_ca` is named and nothing else is said.
    Required,
}

impl TlsLayer {
    /// Whether clients have to show a certificate.
    pub fn requires_client_certificates(&self) -> bool {
        self.client_ca.is_some()
            && matches!(self.client_certificates, None | Some(Demand::Required))
    }

    /// Puts another source over this one.
    pub(super) fn put_over(&mut self, above: Self) {
        let Self {
            cert,
            key,
            client_ca,
            client_certificates,
        } = above;
        self.cert = cert.or_else(|| self.cert.take());
        self.key = key.or_else(|| self.key.take());
        self.client_ca = client_ca.or_else(|| self.client_ca.take());
        self.client_certificates = client_certificates.or(self.client_certificates);
    }

    /// What the server is set up with; none where there is no certificate.
    ///
    /// # Errors
    /// Where one setting needs another that is missing.
    pub fn options(&self) -> Result<Option<Options>, SettingsError> {
        let needs = |what, missing| Err(SettingsError::Tls { what, missing });
        let client_certificates = match (&self.client_ca, self.client_certificates) {
            (None, None) | (_, Some(Demand::Off)) => ClientCertificates::Off,
            (None, Some(_)) => return needs("tls.client_certificates", "--tls-client-ca"),
            (Some(path), Some(Demand::Optional)) => ClientCertificates::Optional(path.clone()),
            (Some(path), None | Some(Demand::Required)) => {
                ClientCertificates::Required(path.clone())
            }
        };
        match (&self.cert, &self.key) {
            (None, None) if self.client_ca.is_some() => needs("tls.client_ca", "--tls-cert"),
            (None, None) => Ok(None),
            (Some(_), None) => needs("tls.cert", "--tls-key"),
            (None, Some(_)) => needs("tls.key", "--tls-cert"),
            (Some(cert), Some(key)) => Ok(Some(Options {
                client_certificates,
                ..Options::new(cert, key)
            })),
        }
    }
}

impl LimitsLayer {
    /// What it says of handshakes.
    pub(super) fn apply_tls(&self, limits: &mut Limits) {
        set_within(&mut limits.handshakes, self.tls_handshakes);
        set_within(&mut limits.waiting, self.tls_handshakes_waiting);
        set(
            &mut limits.timeout,
            self.tls_handshake_secs.map(Within::secs),
        );
        let crowded = self.tls_handshake_crowded_secs.map(Within::secs);
        set(&mut limits.crowded_timeout, crowded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(text: &str) -> Result<Option<Options>, SettingsError> {
        toml::from_str::<TlsLayer>(text).unwrap().options()
    }

    #[test]
    fn which_settings_go_together() {
        let pair = "cert = \"a\"\nkey = \"b\"\n";
        let with = |more: &str| {
            let options = options(&format!("{pair}{more}")).unwrap().unwrap();
            options.client_certificates
        };
        assert_eq!(options("").unwrap(), None);
        assert_eq!(with(""), ClientCertificates::Off);
        let ca = "client_ca = \"c\"";
        assert_eq!(with(ca), ClientCertificates::Required("c".into()));
        for (word, expected) in [
            ("off", ClientCertificates::Off),
            ("optional", ClientCertificates::Optional("c".into())),
            ("required", ClientCertificates::Required("c".into())),
        ] {
            let demand = format!("{ca}\nclient_certificates = \"{word}\"");
            assert_eq!(with(&demand), expected);
        }
        for wrong in [
            "cert = \"a\"",
            "key = \"b\"",
            "client_ca = \"c\"",
            "cert = \"a\"\nkey = \"b\"\nclient_certificates = \"optional\"",
        ] {
            assert!(
                matches!(options(wrong), Err(SettingsError::Tls { .. })),
                "{wrong}"
            );
        }
    }
}
