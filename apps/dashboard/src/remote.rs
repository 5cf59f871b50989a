//! A running server as the commands reach it: where it is, whom they trust, and who asks.

use core::fmt;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};
use axum::http::header::HeaderValue;
use axum::http::uri::Scheme;
use axum::http::{Uri, uri::Authority};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use clap::Args;
use latchbus_tls::client::{Client as Tls, Options};

/// The longest password or token.
const MAX_SECRET_BYTES: u64 = 64 << 10;

/// The variables that hold them.
const PASSWORD: &str = "LATCHBUS_PASSWORD";
const TOKEN: &str = "LATCHBUS_TOKEN";

/// Whom a command trusts, and who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Access {
    /// The authorities that are trusted, for https [default: those of the system]
    #[arg(long, value_name = "FILE.pem", global = true)]
    pub ca: Option<PathBuf>,
    /// A certificate to show to the server
    #[arg(long, value_name = "FILE.pem", requires = "key", global = true)]
    pub cert: Option<PathBuf>,
    /// Its private key
    #[arg(long, value_name = "FILE.pem", requires = "cert", global = true)]
    pub key: Option<PathBuf>,
    /// The user; the password is in LATCHBUS_PASSWORD unless --password-file names a file
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with = "token_file",
        global = true
    )]
    pub user: Option<String>,
    /// A file with the password of the user
    #[arg(long, value_name = "FILE", requires = "user", global = true)]
    pub password_file: Option<PathBuf>,
    /// A file with a token, instead of a user and a password [env: LATCHBUS_TOKEN, the token itself]
    #[arg(long, value_name = "FILE", global = true)]
    pub token_file: Option<PathBuf>,
}

/// A running server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address: `http://` or `https://`, and the base path behind it; or `unix:` and the path of a socket.
    pub url: String,
    /// How it is reached.
    pub access: Access,
}

/// The same, read.
pub(crate) struct Server {
    /// What it is called in a request.
    pub(crate) authority: Authority,
    /// Its socket in the file system, if that is where it listens.
    pub(crate) socket: Option<PathBuf>,
    pub(crate) port: u16,
    /// Below which its paths are.
    pub(crate) base: String,
    pub(crate) tls: Option<Tls>,
    pub(crate) authorization: Option<HeaderValue>,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.place()).finish()
    }
}

