//! Tokens: JSON Web Tokens (RFC 7519) that someone else has signed.
//!
//! | `alg` | key |
//! |---|---|
//! | `HS256` | a secret of at least 32 bytes |
//! | `RS256` | RSA, 2048 bits or more |
//! | `ES256` | P-256 |
//! | `EdDSA`, `Ed25519` | Ed25519 |
//!
//! The kind of the key decides: a token that says `HS256` is never verified with a public key as its secret, and one that
//! says `none` is never verified.

mod jwt;
mod keys;

use core::fmt;
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use tracing::{info, warn};

use crate::stamp::Stamp;
use jwt::{Compact, Demands};
pub use jwt::{MAX_CLAIM_FILTERS, MAX_SUBJECT_BYTES, MAX_TOKEN_BYTES, Token, TokenError, is_token};
use keys::KeySet;
pub use keys::{KeysError, MAX_KEYS, MIN_SECRET_BYTES};

/// The largest file of keys, in bytes.
pub const MAX_KEYS_BYTES: u64 = 1_048_576;

/// For so long after a look at the file, a token with an unknown `kid` does not cause another.
pub const KEY_COOLDOWN: Duration = Duration::from_secs(5);

/// How much clocks may differ, where the settings do not say.
pub const DEFAULT_LEEWAY: Duration = Duration::from_secs(30);

/// Which tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The file with the keys: a JWK set, PEM, or a secret.
    pub keys: PathBuf,
    /// Who must have issued them. None: anyone who has the key.
    pub issuer: Option<String>,
    /// Whom they must be for: one of these. Empty: tokens without `aud` alone.
    pub audience: Vec<String>,
    /// How much the issuer's clock may differ from ours: by so much longer is a token valid, and earlier.
    pub leeway: Duration,
}

impl Config {
    /// Whether its demands can be fulfilled. It reads nothing.
    ///
    /// # Errors
    /// When a demand is an empty text, as where a variable was not set.
    pub fn check(&self) -> Result<(), OpenError> {
        if self.issuer.as_deref() == Some("") {
            return Err(OpenError::Empty { setting: "issuer" });
        }
        if self.audience.iter().any(String::is_empty) {
            return Err(OpenError::Empty {
                setting: "audience",
            });
        }
        Ok(())
    }
}

/// A file of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be read.
    #[error("{path}: cannot read it", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It holds no keys.
    #[error("{path}", path = path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: KeysError,
    },
    /// A demand that no token could fulfil, or that is none.
    #[error("tokens.{setting} is empty; leave it out where none is demanded")]
    Empty {
        /// Which setting.
        setting: &'static str,
    },
    /// It is larger than [`MAX_KEYS_BYTES`].
    #[error("{path}: larger than {MAX_KEYS_BYTES} bytes", path = path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

/// Verifies tokens. The file with the keys is read again when it changes; where it cannot be read, the keys stay as they
/// were. Cloning it gives another handle to the same.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    config: Config,
    keys: Mutex<Arc<KeySet>>,
    seen: Mutex<Seen>,
}

struct Seen {
    /// What was read, or could not be.
    read: Option<Stamp>,
    looked_at: Instant,
}

impl Tokens {
    /// Reads the keys.
    ///
    /// # Errors
    /// When they cannot be read, or there are none, or an issuer or an audience is an empty text.
    pub fn open(config: Config) -> Result<Self, OpenError> {
        config.check()?;
        let read = Stamp::of(&config.keys).ok();
        let keys = read_keys(&config.keys)?;
        Ok(Self(Arc::new(Inner {
            config,
            keys: Mutex::new(Arc::new(keys)),
            seen: Mutex::new(Seen {
                read,
                looked_at: Instant::now(),
            }),
        })))
    }

    /// Verifies a token. A token that names an unknown key causes the file to be read again, when the last look at it was
    /// [`KEY_COOLDOWN`] ago and it has changed since.
    ///
    /// It takes some ten microseconds, and blocks for the time of reading a small file at most once in [`KEY_COOLDOWN`].
    ///
    /// # Errors
    /// When it proves nothing at this time.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Token, TokenError> {
        let compact = Compact::parse(token)?;
        let algorithm = compact.header.algorithm()?;
        let id = compact.header.kid.as_deref();
        let mut keys = self.keys();
        if !keys.knows(id) {
            self.look_after(KEY_COOLDOWN);
            keys = self.keys();
        }
        if !keys.knows(id) {
            return Err(TokenError::UnknownKey);
        }
        let message = compact.message.as_bytes();
        if !keys.verify(id, algorithm, message, &compact.signature) {
            return Err(TokenError::Signature);
        }
        let config = &self.0.config;
        compact.claims()?.check(Demands {
            issuer: config.issuer.as_deref(),
            audience: &config.audience,
            leeway: config.leeway,
            now,
        })
    }

    /// Looks whether the file has changed, and reads it when it has.
    pub fn look(&self) {
        self.look_after(Duration::ZERO);
    }

    /// Reads the file again, changed or not: on SIGHUP.
    pub fn reload(&self) {
        let mut seen = lock(&self.0.seen);
        seen.read = None;
        drop(seen);
        self.look();
    }

    fn look_after(&self, cooldown: Duration) {
        let path = &self.0.config.keys;
        let mut seen = lock(&self.0.seen);
        if seen.looked_at.elapsed() < cooldown {
            return;
        }
        seen.looked_at = Instant::now();
        let stamp = Stamp::of(path).ok();
        if stamp.is_some() && seen.read == stamp {
            return;
        }
        let is_new = seen.read != stamp;
        seen.read = stamp;
        match read_keys(path) {
            Ok(keys) => *lock(&self.0.keys) = Arc::new(keys),
            Err(error) if is_new => {
                warn!(target: "access", error = &error as &dyn core::error::Error, "the keys of tokens stay as they were");
            }
            Err(_) => {}
        }
    }

    fn keys(&self) -> Arc<KeySet> {
        Arc::clone(&lock(&self.0.keys))
    }
}

fn read_keys(path: &Path) -> Result<KeySet, OpenError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_KEYS_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() as u64 > MAX_KEYS_BYTES {
        return Err(OpenError::TooLarge {
            path: path.to_owned(),
        });
    }
    let parsed = KeySet::parse(&bytes).map_err(|source| OpenError::Keys {
        path: path.to_owned(),
        source,
    });
    let (keys, left_out) = parsed?;
    info!(target: "access", file = %path.display(), keys = keys.len(), left_out, "keys of tokens read");
    Ok(keys)
}

/// Shows what is accepted, and how many keys there are.
impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("config", &self.0.config)
            .field("keys", &self.keys().len())
            .finish()
    }
}

/// No panic leaves these halfway changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
