//! What Mosquitto's files of access control and of passwords say, as rules and users.
//!
//! The meaning is that of Mosquitto 2.0 (`mosquitto.conf(5)`, `acl_file` and `password_file`): lines before the first `user` are for
//! clients without a user name, `pattern` lines for all, and what denies is looked at first. What cannot be carried over is said.

use core::fmt::Write as _;
use std::collections::BTreeMap;

use latchbus_core::topic::TopicFilter;

use crate::rules::{Names, RuleFilter, Rules};

/// What was read, in the form of Latchbus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// The text of the file.
    pub text: String,
    /// What could not be carried over, or means something else, one line each.
    pub left_out: Vec<String>,
}

/// What Mosquitto would refuse too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}: {reason}")]
#[non_exhaustive]
pub struct ImportError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong in it.
    pub reason: String,
}

/// Whom lines of an ACL are for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum For {
    Anonymous,
    Everyone,
    User(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    ReadWrite,
    Deny,
}

#[derive(Debug)]
struct Entry {
    line: usize,
    access: Access,
    /// As a filter of a rule.
    filter: RuleFilter,
    /// What it matches at most, whatever the names.
    widest: TopicFilter<String>,
}

/// Reads an ACL file; `file` is its name for messages.
///
/// # Errors
/// With the first line that Mosquitto would refuse.
pub fn acl(text: &str, file: &str) -> Result<Imported, ImportError> {
    let mut acl = Acl::default();
    let mut whom = For::Anonymous;
    for (line, content) in (1..).zip(text.lines()) {
        let wrong = |reason: String| ImportError {
            file: file.to_owned(),
            line,
            reason,
        };
        let content = content.trim_end();
        if content.starts_with('#') {
            continue;
        }
        let content = content.trim_start_matches(' ');
        let (word, rest) = content.split_once(' ').unwrap_or((content, ""));
        let rest = rest.trim();
        match word {
            "" => {}
            "user" if rest.is_empty() => return Err(wrong("the user has no name".to_owned())),
            "user" => {
                whom = For::User(rest.to_owned());
                acl.entries.entry(whom.clone()).or_default();
            }
            "topic" => acl.add(line, &whom, rest).map_err(wrong)?,
            "pattern" => acl.add(line, &For::Everyone, rest).map_err(wrong)?,
            other => return Err(wrong(format!("\"{other}\" begins no line of an ACL"))),
        }
    }
    acl.compare();
    let text = acl.toml(file);
    // What is written can be read: whatever a topic or a name has in it.
    if let Err(error) = Rules::parse(&text, "access.toml") {
        let (file, line, reason) = (
            file.to_owned(),
            1,
            format!("cannot be written as rules: {error}"),
        );
        return Err(ImportError { file, line, reason });
    }
    let left_out = acl.left_out;
    Ok(Imported { text, left_out })
}

/// Reads a password file; hashes are taken over as they are.
pub fn passwords(text: &str, file: &str) -> Imported {
    let mut imported = Imported::default();
    for (line, content) in (1..).zip(text.lines()) {
        let content = content.trim_end();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut leave_out = |reason: &str| {
            imported.left_out.push(format!("{file}:{line}: {reason}"));
        };
        match content.split_once(':') {
            None | Some(("", _)) => leave_out("no user and password, divided by `:`"),
            Some((name, _)) if name.contains(char::is_control) => {
                leave_out("the name has a control character in it");
            }
            Some((name, hash)) if is_hash(hash) => {
                // A string takes everything.
                let _always = writeln!(imported.text, "{name}:{hash}");
            }
            Some((name, _)) => leave_out(&format!(
                "the password of {name} is not hashed as $6$ or $7$; `mosquitto_passwd -U {file}` hashes plain ones"
            )),
        }
    }
    imported
}

/// `$6$salt$hash`, or `$7$iterations$salt$hash`.
fn is_hash(hash: &str) -> bool {
    let fields: Vec<_> = hash.split('$').collect();
    match fields.as_slice() {
        ["", "6", salt, hash] => !salt.is_empty() && !hash.is_empty(),
        ["", "7", iterations, salt, hash] => {
            iterations.parse::<u32>().is_ok() && !salt.is_empty() && !hash.is_empty()
        }
        _ => false,
    }
}

#[derive(Debug, Default)]
struct Acl {
    entries: BTreeMap<For, Vec<Entry>>,
    left_out: Vec<String>,
}

