//! What a running server takes over from its settings on SIGHUP.

use core::fmt;
use std::sync::Arc;

use latchbus_access::{RulesAuthorizer, SignIns};
use tracing::{info, warn};

use crate::log::Log;
use crate::settings::Settings;

/// Reads the settings again: where they came from is the caller's.
pub type Source = Box<dyn Fn() -> Result<Settings, String> + Send + Sync>;

/// What can be changed while the server runs, and where its settings come from. Each part takes what it needs from
/// all settings, and says what it did.
pub(crate) struct Reload {
    source: Source,
    log: Log,
    rules: Arc<RulesAuthorizer>,
    tls: Option<latchbus_tls::server::Server>,
    sign_ins: Option<SignIns>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload")
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

impl Reload {
    pub(crate) fn new(source: Source, log: Log, rules: Arc<RulesAuthorizer>) -> Self {
        Self {
            source,
            log,
            rules,
            tls: None,
            sign_ins: None,
        }
    }

    /// The certificate is read again, too.
    pub(crate) fn with_tls(self, tls: Option<latchbus_tls::server::Server>) -> Self {
        Self { tls, ..self }
    }

    /// So are the users and the keys of tokens.
    pub(crate) fn with_sign_ins(self, sign_ins: SignIns) -> Self {
        let sign_ins = Some(sign_ins);
        Self { sign_ins, ..self }
    }

    /// Takes the settings over. Where they cannot be read, all stays as it is.
    pub(crate) fn reload(&self) {
        if let Some(tls) = &self.tls {
            tls.say(tls.reload().map(|()| true));
        }
        if let Some(sign_ins) = &self.sign_ins {
            sign_ins.reload();
        }
        let settings = match (self.source)() {
            Ok(settings) => settings,
            Err(error) => {
                warn!(target: "server", %error, "SIGHUP: the settings cannot be read; nothing is changed by them");
                return;
            }
        };
        match &settings.access {
            Some(rules) => {
                info!(target: "server", file = rules.file(), "SIGHUP: the rules are reloaded")
            }
            None if self.rules.is_open() => {}
            None => {
                warn!(target: "server", "SIGHUP: there are no rules any more: everyone may do everything")
            }
        }
        self.rules.replace(settings.access);
        match self.log.set(&settings.log) {
            Ok(filter) => {
                info!(target: "server", log = %filter, "SIGHUP: the log filter is reloaded, as are users and keys of tokens; other settings need a restart")
            }
            Err(error) => warn!(target: "server", %error, "SIGHUP: the log filter stays as it is"),
        }
    }
}
