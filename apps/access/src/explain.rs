//! Which rule decides: what `latchbus access explain` prints.

use core::fmt;

use latchbus_core::clicks::is_reserved;
use latchbus_core::topic::{TopicFilter, TopicName};

use crate::rules::{Role, Rule, Rules, Subject, unshared};

/// What is asked.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Question<'a> {
    /// A publish to this topic.
    Publish {
        /// The topic.
        topic: TopicName<&'a str>,
        /// Its QoS.
        qos: u8,
        /// Whether it is to be retained.
        retain: bool,
    },
    /// A subscription with this filter.
    Subscribe(TopicFilter<&'a str>),
    /// A delivery of this topic.
    Read(TopicName<&'a str>),
}

/// A decision, and what it is founded on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Whether it is allowed.
    pub is_allowed: bool,
    /// Why, in lines; the first is the rule that decides.
    pub reasons: Vec<String>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_allowed {
            "allowed"
        } else {
            "refused"
        })?;
        for reason in &self.reasons {
            write!(f, "\n  {reason}")?;
        }
        Ok(())
    }
}

impl Rules {
    /// Why this subject is allowed or refused what it asks.
    pub fn explain(&self, subject: &Subject<'_>, question: Question<'_>) -> Explanation {
        let rights = self.rights(subject);
        let explain = Explain {
            rules: self,
            subject,
        };
        let (is_allowed, mut reasons) = match question {
            _ if question.is_reserved() => (false, vec![RESERVED.to_owned()]),
            Question::Publish { topic, qos, retain } => (
                rights.may_publish(topic, qos, retain),
                explain.publish(topic, qos, retain),
            ),
            Question::Read(topic) => (rights.may_read(topic), explain.read(topic)),
            Question::Subscribe(filter) => {
                let granted = rights.subscribe(filter);
                (granted.is_some(), explain.subscribe(filter, granted))
            }
        };
        let roles = self.role_names(subject.who()).join(", ");
        reasons.push(match roles.is_empty() {
            true => "roles: none".to_owned(),
            false => format!("roles: {roles}"),
        });
        if subject.claims().is_some() {
            reasons.push("the token's filters allow, in the place of these roles; what the roles deny is denied".to_owned());
        }
        for name in rights.unusable_names() {
            reasons.push(format!(
                "{name} is a name that can be no level of a topic: rules with it allow nothing, and deny all that is there"
            ));
        }
        Explanation {
            is_allowed,
            reasons,
        }
    }
}

impl Question<'_> {
    /// Whether it is a publish to a topic that the server itself writes.
    fn is_reserved(self) -> bool {
        matches!(self, Self::Publish { topic, .. } if is_reserved(topic.as_str()))
    }
}

/// Why this subject is allowed or refused what it asks where there are no rules.
pub fn without_rules(subject: &Subject<'_>, question: Question<'_>) -> Explanation {
    if subject.claims().is_some() {
        return Rules::default().explain(subject, question);
    }
    let is_reserved = question.is_reserved();
    let reason = match is_reserved {
        true => RESERVED,
        false => "there are no rules: everyone may do everything",
    };
    Explanation {
        is_allowed: !is_reserved,
        reasons: vec![reason.to_owned()],
    }
}

/// The bus refuses it before it asks the rules.
const RESERVED: &str =
    "the server itself writes this topic, and nobody else, whatever the rules say";

struct Explain<'a> {
    rules: &'a Rules,
    subject: &'a Subject<'a>,
}

impl<'a> Explain<'a> {
    /// The rules that match the topic and are about this.
    fn matching(
        &self,
        topic: TopicName<&'a str>,
        is_about: impl Fn(&Rule) -> bool,
    ) -> impl Iterator<Item = (&'a Role, &'a Rule)> {
        let names = self.rules.names(self.subject);
        let has_claims = self.subject.claims().is_some();
        let rules = self.rules.rules_of(self.subject.who());
        rules.filter(move |(_, rule)| {
            let denies = rule.action.denies();
            is_about(rule) && (denies || !has_claims) && rule.filter.matches(topic, &names, denies)
        })
    }

    fn line(&self, (role, rule): (&Role, &Rule)) -> String {
        let (file, line) = (self.rules.file(), rule.line);
        let (action, filter, name) = (rule.action, &rule.filter, &role.name);
        format!("{file}:{line}: role {name}: {action} \"{filter}\"")
    }

    fn publish(&self, topic: TopicName<&'a str>, qos: u8, retain: bool) -> Vec<String> {
        let mut found: Vec<_> = self
            .matching(topic, |rule| rule.action.is_of_publish())
            .collect();
        let permits = |role: &Role| qos <= role.max_qos && (role.retain || !retain);
        // What denies, then what allows, then what would but for its limits.
        found.sort_by_key(|(role, rule)| (!rule.action.denies(), !permits(role)));
        let mut lines: Vec<_> = found
            .into_iter()
            .map(|(role, rule)| {
                let line = self.line((role, rule));
                match () {
                    () if rule.action.denies() || permits(role) => line,
                    () if qos > role.max_qos => format!("{line}, but max_qos = {}", role.max_qos),
                    () => format!("{line}, but retain = false"),
                }
            })
            .collect();
        if let Some(filter) = self.claimed(topic, true) {
            lines.push(filter);
        }
        or_none(lines, "no rule allows it")
    }

    fn read(&self, topic: TopicName<&'a str>) -> Vec<String> {
        let mut found: Vec<_> = self
            .matching(topic, |rule| rule.action.is_of_read())
            .collect();
        found.sort_by_key(|(_, rule)| !rule.action.denies());
        let mut lines: Vec<_> = found.into_iter().map(|found| self.line(found)).collect();
        lines.extend(self.claimed(topic, false));
        or_none(lines, "no rule allows it")
    }

    /// The filter of the token that matches.
    fn claimed(&self, topic: TopicName<&str>, publish: bool) -> Option<String> {
        let claims = self.subject.claims()?;
        let filters = if publish {
            claims.publish
        } else {
            claims.subscribe
        };
        let filter = filters.iter().find(|filter| filter.matches(&topic))?;
        Some(format!("the token: \"{filter}\""))
    }

    /// Each rule by whose filter alone something of it could be read.
    fn subscribe(&self, filter: TopicFilter<&'a str>, granted: Option<u8>) -> Vec<String> {
        if let Some(topic) = unshared(filter).exact() {
            return self.read(topic);
        }
        let Some(qos) = granted else {
            return vec!["nothing that it matches may be read".to_owned()];
        };
        let names = self.rules.names(self.subject);
        let rules = self.rules.rules_of(self.subject.who());
        let has_claims = self.subject.claims().is_some();
        let reaches = rules.filter(|(_, rule)| {
            rule.action.is_of_read()
                && (rule.action.denies() || !has_claims)
                && rule.filter.meets(unshared(filter), &names)
        });
        let mut lines = vec![format!(
            "granted at QoS {qos}; of what it matches, that is delivered which these rules allow"
        )];
        lines.extend(reaches.map(|found| self.line(found)));
        if let Some(claims) = self.subject.claims() {
            let filters = claims.subscribe.iter();
            lines.extend(filters.map(|filter| format!("the token: \"{filter}\"")));
        }
        lines
    }
}

fn or_none(lines: Vec<String>, otherwise: &str) -> Vec<String> {
    match lines.is_empty() {
        true => vec![otherwise.to_owned()],
        false => lines,
    }
}
