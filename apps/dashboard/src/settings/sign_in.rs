//! Settings of who is let in.

use core::time::Duration;
use std::path::PathBuf;

use latchbus_access::tokens;
use serde::Deserialize;

use super::values::Within;

/// Who is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignInSettings {
    /// The password file. None: `users` in the directory of the store, if it is there.
    pub users: Option<PathBuf>,
    /// Whether clients without credentials are let in. None: where there are neither users nor tokens, and on loopback alone.
    pub anonymous: Option<bool>,
    /// Which tokens are accepted. None: none.
    pub tokens: Option<tokens::Config>,
}

/// Which tokens are accepted, as a file says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokensLayer {
    /// The file with the keys.
    pub keys: Option<PathBuf>,
    /// Who must have issued them.
    pub issuer: Option<String>,
    /// Whom they must be for: one of these.
    pub audience: Vec<String>,
    /// How much clocks may differ, in seconds.
    pub leeway_secs: Option<Within<0, 600>>,
}

impl TokensLayer {
    /// The tokens that are accepted; none where no keys are named.
    pub(super) fn config(self) -> Option<tokens::Config> {
        let leeway = self.leeway_secs.map(|Within(secs)| secs as u64);
        Some(tokens::Config {
            keys: self.keys?,
            issuer: self.issuer,
            audience: self.audience,
            leeway: leeway.map_or(tokens::DEFAULT_LEEWAY, Duration::from_secs),
        })
    }

    /// Whether something is set that means nothing without keys.
    pub(super) fn lacks_keys(&self) -> bool {
        let is_set =
            self.issuer.is_some() || !self.audience.is_empty() || self.leeway_secs.is_some();
        self.keys.is_none() && is_set
    }
}
