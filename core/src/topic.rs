//! Topic names and filters, as MQTT defines them (3.1.1 §4.7).
//!
//! Both are parsed once, at the edge; what holds a [`TopicName`] or a [`TopicFilter`] never checks
//! it again. They wrap any string type: `&str` on the way in, `Arc<str>` on a server,
//! `heapless::String` on a microcontroller.

use core::fmt;

/// The longest topic name or filter, in bytes (MQTT 3.1.1 §1.5.3: a two-byte length).
pub const MAX_TOPIC_BYTES: usize = 65_535;

/// Why a string is not a topic name or not a topic filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopicError {
    /// MQTT 3.1.1 §4.7.3: at least one character.
    #[error("empty topic")]
    Empty,
    /// Longer than [`MAX_TOPIC_BYTES`].
    #[error("topic of {0} bytes is longer than 65535")]
    TooLong(usize),
    /// MQTT 3.1.1 §4.7.3: U+0000 is not allowed.
    #[error("topic holds the character U+0000")]
    Nul,
    /// MQTT 3.1.1 §3.3.2.1: a topic name holds no wildcard.
    #[error("topic name holds the wildcard `{0}`")]
    WildcardInName(char),
    /// MQTT 3.1.1 §4.7.1: `+` stands for a whole level.
    #[error("`+` does not fill its level")]
    PlusWithinLevel,
    /// MQTT 3.1.1 §4.7.1: `#` is the whole last level.
    #[error("`#` is not the whole last level")]
    HashNotLast,
}

/// A topic that can be published to: one or more levels divided by `/`, without wildcards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName<S = &'static str>(S);

impl<S: AsRef<str>> TopicName<S> {
    /// Checks `name` and wraps it.
    ///
    /// # Errors
    /// When it is empty, too long, or holds U+0000, `+` or `#`.
    pub fn parse(name: S) -> Result<Self, TopicError> {
        let text = name.as_ref();
        check_characters(text)?;
        match text.bytes().find(|byte| matches!(byte, b'+' | b'#')) {
            Some(wildcard) => Err(TopicError::WildcardInName(wildcard.into())),
            None => Ok(Self(name)),
        }
    }

    /// The string inside.
    pub fn inner(&self) -> &S {
        &self.0
    }

    /// The topic as text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The same topic, borrowed.
    pub fn borrowed(&self) -> TopicName<&str> {
        TopicName(self.0.as_ref())
    }

    /// The same topic in another string type, which must hold the same text.
    pub fn map<'a, T: AsRef<str>>(&'a self, into: impl FnOnce(&'a str) -> T) -> TopicName<T> {
        let mapped = into(self.0.as_ref());
        debug_assert_eq!(mapped.as_ref(), self.0.as_ref());
        TopicName(mapped)
    }

    /// The string inside, taken out.
    pub fn into_inner(self) -> S {
        self.0
    }
}

impl<S: AsRef<str>> fmt::Display for TopicName<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a subscription asks for: a topic in which `+` stands for one level and a last `#` for any
/// number of levels, the parent included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter<S = &'static str>(S);

impl<S: AsRef<str>> TopicFilter<S> {
    /// Checks `filter` and wraps it.
    ///
    /// # Errors
    /// When it is empty, too long, holds U+0000, or has a wildcard where none may stand.
    pub fn parse(filter: S) -> Result<Self, TopicError> {
        let text = filter.as_ref();
        check_characters(text)?;
        let mut rest = Some(text.as_bytes());
        while let Some(levels) = rest {
            let (level, behind) = split_level(levels);
            let has = |wildcard| level.contains(&wildcard);
            if has(b'#') && !(level == b"#" && behind.is_none()) {
                return Err(TopicError::HashNotLast);
            }
            if has(b'+') && level != b"+" {
                return Err(TopicError::PlusWithinLevel);
            }
            rest = behind;
        }
        Ok(Self(filter))
    }

    /// The string inside.
    pub fn inner(&self) -> &S {
        &self.0
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        self.0.as_ref()
    }

    /// The same filter, borrowed.
    pub fn borrowed(&self) -> TopicFilter<&str> {
        TopicFilter(self.0.as_ref())
    }

    /// The same filter in another string type, which must hold the same text.
    pub fn map<'a, T: AsRef<str>>(&'a self, into: impl FnOnce(&'a str) -> T) -> TopicFilter<T> {
        let mapped = into(self.0.as_ref());
        debug_assert_eq!(mapped.as_ref(), self.0.as_ref());
        TopicFilter(mapped)
    }

    /// The string inside, taken out.
    pub fn into_inner(self) -> S {
        self.0
    }

    /// The one topic that this filter can match, when it has no wildcard.
    pub fn exact(&self) -> Option<TopicName<&str>> {
        let text = self.0.as_ref();
        (!text.contains(['+', '#'])).then_some(TopicName(text))
    }

