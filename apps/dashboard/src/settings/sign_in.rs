//! Settings of who is let in.

use core::time::Duration;
use std::path::PathBuf;

use latchbus_access::users::Delays;
use latchbus_access::{sessions, tokens};
use serde::Deserialize;

use super::layer::LimitsLayer;
use super::values::Within;
use super::{set, set_within};

/// Who is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignInSettings {
    /// The password file. None: `users` in the directory of the store, if it is there.
    pub users: Option<PathBuf>,
    /// Whether clients without credentials are let in. None: where there are neither users nor tokens, and on loopback alone.
    pub anonymous: Option<bool>,
    /// Which tokens are accepted. None: none.
    pub tokens: Option<tokens::Config>,
    /// The delays after wrong passwords.
    pub delays: Delays,
    /// The bounds of the sessions of browsers.
    pub sessions: sessions::Limits,
}

impl SignInSettings {
    pub(super) fn apply_limits(&mut self, limits: &LimitsLayer) {
        let Delays {
            free_failures,
            first,
            longest,
        } = &mut self.delays;
        let free = limits.sign_in_failures.map(|it| it.0 as u32);
        set(free_failures, free);
        let delay = limits.sign_in_delay_ms;
        set(first, delay.map(|it| Duration::from_millis(it.0 as u64)));
        set(longest, limits.sign_in_max_delay_secs.map(Within::secs));
        let sessions = &mut self.sessions;
        set_within(&mut sessions.sessions, limits.browser_sessions);
        set_within(&mut sessions.user_sessions, limits.user_browser_sessions);
        set(
            &mut sessions.idle,
            limits.browser_session_idle_secs.map(Within::secs),
        );
        set(
            &mut sessions.age,
            limits.browser_session_secs.map(Within::secs),
        );
    }
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
