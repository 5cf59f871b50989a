//! The rules as TOML, with the line of each.

use core::ops::Range;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;

use latchbus_core::clicks::is_name;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::marks::MAX_QOS;
use super::{Action, Assigned, Role, Rule, RuleFilter, Rules};

/// What is wrong with rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
#[non_exhaustive]
pub struct RulesError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong in it.
    pub reason: String,
}

/// What a settings file says under `access`.
#[derive(Debug)]
pub enum Declared {
    /// The rules themselves: `[access]`.
    Rules(Box<Rules>),
    /// Where they are: `access = FILE`.
    File(PathBuf),
}

/// A mistake: where, and what.
type Wrong = (Range<usize>, String);

type Entries<'a, 'i> = &'a DeTable<'i>;

impl Rules {
    /// Reads rules from the text of a file of their own.
    ///
    /// # Errors
    /// With the line that is wrong.
    pub fn parse(text: &str, file: &str) -> Result<Self, RulesError> {
        let reader = Reader { text, file };
        let table = DeTable::parse(text).map_err(|error| reader.toml(&error))?;
        reader
            .rules(table.get_ref())
            .map_err(|wrong| reader.error(wrong))
    }

    /// Whether a text is that of a file of rules rather than one of settings, right or wrong: it has a key that only
    /// rules have.
    pub fn is_meant_by(text: &str) -> bool {
        let Ok(table) = DeTable::parse(text) else {
            return false;
        };
        let table = table.get_ref();
        !table.contains_key("access")
            && table
                .iter()
                .any(|(key, value)| match (&**key.get_ref(), value.get_ref()) {
                    ("roles" | "everyone" | "signed_in" | "certificates", _) => true,
                    // Settings of these names hold something else.
                    ("anonymous", DeValue::Array(_)) | ("users", DeValue::Table(_)) => true,
                    _ => false,
                })
    }

    /// Reads what the text of a settings file says under `access`; none if there is no such key. `table` is what the
    /// text was parsed to.
    ///
    /// # Errors
    /// With the line that is wrong.
    pub fn declared(
        text: &str,
        table: &DeTable<'_>,
        file: &str,
    ) -> Result<Option<Declared>, RulesError> {
        let reader = Reader { text, file };
        let Some(value) = table.get("access") else {
            return Ok(None);
        };
        let declared = match value.get_ref() {
            DeValue::String(path) => Ok(Declared::File(PathBuf::from(&**path))),
            DeValue::Table(table) => reader
                .rules(table)
                .map(|rules| Declared::Rules(Box::new(rules))),
            _ => Err((
                value.span(),
                "access is a table of rules, or the name of their file".to_owned(),
            )),
        };
        declared.map(Some).map_err(|wrong| reader.error(wrong))
    }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a str,
}