    /// Whether `topic` matches (MQTT 3.1.1 §4.7.1). A leading wildcard does not match a topic that
    /// begins with `$` (§4.7.2).
    pub fn matches<T: AsRef<str>>(&self, topic: &TopicName<T>) -> bool {
        let (filter, topic) = (self.0.as_ref().as_bytes(), topic.as_str().as_bytes());
        if let (Some(b'$'), Some(b'+' | b'#')) = (topic.first(), filter.first()) {
            return false;
        }
        let (mut filter, mut topic) = (Some(filter), Some(topic));
        while let Some(levels) = filter {
            let (level, behind) = split_level(levels);
            if level == b"#" {
                return true;
            }
            let Some(names) = topic else {
                return false;
            };
            let (name, names_behind) = split_level(names);
            if level != b"+" && level != name {
                return false;
            }
            (filter, topic) = (behind, names_behind);
        }
        topic.is_none()
    }
}

impl<S: AsRef<str>> fmt::Display for TopicFilter<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The first level, and what is behind its `/` if there is one. On bytes, which takes a quarter of the code that
/// splitting text does.
fn split_level(levels: &[u8]) -> (&[u8], Option<&[u8]>) {
    match levels.iter().position(|byte| *byte == b'/') {
        Some(end) => (levels.get(..end).unwrap_or_default(), levels.get(end + 1..)),
        None => (levels, None),
    }
}

fn check_characters(text: &str) -> Result<(), TopicError> {
    if text.is_empty() {
        Err(TopicError::Empty)
    } else if text.len() > MAX_TOPIC_BYTES {
        Err(TopicError::TooLong(text.len()))
    } else if text.bytes().any(|byte| byte == 0) {
        Err(TopicError::Nul)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{string::String, vec::Vec};

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::parse(filter)
            .unwrap()
            .matches(&TopicName::parse(topic).unwrap())
    }

    #[test]
    fn the_examples_of_the_specification() {
        for topic in ["sport/tennis/player1", "sport/tennis/player1/ranking"] {
            assert!(matches("sport/tennis/player1/#", topic));
        }
        assert!(matches("sport/#", "sport"));
        assert!(matches("#", "/finance"));
        assert!(matches("sport/tennis/+", "sport/tennis/player1"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport"));
        assert!(matches("sport/+", "sport/"));
        assert!(matches("+/+", "/finance"));
        assert!(matches("/+", "/finance"));
        assert!(!matches("+", "/finance"));
        assert!(matches("+/tennis/#", "sport/tennis"));
    }

    #[test]
    fn dollar_topics_hide_from_leading_wildcards() {
        assert!(!matches("#", "$SYS/broker/uptime"));
        assert!(!matches("+/broker/uptime", "$SYS/broker/uptime"));
        assert!(matches("$SYS/#", "$SYS/broker/uptime"));
        assert!(matches("$SYS/broker/+", "$SYS/broker/uptime"));
    }

    #[test]
    fn what_is_refused() {
        assert_eq!(TopicName::parse(""), Err(TopicError::Empty));
        assert_eq!(TopicName::parse("a\0b"), Err(TopicError::Nul));
        assert_eq!(
            TopicName::parse("a/+"),
            Err(TopicError::WildcardInName('+'))
        );
        assert_eq!(TopicName::parse("a#"), Err(TopicError::WildcardInName('#')));
        assert_eq!(TopicFilter::parse("a/#/b"), Err(TopicError::HashNotLast));
        assert_eq!(TopicFilter::parse("a#"), Err(TopicError::HashNotLast));
        assert_eq!(TopicFilter::parse("a+/b"), Err(TopicError::PlusWithinLevel));
        let long = "x".repeat(MAX_TOPIC_BYTES + 1);
        assert_eq!(
            TopicName::parse(long.as_str()),
            Err(TopicError::TooLong(MAX_TOPIC_BYTES + 1))
        );
        let longest = "x".repeat(MAX_TOPIC_BYTES);
        assert!(TopicFilter::parse(longest.as_str()).is_ok());
    }

    /// The rules again, by recursion over whole level lists.
    fn model(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.split_first(), topic.split_first()) {
            (None, None) => true,
            (Some((&"#", _)), _) => true,
            (Some((&"+", rest)), Some((_, names))) => model(rest, names),
            (Some((level, rest)), Some((name, names))) => level == name && model(rest, names),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_model(filter in "([+ab$]?/){0,4}[+#ab]?", topic in "([ab$]?/){0,4}[ab]?") {
            if let (Ok(f), Ok(t)) = (TopicFilter::parse(filter.as_str()), TopicName::parse(topic.as_str())) {
                let levels: Vec<&str> = filter.split('/').collect();
                let names: Vec<&str> = topic.split('/').collect();
                let hidden = topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
                prop_assert_eq!(f.matches(&t), !hidden && model(&levels, &names));
                if f.exact().is_some() {
                    prop_assert_eq!(f.matches(&t), filter == topic);
                }
            }
        }

        #[test]
        fn parsing_never_panics(text in any::<String>()) {
            let _ = TopicName::parse(text.as_str());
            let _ = TopicFilter::parse(text.as_str());
        }
    }
}
