//! Certificates and keys in PEM files.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use rustls::Error;
use rustls::RootCertStore;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// The largest file that is read. The certificates of all public authorities take a fifth of it.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What is wrong with a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// It could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is larger than any such file.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// There is no certificate in it.
    #[error("there is no certificate (`BEGIN CERTIFICATE`) in {}", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// There is no private key in it.
    #[error("there is no private key (`BEGIN PRIVATE KEY`) in {}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is encrypted, and nobody is there to type a password.
    #[error("the private key in {} is encrypted; `openssl pkey -in FILE -out NEW` decrypts it", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// What is in it cannot be read.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The key is not the one of the certificate.
    #[error("the private key in {} is not that of the certificate in {}", key.display(), certificate.display())]
    KeyDoesNotMatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
    /// The system has no certificate of an authority.
    #[error("this system has no certificates of authorities; name a file of them")]
    NoSystemRoots,
    /// rustls cannot work with it.
    #[error("TLS cannot be set up")]
    Setup(#[source] Box<dyn core::error::Error + Send + Sync>),
}

impl FileError {
    pub(crate) fn setup(error: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self::Setup(error.into())
    }
}

/// From when to when a certificate is valid, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// It is valid.
    Valid,
    /// Its time has not begun.
    NotYet,
    /// Its time is over.
    Expired,
}

impl Validity {
    pub(crate) fn of(certificate: &CertificateDer<'_>, now: SystemTime) -> Self {
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return Self::Valid;
        };
        let now = now.duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |since| since.as_secs().cast_signed());
        let validity = parsed.validity();
        match now {
            _ if now < validity.not_before.timestamp() => Self::NotYet,
            _ if now > validity.not_after.timestamp() => Self::Expired,
            _ => Self::Valid,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::Read {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    let mut file = file.take(MAX_FILE_BYTES + 1);
    file.read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 > MAX_FILE_BYTES {
        true => Err(FileError::TooLarge {
            path: path.to_owned(),
        }),
        false => Ok(bytes),
    }
}

fn malformed(path: &Path, reason: impl ToString) -> FileError {
    FileError::Malformed {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| malformed(path, error))?;
    match found.is_empty() {
        true => Err(FileError::NoCertificate {
            path: path.to_owned(),
        }),
        false => Ok(found),
    }
}

pub(crate) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    const ENCRYPTED: [&[u8]; 2] = [b"BEGIN ENCRYPTED PRIVATE KEY", b"Proc-Type: 4,ENCRYPTED"];
    let bytes = read(path)?;
    let holds = |words: &&[u8]| bytes.windows(words.len()).any(|window| window == *words);
    if ENCRYPTED.iter().any(holds) {
        return Err(FileError::EncryptedKey {
            path: path.to_owned(),
        });
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => FileError::NoKey {
            path: path.to_owned(),
        },
        error => malformed(path, error),
    })
}

/// A certificate with its chain, and its key.
pub(crate) fn pair(certificate: &Path, key: &Path) -> Result<CertifiedKey, FileError> {
    let chain = certificates(certificate)?;
    let private = private_key(key)?;
    CertifiedKey::from_der(chain, private, &crate::provider()).map_err(|error| match error {
        Error::InconsistentKeys(_) => FileError::KeyDoesNotMatch {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        },
        Error::InvalidCertificate(error) => malformed(certificate, error),
        error => malformed(key, error),
    })
}

pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|error| malformed(path, error))?;
    }
    Ok(roots)
}

/// What changes when a file is replaced or written to. None where it cannot be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Self {
        let Ok(metadata) = fs::metadata(path) else {
            return Self(None);
        };
        #[cfg(unix)]
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let inode = 0;
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Self(Some((modified, metadata.len(), inode)))
    }
}
