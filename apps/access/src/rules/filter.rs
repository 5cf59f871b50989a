//! The filters of rules: topic filters with names in them.

use core::fmt;

use latchbus_core::topic::{TopicFilter, TopicName};

use super::marks::Marks;
use super::tree::Tree;

/// Levels of a filter of a rule. A look-up goes as deep as the deepest filter, whatever the topic.
pub const MAX_LEVELS: usize = 128;

/// A topic filter in which `{user}`, `{client}` and `{room}` stand for names of who asks; `{{` is a `{`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFilter {
    text: Box<str>,
    pub(super) levels: Box<[Level]>,
    /// Whether `#` is behind the levels.
    pub(super) hash: bool,
}

/// A level before the `#`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    Is(Box<str>),
    Plus,
    Named(Named),
}

/// A level with names in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named(Box<[Part]>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    User,
    Client,
    Room,
}

/// Why a text is no filter of a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// No topic filter.
    #[error(transparent)]
    Topic(#[from] latchbus_core::topic::TopicError),
    /// A name that nobody has.
    #[error("{{{0}}} is not known: {{user}}, {{client}} and {{room}} are, and {{{{ is a {{")]
    UnknownName(String),
    /// A `{` without its `}`.
    #[error("`{{` has no `}}` in its level; {{{{ is a {{")]
    Open,
    /// Two rooms in one filter.
    #[error("{{room}} may be in a filter once")]
    TwoRooms,
    /// More than [`MAX_LEVELS`].
    #[error("{0} levels are more than {MAX_LEVELS}")]
    TooDeep(usize),
    /// A shared subscription.
    #[error("a shared subscription is judged by its filter: leave out $share and the group")]
    Shared,
}

/// The names that a principal brings to the filters of its rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Names {
    pub(super) user: Name,
    pub(super) client: Name,
    pub(super) rooms: Box<[Box<str>]>,
}

/// A name that a filter may ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Name {
    /// There is none: a filter with it matches nothing.
    #[default]
    Absent,
    /// It cannot be a level: what allows matches nothing, and what denies matches whatever is there.
    Unusable,
    Is(Box<str>),
}

/// How a level with names compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Match {
    Yes,
    No,
    Unusable,
}

impl Names {
    /// The user's name (a token's or a certificate's subject is one too), the client id, and the rooms that are assigned.
    pub fn new(user: Option<&str>, client: Option<&str>, rooms: &[Box<str>]) -> Self {
        Self {
            user: Name::new(user),
            client: Name::new(client),
            rooms: rooms.into(),
        }
    }

    /// Which names can be in no topic, so that `{user}` or `{client}` allows nothing.
    pub fn unusable(&self) -> impl Iterator<Item = &'static str> {
        let names = [("{user}", &self.user), ("{client}", &self.client)];
        let unusable = names
            .into_iter()
            .filter(|(_, name)| **name == Name::Unusable);
        unusable.map(|(placeholder, _)| placeholder)
    }
}

impl Name {
    /// Names with `/`, `+` or `#` would reach beyond a level, and those with a leading `$` into topics of the server.
    fn new(name: Option<&str>) -> Self {
        match name {
            None | Some("") => Self::Absent,
            Some(name) if name.starts_with('$') || name.contains(['/', '+', '#', '\0']) => {
                Self::Unusable
            }
            Some(name) => Self::Is(name.into()),
        }
    }
}

