//! A certificate and its key in two files of one name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use super::below;

/// `NAME.pem` and `NAME.key`.
#[derive(Debug)]
pub(super) struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    pub(super) fn new(directory: &Path, stem: &str) -> Self {
        Self {
            certificate: below(directory, stem, "pem"),
            key: below(directory, stem, "key"),
        }
    }

    pub(super) fn certificate(&self) -> &Path {
        &self.certificate
    }

    pub(super) fn key(&self) -> &Path {
        &self.key
    }

    pub(super) fn must_not_be_there(&self) -> anyhow::Result<()> {
        for path in [&self.key, &self.certificate] {
            ensure!(
                !exists(path)?,
                "{} is there already; --force replaces the certificate and its key",
                path.display()
            );
        }
        Ok(())
    }

    /// The certificate and the key, if they are there.
    pub(super) fn read(&self) -> anyhow::Result<Option<(String, String)>> {
        match (exists(&self.certificate)?, exists(&self.key)?) {
            (false, false) => Ok(None),
            (true, true) => {
                let read = |path: &Path| {
                    fs::read_to_string(path)
                        .with_context(|| format!("cannot read {}", path.display()))
                };
                Ok(Some((read(&self.certificate)?, read(&self.key)?)))
            }
            (true, false) => bail!(
                "{} is missing, and {} is there",
                self.key.display(),
                self.certificate.display()
            ),
            (false, true) => bail!(
                "{} is missing, and {} is there",
                self.certificate.display(),
                self.key.display()
            ),
        }
    }

    /// Replaces both, each at once. A server that sees one without the other waits for it.
    pub(super) fn write(&self, certificate: &str, key: &str) -> anyhow::Result<()> {
        let write = |path: &Path, text: &str, mode| {
            replace(path, text, mode).with_context(|| format!("cannot write {}", path.display()))
        };
        write(&self.key, key, 0o600)?;
        write(&self.certificate, certificate, 0o644)
    }
}

fn exists(path: &Path) -> anyhow::Result<bool> {
    path.try_exists()
        .with_context(|| format!("cannot look at {}", path.display()))
}

/// Nobody reads a key between its first byte and the moment at which it gets its permissions: it has them from the start.
fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(name);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _no_modes = mode;
    let written = (|| {
        let mut file = options.open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    })();
    if written.is_err() {
        // It may not be there at all.
        let _gone = fs::remove_file(&new);
    }
    written
}
