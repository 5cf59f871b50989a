//! The rules among the settings: `[access]`, or `access = FILE`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use latchbus_access::rules::{Declared, Rules, RulesError};

use super::{Layer, SettingsError};

/// What a source says of the rules.
#[derive(Debug, Clone)]
pub enum AccessLayer {
    /// The rules themselves.
    Rules(Arc<Rules>),
    /// The file that holds them.
    File(PathBuf),
}

impl AccessLayer {
    /// Reads the file, where it is one.
    pub(super) fn rules(self) -> Result<Arc<Rules>, SettingsError> {
        let path = match self {
            Self::Rules(rules) => return Ok(rules),
            Self::File(path) => path,
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(source) => return Err(SettingsError::File { path, source }),
        };
        let rules = Rules::parse(&text, &path.display().to_string());
        rules.map(Arc::new).map_err(|mut error| {
            if Layer::has_rules(&text) {
                error.reason.push_str(
                    " (it is a settings file: name it by --config, its rules are below `access`)",
                );
            }
            error.into()
        })
    }
}

impl From<Declared> for AccessLayer {
    fn from(declared: Declared) -> Self {
        match declared {
            Declared::Rules(rules) => Self::Rules(Arc::from(rules)),
            Declared::File(path) => Self::File(path),
        }
    }
}

impl From<RulesError> for SettingsError {
    fn from(error: RulesError) -> Self {
        Self::Line {
            path: error.file.into(),
            line: error.line,
            reason: error.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::settings::Settings;

    fn resolve(text: &str) -> Result<Settings, SettingsError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Settings::resolve(Some(file.path()), Layer::default(), Layer::default())
    }

    #[test]
    fn rules_are_in_the_settings_or_in_a_file_of_their_own() {
        assert!(resolve("").unwrap().access.is_none());
        assert!(resolve("[access]").unwrap().access.is_some());
        let rules = tempfile::NamedTempFile::new().unwrap();
        fs::write(rules.path(), "[roles.a]\npublish = [\"x\"]").unwrap();
        let text = format!("threads = 2\naccess = {:?}", rules.path());
        let settings = resolve(&text).unwrap();
        assert_eq!(
            settings.access.unwrap().file(),
            rules.path().to_str().unwrap()
        );
        assert_eq!(settings.threads, 2);
        // A flag goes over the file.
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "[access]").unwrap();
        let flags = Layer {
            access: Some(AccessLayer::File(rules.path().to_owned())),
            ..Layer::default()
        };
        let settings = Settings::resolve(Some(file.path()), Layer::default(), flags).unwrap();
        assert_eq!(
            settings.access.unwrap().file(),
            rules.path().to_str().unwrap()
        );
    }

    #[test]
    fn what_is_wrong_in_rules_is_wrong_in_its_file_and_line() {
        let line = |error| match error {
            SettingsError::Line { path, line, .. } => (path, line),
            other => panic!("{other}"),
        };
        let (_, at) = line(resolve("\n[access.roles.a]\n\nsubscribe = [\"a#\"]").unwrap_err());
        assert_eq!(at, 4);
        let (_, at) = line(resolve("[access]\n\nrules = 1").unwrap_err());
        assert_eq!(at, 3);
        // The other settings are looked at as before.
        let (_, at) = line(resolve("[access]\neveryone = []\n[limits]\nrooms = 0").unwrap_err());
        assert_eq!(at, 4);
        let rules = tempfile::NamedTempFile::new().unwrap();
        fs::write(rules.path(), "\nanonymous = [\"guest\"]").unwrap();
        let (path, at) = line(resolve(&format!("access = {:?}", rules.path())).unwrap_err());
        assert_eq!((path.as_path(), at), (rules.path(), 2));
        let missing = resolve("access = \"/nowhere/access.toml\"").unwrap_err();
        assert!(matches!(missing, SettingsError::File { .. }));
    }
}
