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
            // A lost line of a file must not open a server.
            None => {
                warn!(target: "server", "SIGHUP: the settings name no rules any more: the rules stay as they are; a restart runs without")
            }
        }
        if settings.access.is_some() || self.rules.is_open() {
            self.rules.replace(settings.access);
        }
        match self.log.set(&settings.log) {
            Ok(filter) => {
                info!(target: "server", log = %filter, "SIGHUP: the log filter is reloaded, as are users and keys of tokens; other settings need a restart")
            }
            Err(error) => warn!(target: "server", %error, "SIGHUP: the log filter stays as it is"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use latchbus_bus::{Authorizer as _, Principal, PublishRequest, TopicName};

    use super::*;
    use crate::settings::Layer;

    #[test]
    fn rules_that_the_settings_do_not_name_any_more_stay() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("settings.toml");
        let path = file.clone();
        let settings = move || {
            let settings = Settings::resolve(Some(&path), Layer::default(), Layer::default());
            settings.map_err(|error| error.to_string())
        };
        let open = "";
        let lab = "[access]\neveryone = [\"a\"]\n[access.roles.a]\npublish = [\"lab/#\"]\n";
        let den = lab.replace("lab", "den");
        let elsewhere = directory.path().join("access.toml");
        fs::write(
            &elsewhere,
            "everyone = [\"a\"]\n[roles.a]\npublish = [\"file/#\"]\n",
        )
        .unwrap();
        let by_file = format!("access = {elsewhere:?}\n");
        let rules = Arc::new(RulesAuthorizer::new(None));
        let defaults = Settings::default();
        let log = crate::log::start(&defaults.log, defaults.log_format);
        let reload = Reload::new(Box::new(settings), log, Arc::clone(&rules));
        let may = |topic: &str| {
            let publish = PublishRequest::new(TopicName::parse(topic).unwrap(), false, 0);
            rules.authorize_publish(&Principal::anonymous("test"), &publish)
        };
        for (settings, allowed) in [
            (open, ["lab/x", "den/x", "file/x"].as_slice()),
            (lab, &["lab/x"]),
            (open, &["lab/x"]),
            ("access = \"missing.toml\"", &["lab/x"]),
            (&den, &["den/x"]),
            (&by_file, &["file/x"]),
            (open, &["file/x"]),
            // Rules that allow nothing are rules.
            ("[access]\n", &[]),
            (open, &[]),
        ] {
            fs::write(&file, settings).unwrap();
            reload.reload();
            for topic in ["lab/x", "den/x", "file/x"] {
                assert_eq!(may(topic), allowed.contains(&topic), "{settings} {topic}");
            }
        }
    }
}