impl Acl {
    /// `[read|write|readwrite|deny] topic`.
    fn add(&mut self, line: usize, whom: &For, rest: &str) -> Result<(), String> {
        let (access, topic) = match rest.split_once(' ') {
            None => (Access::ReadWrite, rest),
            Some(("read", topic)) => (Access::Read, topic.trim_start()),
            Some(("write", topic)) => (Access::Write, topic.trim_start()),
            Some(("readwrite", topic)) => (Access::ReadWrite, topic.trim_start()),
            Some(("deny", topic)) => (Access::Deny, topic.trim_start()),
            Some((other, _)) => {
                return Err(format!(
                    "\"{other}\" is no access: read, write, readwrite or deny"
                ));
            }
        };
        let parsed =
            TopicFilter::parse(topic.to_owned()).map_err(|error| format!("\"{topic}\": {error}"));
        let is_pattern = *whom == For::Everyone;
        let mut widest = parsed?;
        let mut text = topic.replace('{', "{{");
        if is_pattern {
            text = text.replace("%u", "{user}").replace("%c", "{client}");
            let levels =
                topic
                    .split('/')
                    .map(|level| match level.contains("%u") || level.contains("%c") {
                        true => "+",
                        false => level,
                    });
            let levels: Vec<_> = levels.collect();
            widest = TopicFilter::parse(levels.join("/")).unwrap_or(widest);
        }
        let filter = match RuleFilter::parse(&text) {
            Ok(filter) => filter,
            Err(error) => {
                self.left_out
                    .push(format!("line {line}: \"{topic}\": {error}"));
                return Ok(());
            }
        };
        if matches!(access, Access::Write | Access::ReadWrite) && topic.starts_with("$SYS") {
            let reason = "only the server publishes below $SYS, whatever the rules allow";
            self.left_out
                .push(format!("line {line}: \"{topic}\": {reason}"));
        }
        let entry = Entry {
            line,
            access,
            filter,
            widest,
        };
        self.entries.entry(whom.clone()).or_default().push(entry);
        Ok(())
    }

    /// Says where Mosquitto allows what a rule of Latchbus denies: it looks at the lines of a user before it looks at patterns.
    fn compare(&mut self) {
        let patterns = self.entries.get(&For::Everyone);
        let denied: Vec<_> = patterns
            .into_iter()
            .flatten()
            .filter(|entry| entry.access == Access::Deny)
            .collect();
        let others = self
            .entries
            .iter()
            .filter(|(whom, _)| **whom != For::Everyone);
        let entries = others.flat_map(|(_, entries)| entries);
        let allowed = entries.filter(|entry| entry.access != Access::Deny);
        let names = Names::default();
        let both = allowed.flat_map(|allowed| denied.iter().map(move |denied| (allowed, denied)));
        let both =
            both.filter(|(allowed, denied)| allowed.filter.meets(denied.widest.borrowed(), &names));
        let lines = both.map(|(allowed, denied)| {
            format!(
                "line {}: \"{}\" is denied by the pattern of line {}; in Mosquitto a user's own lines go over patterns, here what denies wins",
                allowed.line, allowed.filter, denied.line
            )
        });
        let lines: Vec<_> = lines.collect();
        self.left_out.extend(lines);
    }

    fn toml(&self, file: &str) -> String {
        let mut out = format!("# From Mosquitto's ACL {file:?}.\n");
        let mut roles = String::new();
        let mut users = String::new();
        for (whom, entries) in &self.entries {
            let (role, name) = match whom {
                For::Anonymous => ("anonymous".to_owned(), None),
                For::Everyone => ("everyone".to_owned(), None),
                For::User(name) => (format!("user {name}"), Some(name)),
            };
            let role = quoted(&role);
            // A string takes everything.
            let _always = match name {
                None => writeln!(out, "{whom} = [{role}]", whom = role.trim_matches('"')),
                Some(name) => writeln!(users, "{} = [{role}]", quoted(name)),
            };
            let _always = writeln!(roles, "\n[roles.{role}]");
            let lists: [(&str, &[Access]); 3] = [
                ("publish", &[Access::Write, Access::ReadWrite]),
                ("subscribe", &[Access::Read, Access::ReadWrite]),
                ("deny", &[Access::Deny]),
            ];
            for (key, accesses) in lists {
                let entries = entries
                    .iter()
                    .filter(|entry| accesses.contains(&entry.access));
                let filters: Vec<_> = entries.map(|entry| quoted(entry.filter.as_str())).collect();
                if !filters.is_empty() {
                    let _always = writeln!(roles, "{key} = [{}]", filters.join(", "));
                }
            }
        }
        out.push_str(&roles);
        if !users.is_empty() {
            out.push_str("\n[users]\n");
            out.push_str(&users);
        }
        out
    }
}