impl RuleFilter {
    /// Reads a filter of a rule.
    ///
    /// # Errors
    /// When it is no topic filter, or a name in it is unknown.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let mut levels = text
            .split('/')
            .map(Level::parse)
            .collect::<Result<Vec<_>, _>>()?;
        // With the names out of the way it is a topic filter like others.
        let plain: Vec<_> = levels.iter().map(Level::sample).collect();
        TopicFilter::parse(plain.join("/"))?;
        Self::new(text, &mut levels)
    }

    /// A filter in which braces mean nothing, as in a token.
    ///
    /// # Errors
    /// When it is deeper than [`MAX_LEVELS`].
    pub fn literal(filter: TopicFilter<&str>) -> Result<Self, FilterError> {
        let levels = filter.as_str().split('/').map(|level| match level {
            "+" => Level::Plus,
            level => Level::Is(level.into()),
        });
        Self::new(filter.as_str(), &mut levels.collect())
    }

    fn new(text: &str, levels: &mut Vec<Level>) -> Result<Self, FilterError> {
        if text.starts_with("$share/") {
            return Err(FilterError::Shared);
        }
        let hash = matches!(levels.last(), Some(Level::Is(last)) if &**last == "#");
        if hash {
            levels.pop();
        }
        if levels.len() > MAX_LEVELS {
            return Err(FilterError::TooDeep(levels.len()));
        }
        let rooms = levels.iter().map(Level::rooms).sum::<usize>();
        if rooms > 1 {
            return Err(FilterError::TwoRooms);
        }
        Ok(Self {
            text: text.into(),
            levels: core::mem::take(levels).into(),
            hash,
        })
    }

    /// Whether it matches `topic` for these names, where it is one that allows; `deny` says that it is one that denies.
    pub fn matches(&self, topic: TopicName<&str>, names: &Names, deny: bool) -> bool {
        let is_hidden = topic.as_str().starts_with('$');
        let mut topic = topic.as_str().split('/').peekable();
        for (depth, level) in self.levels.iter().enumerate() {
            if let Level::Named(named) = level
                && named.matches("", names) == Match::Unusable
            {
                return deny;
            }
            let Some(name) = topic.next() else {
                return false;
            };
            let is_match = match level {
                Level::Is(level) => **level == *name,
                Level::Plus => !(depth == 0 && is_hidden),
                Level::Named(named) => named.matches(name, names) == Match::Yes,
            };
            if !is_match {
                return false;
            }
        }
        match self.hash {
            true => !(self.levels.is_empty() && is_hidden),
            false => topic.peek().is_none(),
        }
    }

    /// Whether some topic matches both this and `filter`, for these names.
    pub(crate) fn meets(&self, filter: TopicFilter<&str>, names: &Names) -> bool {
        Tree::new([(self, Marks::read(0))])
            .readable(filter, names)
            .is_some()
    }

    /// It as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for RuleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Level {
    fn parse(level: &str) -> Result<Self, FilterError> {
        let (mut parts, mut text) = (Vec::new(), String::new());
        let mut rest = level;
        while let Some((before, behind)) = rest.split_once('{') {
            text.push_str(before);
            if let Some(behind) = behind.strip_prefix('{') {
                text.push('{');
                rest = behind;
                continue;
            }
            let (name, behind) = behind.split_once('}').ok_or(FilterError::Open)?;
            let part = match name {
                "user" => Part::User,
                "client" => Part::Client,
                "room" => Part::Room,
                name => return Err(FilterError::UnknownName(name.to_owned())),
            };
            if !text.is_empty() {
                parts.push(Part::Text(core::mem::take(&mut text).into()));
            }
            parts.push(part);
            rest = behind;
        }
        text.push_str(rest);
        if parts.is_empty() {
            return Ok(match &*text {
                "+" => Self::Plus,
                _ => Self::Is(text.into()),
            });
        }
        if !text.is_empty() {
            parts.push(Part::Text(text.into()));
        }
        Ok(Self::Named(Named(parts.into())))
    }

    /// A level of a topic filter that is as right or wrong as this is.
    fn sample(&self) -> String {
        match self {
            Self::Is(text) => text.to_string(),
            Self::Plus => "+".to_owned(),
            Self::Named(Named(parts)) => {
                let text = parts.iter().map(|part| match part {
                    Part::Text(text) => text,
                    _ => "x",
                });
                text.collect()
            }
        }
    }

    fn rooms(&self) -> usize {
        match self {
            Self::Named(Named(parts)) => parts.iter().filter(|part| **part == Part::Room).count(),
            _ => 0,
        }
    }
}

impl Named {
    pub(super) fn matches(&self, level: &str, names: &Names) -> Match {
        if self.0.contains(&Part::Room) {
            let mut rooms = names.rooms.iter();
            // What cannot be used cannot be used in any room.
            if names.rooms.is_empty() {
                return match self.matches_in(level, names, "") {
                    Match::Unusable => Match::Unusable,
                    _ => Match::No,
                };
            }
            let found = rooms.find_map(|room| match self.matches_in(level, names, room) {
                Match::No => None,
                found => Some(found),
            });
            return found.unwrap_or(Match::No);
        }
        self.matches_in(level, names, "")
    }

    fn matches_in(&self, level: &str, names: &Names, room: &str) -> Match {
        let mut rest = Some(level);
        let mut is_absent = false;
        for part in &self.0 {
            let text: &str = match part {
                Part::Text(text) => text,
                Part::Room => room,
                Part::User | Part::Client => {
                    let name = match part {
                        Part::User => &names.user,
                        _ => &names.client,
                    };
                    match name {
                        Name::Is(name) => name,
                        Name::Unusable => return Match::Unusable,
                        Name::Absent => {
                            is_absent = true;
                            ""
                        }
                    }
                }
            };
            rest = rest.and_then(|rest| rest.strip_prefix(text));
        }
        match rest {
            Some("") if !is_absent => Match::Yes,
            _ => Match::No,
        }
    }