impl Reader<'_> {
    fn error(&self, (span, reason): Wrong) -> RulesError {
        RulesError {
            file: self.file.to_owned(),
            line: self.line(span.start),
            reason,
        }
    }

    fn toml(&self, error: &toml::de::Error) -> RulesError {
        self.error((error.span().unwrap_or_default(), error.message().to_owned()))
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|byte| **byte == b'\n').count() + 1
    }

    fn rules(&self, table: Entries<'_, '_>) -> Result<Rules, Wrong> {
        let mut roles = Vec::new();
        if let Some(value) = table.get("roles") {
            for (name, role) in entries(value, "roles")? {
                roles.push(self.role(name.get_ref(), role)?);
            }
        }
        let mut rules = Rules {
            file: self.file.into(),
            roles,
            anonymous: Assigned::default(),
            everyone: Assigned::default(),
            signed_in: Assigned::default(),
            users: BTreeMap::new(),
            tokens: BTreeMap::new(),
            certificates: BTreeMap::new(),
            compiled: Mutex::default(),
        };
        for (key, value) in table {
            match &**key.get_ref() {
                "roles" => {}
                "anonymous" => rules.anonymous = assigned(&rules.roles, value)?,
                "everyone" => rules.everyone = assigned(&rules.roles, value)?,
                "signed_in" => rules.signed_in = assigned(&rules.roles, value)?,
                "users" => rules.users = by_name(&rules.roles, value, "users")?,
                "tokens" => rules.tokens = by_name(&rules.roles, value, "tokens")?,
                "certificates" => {
                    rules.certificates = by_name(&rules.roles, value, "certificates")?;
                }
                other => {
                    return Err(unknown(
                        key.span(),
                        other,
                        "roles, anonymous, everyone, signed_in, users, tokens, certificates",
                    ));
                }
            }
        }
        Ok(rules)
    }

    fn role(&self, name: &str, value: &Spanned<DeValue<'_>>) -> Result<Role, Wrong> {
        let mut role = Role {
            name: name.into(),
            rules: Vec::new(),
            retain: true,
            max_qos: MAX_QOS,
            admin: false,
        };
        for (key, value) in entries(value, "a role")? {
            let action = match &**key.get_ref() {
                "publish" => Action::Publish,
                "subscribe" => Action::Subscribe,
                "deny" => Action::Deny,
                "deny_publish" => Action::DenyPublish,
                "deny_subscribe" => Action::DenySubscribe,
                "retain" => {
                    role.retain = boolean(value, "retain")?;
                    continue;
                }
                "admin" => {
                    role.admin = boolean(value, "admin")?;
                    continue;
                }
                "max_qos" => {
                    role.max_qos = max_qos(value)?;
                    continue;
                }
                other => {
                    return Err(unknown(
                        key.span(),
                        other,
                        "publish, subscribe, deny, deny_publish, deny_subscribe, retain, max_qos, admin",
                    ));
                }
            };
            for (span, text) in strings(value, key.get_ref(), "filters")? {
                let filter = RuleFilter::parse(text)
                    .map_err(|error| (span.clone(), format!("\"{text}\": {error}")))?;
                role.rules.push(Rule {
                    action,
                    filter,
                    line: self.line(span.start),
                });
            }
        }
        role.rules.sort_by_key(|rule| rule.line);
        Ok(role)
    }
}

fn by_name(
    roles: &[Role],
    value: &Spanned<DeValue<'_>>,
    what: &str,
) -> Result<BTreeMap<Box<str>, Assigned>, Wrong> {
    let all = entries(value, what)?.iter().map(|(name, value)| {
        let name: &str = name.get_ref();
        Ok((name.into(), assigned(roles, value)?))
    });
    all.collect()
}

/// `["role", …]`, or `{ roles = ["role", …], rooms = ["room", …] }`.
fn assigned(roles: &[Role], value: &Spanned<DeValue<'_>>) -> Result<Assigned, Wrong> {
    let DeValue::Table(table) = value.get_ref() else {
        let roles = named_roles(roles, value)?;
        return Ok(Assigned {
            roles,
            rooms: Vec::new(),
        });
    };
    let mut assigned = Assigned::default();
    for (key, value) in table {
        match &**key.get_ref() {
            "roles" => assigned.roles = named_roles(roles, value)?,
            "rooms" => {
                for (span, room) in strings(value, "rooms", "rooms")? {
                    if !is_name(room) {
                        return Err((span, format!("\"{room}\" cannot be the name of a room")));
                    }
                    assigned.rooms.push(room.into());
                }
            }
            other => return Err(unknown(key.span(), other, "roles, rooms")),
        }
    }
    Ok(assigned)
}

fn named_roles(roles: &[Role], value: &Spanned<DeValue<'_>>) -> Result<Vec<usize>, Wrong> {
    let names = strings(value, "who has roles", "roles")?.into_iter();
    let numbers = names.map(|(span, name)| {
        let number = roles.iter().position(|role| &*role.name == name);
        number.ok_or_else(|| (span, format!("there is no role \"{name}\"")))
    });
    numbers.collect()
}

fn entries<'a, 'i>(value: &'a Spanned<DeValue<'i>>, what: &str) -> Result<Entries<'a, 'i>, Wrong> {
    match value.get_ref() {
        DeValue::Table(table) => Ok(table),
        _ => Err((value.span(), format!("{what} must be a table"))),
    }
}