/// A basic string of TOML, which may be a key too.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            character if character.is_control() => {
                // A string takes everything.
                let _always = write!(out, "\\u{:04X}", u32::from(character));
            }
            character => out.push(character),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use latchbus_core::topic::TopicName;

    use super::*;
    use crate::rules::{Subject, Who};

    const ACL: &str = "# comment\n\
        topic read $SYS/#\n\
        \n\
        user roger\n\
        topic foo/bar\n\
        topic deny  foo/bar/secret\n\
        topic write a b/c\n\
        topic read {odd}/\"x\\\n\
        pattern write dev/%c/state\n\
        pattern readwrite home/%u/#\n\
        user anna smith\n\
        topic readwrite #\n";

    #[test]
    fn lines_become_roles() {
        let imported = acl(ACL, "acl").unwrap();
        assert_eq!(imported.left_out, Vec::<String>::new());
        let rules = Rules::parse(&imported.text, "access.toml").unwrap();
        let topic = |text| TopicName::parse(text).unwrap();
        let may = |who, text| {
            let rights = rules.rights(&Subject::new(who).with_client_id("c1"));
            (
                rights.may_publish(topic(text), 2, true),
                rights.may_read(topic(text)),
            )
        };
        let (nobody, roger, anna) = (Who::Anonymous, Who::User("roger"), Who::User("anna smith"));
        assert_eq!(may(nobody, "$SYS/broker/uptime"), (false, true));
        assert_eq!(may(roger, "$SYS/broker/uptime"), (false, false));
        assert_eq!(may(roger, "foo/bar"), (true, true));
        assert_eq!(may(roger, "foo/bar/secret"), (false, false));
        assert_eq!(may(nobody, "foo/bar"), (false, false));
        assert_eq!(may(roger, "a b/c"), (true, false));
        assert_eq!(may(roger, "{odd}/\"x\\"), (false, true));
        assert_eq!(may(nobody, "dev/c1/state"), (true, false));
        assert_eq!(may(roger, "dev/c2/state"), (false, false));
        assert_eq!(may(roger, "home/roger/x"), (true, true));
        assert_eq!(may(nobody, "home//x"), (false, false));
        assert_eq!(may(anna, "foo/bar"), (true, true));
        assert_eq!(may(anna, "$SYS/broker/uptime"), (false, false));
    }

    #[test]
    fn what_cannot_be_carried_over_is_said() {
        let text = "user a\ntopic x/#\npattern deny x/%c/y\npattern deny z\npattern write $SYS/broker/connection/%c/state\n\
                    topic $share/g/t\n";
        let left_out = acl(text, "acl").unwrap().left_out;
        assert_eq!(left_out.len(), 3, "{left_out:?}");
        for (line, word) in [
            ("line 5", "$SYS"),
            ("line 6", "$share"),
            ("line 2", "line 3"),
        ] {
            let is_said = |said: &&String| said.starts_with(line) && said.contains(word);
            assert!(
                left_out.iter().any(|said| is_said(&said)),
                "{line} {left_out:?}"
            );
        }
    }

    #[test]
    fn what_mosquitto_refuses_is_refused() {
        for (text, line) in [
            ("topic", 1),
            ("topic read", 1),
            ("\ntopic all x", 2),
            ("topic a/#/b", 1),
            ("user", 1),
            ("users a", 1),
        ] {
            // One word is a topic, whatever it is called.
            if text == "topic read" {
                assert!(acl(text, "acl").is_ok());
                continue;
            }
            assert_eq!(acl(text, "acl").unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn hashes_are_taken_over() {
        let text = "anna:$7$101$c2FsdA==$aGFzaA==\nbert:$6$c2FsdA==$aGFzaA==\n\n# x\ncarol:plain\n:x\nnobody\ndave:$7$x$c2Fs$aGFz\n";
        let imported = passwords(text, "pw");
        assert_eq!(
            imported.text,
            "anna:$7$101$c2FsdA==$aGFzaA==\nbert:$6$c2FsdA==$aGFzaA==\n"
        );
        assert_eq!(imported.left_out.len(), 4);
        assert!(
            imported.left_out[0].starts_with("pw:5:") && imported.left_out[0].contains("carol")
        );
        assert!(!imported.left_out.concat().contains("plain;"));
    }
}