    /// The levels that it is for these names.
    pub(super) fn levels(&self, names: &Names) -> Vec<String> {
        let one = |room: &str| -> Option<String> {
            let mut level = String::new();
            for part in &self.0 {
                level.push_str(match (part, &names.user, &names.client) {
                    (Part::Text(text), ..) => text,
                    (Part::Room, ..) => room,
                    (Part::User, Name::Is(name), _) | (Part::Client, _, Name::Is(name)) => name,
                    _ => return None,
                });
            }
            Some(level)
        };
        match self.0.contains(&Part::Room) {
            true => names.rooms.iter().filter_map(|room| one(room)).collect(),
            false => one("").into_iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(filter: &str, topic: &str, names: &Names, deny: bool) -> bool {
        let topic = TopicName::parse(topic).unwrap();
        RuleFilter::parse(filter)
            .unwrap()
            .matches(topic, names, deny)
    }

    #[test]
    fn names_are_levels_and_no_more() {
        let anna = Names::new(
            Some("anna"),
            Some("kiosk-1"),
            &["main".into(), "lab".into()],
        );
        for (filter, topic, expected) in [
            ("u/{user}/#", "u/anna/x", true),
            ("u/{user}/#", "u/anna", true),
            ("u/{user}/#", "u/bert/x", false),
            ("u/{user}", "u/annabel", false),
            ("dev-{client}/+", "dev-kiosk-1/x", true),
            ("{user}-{client}", "anna-kiosk-1", true),
            ("clicks/{room}/+", "clicks/lab/x", true),
            ("clicks/{room}/+", "clicks/other/x", false),
            ("{{user}/x", "{user}/x", true),
            ("{{user}/x", "anna/x", false),
        ] {
            assert_eq!(
                matches(filter, topic, &anna, false),
                expected,
                "{filter} {topic}"
            );
        }
    }

    #[test]
    fn a_name_that_cannot_be_a_level_never_allows_and_always_denies() {
        for name in ["+", "#", "a/b", "a/+", "a#", "$SYS", "a\0"] {
            let names = Names::new(Some(name), Some(name), &[]);
            for filter in ["x/{user}/#", "x/{client}/#", "x/a{user}b"] {
                for topic in ["x", "x/+x", "x/a/b", "x/a/b/c"] {
                    let Ok(_) = TopicName::parse(topic) else {
                        continue;
                    };
                    assert!(
                        !matches(filter, topic, &names, false),
                        "{name} {filter} {topic}"
                    );
                    assert!(
                        matches(filter, topic, &names, true),
                        "{name} {filter} {topic}"
                    );
                }
                assert!(!matches(filter, "y/a", &names, true));
            }
            assert!(!matches("{user}/#", "$SYS/broker/x", &names, false));
            assert_eq!(names.unusable().collect::<Vec<_>>(), ["{user}", "{client}"]);
        }
        // There is nobody whose topics these are.
        let nobody = Names::default();
        for deny in [false, true] {
            assert!(!matches("x/{user}", "x/", &nobody, deny));
            assert!(!matches("x/{client}y", "x/y", &nobody, deny));
            assert!(!matches("x/{room}", "x/", &nobody, deny));
        }
    }

    #[test]
    fn what_is_no_filter_of_a_rule() {
        use FilterError::{Open, Shared, TooDeep, TwoRooms, UnknownName};
        let error = |text: &str| RuleFilter::parse(text).unwrap_err();
        assert_eq!(error("a/{usr}"), UnknownName("usr".into()));
        assert_eq!(error("a/{}"), UnknownName("".into()));
        assert_eq!(error("a/{user/b}"), Open);
        assert_eq!(error("{room}/{room}"), TwoRooms);
        assert_eq!(error("{room}{room}"), TwoRooms);
        assert_eq!(error("$share/g/a"), Shared);
        assert_eq!(error(&"a/".repeat(MAX_LEVELS)), TooDeep(MAX_LEVELS + 1));
        for text in ["", "a/#/b", "a#", "a+/b", "{user}+", "{user}#", "a\0"] {
            assert!(matches!(error(text), FilterError::Topic(_)), "{text}");
        }
        assert!(RuleFilter::parse(&"a/".repeat(MAX_LEVELS - 1)).is_ok());
    }
}