impl Server {
    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => self.authority.to_string(),
        }
    }

    pub(crate) fn host(&self) -> &str {
        let host = self.authority.host();
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl Remote {
    /// Reads the address and the files.
    pub(crate) fn open(&self) -> anyhow::Result<Server> {
        self.open_with(|name| env::var(name).ok().filter(|value| !value.is_empty()))
    }

    fn open_with(&self, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<Server> {
        let url = &self.url;
        if let Some(path) = url.strip_prefix("unix:") {
            return self.open_socket(path, variable);
        }
        let address: Uri = url.parse().with_context(|| format!("{url} is no URL"))?;
        let scheme = address.scheme().cloned().unwrap_or(Scheme::HTTP);
        let is_secure = scheme == Scheme::HTTPS;
        let (Some(authority), true) = (address.authority(), is_secure || scheme == Scheme::HTTP)
        else {
            bail!(
                "{url} is not of the form http://HOST:PORT or https://HOST:PORT, with the base path of the server behind it, nor \
                 unix:PATH"
            );
        };
        ensure!(
            !authority.as_str().contains('@'),
            "the address names a user: use --user, and a file or {PASSWORD} for the password, which others can see here"
        );
        let tls = match is_secure {
            true => Some(Tls::open(&self.tls_options()).context("cannot set up TLS")?),
            false => {
                self.must_not_name_certificates()?;
                None
            }
        };
        let authorization = self.authorization(variable)?;
        Ok(Server {
            authority: authority.clone(),
            socket: None,
            port: (authority.port_u16()).unwrap_or(if is_secure { 443 } else { 80 }),
            base: address.path().trim_end_matches('/').to_owned(),
            tls,
            authorization,
        })
    }

    fn open_socket(
        &self,
        path: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Server> {
        ensure!(
            !path.is_empty(),
            "`{}` names no file: expected one as in `unix:/run/latchbus-http.sock`",
            self.url
        );
        self.must_not_name_certificates()?;
        Ok(Server {
            // A name that every server accepts.
            authority: Authority::from_static("localhost"),
            socket: Some(path.into()),
            port: 0,
            base: String::new(),
            tls: None,
            authorization: self.authorization(variable)?,
        })
    }

    fn tls_options(&self) -> Options {
        let Access { ca, cert, key, .. } = &self.access;
        Options {
            authorities: ca.clone(),
            certificate: cert.clone().zip(key.clone()),
        }
    }

    fn must_not_name_certificates(&self) -> anyhow::Result<()> {
        ensure!(
            self.tls_options() == Options::default(),
            "--ca, --cert and --key are for https, and the address is {}",
            self.url
        );
        Ok(())
    }

    fn authorization(
        &self,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Option<HeaderValue>> {
        let Access {
            user,
            password_file,
            token_file,
            ..
        } = &self.access;
        let text = match user {
            Some(user) => {
                let password = match password_file {
                    Some(path) => secret(path)?,
                    None => variable(PASSWORD).with_context(|| {
                        format!("--user needs a password: name its file by --password-file, or put it into {PASSWORD}")
                    })?,
                };
                ensure!(
                    !user.contains(':'),
                    "a name with a colon cannot sign in over HTTP (RFC 7617 §2)"
                );
                format!(
                    "Basic {}",
                    BASE64_STANDARD.encode(format!("{user}:{password}"))
                )
            }
            None => {
                let token = match token_file {
                    Some(path) => Some(secret(path)?),
                    None => variable(TOKEN),
                };
                match token {
                    Some(token) => format!("Bearer {token}"),
                    None => return Ok(None),
                }
            }
        };
        let mut header = HeaderValue::try_from(text).context("the token is none")?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// The first line of a file, which is short.
fn secret(path: &Path) -> anyhow::Result<String> {
    let cannot_read = || format!("cannot read {}", path.display());
    let length = fs::metadata(path).with_context(cannot_read)?.len();
    ensure!(
        length <= MAX_SECRET_BYTES,
        "{} is longer than {MAX_SECRET_BYTES} bytes",
        path.display()
    );
    let text = fs::read_to_string(path).with_context(cannot_read)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    ensure!(!line.is_empty(), "there is nothing in {}", path.display());
    Ok(line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(url: &str, access: Access, variables: &[(&str, &str)]) -> anyhow::Result<Server> {
        let remote = Remote {
            url: url.to_owned(),
            access,
        };
        remote.open_with(|name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn header(access: Access, variables: &[(&str, &str)]) -> Option<String> {
        let server = open("http://127.0.0.1:1", access, variables).unwrap();
        Some(server.authorization?.to_str().unwrap().to_owned())
    }

    #[test]
    fn addresses() {
        let server = open("http://[::1]:30/lab/", Access::default(), &[]).unwrap();
        assert_eq!(
            (server.host(), server.port, server.base.as_str()),
            ("::1", 30, "/lab")
        );
        assert_eq!(open("http://lab", Access::default(), &[]).unwrap().port, 80);
        for url in ["ftp://lab", "/lab", "http://anna:secret@lab", "http://a b"] {
            assert!(open(url, Access::default(), &[]).is_err(), "{url}");
        }
    }

    #[test]
    fn who_asks() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("secret");
        fs::write(&file, "pass word\n").unwrap();
        let anna = Access {
            user: Some("anna".into()),
            ..Access::default()
        };
        let basic = |password: &str| {
            Some(format!(
                "Basic {}",
                BASE64_STANDARD.encode(format!("anna:{password}"))
            ))
        };
        assert_eq!(header(Access::default(), &[(PASSWORD, "x")]), None);
        assert_eq!(header(anna.clone(), &[(PASSWORD, "x")]), basic("x"));
        let with_file = Access {
            password_file: Some(file.clone()),
            ..anna.clone()
        };
        assert_eq!(header(with_file, &[(PASSWORD, "x")]), basic("pass word"));
        assert_eq!(
            header(Access::default(), &[(TOKEN, "a.b.c")]).as_deref(),
            Some("Bearer a.b.c")
        );
        let token = Access {
            token_file: Some(file),
            ..Access::default()
        };
        assert_eq!(header(token, &[]).as_deref(), Some("Bearer pass word"));
        assert!(open("http://lab", anna.clone(), &[]).is_err());
        let colon = Access {
            user: Some("a:b".into()),
            ..Access::default()
        };
        assert!(open("http://lab", colon, &[(PASSWORD, "x")]).is_err());
        let ca = Access {
            ca: Some("/none".into()),
            ..Access::default()
        };
        assert!(open("http://lab", ca.clone(), &[]).is_err());
        assert!(open("https://lab", ca, &[]).is_err());
    }
}
