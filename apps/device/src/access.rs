//! What a device connects with: whom it trusts, and who it is.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use latchbus_bus::Credentials;
use latchbus_tls::client::{Client as Tls, Options};

use crate::args::Args;

/// The longest password: what MQTT has room for (MQTT 3.1.1 §3.1.3.5).
const MAX_PASSWORD_BYTES: usize = 65_535;

/// How a server is reached.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// For an address with TLS.
    pub(crate) tls: Option<Tls>,
    pub(crate) credentials: Credentials,
}

impl Access {
    /// Reads what the command line names, and the password from the environment where it names no file.
    ///
    /// # Errors
    /// When a file cannot be used, or what is named is of no use for the address.
    pub(crate) fn read(
        args: &Args,
        variable: impl FnOnce(&str) -> Option<OsString>,
    ) -> anyhow::Result<Self> {
        let options = Options {
            authorities: args.ca.clone(),
            certificate: args.cert.clone().zip(args.key.clone()),
        };
        let tls = match args.url.is_secure() {
            true => Some(Tls::open(&options).context("cannot set up TLS")?),
            false => {
                let is_for_tls = options != Options::default();
                ensure!(
                    !is_for_tls,
                    "--ca, --cert and --key are for mqtts and wss, and the address is {}",
                    args.url
                );
                None
            }
        };
        let Some(user) = &args.user else {
            return Ok(Self {
                tls,
                ..Self::default()
            });
        };
        let password = match &args.password_file {
            Some(path) => read_password(path)?,
            None => {
                let password = variable("LATCHBUS_PASSWORD");
                let password = password.filter(|password| !password.is_empty()).context(
                    "--user needs a password: name its file by --password-file, or put it into LATCHBUS_PASSWORD",
                )?;
                let password = password.into_string();
                password.map_err(|_| anyhow::anyhow!("LATCHBUS_PASSWORD is not UTF-8"))?
            }
        };
        ensure!(
            password.len() <= MAX_PASSWORD_BYTES,
            "the password is longer than {MAX_PASSWORD_BYTES} bytes"
        );
        if tls.is_none() {
            tracing::warn!(target: "device", address = %args.url, "the password is sent without TLS");
        }
        Ok(Self {
            tls,
            credentials: Credentials::password(user, password),
        })
    }
}

/// Without the end of its line.
fn read_password(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the password from {}", path.display()))?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    ensure!(
        !line.is_empty(),
        "there is no password in {}",
        path.display()
    );
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn read(words: &[&str], password: Option<&str>) -> anyhow::Result<Access> {
        let words = ["latchbus-device", "--id", "k1"].iter().chain(words);
        let args = Args::try_parse_from(words).unwrap();
        Access::read(&args, |name| {
            assert_eq!(name, "LATCHBUS_PASSWORD");
            password.map(OsString::from)
        })
    }

    #[test]
    fn passwords_come_from_a_file_or_the_environment() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let file = path.to_str().unwrap();
        fs::write(&path, "a secret \r\n").unwrap();
        let of = |access: Access| access.credentials;
        let named = ["--user", "anna", "--password-file", file];
        let expected = Credentials::password("anna", "a secret ");
        assert_eq!(of(read(&named, Some("other")).unwrap()), expected);
        let expected = Credentials::password("anna", "other");
        assert_eq!(
            of(read(&["--user", "anna"], Some("other")).unwrap()),
            expected
        );
        assert!(read(&["--user", "anna"], None).is_err());
        assert!(read(&["--user", "anna"], Some("")).is_err());
        assert!(of(read(&[], Some("other")).unwrap()).is_empty());
        fs::write(&path, "\n").unwrap();
        assert!(read(&named, None).is_err());
        fs::write(&path, "x".repeat(MAX_PASSWORD_BYTES + 1)).unwrap();
        assert!(read(&named, None).is_err());
        assert!(read(&["--user", "anna", "--password-file", "/none"], None).is_err());
    }

    #[test]
    fn certificates_are_for_tls() {
        let refused = read(&["--ca", "/none"], None).unwrap_err();
        assert!(refused.to_string().contains("mqtts"), "{refused}");
        let refused = read(&["--url", "mqtts://a", "--ca", "/none"], None).unwrap_err();
        assert!(format!("{refused:#}").contains("/none"), "{refused:#}");
    }
}