fn strings<'a>(
    value: &'a Spanned<DeValue<'_>>,
    key: &str,
    of: &str,
) -> Result<Vec<(Range<usize>, &'a str)>, Wrong> {
    let wrong = |span| {
        (
            span,
            format!("{key}: a list of {of} is expected, as in [\"…\"]"),
        )
    };
    let DeValue::Array(items) = value.get_ref() else {
        return Err(wrong(value.span()));
    };
    let items = items.iter().map(|item| match item.get_ref() {
        DeValue::String(text) => Ok((item.span(), &**text)),
        _ => Err(wrong(item.span())),
    });
    items.collect()
}

fn boolean(value: &Spanned<DeValue<'_>>, key: &str) -> Result<bool, Wrong> {
    match value.get_ref() {
        DeValue::Boolean(is) => Ok(*is),
        _ => Err((value.span(), format!("{key} is true or false"))),
    }
}

fn max_qos(value: &Spanned<DeValue<'_>>) -> Result<u8, Wrong> {
    match value.get_ref() {
        DeValue::Integer(number) if number.as_str() == "0" => Ok(0),
        DeValue::Integer(number) if number.as_str() == "1" => Ok(1),
        DeValue::Integer(number) if number.as_str() == "2" => Ok(2),
        _ => Err((value.span(), "max_qos is 0, 1 or 2".to_owned())),
    }
}

fn unknown(span: Range<usize>, key: &str, known: &str) -> Wrong {
    (span, format!("unknown key `{key}`: known are {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (usize, String) {
        let error = Rules::parse(text, "access.toml").unwrap_err();
        (error.line, error.reason)
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, line, word) in [
            ("\nrolls = 1", 2, "rolls"),
            ("roles = 1", 1, "table"),
            (
                "[roles.a]\npublish = [\n  \"x/#\",\n  \"x/#/y\",\n]",
                4,
                "x/#/y",
            ),
            ("[roles.a]\npublish = [\"x/{usr}\"]", 2, "{usr}"),
            ("[roles.a]\npublish = [\"$share/g/x\"]", 2, "$share"),
            ("[roles.a]\npublish = \"x\"", 2, "publish"),
            ("[roles.a]\npublish = [1]", 2, "publish"),
            ("[roles.a]\n\nsubscrib = []", 3, "subscrib"),
            ("[roles.a]\nmax_qos = 3", 2, "max_qos"),
            ("[roles.a]\nretain = 1", 2, "retain"),
            ("[roles.a]\nadmin = \"yes\"", 2, "admin"),
            ("anonymous = [\"a\"]", 1, "\"a\""),
            ("[roles.a]\n[users]\nanna = [\"a\", \"b\"]", 3, "\"b\""),
            ("[users]\nanna = \"a\"", 2, "list"),
            ("[users]\nanna = { role = [] }", 2, "role"),
            (
                "[users]\nanna = { roles = [], rooms = [\"a b\"] }",
                2,
                "room",
            ),
            ("[tokens]\nx = [\"a\"]", 2, "\"a\""),
            ("[certificates]\nx = [\"a\"]", 2, "\"a\""),
            ("users = []", 1, "table"),
            ("a = ", 1, ""),
        ] {
            let (found, reason) = wrong(text);
            assert_eq!(found, line, "{text}: {reason}");
            assert!(reason.contains(word), "{text}: {reason}");
            assert!(!reason.contains('\n'));
        }
    }

    #[test]
    fn what_settings_say() {
        let declared = |text: &str| {
            let table = DeTable::parse(text).unwrap();
            Rules::declared(text, table.get_ref(), "s.toml")
        };
        assert!(declared("http = \"off\"").unwrap().is_none());
        let file = declared("access = \"rules.toml\"").unwrap();
        assert!(matches!(file, Some(Declared::File(path)) if path.ends_with("rules.toml")));
        let here = declared("[access.roles.a]\npublish = [\"x\"]\n[access.users]\nanna = [\"a\"]");
        assert!(matches!(here, Ok(Some(Declared::Rules(_)))));
        assert_eq!(declared("\naccess = 1").unwrap_err().line, 2);
        assert_eq!(declared("[access.roles.a]\npub = 1").unwrap_err().line, 2);
    }
}
